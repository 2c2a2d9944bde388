"""Where the `rft` verbs act: a running embedded AWS, or the account of the usual AWS environment.

What a verb needs to know about a deployed team comes from its stack's outputs; nothing is kept on the side.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_stepfunctions import SFNClient

    from rft.embedded.aws import EmbeddedAws


class CloudError(Exception):
    """Something a person can act on went wrong between the command and AWS."""


@dataclass(frozen=True)
class Cloud:
    """One AWS to talk to; `endpoint` is None for a real account."""

    name: str
    endpoint: str | None
    session: boto3.Session = field(repr=False)

    @classmethod
    def embedded(cls, aws: "EmbeddedAws", region: str | None = None) -> "Cloud":
        """Returns the embedded AWS that is running, in its own region or in another one."""
        env = aws.environment()
        session = boto3.Session(
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=region or env["AWS_REGION"],
        )
        return cls(name=f"the embedded AWS at {aws.endpoint}", endpoint=aws.endpoint, session=session)

    @classmethod
    def account(cls, region: str | None) -> "Cloud":
        """Returns the account of the AWS environment variables and profiles.

        Raises:
            CloudError: There are no credentials, or they are refused.
        """
        # Of the two variables boto3 by itself reads AWS_DEFAULT_REGION only.
        session = boto3.Session(region_name=region or os.environ.get("AWS_REGION"))
        if session.region_name is None:
            raise CloudError("no AWS region: set AWS_REGION or `region` of the stage in team.toml")
        try:
            identity = session.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise CloudError(
                f"no usable AWS credentials ({error}): sign in, or rehearse with `rft up --keep`"
            ) from error
        return cls(
            name=f"AWS account {identity['Account']} in {session.region_name}", endpoint=None, session=session
        )

    def identity(self, stack: str) -> str:
        """Returns the query of a GetCallerIdentity request that says who we are to one environment.

        It is signed together with the environment's name and good for a minute: whoever sends it learns our
        ARN from STS and can do nothing else with it.
        """
        regional = f"https://sts.{self.session.region_name}.amazonaws.com"
        sts = self.session.client("sts", endpoint_url=self.endpoint or regional)
        sts.meta.events.register(
            "before-sign.sts.GetCallerIdentity",
            lambda request, **_: request.headers.add_header("x-rft-environment", stack),
        )
        return sts.generate_presigned_url("get_caller_identity", ExpiresIn=60).partition("?")[2]

    @cache  # noqa: B019 - a Cloud lives as long as the command
    def client(self, service: Any) -> Any:
        """Returns the boto3 client of `service`."""
        return self.session.client(service, endpoint_url=self.endpoint)

    @property
    def region(self) -> str:
        """The region of every client."""
        return str(self.session.region_name)

    def assuming(self, bootstrap_role: str) -> "Cloud":
        """Returns the same account as a role of its CDK bootstrap, known by what its name begins with."""
        account, region = self.account_id(), self.session.region_name
        role = f"arn:{self.session.get_partition_for_region(region)}:iam::{account}:role/{bootstrap_role}"
        return self._as(f"{role}-{account}-{region}", region)

    def elsewhere(self, account: str, region: str, role_arn: str) -> "Cloud":
        """Returns another account as this role of it.

        Raises:
            CloudError: The role cannot be taken.
        """
        try:
            there = self._as(role_arn, region)
        except (BotoCoreError, ClientError) as error:
            raise CloudError(f"account {account} is out of reach as {role_arn}: {error}") from error
        return Cloud(name=f"AWS account {account} in {region}", endpoint=self.endpoint, session=there.session)

    @cache  # noqa: B019 - a Cloud lives as long as the command
    def account_id(self) -> str:
        """Returns the 12 digits of the account."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def _as(self, role_arn: str, region: str) -> "Cloud":
        given = self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="rft")["Credentials"]
        session = boto3.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=region,
        )
        return Cloud(name=self.name, endpoint=self.endpoint, session=session)

    def differences(self, stack: str) -> list[str]:
        """Returns what of a stack differed from its template when CloudFormation last looked for drift."""
        drifts = self.client("cloudformation").describe_stack_resource_drifts(
            StackName=stack, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"]
        )["StackResourceDrifts"]
        return [
            f"{each['LogicalResourceId']} ({each['ResourceType']}) "
            + (
                "is gone"
                if each["StackResourceDriftStatus"] == "DELETED"
                else "differs in " + ", ".join(part["PropertyPath"] for part in each["PropertyDifferences"])
            )
            for each in drifts
            # The workflow changes the champion's value, and only the workflow does.
            if each["ResourceType"] != "AWS::SSM::Parameter"
        ]

    def deployed(self, stack: str) -> "Deployed":
        """Returns the deployed environment `stack`.

        Raises:
            CloudError: The stack does not exist, or is not in a state to be used.
        """
        found = self.stack(stack)
        if found is None:
            raise CloudError(
                f"{stack} is not deployed on {self.name}: deploy it with `cdk deploy {stack}`,"
                " or rehearse it with `rft up --keep`"
            )
        return self.deployed_from(found)

    def stack(self, stack: str) -> Mapping[str, Any] | None:
        """Returns what CloudFormation says of a stack, None where there is none.

        Raises:
            CloudError: It does not say.
        """
        try:
            found: Mapping[str, Any] = self.client("cloudformation").describe_stacks(StackName=stack)[
                "Stacks"
            ][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise CloudError(f"{stack} cannot be read on {self.name}: {error}") from error
        return found

    def deployed_from(self, found: Mapping[str, Any]) -> "Deployed":
        """Returns the environment that is this stack.

        Raises:
            CloudError: The stack is not in a state to be used.
        """
        stack = found["StackName"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
        if "Workflow" not in outputs:
            raise CloudError(f"{stack} is {found['StackStatus']} and has no outputs yet")
        return Deployed(cloud=self, stack=stack, status=found["StackStatus"], outputs=outputs)


@dataclass(frozen=True)
class Run:
    """One execution of a team's workflow; `status` in the words of Step Functions."""

    name: str
    arn: str
    status: str
    started: datetime
    stopped: datetime | None
    cause: str = ""


@dataclass(frozen=True)
class Deployed:
    """A team's environment as it stands in an account."""

    cloud: Cloud
    stack: str
    status: str
    outputs: Mapping[str, str]

    @property
    def region(self) -> str:
        """The region it is in."""
        return self.outputs["Workflow"].split(":")[3]

    @property
    def account(self) -> str:
        """The 12 digits of the account it is in."""
        return self.outputs["Workflow"].split(":")[4]

    @property
    def _states(self) -> "SFNClient":
        states: SFNClient = self.cloud.client("stepfunctions")
        return states

    @property
    def _s3(self) -> "S3Client":
        s3: S3Client = self.cloud.client("s3")
        return s3

    def start(self, request: Mapping[str, Any]) -> tuple[Run, bool]:
        """Starts a run, or finds the one that trains on the same content; returns it and whether it is new.

        Raises:
            CloudError: The request was refused.
        """
        body = self._ask("Start", request, "the run was not started")
        return self.run(body["run"]), bool(body["started"])

    def change_champion(self, action: str, *, run: str | None = None, why: str | None = None) -> Any:
        """Has the environment approve, reject, promote or roll back in our name, or say how things stand.

        What it takes and answers stands in lambdas/workflow/change_champion.py.

        Raises:
            CloudError: It was refused.
        """
        request = {"action": action, "run": run, "why": why, "identity": self.cloud.identity(self.stack)}
        return self._ask("ChangeChampion", request, f"{action} was refused")

    def _ask(self, output: str, request: Mapping[str, Any], refused: str) -> Any:
        """Invokes the function that an output of the stack names; returns its answer."""
        if output not in self.outputs:
            raise CloudError(
                f"{self.stack} has no output {output}: deploy it again, it is of an older version"
            )
        return self.invoke(self.outputs[output], request, refused)

    def invoke(self, function: str, request: Any, refused: str) -> Any:
        """Calls a function of the environment and returns its answer.

        Raises:
            CloudError: It failed; the text begins with `refused` and says why.
        """
        answer = self.cloud.client("lambda").invoke(
            FunctionName=function, Payload=json.dumps(request).encode()
        )
        body = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            raise CloudError(f"{refused}: {body.get('errorMessage', body)}")
        return body

    def run(self, name: str) -> Run:
        """Returns the run called `name`.

        Raises:
            CloudError: There is none.
        """
        arn = self.outputs["Workflow"].replace(":stateMachine:", ":execution:") + f":{name}"
        try:
            found = self._states.describe_execution(executionArn=arn)
        except ClientError as error:
            known = ", ".join(run.name for run in self.runs()) or "none yet"
            raise CloudError(f"{self.stack} has no run {name!r} (runs: {known})") from error
        return Run(
            name=name,
            arn=arn,
            status=found["status"],
            started=found["startDate"],
            stopped=found.get("stopDate"),
            cause=found.get("cause", ""),
        )

    def runs(self) -> list[Run]:
        """Returns the latest runs, newest first."""
        page = self._states.list_executions(stateMachineArn=self.outputs["Workflow"], maxResults=50)
        runs = [
            Run(
                name=item["name"],
                arn=item["executionArn"],
                status=item["status"],
                started=item["startDate"],
                stopped=item.get("stopDate"),
            )
            for item in page["executions"]
        ]
        return sorted(runs, key=lambda run: run.started, reverse=True)

    def latest(self) -> Run:
        """Returns the newest run.

        Raises:
            CloudError: There is none.
        """
        runs = self.runs()
        if not runs:
            raise CloudError(f"{self.stack} has no run yet: start one with `rft run`")
        return self.run(runs[0].name)

    def entered(self, run: Run) -> list[tuple[str, str, datetime]]:
        """Returns the states the run has entered, in order: type, name, time; without those inside Maps."""
        pages = self._states.get_paginator("get_execution_history").paginate(
            executionArn=run.arn, includeExecutionData=False
        )
        return [
            (
                event["type"].removesuffix("StateEntered"),
                event["stateEnteredEventDetails"]["name"],
                event["timestamp"],
            )
            for page in pages
            for event in page["events"]
            if "stateEnteredEventDetails" in event
        ]

    def rewards(self, since: datetime) -> Iterator[tuple[datetime, Mapping[str, Any]]]:
        """Yields what the reward function reported of each batch it scored since `since`.

        Reads the metric lines of the reward function's log, because Bedrock's job API shows the loss only.
        """
        pages = (
            self.cloud.client("logs")
            .get_paginator("filter_log_events")
            .paginate(
                logGroupName=self.outputs["RewardLogGroup"],
                startTime=int(since.timestamp() * 1000),
                filterPattern='"reward_mean"',
            )
        )
        for page in pages:
            for event in page["events"]:
                try:
                    line = json.loads(event["message"])
                except ValueError:
                    continue
                if isinstance(line, dict) and "reward_mean" in line:
                    yield datetime.fromtimestamp(event["timestamp"] / 1000, tz=since.tzinfo), line

    def artifact(self, key: str) -> bytes | None:
        """Returns an object of the artifact bucket, None where there is none."""
        try:
            return self._s3.get_object(Bucket=self.outputs["ArtifactBucket"], Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None

    def keys(self, prefix: str, delimiter: str = "") -> list[str]:
        """Returns the keys below `prefix` in the artifact bucket; with a delimiter what comes before it."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.outputs["ArtifactBucket"], Prefix=prefix, Delimiter=delimiter
        )
        return [
            key
            for page in pages
            for key in (
                [each["Prefix"] for each in page.get("CommonPrefixes", [])]
                if delimiter
                else [each["Key"] for each in page.get("Contents", [])]
            )
        ]

    def document(self, run: Run, name: str) -> dict[str, Any] | None:
        """Returns the JSON artifact `name` of a run, None where the run has not written it."""
        body = self.artifact(f"runs/{run.name}/{name}")
        return None if body is None else json.loads(body)

    def paths(self, run: Run) -> list[str]:
        """Returns the paths of all files of a run, sorted."""
        prefix = f"runs/{run.name}/"
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.outputs["ArtifactBucket"], Prefix=prefix
        )
        return sorted(
            entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])
        )

    def save_report(self, run: Run, folder: Path) -> Path | None:
        """Writes a run's report and manifest below `folder`; returns the page's path, None without one."""
        page = self.artifact(f"runs/{run.name}/report.html")
        if page is None:
            return None
        target = folder / self.stack / run.name
        target.mkdir(parents=True, exist_ok=True)
        (target / "report.html").write_bytes(page)
        manifest = self.artifact(f"runs/{run.name}/manifest.json")
        if manifest is not None:
            (target / "manifest.json").write_bytes(manifest)
        return target / "report.html"

    def champion(self) -> str | None:
        """Returns the ARN of the champion's deployment, None before the first promotion."""
        value = self.cloud.client("ssm").get_parameter(Name=self.outputs["Champion"])["Parameter"]["Value"]
        return None if value == "none" else str(value)
