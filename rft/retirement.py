"""Takes a stage away for good, from the run that goes on to the last thing that is billed.

Nothing is remembered between two attempts. Each looks at what is there and goes on from that, so one that was
interrupted is begun again and ends the same. Only what is the environment's own is touched: in Bedrock what
bears its tag, elsewhere what CloudFormation says it made for the stack. What the stack kept when it was
deleted is read off its events, which CloudFormation tells for 90 days after that; what is older is left.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, TypeVar

from botocore.exceptions import ClientError

from infra.config import ENVIRONMENT_TAG, Prices
from rft.cloud import Cloud, CloudError
from rft.cost import idle_month

# As long as a key of a lasting stage waits by itself. Until then its deletion can be taken back.
_KEY_DAYS: Final = 30
# S3 deletes as many versions in one request.
_BATCH: Final = 1000
# A plan counts no further; what is emptied is emptied whole.
_COUNTED: Final = 50_000
# S3 delivers access logs hours late, and a step that was stopped may still write: a bucket can fill up again.
_ATTEMPTS: Final = 3

_BUCKET, _KEY, _LOGS = "AWS::S3::Bucket", "AWS::KMS::Key", "AWS::Logs::LogGroup"
_PARAMETER, _VERSION, _MACHINE = (
    "AWS::SSM::Parameter",
    "AWS::Lambda::Version",
    "AWS::StepFunctions::StateMachine",
)
_WORDS: Final = {
    _BUCKET: "bucket",
    _KEY: "key",
    _LOGS: "log group",
    _PARAMETER: "parameter",
    _VERSION: "reward version",
}
# A key is the last to go: whatever is under it cannot be read without it.
_LAST_KEYS: Final = (_PARAMETER, _VERSION, _LOGS, _BUCKET, _KEY)

Fate = Literal["stopped", "deleted", "kept", "left"]
Say = Callable[[str], None]
Step = tuple[str, Callable[[Say], None]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing a stage has, and what becomes of it.

    `left` is what should go and cannot. `month` is what it costs a month while nothing happens: 0 where that
    is nothing, None where the platform has no price for it.
    """

    kind: str
    name: str
    fate: Fate
    note: str = ""
    month: float | None = 0.0


@dataclass(frozen=True, slots=True)
class _Resource:
    """What CloudFormation made for a stack."""

    type: str
    id: str


class Retirement:
    """The end of one stage: what there is, and the steps to nothing.

    Every step may be repeated, and begins with what it finds. `purge` also deletes what the stack would keep.

    Args:
        cloud: The account and region of the stage.
        stack: The stage's stack.
        purge: Whether the data, the key and the logs of a lasting stage go as well.
        prices: The platform's prices.
        pause: Seconds between two looks at something that takes time.
        patience: Seconds such a thing may take.
    """

    def __init__(
        self,
        cloud: Cloud,
        stack: str,
        *,
        purge: bool,
        prices: Prices | None = None,
        pause: float | None = None,
        patience: float = 3600,
    ) -> None:
        self._cloud = cloud
        self._stack = stack
        self._purge = purge
        self._prices = prices
        self._pause = (0.2 if cloud.endpoint else 5.0) if pause is None else pause
        self._patience = patience
        # Why something that should go did not, by its id.
        self._why: dict[str, str] = {}

    # --- What there is

    def plan(self) -> list[Item]:
        """Returns what there is and what becomes of it, in the order in which it goes."""
        live = self._live()
        resources = self._resources()
        items = [Item(kind="run", name=name, fate="stopped") for name, _ in self._runs(resources)]
        items += [
            Item(kind="customization job", name=job["jobName"], fate="stopped", note=job["status"])
            for job in self._jobs()
        ]
        items += [
            Item(
                kind="deployment", name=each["customModelDeploymentName"], fate="deleted", note=each["status"]
            )
            for each in self._deployments()
        ]
        price = self._prices.custom_model_month if self._prices else None
        items += [
            Item(kind="model", name=model["modelName"], fate="deleted", month=price)
            for model in self._models()
        ]
        kept = self._kept_by_the_template() if live else set()
        for resource in resources:
            if resource.type == _BUCKET or resource in kept:
                items.append(
                    self._item(resource, "kept" if resource in kept and not self._purge else "deleted")
                )
        if live:
            items.append(self._stack_item(live, len(resources), kept))
        items += [
            self._item(each, "deleted" if self._purge else "kept") for each in self._retained(resources)
        ]
        return items

    def obstacles(self) -> list[str]:
        """Returns what somebody has to take away first, because it is not the environment's own."""
        found = []
        for model in self._models():
            found += [
                f"model {model['modelName']} is served by {arn}, which bears no tag {ENVIRONMENT_TAG} = "
                f"{self._stack}: delete it, or tag it so, and begin again"
                for arn in self._others_on(model["modelArn"])
            ]
        return found

    def data_goes_along(self) -> bool:
        """Whether the deployed stack takes its buckets with it."""
        if self._live() is None:
            return False
        kept = self._kept_by_the_template()
        return any(each.type == _BUCKET and each not in kept for each in self._resources())

    def purges(self) -> bool:
        """Whether something is deleted that was meant to outlive its stack."""
        if not self._purge:
            return False
        kept = self._kept_by_the_template() if self._live() else set()
        return bool(kept or self._retained(self._resources()))

    # --- What is done

    def steps(self) -> list[Step]:
        """Returns the steps in their order; each is told how to say how far it is."""
        steps: list[Step] = [
            ("Keep new runs from starting", self._close),
            ("Stop runs", self._stop_runs),
            ("Stop customization jobs", self._stop_jobs),
            ("Delete deployments", self._delete_deployments),
            ("Delete models", self._delete_models),
            ("Empty the buckets that go", self._empty_buckets),
            ("Delete the stack", self._delete_stack),
        ]
        if self._purge:
            steps.append(("Delete what the stack kept", self._delete_kept))
        return steps

    def rest(self) -> list[Item]:
        """Returns what is still there and billed, or meant to be kept; looks at everything anew."""
        left: list[Item] = []
        live = self._live()
        if live:
            why = live.get("StackStatusReason") or "begin again"
            left.append(
                Item(kind="stack", name=self._stack, fate="left", note=f"{live['StackStatus']}: {why}")
            )
        left += [Item(kind="customization job", name=job["jobName"], fate="left") for job in self._jobs()]
        left += [
            Item(kind="deployment", name=each["customModelDeploymentName"], fate="left")
            for each in self._deployments()
        ]
        left += [Item(kind="model", name=model["modelName"], fate="left") for model in self._models()]
        fate: Fate = "left" if self._purge else "kept"
        kept = self._retained(self._resources())
        for resource in kept:
            item = self._item(resource, fate)
            left.append(replace(item, note=self._why.get(item.name, item.note)) if self._purge else item)
        if live is None:
            left += self._bearing_our_tags(kept)
        return left

    # --- CloudFormation

    def _live(self) -> dict[str, Any] | None:
        try:
            [found] = self._client("cloudformation").describe_stacks(StackName=self._stack)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(found) if found["StackStatus"] != "DELETE_COMPLETE" else None

    def _resources(self) -> list[_Resource]:
        """What the stack has now; nothing without a stack."""
        live = self._live()
        if live is None:
            return []
        pages = self._pages("cloudformation", "list_stack_resources", StackName=live["StackId"])
        return [
            _Resource(each["ResourceType"], each["PhysicalResourceId"])
            for page in pages
            for each in page["StackResourceSummaries"]
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
        ]

    def _template(self) -> dict[str, Any]:
        body = self._client("cloudformation").get_template(StackName=self._stack)["TemplateBody"]
        template: dict[str, Any] = json.loads(body) if isinstance(body, str) else body
        return template

    def _kept_by_the_template(self) -> set[_Resource]:
        """What the deployed template, and not the one in the repository, says outlives the stack."""
        resources = self._template()["Resources"]
        pages = self._pages("cloudformation", "list_stack_resources", StackName=self._stack)
        return {
            _Resource(each["ResourceType"], each["PhysicalResourceId"])
            for page in pages
            for each in page["StackResourceSummaries"]
            # Versions of a function go with it, whatever the template says.
            if each["ResourceType"] != _VERSION
            and each.get("PhysicalResourceId")
            and "Retain" in str(resources.get(each["LogicalResourceId"], {}).get("DeletionPolicy"))
        }

    def _gone(self) -> list[str]:
        """The ids of earlier stacks of this name."""
        pages = self._pages("cloudformation", "list_stacks", StackStatusFilter=["DELETE_COMPLETE"])
        return [
            each["StackId"]
            for page in pages
            for each in page["StackSummaries"]
            if each["StackName"] == self._stack
        ]

    def _events(self, stack: str) -> Iterator[dict[str, Any]]:
        for page in self._pages("cloudformation", "describe_stack_events", StackName=stack):
            yield from page["StackEvents"]

    def _retained(self, resources: Sequence[_Resource]) -> list[_Resource]:
        """What this stack and earlier ones of its name left behind, and is still there."""
        live = self._live()
        stacks = [*self._gone(), *([live["StackId"]] if live else [])]
        skipped = {
            _Resource(event["ResourceType"], event["PhysicalResourceId"])
            for stack in stacks
            for event in self._events(stack)
            if event["ResourceStatus"] == "DELETE_SKIPPED" and event.get("PhysicalResourceId")
        }
        found = [each for each in skipped - set(resources) if each.type in _LAST_KEYS and self._exists(each)]
        return sorted(found, key=lambda each: (_LAST_KEYS.index(each.type), each.id))

    def _stack_item(self, live: Mapping[str, Any], count: int, kept: set[_Resource]) -> Item:
        priced = idle_month(self._template(), self._prices)
        # What is kept is told by itself.
        others = [each for each in priced if each.type not in {resource.type for resource in kept}]
        known = [each.price for each in others]
        month = sum(each.count * (each.price or 0) for each in others)
        note = f"{live['StackStatus']}, {count} resources"
        note += ", protected from deletion" if live.get("EnableTerminationProtection") else ""
        return Item(
            kind="stack",
            name=self._stack,
            fate="deleted",
            note=note,
            month=None if None in known else month,
        )

    def _settle(self, say: Say) -> dict[str, Any] | None:
        """Waits for what CloudFormation is at; the stack then, None where there is none."""
        deadline = time.monotonic() + self._patience
        while (live := self._live()) and live["StackStatus"].endswith("_IN_PROGRESS"):
            if live["StackStatus"] == "REVIEW_IN_PROGRESS":
                # A stack of nothing but a change set, which nobody executed.
                break
            self._wait(deadline, f"{self._stack} is still {live['StackStatus']}")
            say(live["StackStatus"])
        return live

    # --- Bedrock

    def _jobs(self) -> list[dict[str, Any]]:
        """The customization jobs that are under way."""
        pages = [
            page
            for status in ("InProgress", "Stopping")
            for page in self._pages(
                "bedrock", "list_model_customization_jobs", nameContains=self._stack, statusEquals=status
            )
        ]
        return self._ours(pages, "modelCustomizationJobSummaries", "jobArn")

    def _deployments(self) -> list[dict[str, Any]]:
        pages = self._pages("bedrock", "list_custom_model_deployments")
        return self._ours(pages, "modelDeploymentSummaries", "customModelDeploymentArn")

    def _models(self) -> list[dict[str, Any]]:
        # Runs name their models after the stack; a job's model can have no other name.
        pages = self._pages("bedrock", "list_custom_models", nameContains=self._stack, isOwned=True)
        return self._ours(pages, "modelSummaries", "modelArn")

    def _ours(self, pages: Any, listed: str, arn: str) -> list[dict[str, Any]]:
        """Those of a listing that bear the environment's tag: names alone also fit other environments."""
        return [dict(each) for page in pages for each in page[listed] if self._is_ours(each[arn])]

    def _is_ours(self, arn: str) -> bool:
        try:
            tags = self._client("bedrock").list_tags_for_resource(resourceARN=arn)["tags"]
        except ClientError as error:
            if _code(error) == "ResourceNotFoundException":
                return False
            raise
        return {"key": ENVIRONMENT_TAG, "value": self._stack} in tags

    def _others_on(self, model: str) -> list[str]:
        """What others made of a model: each keeps it from being deleted, and costs money."""
        deployed = self._pages("bedrock", "list_custom_model_deployments", modelArnEquals=model)
        bought = self._pages("bedrock", "list_provisioned_model_throughputs", modelArnEquals=model)
        arns = [
            each["customModelDeploymentArn"] for page in deployed for each in page["modelDeploymentSummaries"]
        ]
        arns = [arn for arn in arns if not self._is_ours(arn)]
        return arns + [
            each["provisionedModelArn"] for page in bought for each in page["provisionedModelSummaries"]
        ]

    # --- Steps

    def _close(self, say: Say) -> None:
        """Disables what starts runs by itself; the function stays, because deleting the stack calls it."""
        live = self._settle(say)
        outputs = {each["OutputKey"]: each["OutputValue"] for each in (live or {}).get("Outputs", [])}
        if "Start" not in outputs:
            return
        try:
            start = self._client("lambda").get_function_configuration(FunctionName=outputs["Start"])
        except ClientError as error:
            if _code(error) == "ResourceNotFoundException":
                return
            raise
        events = self._client("events")
        for rule in events.list_rule_names_by_target(TargetArn=start["FunctionArn"])["RuleNames"]:
            events.disable_rule(Name=rule)
            say(rule)

    def _runs(self, resources: Sequence[_Resource]) -> list[tuple[str, str]]:
        """Name and ARN of the runs that go on; what runs inside one ends with it."""
        machines = [each.id for each in resources if each.type == _MACHINE]
        pages = [
            page
            for machine in machines
            for page in self._pages(
                "stepfunctions", "list_executions", stateMachineArn=machine, statusFilter="RUNNING"
            )
        ]
        return [
            (each["name"], each["executionArn"])
            for page in pages
            for each in page["executions"]
            if not each.get("mapRunArn")
        ]

    def _stop_runs(self, say: Say) -> None:
        def stop(run: tuple[str, str]) -> None:
            self._client("stepfunctions").stop_execution(
                executionArn=run[1], cause="the environment is being retired"
            )

        find = partial(self._runs, self._resources())
        self._until_none(find, stop, "run", lambda run: run[0], say)

    def _stop_jobs(self, say: Say) -> None:
        def stop(job: Mapping[str, Any]) -> None:
            if job["status"] == "InProgress":
                self._client("bedrock").stop_model_customization_job(jobIdentifier=job["jobArn"])

        self._until_none(self._jobs, stop, "customization job", lambda job: job["jobName"], say)

    def _delete_deployments(self, say: Say) -> None:
        def delete(deployment: Mapping[str, Any]) -> None:
            self._client("bedrock").delete_custom_model_deployment(
                customModelDeploymentIdentifier=deployment["customModelDeploymentArn"]
            )

        self._until_none(
            self._deployments, delete, "deployment", lambda each: each["customModelDeploymentName"], say
        )

    def _delete_models(self, say: Say) -> None:
        if obstacles := self.obstacles():
            raise CloudError("; ".join(obstacles))

        def delete(model: Mapping[str, Any]) -> None:
            self._client("bedrock").delete_custom_model(modelIdentifier=model["modelArn"])

        self._until_none(self._models, delete, "model", lambda each: each["modelName"], say)

    def _empty_buckets(self, say: Say) -> None:
        """Empties what CloudFormation deletes with the stack, which it cannot while anything is in it."""
        if self._live() is None:
            return
        kept = self._kept_by_the_template()
        for resource in self._resources():
            if resource.type == _BUCKET and resource not in kept:
                self._empty(resource.id, say)

    def _delete_stack(self, say: Say) -> None:
        cloudformation = self._client("cloudformation")
        for attempt in range(1, _ATTEMPTS + 1):
            live = self._settle(say)
            if live is None:
                return
            if live.get("EnableTerminationProtection"):
                cloudformation.update_termination_protection(
                    StackName=self._stack, EnableTerminationProtection=False
                )
            self._empty_buckets(say)
            cloudformation.delete_stack(StackName=live["StackId"])
            failed = self._follow_deletion(live["StackId"], say)
            if failed and attempt == _ATTEMPTS:
                raise CloudError(f"{self._stack} cannot be deleted: {failed}. Take that away and begin again")

    def _follow_deletion(self, stack: str, say: Say) -> str:
        """Waits for the end of a deletion; returns why it failed, nothing where it did not."""
        cloudformation = self._client("cloudformation")
        deadline = time.monotonic() + self._patience
        while True:
            try:
                [found] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
            except ClientError as error:
                if "does not exist" in str(error):
                    return ""
                raise
            status = found["StackStatus"]
            if status == "DELETE_COMPLETE":
                return ""
            if status == "DELETE_FAILED":
                reasons = {
                    event["LogicalResourceId"]: event.get("ResourceStatusReason", "")
                    for event in self._events(stack)
                    if event["ResourceStatus"] == "DELETE_FAILED" and event["PhysicalResourceId"] != stack
                }
                return "; ".join(f"{name}: {why}" for name, why in reasons.items()) or "no reason was given"
            say(f"{len(self._resources())} resources are left")
            self._wait(deadline, f"{self._stack} is still {status}")

    def _delete_kept(self, say: Say) -> None:
        """Deletes what it can; what it cannot is told at the end, and the key stays for it."""
        self._why.clear()
        for resource in self._retained(self._resources()):
            say(resource.id)
            if resource.type == _KEY and self._why:
                self._why[resource.id] = "stays, because what is left is under it"
                continue
            try:
                self._delete(resource, say)
            except CloudError as error:
                self._why[resource.id] = str(error)
            except ClientError as error:
                if _code(error) in _FORBIDDEN:
                    self._why[resource.id] = str(error)
                elif _code(error) not in _MISSING:
                    raise

    def _delete(self, resource: _Resource, say: Say) -> None:
        name = resource.id
        match resource.type:
            case "AWS::S3::Bucket":
                self._empty(name, say)
                self._client("s3").delete_bucket(Bucket=name)
            case "AWS::KMS::Key":
                self._client("kms").schedule_key_deletion(KeyId=name, PendingWindowInDays=_KEY_DAYS)
            case "AWS::Logs::LogGroup":
                self._client("logs").delete_log_group(logGroupName=name)
            case "AWS::SSM::Parameter":
                self._client("ssm").delete_parameter(Name=name)
            case "AWS::Lambda::Version":
                function, _, version = name.rpartition(":")
                self._client("lambda").delete_function(FunctionName=function, Qualifier=version)

    # --- Single resources

    def _item(self, resource: _Resource, fate: Fate) -> Item:
        """What a resource is, holds and costs."""
        kind = _WORDS.get(resource.type, resource.type)
        if resource.type == _BUCKET:
            count, size, more = self._size(resource.id)
            price = self._prices.s3_gb_month if self._prices else None
            note = f"{'more than ' if more else ''}{count:,} versions of objects, {_bytes(size)}"
            month = None if price is None else price * size / 1e9
            return Item(kind=kind, name=resource.id, fate=fate, note=note, month=month)
        if resource.type == _KEY:
            price = self._prices.kms_key_month if self._prices else None
            note = f"after {_KEY_DAYS} days" if fate == "deleted" and self._purge else ""
            return Item(kind=kind, name=resource.id, fate=fate, note=note, month=price)
        return Item(kind=kind, name=resource.id, fate=fate)

    def _size(self, bucket: str) -> tuple[int, int, bool]:
        """Counts versions of objects and their bytes, up to a limit; and whether it was reached."""
        count = size = 0
        try:
            for page in self._pages("s3", "list_object_versions", Bucket=bucket):
                versions = page.get("Versions", [])
                count += len(versions) + len(page.get("DeleteMarkers", []))
                size += sum(each["Size"] for each in versions)
                if count > _COUNTED:
                    return count, size, True
        except ClientError as error:
            if _code(error) not in _MISSING:
                raise
        return count, size, False

    def _empty(self, bucket: str, say: Say) -> None:
        """Deletes every version of every object, every delete marker and every unfinished upload."""
        s3 = self._client("s3")
        done = 0
        try:
            uploads = [
                (each["Key"], each["UploadId"])
                for page in self._pages("s3", "list_multipart_uploads", Bucket=bucket)
                for each in page.get("Uploads", [])
            ]
            for key, upload in uploads:
                s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            for page in self._pages("s3", "list_object_versions", Bucket=bucket, MaxKeys=_BATCH):
                versions = [
                    {"Key": each["Key"], "VersionId": each["VersionId"]}
                    for each in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
                ]
                if not versions:
                    continue
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True})
                if errors := answer.get("Errors"):
                    first = errors[0]
                    raise CloudError(
                        f"{len(errors)} versions of objects in {bucket} cannot be deleted, the first "
                        f"{first.get('Key')} ({first.get('Code')}: {first.get('Message')}): a retention that "
                        "forbids it has to run out first"
                    )
                done += len(versions)
                say(f"{bucket}: {done:,} versions deleted")
        except ClientError as error:
            if _code(error) not in _MISSING:
                raise

    def _exists(self, resource: _Resource) -> bool:
        name = resource.id
        try:
            match resource.type:
                case "AWS::S3::Bucket":
                    self._client("s3").head_bucket(Bucket=name)
                case "AWS::KMS::Key":
                    # A key that waits for its deletion is billed no more.
                    state = self._client("kms").describe_key(KeyId=name)["KeyMetadata"]["KeyState"]
                    return bool(state != "PendingDeletion")
                case "AWS::Logs::LogGroup":
                    pages = self._pages("logs", "describe_log_groups", logGroupNamePrefix=name)
                    return any(each["logGroupName"] == name for page in pages for each in page["logGroups"])
                case "AWS::SSM::Parameter":
                    self._client("ssm").get_parameter(Name=name)
                case "AWS::Lambda::Version":
                    self._client("lambda").get_function_configuration(FunctionName=name)
        except ClientError as error:
            if _code(error) in _MISSING:
                return False
            # It is there, and these credentials may not look at it.
            if _code(error) not in _FORBIDDEN:
                raise
        return True

    def _bearing_our_tags(self, known: Sequence[_Resource]) -> list[Item]:
        """What bears the stack's tag and no stack knows any more: too old, or made by hand."""
        filters = [{"Key": ENVIRONMENT_TAG, "Values": [self._stack]}]
        pages = self._pages("resourcegroupstaggingapi", "get_resources", TagFilters=filters)
        arns = [each["ResourceARN"] for page in pages for each in page["ResourceTagMappingList"]]
        # The listing lags behind: what the stack says it deleted is deleted.
        deleted = {
            event["PhysicalResourceId"].rpartition("/")[2]
            for stack in self._gone()
            for event in self._events(stack)
            if event["ResourceStatus"] == "DELETE_COMPLETE" and event.get("PhysicalResourceId")
        }
        told = deleted | {each.id.rpartition("/")[2] for each in known}
        found = []
        for arn in arns:
            service = arn.split(":")[2]
            kind = {"s3": _BUCKET, "kms": _KEY, "logs": _LOGS, "ssm": _PARAMETER}.get(service)
            if arn in deleted or _physical(arn).rpartition("/")[2] in told:
                continue
            # Bedrock lists jobs for ever, and they cost nothing; the rest of it was looked at one by one.
            if service == "bedrock" or (kind and not self._exists(_Resource(kind, _physical(arn)))):
                continue
            note = "no stack has it, but it bears the stage's tag: delete it by hand"
            found.append(Item(kind=service, name=arn, fate="left", note=note, month=None))
        return found

    # --- Time and calls

    def _until_none(
        self,
        find: Callable[[], list[T]],
        end: Callable[[T], None],
        kind: str,
        name: Callable[[T], str],
        say: Say,
    ) -> None:
        """Ends what is found, again and again, until nothing is found any more."""
        deadline = time.monotonic() + self._patience
        why, again = "", False
        while found := find():
            if again:
                self._wait(deadline, f"{kind} {name(found[0])} does not end{why}")
            again = True
            for each in found:
                say(name(each))
                try:
                    end(each)
                except ClientError as error:
                    # It ended in between, or is on its way to where it can be ended: the next look tells.
                    if _code(error) not in _MISSING and _code(error) not in _BUSY:
                        raise
                    why = f": {error}"

    def _wait(self, deadline: float, trouble: str) -> None:
        if time.monotonic() > deadline:
            raise CloudError(f"{trouble}. Look at it, and begin again: what is done stays done")
        time.sleep(self._pause)

    def _client(self, service: str) -> Any:
        return self._cloud.client(service)

    def _pages(self, service: str, operation: str, **request: Any) -> Any:
        return self._client(service).get_paginator(operation).paginate(**request)


_MISSING: Final = frozenset(
    {
        *("404", "NoSuchBucket", "NotFoundException", "ResourceNotFoundException", "ParameterNotFound"),
        *("ExecutionDoesNotExist", "StateMachineDoesNotExist", "KMSInvalidStateException"),
    }
)
_BUSY: Final = frozenset({"ConflictException", "ValidationException"})
_FORBIDDEN: Final = frozenset({"403", "AccessDenied", "AccessDeniedException"})


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _physical(arn: str) -> str:
    """What CloudFormation calls a resource: a bucket or group by its name, a key by its id."""
    resource = arn.split(":", 5)[5].removesuffix(":*")
    for prefix in ("key/", "log-group:", "parameter/", "function:", "rule/", "alarm:", "stateMachine:"):
        resource = resource.removeprefix(prefix)
    return resource


def _bytes(size: int) -> str:
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
