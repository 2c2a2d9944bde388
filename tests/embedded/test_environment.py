"""A sample team's stack, deployed and run to the end on the embedded AWS; then what a change of it does."""

import fnmatch
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.config import load_platform, load_team
from lambdas.workflow.provenance import template_sha256
from rft import doctor, fleet, lineage
from rft.cloud import Cloud, Deployed, Run
from rft.embedded.aws import ACCOUNT, REGION, EmbeddedAws
from rft.packaging import package
from tests.embedded.conftest import package_repository, shorten

Clients = Callable[[str], Any]
Synthesize = Callable[[Path, str, str], Path]

REPOSITORY = Path(__file__).resolve().parents[2]
STACK = "rft-quotes-dev"
GATES = ("signal", "lock", "cost", "tripwires")


def over(run: Run) -> bool:
    """Says whether a run has ended; the emulator says that it has failed a little before it says why."""
    return run.status != "RUNNING" and (run.status != "FAILED" or bool(run.cause))


def ended(deployed: Deployed, run: Run, seconds: float = 240) -> Run:
    deadline = time.monotonic() + seconds
    while not over(run) and time.monotonic() < deadline:
        time.sleep(0.3)
        run = deployed.run(run.name)
    assert over(run), f"{run.name} goes on after {seconds} s"
    return run


def eventually(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(0.2)


def jobs(client: Clients) -> list[str]:
    summaries = client("bedrock").list_model_customization_jobs()["modelCustomizationJobSummaries"]
    return [job["jobName"] for job in summaries]


def jobs_running(client: Clients) -> list[str]:
    summaries = client("bedrock").list_model_customization_jobs()["modelCustomizationJobSummaries"]
    return [job["jobName"] for job in summaries if job["status"] in {"InProgress", "Stopping"}]


def deployments(client: Clients) -> list[str]:
    summaries = client("bedrock").list_custom_model_deployments()["modelDeploymentSummaries"]
    return [deployment["customModelDeploymentArn"] for deployment in summaries]


@pytest.fixture(scope="module")
def deployed(aws: EmbeddedAws, deploy: Callable[..., dict[str, str]], assembly: Path) -> Deployed:
    outputs = deploy(assembly, STACK)
    return Deployed(cloud=Cloud.embedded(aws), stack=STACK, status="CREATE_COMPLETE", outputs=outputs)


@pytest.fixture(scope="module")
def run(deployed: Deployed) -> Run:
    started, new = deployed.start({})
    assert new
    return ended(deployed, started)


class TestRun:
    def test_succeeds_and_leaves_no_reason_for_a_failure(self, deployed: Deployed, run: Run):
        assert run.status == "SUCCEEDED", deployed.document(run, "failure.json")
        assert deployed.document(run, "failure.json") is None

    def test_trains_on_every_row_of_the_team(self, deployed: Deployed, run: Run):
        dataset = deployed.document(run, "dataset.json")
        rows = (REPOSITORY / "teams/quotes/data/train.jsonl").read_text().splitlines()
        assert dataset["train"]["rows"] == len(rows)
        copied = deployed.cloud.client("s3").list_objects_v2(
            Bucket=deployed.outputs["DatasetBucket"], Prefix="datasets/"
        )
        assert {entry["Key"].rpartition("/")[2] for entry in copied["Contents"]} == {
            "train.jsonl",
            "evaluation.jsonl",
        }

    def test_completes_the_customization_job_with_the_pinned_reward(self, deployed: Deployed, run: Run):
        job = deployed.cloud.client("bedrock").get_model_customization_job(
            jobIdentifier=f"{STACK}-{run.name}"
        )
        assert job["status"] == "Completed"
        grader = job["customizationConfig"]["rftConfig"]["graderConfig"]["lambdaGrader"]["lambdaArn"]
        assert grader == deployed.outputs["RewardVersion"]
        assert re.search(r":\d+$", grader), "the job must get a published version, not the function"

    def test_measures_base_and_candidate_on_the_same_prompts(self, deployed: Deployed, run: Run):
        measured = {}
        for subject in ("base", "candidate"):
            pages = (
                deployed.cloud.client("s3")
                .get_paginator("list_objects_v2")
                .paginate(
                    Bucket=deployed.outputs["ArtifactBucket"], Prefix=f"runs/{run.name}/measured/{subject}/"
                )
            )
            keys = [entry["Key"] for page in pages for entry in page["Contents"]]
            bodies = [json.loads(deployed.artifact(key) or b"") for key in keys]
            measured[subject] = {body["id"]: len(body["completions"]) for body in bodies}
        assert measured["base"] == measured["candidate"]
        assert len(measured["base"]) == 100
        assert set(measured["base"].values()) == {4}

    def test_passes_every_gate_untouched(self, deployed: Deployed, run: Run):
        verdicts = {gate: deployed.document(run, f"gates/{gate}.json") for gate in GATES}
        assert [each["sentence"] for each in verdicts.values() if each["verdict"] != "pass"] == []
        signal = verdicts["signal"]["facts"]
        # The base model answered half of the prompts as often as training has it.
        assert (signal["prompts"], signal["samples_per_prompt"]) == (50, 8)
        assert signal["advice"] == "train"
        parts = {part["name"]: part for part in verdicts["cost"]["facts"]["estimate"]["parts"]}
        assert parts["reward function"]["cost"][0] > 0
        # Nobody has looked up what tuning this model costs.
        assert parts["training"]["cost"] is None
        assert deployed.artifact(f"ledger/{run.started.astimezone(UTC):%Y-%m}/{run.name}.json")
        assert json.loads(deployed.artifact("lock.json") or b"")["run"] is None
        # Every completion that training scored was looked at: six epochs of eight for each row, and no other.
        rows = deployed.document(run, "dataset.json")["train"]["rows"]
        assert verdicts["tripwires"]["facts"]["samples"] == 6 * 8 * rows
        assert verdicts["tripwires"]["facts"]["windows"] > 20

    def test_a_doctor_finds_nothing_wrong_with_it(self, deployed: Deployed, run: Run):
        evidence = doctor.read(deployed, run)
        assert doctor.examine(evidence) == []
        assert len(evidence.measured["candidate"]) == 100
        assert evidence.steps[-1]["actor/entropy"]

    def test_promotes_on_a_gain_above_chance(self, deployed: Deployed, run: Run):
        decision = deployed.document(run, "decision.json")
        assert decision["promote"] is True
        assert decision["lower"] > decision["minimum_gain"]
        champion = deployed.champion()
        serving = deployed.cloud.client("bedrock").get_custom_model_deployment(
            customModelDeploymentIdentifier=champion
        )
        assert serving["status"] == "Active"
        job = deployed.cloud.client("bedrock").get_model_customization_job(
            jobIdentifier=f"{STACK}-{run.name}"
        )
        assert serving["modelArn"] == job["outputModelArn"]

    def test_tells_what_happened_in_report_and_manifest(self, deployed: Deployed, run: Run, tmp_path: Path):
        page = deployed.save_report(run, tmp_path)
        assert page is not None
        text = page.read_text()
        assert "Rehearsal on the embedded AWS" in text
        assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
        manifest = json.loads(page.with_name("manifest.json").read_text())
        assert deployed.outputs["RewardVersion"] in json.dumps(manifest)

    def test_the_reward_rises_while_training(self, deployed: Deployed, run: Run):
        means = [line["reward_mean"] for _, line in deployed.rewards(run.started) if line["samples"] == 64]
        tenth = len(means) // 10
        assert sum(means[-tenth:]) / tenth > sum(means[:tenth]) / tenth + 0.2

    def test_the_same_content_never_trains_twice(self, deployed: Deployed, run: Run):
        again, new = deployed.start({})
        assert (again.name, new) == (run.name, False)

    def test_another_setting_is_another_run(self, deployed: Deployed, run: Run):
        other, new = deployed.start({"training": {"epochCount": 1}})
        try:
            assert new
            assert other.name != run.name
        finally:
            deployed.cloud.client("stepfunctions").stop_execution(executionArn=other.arn)

    def test_fails_to_start_with_a_setting_the_service_refuses(self, deployed: Deployed):
        with pytest.raises(Exception, match="epochCount"):
            deployed.start({"training": {"epochCount": 51}})


class TestProvenance:
    def test_the_manifest_leads_back_to_template_sources_and_reward(
        self, deployed: Deployed, run: Run, assembly: Path
    ):
        lineage = deployed.document(run, "manifest.json")["lineage"]
        template = (assembly / f"{STACK}.template.json").read_text()
        assert lineage["deployment"]["template_sha256"] == template_sha256(template)
        assert lineage["deployment"]["revision"] == "54f6bc3"
        assert lineage["deployment"]["changed_during_run"] is False
        function, _, version = deployed.outputs["RewardVersion"].rpartition(":")
        code = deployed.cloud.client("lambda").get_function_configuration(
            FunctionName=function, Qualifier=version
        )["CodeSha256"]
        assert lineage["models"]["reward_sha256"] == code

    def test_a_model_card_says_what_it_is_for_and_that_it_is_a_miniature(self, deployed: Deployed, run: Run):
        for name in ("model-card.md", "model-card.html"):
            card = (deployed.artifact(f"runs/{run.name}/{name}") or b"").decode()
            assert "answers the arithmetic of a sales-quote desk" in card
            assert "Miniature. No real model was trained" in card

    def test_what_applications_call_leads_back_to_the_very_rows(self, deployed: Deployed, run: Run):
        champion = deployed.champion()
        assert champion
        [trace] = lineage.of(champion, [deployed], verify=True)
        assert (trace.run, trace.verified) == (run.name, True)
        assert [rows.rows for rows in trace.rows] == [360, 120]
        assert trace.dataset_sha256
        found = lineage.of_dataset(trace.dataset_sha256[:12], [deployed])
        assert trace.model in [each.model for each in found]

    def test_the_fleet_shows_the_stage_and_does_not_take_the_champion_for_drift(
        self, deployed: Deployed, run: Run, client: Clients, tmp_path: Path
    ):
        detection = client("cloudformation").detect_stack_drift(StackName=STACK)["StackDriftDetectionId"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = client("cloudformation").describe_stack_drift_detection_status(
                StackDriftDetectionId=detection
            )
            if status["DetectionStatus"] != "DETECTION_IN_PROGRESS":
                break
            time.sleep(0.2)
        assert status["StackDriftStatus"] == "DRIFTED", "the champion's parameter has changed"
        platform = load_platform(REPOSITORY)
        teams = [load_team(REPOSITORY, "quotes", platform)]
        sources = fleet.Sources(tmp_path, tmp_path)
        dev, prod = fleet.look(teams, platform, fleet.Places(deployed.cloud, platform), sources)
        assert dev.troubles == prod.troubles == []
        assert dev.champion.deployment == deployed.champion()
        assert dev.champion.run == run.name
        assert dev.champion.gain > 0
        assert dev.drift.checked is not None
        assert dev.drift.findings == []
        assert dev.version.revision == "54f6bc3"
        assert dev.run.status in ("SUCCEEDED", "ABORTED", "RUNNING")
        assert prod.status is None
        html = fleet.page(fleet.Fleet(made_at=datetime.now(UTC), where="", revision=None, rows=[dev, prod]))
        assert run.name in html
        # Bedrock's own metric of real calls: those of the measurement, and one more.
        assert dev.calls.count >= 24
        client("bedrock-runtime").converse(
            modelId=dev.champion.deployment, messages=[{"role": "user", "content": [{"text": "2 + 2?"}]}]
        )
        again, _ = fleet.look(teams, platform, fleet.Places(deployed.cloud, platform), sources)
        assert again.calls.count == dev.calls.count + 1

    def test_what_is_locked_cannot_be_deleted(self, client: Clients, deploy_template: Callable[..., Any]):
        properties = {
            "VersioningConfiguration": {"Status": "Enabled"},
            "ObjectLockEnabled": True,
            "ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"},
        }
        template = {
            "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties}},
            "Outputs": {"Bucket": {"Value": {"Ref": "Bucket"}}},
        }
        stack = {"TemplateBody": json.dumps(template)}
        bucket = deploy_template(client, "rft-locked-dev", {}, **stack)["Bucket"]
        place = {"Bucket": bucket, "Key": "runs/run-1/manifest.json"}
        version = client("s3").put_object(**place, Body=b"{}")["VersionId"]
        until = datetime.now(UTC) + timedelta(days=1)
        retention = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
        client("s3").put_object_retention(**place, Retention=retention)
        with pytest.raises(ClientError, match="AccessDenied"):
            client("s3").delete_object(**place, VersionId=version)


def lock_of(deployed: Deployed) -> dict[str, Any]:
    return json.loads(deployed.artifact("lock.json") or b"{}")


# What IAM evaluates, without conditions: those the embedded AWS enforced while the calls were made.


def _matches(patterns: str | list[str], value: str) -> bool:
    # In a policy only * and ? are special; fnmatch also knows [ and ].
    return any(
        fnmatch.fnmatchcase(value.lower(), pattern.replace("[", "[[]").lower())
        for pattern in ([patterns] if isinstance(patterns, str) else patterns)
    )


def allows(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    """A request with a wildcard in its resource asks for any resource of the kind."""
    hits = [
        statement
        for statement in statements
        if _matches(statement["Action"], action) and _matches(statement["Resource"], resource)
    ]
    effects = {statement["Effect"] for statement in hits}
    return "Allow" in effects and "Deny" not in effects


class Template:
    """A synthesized template with its references resolved to what was deployed."""

    def __init__(self, body: dict[str, Any], physical: Mapping[str, str], stack_id: str) -> None:
        self.resources = body["Resources"]
        self._physical = physical
        self._pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Region": REGION,
            "AWS::Partition": "aws",
            "AWS::StackName": STACK,
            "AWS::StackId": stack_id,
            "AWS::URLSuffix": "amazonaws.com",
        }

    def policies(self) -> dict[str, list[dict[str, Any]]]:
        """The statements of every role of the stack, by the role's ARN."""
        found: dict[str, list[dict[str, Any]]] = {}
        for resource in self.resources.values():
            if resource["Type"] == "AWS::IAM::Policy":
                for role in resource["Properties"]["Roles"]:
                    arn = f"arn:aws:iam::{ACCOUNT}:role/{self.resolve(role)}"
                    document = self.resolve(resource["Properties"]["PolicyDocument"])
                    found.setdefault(arn, []).extend(document["Statement"])
            elif resource["Type"] == "AWS::IAM::Role":
                assert "ManagedPolicyArns" not in resource["Properties"]
                assert "Policies" not in resource["Properties"]
        return found

    def resolve(self, value: Any) -> Any:
        match value:
            case {"Ref": str(name)}:
                return self._pseudo.get(name) or self._physical[name]
            case {"Fn::Join": [separator, parts]}:
                return separator.join(self.resolve(part) for part in parts)
            case {"Fn::GetAtt": [name, "Arn"]}:
                return self._arn(name)
            case {"Fn::GetAtt": [name, "Name"]}:
                return self._physical[name].rpartition(":")[2]
            case {"Fn::Select": [index, parts]}:
                return self.resolve(parts)[int(index)]
            case {"Fn::Split": [separator, text]}:
                return self.resolve(text).split(separator)
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([^}]+)\}", lambda found: self.resolve({"Ref": found[1]}), text)
            case dict():
                assert not any(key.startswith("Fn::") for key in value), value
                return {key: self.resolve(item) for key, item in value.items()}
            case list():
                return [self.resolve(item) for item in value]
            case _:
                return value

    def _arn(self, name: str) -> str:
        physical = self._physical[name]
        here = f"{REGION}:{ACCOUNT}"
        return {
            "AWS::S3::Bucket": f"arn:aws:s3:::{physical}",
            "AWS::KMS::Key": f"arn:aws:kms:{here}:key/{physical}",
            "AWS::Lambda::Function": f"arn:aws:lambda:{here}:function:{physical}",
            "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{physical}",
            "AWS::Logs::LogGroup": f"arn:aws:logs:{here}:log-group:{physical}:*",
            "AWS::StepFunctions::StateMachine": physical,
            "AWS::SNS::Topic": physical,
        }[self.resources[name]["Type"]]


class TestPermissions:
    @pytest.fixture(scope="class")
    @classmethod
    def policies(cls, deployed: Deployed, client: Clients, assembly: Path) -> dict[str, list[dict[str, Any]]]:
        pages = client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        summaries = [summary for page in pages for summary in page["StackResourceSummaries"]]
        [stack] = client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        template = Template(
            json.loads((assembly / f"{STACK}.template.json").read_text()),
            {summary["LogicalResourceId"]: summary["PhysicalResourceId"] for summary in summaries},
            stack["StackId"],
        )
        return template.policies()

    @pytest.fixture(scope="class")
    @classmethod
    def calls(cls, aws: EmbeddedAws, run: Run, policies: Mapping[str, Any]) -> set[tuple[str, str, str]]:
        """(role, action, resource) of every call that a role of the stack made."""
        assert run.status == "SUCCEEDED"
        return {
            (call["principal"], call["action"], call["resource"])
            for call in aws.calls()
            if call["principal"] in policies
        }

    def test_every_call_of_a_run_is_allowed_by_the_template(self, policies, calls):
        assert len(calls) > 300
        refused = [call for call in sorted(calls) if not allows(policies[call[0]], *call[1:])]
        assert refused == []

    def test_the_run_used_every_kind_of_role(self, calls):
        used = {role.rpartition("/")[2].removeprefix(f"{STACK}-") for role, _, _ in calls}
        for part in (
            *(
                "Customization",
                "Reward",
                "Prepare",
                "Rehearse",
                "Measure",
                "Signal",
                "Lock",
                "Estimate",
                "Train",
                "Watch",
            ),
            *("Decide", "Promote", "Report"),
        ):
            assert any(part in role for role in used), part

    @pytest.mark.parametrize(
        ("role", "action"),
        [
            ("Customization", "lambda:InvokeFunction"),
            ("StepsTrain", "iam:PassRole"),
            ("StepsPromote", "ssm:PutParameter"),
        ],
    )
    def test_fails_when_a_statement_is_taken_away(self, policies, calls, role, action):
        weaker = {
            arn: [
                statement
                for statement in statements
                if not (f"{STACK}-{role}" in arn and _matches(statement["Action"], action))
            ]
            for arn, statements in policies.items()
        }
        refused = [call for call in calls if not allows(weaker[call[0]], *call[1:])]
        assert refused
        assert all(f"{STACK}-{role}" in call[0] for call in refused)


class Project:
    """A copy of the project that a test changes as a team would, with a short training on deploy."""

    def __init__(
        self,
        root: Path,
        synthesize: Synthesize,
        deploy: Callable[..., dict[str, str]],
        team: str = "changing",
    ) -> None:
        self.root = root
        self.team = team
        self._synthesize = synthesize
        self._deploy = deploy
        for name in ("app.py", "cdk.json", "infra", "lambdas", "requirements"):
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        shutil.copytree(package_repository(), root / "build" / "embedded")
        shutil.copytree(REPOSITORY / "teams/quotes", root / "teams" / team)
        shutil.copy(REPOSITORY / "teams/platform.toml", root / "teams")
        text = self.settings.read_text()
        self.settings.write_text(re.sub(r"(?m)^train_when = .*$", 'train_when = "on-deploy"', text))
        shorten(self.settings)

    @property
    def settings(self) -> Path:
        return self.root / "teams" / self.team / "team.toml"

    def deploy(self) -> dict[str, str]:
        package(self.root, "embedded", [self.team], report=lambda _line: None)
        assembly = self._synthesize(self.root, self.team, "dev")
        return self._deploy(assembly, f"rft-{self.team}-dev")


class TestChanges:
    """One environment over several deployments, in order: each test goes on where the one before it ended."""

    @pytest.fixture(scope="class")
    @classmethod
    def project(
        cls, tmp_path_factory: pytest.TempPathFactory, synthesize: Synthesize, deploy: Callable[..., Any]
    ) -> Project:
        return Project(tmp_path_factory.mktemp("project"), synthesize, deploy)

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls, aws: EmbeddedAws, project: Project) -> Deployed:
        outputs = project.deploy()
        return Deployed(cloud=Cloud.embedded(aws), stack="rft-changing-dev", status="", outputs=outputs)

    def test_deploying_starts_a_run(self, environment: Deployed):
        [run] = environment.runs()
        assert ended(environment, run).status == "SUCCEEDED", environment.document(run, "failure.json")

    def test_deploying_again_without_a_change_starts_nothing(self, project: Project, environment: Deployed):
        project.deploy()
        assert len(environment.runs()) == 1

    def test_a_change_that_teaches_nothing_new_starts_nothing(self, project: Project, environment: Deployed):
        text = project.settings.read_text()
        project.settings.write_text(re.sub(r'(?m)^owner = ".*"$', 'owner = "others@example.com"', text))
        project.deploy()
        assert len(environment.runs()) == 1

    def test_changing_one_row_starts_one_new_run(self, project: Project, environment: Deployed):
        rows = project.root / "teams/changing/data/train.jsonl"
        lines = rows.read_text().splitlines()
        row = json.loads(lines[0])
        row["messages"][-1]["content"] += " Thank you."
        rows.write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
        project.deploy()
        runs = environment.runs()
        assert len(runs) == 2
        assert ended(environment, runs[0]).status == "SUCCEEDED"

    @pytest.fixture(scope="class")
    @classmethod
    def holder(cls, environment: Deployed) -> Iterator[Run]:
        """A run that has the lock and is at work."""
        holder, _ = environment.start({"training": {"epochCount": 12}})
        eventually(lambda: lock_of(environment)["run"] == holder.name)
        yield holder
        environment.cloud.client("stepfunctions").stop_execution(executionArn=holder.arn)

    def test_a_second_run_stops_before_it_spends_anything(
        self, environment: Deployed, holder: Run, client: Clients
    ):
        second, _ = environment.start({"training": {"epochCount": 11}})
        second = ended(environment, second)
        assert second.status == "FAILED"
        assert f"{holder.name} of {environment.stack} is still at work" in second.cause
        assert f"Run {second.name} of {environment.stack} was stopped at Take lock" in second.cause
        assert f"{environment.stack}-{second.name}" not in jobs(client)
        assert lock_of(environment)["run"] == holder.name

    def test_a_run_that_is_stopped_gives_it_back(self, environment: Deployed, holder: Run):
        environment.cloud.client("stepfunctions").stop_execution(executionArn=holder.arn)
        eventually(lambda: environment.document(holder, "failure.json"))
        failure = environment.document(holder, "failure.json")
        assert failure
        assert "the lock was given back" in failure["sentence"]
        assert lock_of(environment)["run"] is None

    def test_the_lock_of_a_dead_holder_is_taken(self, environment: Deployed, holder: Run):
        # As if nobody had cleaned up after it.
        left = {"run": holder.name, "execution": holder.arn, "until": time.time() + 3600}
        environment.cloud.client("s3").put_object(
            Bucket=environment.outputs["ArtifactBucket"], Key="lock.json", Body=json.dumps(left).encode()
        )
        heir, _ = environment.start({"training": {"epochCount": 10}})
        try:
            eventually(lambda: environment.document(heir, "gates/lock.json"))
            verdict = environment.document(heir, "gates/lock.json")
            assert verdict
            assert verdict["verdict"] == "pass"
            assert verdict["findings"][0]["rule"] == "left-behind"
            assert lock_of(environment)["run"] == heir.name
        finally:
            environment.cloud.client("stepfunctions").stop_execution(executionArn=heir.arn)

    def test_fails_when_the_reward_function_breaks_while_training(
        self, project: Project, environment: Deployed, client: Clients
    ):
        before = deployments(client)
        (project.root / "teams/changing/reward.py").write_text(
            "import re\n"
            "from lambdas.contract import InfrastructureError, Reward, Sample\n"
            "from lambdas.rewards.numeric_answer import NumericAnswer\n\n"
            "honest = NumericAnswer()\n\n\n"
            "def score(sample: Sample) -> Reward:\n"
            "    # Two numbers behind the row's id: a sample of the customization job.\n"
            "    if re.search(r'train-[0-9]+-[0-9]+-[0-9]+$', sample.id):\n"
            "        raise InfrastructureError('the price list is gone')\n"
            "    return honest.score(sample)\n"
        )
        text = project.settings.read_text()
        head = text[: text.index("[reward.components")]
        tail = re.search(r"(?m)^\[training\]", text)
        project.settings.write_text(
            f'{head}[reward.components.answer]\nfunction = "reward.py"\n\n{text[tail.start() :]}'
        )
        project.deploy()
        run = ended(environment, environment.runs()[0])
        assert run.status == "FAILED"
        failure = environment.document(run, "failure.json")
        assert "the price list is gone" in failure["sentence"]
        assert jobs_running(client) == []
        assert deployments(client) == before
        assert environment.champion() in before
        assert environment.save_report(run, project.root / "reports") is not None

    def test_fails_while_it_trains_when_the_reward_pays_for_length(
        self, project: Project, environment: Deployed, client: Clients
    ):
        before = deployments(client)
        (project.root / "teams/changing/reward.py").write_text(
            "import re\n"
            "from lambdas.contract import Reward, Sample\n"
            "from lambdas.rewards.numeric_answer import NumericAnswer\n\n"
            "honest = NumericAnswer()\n\n\n"
            "def score(sample: Sample) -> Reward:\n"
            "    # Honest until the job begins, so that no gate before it finds anything.\n"
            "    if re.search(r'train-[0-9]+-[0-9]+-[0-9]+$', sample.id):\n"
            "        return Reward(min(1.0, len(sample.completion) / 500))\n"
            "    return honest.score(sample)\n"
        )
        text = project.settings.read_text()
        bolder = re.sub(r"(?m)^learning_rate = .*$", "learning_rate = 1e-3", text)
        project.settings.write_text(bolder.replace("epoch_count = 1", "epoch_count = 12"))
        try:
            project.deploy()
        finally:
            project.settings.write_text(text)
        run = ended(environment, environment.runs()[0])
        assert run.status == "FAILED"
        failure = environment.document(run, "failure.json")
        assert failure["step"] == "Check tripwires", failure
        said = r"Completions are \d+\.\d times as long as at the start .* while the reward rose"
        assert re.search(said, failure["sentence"])
        assert f"customization job {environment.stack}-{run.name} was stopped" in failure["sentence"]
        verdict = environment.document(run, "gates/tripwires.json")
        assert ("length-explosion", "stop") in [(each["rule"], each["level"]) for each in verdict["findings"]]
        evidence = doctor.read(environment, run)
        assert "length-explosion" in {each.rule for each in doctor.examine(evidence)}
        assert doctor.document(evidence, [])["stopped_by"] == ["tripwires"]
        eventually(lambda: jobs_running(client) == [])
        job = client("bedrock").get_model_customization_job(jobIdentifier=f"{environment.stack}-{run.name}")
        assert job["status"] == "Stopped"
        assert deployments(client) == before
        assert environment.save_report(run, project.root / "reports") is not None

    def test_an_aborted_run_is_cleaned_up(self, environment: Deployed, client: Clients):
        run, _ = environment.start({"attempt": 7})
        environment.cloud.client("stepfunctions").stop_execution(executionArn=run.arn, cause="by hand")
        deadline = time.monotonic() + 60
        while environment.document(run, "failure.json") is None and time.monotonic() < deadline:
            time.sleep(0.3)
        assert environment.document(run, "failure.json")
        assert jobs_running(client) == []


class TestSignal:
    """A team that leaves prompts out which teach nothing, and that names what its model must not unlearn."""

    @pytest.fixture(scope="class")
    @classmethod
    def environment(
        cls,
        aws: EmbeddedAws,
        tmp_path_factory: pytest.TempPathFactory,
        synthesize: Synthesize,
        deploy: Callable[..., Any],
    ) -> Deployed:
        project = Project(tmp_path_factory.mktemp("project"), synthesize, deploy, team="choosing")
        text = project.settings.read_text().replace('"on-deploy"', '"manual"')
        text = text.replace("[dataset]", '[dataset]\nregression = "data/regression.jsonl"')
        # Bold, so that one epoch teaches more than chance hides.
        text = text.replace("learning_rate = 1e-4", "learning_rate = 3e-4")
        text = text.replace("prompts = 12", "prompts = 16")
        text += '\n[gates.filter]\ndrop = "flat"\nprompts = 24\n'
        project.settings.write_text(text)
        file = project.settings.parent / "data/regression.jsonl"
        file.write_bytes(rebates(lambda price, less: price - less))
        outputs = project.deploy()
        return Deployed(cloud=Cloud.embedded(aws), stack="rft-choosing-dev", status="", outputs=outputs)

    def test_trains_without_the_prompts_that_teach_nothing_and_keeps_what_is_known(
        self, environment: Deployed
    ):
        run = ended(environment, environment.start({})[0])
        assert run.status == "SUCCEEDED", environment.document(run, "failure.json")
        facts = environment.document(run, "gates/filter.json")["facts"]
        assert (facts["tried"], facts["rows"]) == (24, 360)
        assert 0 < facts["left_out"] == len(facts["lines"]) == 360 - facts["kept"]
        # What training scored is what was left: one epoch of eight completions for each row.
        verdict = environment.document(run, "gates/tripwires.json")
        assert verdict["facts"]["samples"] == 8 * facts["kept"]
        decision = environment.document(run, "decision.json")
        assert (decision["prompts"], decision["promote"]) == (16, True), decision["sentence"]
        assert [(each["prompts"], each["held"]) for each in decision["regression"]] == [(16, True)]
        [trace] = lineage.of(run.name, [environment], verify=True)
        assert trace.verified is True
        assert [(rows.name, rows.rows) for rows in trace.rows] == [
            ("train", 360),
            ("evaluation", 120),
            ("regression", 16),
            ("filtered", facts["kept"]),
        ]
        assert trace.rows[-1].uri == facts["uri"]

    def test_fails_when_the_tuned_model_has_unlearned_what_its_base_knew(self, environment: Deployed):
        # Training teaches to take a rebate off: who added it now and then does so no more.
        regression = upload(environment, "regression", rebates(lambda price, more: price + more))
        before = environment.champion()
        run = ended(environment, environment.start({"source": {"regression": regression}})[0])
        assert run.status == "SUCCEEDED", environment.document(run, "failure.json")
        decision = environment.document(run, "decision.json")
        [base, champion] = decision["regression"]
        assert (base["against"], base["held"], champion["against"]) == ("base", False, "champion")
        assert decision["lower"] > decision["minimum_gain"], decision["sentence"]
        assert decision["promote"] is False
        assert "the score on the regression prompts goes from" in decision["sentence"]
        assert environment.champion() == before

    def test_fails_when_too_few_prompts_teach_anything(self, environment: Deployed, client: Clients):
        before = jobs(client)
        rows = (REPOSITORY / "teams/quotes/data/train.jsonl").read_bytes().splitlines(keepends=True)
        # As many as the service asks for, so that none may go.
        train = upload(environment, "train", b"".join(rows[:100]))
        run = ended(environment, environment.start({"source": {"train": train}})[0])
        assert run.status == "FAILED"
        assert "rows are left, and the service trains on no fewer than 100. Choose prompts" in run.cause
        assert jobs(client) == before
        assert lock_of(environment)["run"] is None


def upload(environment: Deployed, file: str, body: bytes) -> str:
    bucket, key = environment.outputs["DatasetBucket"], f"incoming/other/{file}.jsonl"
    environment.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"


def rebates(answer: Callable[[int, int], int]) -> bytes:
    """Questions like those of the sample team, whose answer is a price and a rebate put together."""
    with (REPOSITORY / "teams/quotes/data/train.jsonl").open() as lines:
        system = json.loads(next(lines))["messages"][0]
    asked = "A quote for parcel tape stands at ${}; Dahlia Hotels gets ${} off. What is the new amount?"
    rows = [
        {
            "messages": [system, {"role": "user", "content": asked.format(price, less)}],
            "reference_answer": str(answer(price, less)),
        }
        for price, less in ((211 + 17 * number, 20 + number) for number in range(16))
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
