"""The fleet: every stage is told, whatever is wrong with another; and the page that shows it."""

import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from botocore import xform_name
from botocore.response import StreamingBody
from botocore.validate import validate_parameters

from infra.config import Fleet as FleetSettings
from infra.config import Platform, Team, load_platform, load_team
from lambdas import dataset
from lambdas.workflow.provenance import template_sha256
from rft import fleet, lineage
from rft.cloud import Cloud, CloudError

ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC)
HOME, OTHER = "111122223333", "444455556666"
REGION = "us-east-1"
RUN, GOING = "run-0123456789abcdef", "run-fedcba9876543210"
STACK = "rft-quotes-dev"
MODEL = f"arn:aws:bedrock:{REGION}:{HOME}:custom-model/amazon.nova-2-lite-v1:0:256k/abcdefghijkl"
DEPLOYMENT = f"arn:aws:bedrock:{REGION}:{HOME}:custom-model-deployment/abcdefghijkl"
LEFT_BEHIND = DEPLOYMENT.replace("abcdefghijkl", "zzzzzzzzzzzz")
MACHINE = f"arn:aws:states:{REGION}:{HOME}:stateMachine:Workflow"
TEMPLATE = {"Resources": {"Key": {"Type": "AWS::KMS::Key"}}}
DECISION = {"promote": True, "gain": 0.4, "lower": 0.3, "upper": 0.5, "sentence": "Promoted: better."}


class World:
    """Two accounts in memory, behind real clients; every request is held against the service model."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.asked: set[tuple[str, str]] = set()
        self.stacks: dict[str, dict[str, Any]] = {STACK: self.stack(STACK)}
        self.objects: dict[str, bytes] = {f"runs/{RUN}/decision.json": json.dumps(DECISION).encode()}
        self.executions = [self.execution(RUN, "SUCCEEDED", hours=5)]
        self.champion = DEPLOYMENT
        self.deployments = {DEPLOYMENT: (f"{STACK}-{RUN}", NOW - timedelta(days=9))}
        self.lifecycle: dict[str, Any] = {"status": "ACTIVE"}
        self.drifts: list[dict[str, Any]] = []
        self.model_is_deleted = False
        # Calls of the champion by how many days ago, and the name that CloudWatch has it under.
        self.calls: dict[int, float] = {9: 200.0, 1: 30.0}
        self.called = DEPLOYMENT

    @staticmethod
    def stack(name: str) -> dict[str, Any]:
        outputs = {
            "Workflow": MACHINE,
            "ArtifactBucket": "artifacts",
            "DatasetBucket": "datasets",
            "Champion": "champion",
            "RewardVersion": f"arn:aws:lambda:{REGION}:{HOME}:function:Reward:7",
        }
        return {
            "StackName": name,
            "StackStatus": "CREATE_COMPLETE",
            "CreationTime": NOW - timedelta(days=2),
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()],
            "Tags": [],
        }

    @staticmethod
    def execution(run: str, status: str, hours: int = 1) -> dict[str, Any]:
        return {
            "executionArn": f"{MACHINE}:{run}",
            "stateMachineArn": MACHINE,
            "name": run,
            "status": status,
            "startDate": NOW - timedelta(hours=hours),
        }

    def call(self, client: Any, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        model = client.meta.service_model.operation_model(operation)
        validate_parameters(asked, model.input_shape)
        self.asked.add((client.meta.service_model.signing_name, operation))
        if operation in self.refused:
            self.refuse(client, operation, "AccessDenied")
        answer = getattr(self, xform_name(operation))(client, asked)
        validate_parameters({key: each for key, each in answer.items() if key != "Body"}, model.output_shape)
        return dict(answer)

    @staticmethod
    def refuse(client: Any, operation: str, code: str, message: str = "not yours") -> Any:
        raise client.exceptions.from_code(code)({"Error": {"Code": code, "Message": message}}, operation)

    def get_caller_identity(self, client: Any, asked: Any) -> dict[str, Any]:
        return {"Account": HOME}

    def assume_role(self, client: Any, asked: Any) -> dict[str, Any]:
        given = {"AccessKeyId": "A" * 16, "SecretAccessKey": "s", "SessionToken": asked["RoleArn"]}
        return {"Credentials": {**given, "Expiration": NOW}}

    def describe_stacks(self, client: Any, asked: Any) -> dict[str, Any]:
        if asked["StackName"] not in self.stacks:
            self.refuse(client, "DescribeStacks", "ValidationError", "Stack does not exist")
        return {"Stacks": [self.stacks[asked["StackName"]]]}

    def get_template(self, client: Any, asked: Any) -> dict[str, Any]:
        return {"TemplateBody": json.dumps(TEMPLATE)}

    def describe_stack_resource_drifts(self, client: Any, asked: Any) -> dict[str, Any]:
        return {"StackResourceDrifts": self.drifts}

    def list_executions(self, client: Any, asked: Any) -> dict[str, Any]:
        return {"executions": self.executions}

    def get_parameter(self, client: Any, asked: Any) -> dict[str, Any]:
        return {"Parameter": {"Value": self.champion}}

    def get_object(self, client: Any, asked: Any) -> dict[str, Any]:
        if asked["Key"] not in self.objects:
            self.refuse(client, "GetObject", "NoSuchKey")
        body = self.objects[asked["Key"]]
        return {"Body": StreamingBody(io.BytesIO(body), len(body))}

    def list_objects_v2(self, client: Any, asked: Any) -> dict[str, Any]:
        start = asked["Prefix"]
        keys = sorted(key for key in self.objects if key.startswith(start))
        if asked.get("Delimiter"):
            found = sorted({start + key[len(start) :].partition("/")[0] + "/" for key in keys})
            return {"CommonPrefixes": [{"Prefix": each} for each in found], "IsTruncated": False}
        return {"Contents": [{"Key": key} for key in keys], "IsTruncated": False}

    def get_custom_model_deployment(self, client: Any, asked: Any) -> dict[str, Any]:
        arn = asked["customModelDeploymentIdentifier"]
        if arn not in self.deployments:
            self.refuse(client, "GetCustomModelDeployment", "ResourceNotFoundException")
        return {
            "customModelDeploymentArn": arn,
            "modelDeploymentName": self.deployments[arn][0],
            "modelArn": MODEL,
            "createdAt": self.deployments[arn][1],
            "status": "Active",
        }

    def get_metric_data(self, client: Any, asked: Any) -> dict[str, Any]:
        results = []
        for query in asked["MetricDataQueries"]:
            metric = query["MetricStat"]["Metric"]
            assert (metric["Namespace"], metric["MetricName"]) == ("AWS/Bedrock", "Invocations")
            known = self.calls if metric["Dimensions"] == [{"Name": "ModelId", "Value": self.called}] else {}
            days = {NOW - timedelta(days=ago): count for ago, count in known.items()}
            days = {day: count for day, count in days.items() if day >= asked["StartTime"]}
            results.append({"Id": query["Id"], "Timestamps": [*days], "Values": [*days.values()]})
        return {"MetricDataResults": results}

    def get_custom_model(self, client: Any, asked: Any) -> dict[str, Any]:
        if self.model_is_deleted:
            self.refuse(client, "GetCustomModel", "ResourceNotFoundException")
        return {"modelArn": MODEL, "modelName": f"{STACK}-{RUN}", "creationTime": NOW}

    def list_custom_model_deployments(self, client: Any, asked: Any) -> dict[str, Any]:
        return {
            "modelDeploymentSummaries": [
                {
                    "customModelDeploymentArn": arn,
                    "customModelDeploymentName": name,
                    "modelArn": MODEL,
                    "createdAt": made,
                    "status": "Active",
                }
                for arn, (name, made) in self.deployments.items()
                if asked["nameContains"] in name
            ]
        }

    def get_foundation_model(self, client: Any, asked: Any) -> dict[str, Any]:
        arn = f"arn:aws:bedrock:{REGION}::foundation-model/{asked['modelIdentifier']}"
        details = {"modelArn": arn, "modelId": asked["modelIdentifier"], "modelLifecycle": self.lifecycle}
        return {"modelDetails": details}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        botocore.client.BaseClient,
        "_make_api_call",
        lambda client, operation, asked: made.call(client, operation, asked),
    )
    return made


@pytest.fixture(scope="module")
def platform() -> Platform:
    return load_platform(ROOT)


@pytest.fixture(scope="module")
def team(platform: Platform) -> Team:
    return load_team(ROOT, "quotes", platform)


def settled(team: Team, **stage: Any) -> Team:
    """The team with its two stages in places of their own: dev with these settings."""
    return team.model_copy(
        update={"stages": {**team.stages, "dev": team.stages["dev"].model_copy(update=stage)}}
    )


@cache
def home() -> Cloud:
    # One for all tests: to read the service models takes longer than all of them.
    return Cloud(name="home", endpoint=None, session=boto3.Session(region_name=REGION))


def look(team: Team, platform: Platform, root: Path = ROOT) -> list[fleet.Row]:
    return fleet.look(
        [team], platform, fleet.Places(home(), platform), fleet.Sources(root, root / "no-assembly")
    )


def test_a_healthy_stage_needs_nobody_and_one_that_is_not_deployed_says_so(world, team, platform):
    dev, prod = look(team, platform)
    assert (dev.status, dev.account, dev.region, dev.troubles) == ("CREATE_COMPLETE", HOME, REGION, [])
    assert dev.needs() == []
    assert (dev.run.name, dev.run.promoted, dev.run.gain) == (RUN, True, 0.4)
    assert (dev.champion.run, dev.champion.model, dev.champion.lower) == (RUN, MODEL, 0.3)
    assert (dev.version.reward, dev.version.template_sha256) == ("7", template_sha256(TEMPLATE))
    assert fleet.money(dev.spend) == "-"
    assert (fleet.calls(dev.calls), fleet.calls(prod.calls)) == ("230", "-")
    assert (prod.status, prod.troubles, prod.needs()) == (None, [], [])


@pytest.mark.parametrize(
    ("operation", "piece", "kept"),
    [
        ("ListExecutions", "runs", "champion"),
        ("GetParameter", "the champion", "run"),
        ("GetTemplate", "the version", "run"),
        ("ListObjectsV2", "spend", "version"),
        ("ListCustomModelDeployments", "deployments", "champion"),
        ("GetFoundationModel", "what expires", "champion"),
    ],
)
def test_one_refusal_costs_one_piece(world, team, platform, operation, piece, kept):
    world.refused = {operation}
    dev, _ = look(team, platform)
    [trouble] = dev.troubles
    assert trouble.startswith(f"{piece}: ")
    assert "not yours" in trouble
    assert getattr(dev, kept) is not None
    assert dev.needs() == [f"cannot be read: {trouble}"]


def test_a_broken_document_costs_one_piece(world, team, platform):
    world.objects[f"runs/{RUN}/decision.json"] = b"{"
    dev, _ = look(team, platform)
    assert [each.partition(":")[0] for each in dev.troubles] == ["the champion", "the last run"]
    assert dev.version is not None


def test_a_stack_without_outputs_is_told_with_its_status(world, team, platform):
    world.stacks[STACK] |= {"StackStatus": "ROLLBACK_FAILED", "Outputs": []}
    dev, prod = look(team, platform)
    assert dev.status == "ROLLBACK_FAILED"
    assert "has no outputs yet" in dev.troubles[0]
    assert "the stack is ROLLBACK_FAILED" in dev.needs()
    assert prod.troubles == []


def test_another_account_takes_the_role_that_the_platform_names(world, team, platform, monkeypatch):
    far = settled(team, account=OTHER)
    dev, prod = look(far, platform)
    assert "[fleet] role_arn" in dev.troubles[0]
    assert (prod.troubles, dev.account) == ([], OTHER)

    role = FleetSettings(role_arn="arn:aws:iam::{account}:role/rft-fleet")
    roles = []
    monkeypatch.setattr(
        World, "assume_role", lambda self, client, asked: roles.append(asked["RoleArn"]) or given(asked)
    )

    def given(asked: Any) -> dict[str, Any]:
        keys = {"AccessKeyId": "A" * 16, "SecretAccessKey": "s", "SessionToken": "t"}
        return {"Credentials": {**keys, "Expiration": NOW}}

    dev, _ = look(far, platform.model_copy(update={"fleet": role}))
    assert dev.status == "CREATE_COMPLETE"
    assert roles == [f"arn:aws:iam::{OTHER}:role/rft-fleet"]


def test_an_account_out_of_reach_spoils_its_own_rows_only(world, team, platform):
    world.refused = {"AssumeRole"}
    role = FleetSettings(role_arn="arn:aws:iam::{account}:role/rft-fleet")
    dev, prod = look(settled(team, account=OTHER), platform.model_copy(update={"fleet": role}))
    assert re.search(f"account {OTHER} is out of reach as .*AccessDenied", dev.troubles[0])
    assert (dev.status, prod.troubles) == (None, [])


def test_says_what_waits_failed_idles_drifts_and_ends(world, team, platform):
    world.executions = [world.execution(GOING, "RUNNING"), *world.executions]
    asked = {"run": GOING, "until": "2026-11-26T10:00:00+00:00", "token": "t"}
    world.objects[f"runs/{GOING}/approval.json"] = json.dumps(asked).encode()
    world.deployments |= {
        LEFT_BEHIND: (f"{STACK}-run-00ff00ff00ff00ff", NOW - timedelta(days=3)),
        # Young, of a run that goes on, and of another environment whose name begins like this one's.
        LEFT_BEHIND + "a": (f"{STACK}-run-11ff00ff00ff00ff", NOW - timedelta(hours=3)),
        LEFT_BEHIND + "b": (f"{STACK}-{GOING}", NOW - timedelta(days=3)),
        LEFT_BEHIND + "c": (f"{STACK}x-run-00ff00ff00ff00ff", NOW - timedelta(days=3)),
    }
    world.lifecycle = {"status": "LEGACY", "endOfLifeTime": datetime(2027, 1, 31, tzinfo=UTC)}
    drifted = {"StackDriftStatus": "DRIFTED", "LastCheckTimestamp": NOW}
    world.stacks[STACK]["DriftInformation"] = drifted
    world.drifts = [
        {
            "StackId": STACK,
            "LogicalResourceId": name,
            "ResourceType": kind,
            "StackResourceDriftStatus": "DELETED",
            "Timestamp": NOW,
        }
        for name, kind in {"Artifacts": "AWS::S3::Bucket", "Champion": "AWS::SSM::Parameter"}.items()
    ]
    dev, _ = look(team, platform)
    assert dev.troubles == []
    assert dev.needs() == [
        f"{GOING} waits for approval until 2026-11-26 10:00 UTC",
        "changed by hand: Artifacts (AWS::S3::Bucket) is gone",
        f"deployment {STACK}-run-00ff00ff00ff00ff serves nobody since {NOW - timedelta(days=3):%Y-%m-%d}",
        "base model amazon.nova-2-lite-v1:0:256k ends on 2027-01-31",
    ]

    # Answered approvals have no token any more.
    world.objects[f"runs/{GOING}/approval.json"] = json.dumps({**asked, "token": None, "by": "ann"}).encode()
    world.executions[0]["status"] = "FAILED"
    world.objects[f"runs/{GOING}/failure.json"] = json.dumps({"sentence": "It broke."}).encode()
    dev, _ = look(team, platform)
    assert dev.approvals == []
    assert f"{GOING} failed: It broke." in dev.needs()


@pytest.mark.parametrize("name", [DEPLOYMENT, "abcdefghijkl"])
def test_a_champion_that_nobody_calls_is_told(world, team, platform, name):
    world.called = name
    world.deployments = {DEPLOYMENT: (f"{STACK}-{RUN}", NOW - timedelta(days=40))}
    world.calls = {39: 200.0, 2: 1.0}
    dev, _ = look(team, platform)
    assert (fleet.calls(dev.calls), dev.needs()) == ("1", [])
    world.calls = {39: 200.0, 16: 5.0}
    dev, _ = look(team, platform)
    assert (fleet.calls(dev.calls), dev.needs()) == (
        "0", [f"nobody has called the champion for 14 days: {DEPLOYMENT}"],
    )  # fmt: skip
    # A model that has just been promoted has had no time to be called.
    young = replace(dev, champion=replace(dev.champion, since=NOW - timedelta(days=3)))
    assert young.needs() == []


def test_whether_a_champion_is_idle_is_unknown_where_cloudwatch_cannot_say(world, team, platform):
    world.deployments = {DEPLOYMENT: (f"{STACK}-{RUN}", NOW - timedelta(days=40))}
    # Under another name than is asked for, which the missing calls of the measurement give away.
    world.called = "something-else"
    dev, _ = look(team, platform)
    assert (fleet.calls(dev.calls), dev.needs(), dev.troubles) == ("unknown", [], [])
    assert "not even those it was measured by" in dev.calls.why
    world.refused = {"GetMetricData"}
    dev, _ = look(team, platform)
    assert (fleet.calls(dev.calls), dev.needs(), dev.troubles) == ("unknown", [], [])
    assert "not yours" in dev.calls.why


def test_counts_what_the_cost_gate_wrote_down_this_month(world, team, platform):
    month = f"ledger/{NOW:%Y-%m}"
    for key, high in {
        f"{month}/{RUN}.json": 2.5,
        f"{month}/{GOING}.json": 1.25,
        "ledger/2020-01/x.json": 9,
    }.items():
        world.objects[key] = json.dumps({"low": 1, "high": high, "currency": "USD"}).encode()
    dev, _ = look(team, platform)
    assert (dev.spend.estimated, fleet.money(dev.spend)) == (
        3.75,
        "3.75 USD" if dev.spend.budget is None else "3.75 of " + f"{dev.spend.budget:,.2f} USD",
    )
    near = replace(dev, spend=replace(dev.spend, budget=4.0))
    assert near.needs() == ["3.75 of 4.00 USD spent this month"]


class TestVersion:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A repository with two commits: the second touches the team quotes."""
        for name in ("quotes", "support"):
            (tmp_path / "teams" / name).mkdir(parents=True)
            (tmp_path / "teams" / name / "team.toml").write_text("1")
        self.git(tmp_path, "init", "-q")
        self.commit(tmp_path)
        (tmp_path / "teams/quotes/team.toml").write_text("2")
        self.commit(tmp_path)
        return tmp_path

    @staticmethod
    def git(root: Path, *words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        return subprocess.run(
            ["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, root: Path) -> None:
        self.git(root, "add", ".")
        self.git(root, "commit", "-qm", "x")

    def version(self, root: Path, deployed: str | None, team: str = "quotes") -> tuple[str, str]:
        return fleet.Sources(root, root / "cdk.out").version(team, f"rft-{team}-dev", deployed, TEMPLATE)

    def test_compares_by_the_commits_that_touch_the_team(self, root):
        first, head = self.git(root, "rev-parse", "HEAD~1"), self.git(root, "rev-parse", "HEAD")
        assert self.version(root, first)[0] == "behind"
        assert self.version(root, first, "support")[0] == "current"
        assert self.version(root, head)[0] == "current"

    def test_says_why_it_does_not_know(self, root):
        head = self.git(root, "rev-parse", "HEAD")
        assert self.version(root, None) == (
            "unknown", "the template does not say its revision, and no synthesis is up to date",
        )  # fmt: skip
        assert self.version(root, f"{head}-dirty")[1].endswith("with changes that were not committed")
        assert "git cannot compare" in self.version(root, "0" * 40)[1]

    def test_a_synthesis_that_is_up_to_date_knows_better(self, root):
        assembly = root / "cdk.out"
        assembly.mkdir()
        (assembly / "rft-quotes-dev.template.json").write_text(json.dumps(TEMPLATE, indent=8))
        (assembly / "manifest.json").write_text("{}")
        assert self.version(root, None)[0] == "current"
        (assembly / "rft-quotes-dev.template.json").write_text("{}")
        assert self.version(root, None)[0] == "behind"
        newer = (assembly / "manifest.json").stat().st_mtime + 10
        os.utime(root / "teams/quotes/team.toml", (newer, newer))
        assert self.version(root, None)[0] == "unknown"


def test_the_documented_role_may_read_all_that_is_read_and_nothing_else(world, team, platform, environments):
    look(team, platform)
    world.stacks[STACK]["DriftInformation"] = {"StackDriftStatus": "DRIFTED"}
    look(team, platform)
    lineage.of(DEPLOYMENT, environments)
    text = (ROOT / "docs/operations.md").read_text().partition("## Fleet")[2]
    policy = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    allowed = {
        action
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    asked = {f"{service}:{operation}" for service, operation in world.asked if service != "sts"}
    renamed = {"s3:ListObjectsV2": "s3:ListBucket", "monitoring:GetMetricData": "cloudwatch:GetMetricData"}
    assert {renamed.get(each, each) for each in asked} | {"kms:Decrypt"} == allowed


# --- the page ---


@pytest.fixture
def shown(world, team, platform) -> fleet.Fleet:
    rows = look(team, platform)
    return fleet.Fleet(made_at=NOW, where="here", revision="54f6bc3aaaa", rows=rows)


def test_the_document_is_plain_json(shown):
    document = json.loads(json.dumps(shown.document()))
    assert (document["schema"], len(document["stages"])) == (1, 2)
    assert document["stages"][0]["run"]["started"].endswith("Z")
    assert document["stages"][0]["needs"] == []


def test_the_page_needs_nothing_but_itself_and_shows_every_stage(shown):
    html = fleet.page(shown)
    assert not re.search(r"""(src|href|url)\s*[=(]|<script""", html)
    assert "default-src 'none'" in html
    assert "2 stages, none needs a person" in html
    assert html.count('<td class="name">') == 2
    assert "not deployed" in html
    assert RUN in html


def test_the_page_tells_what_needs_a_person_and_takes_nobody_at_their_word(shown):
    hostile = "<script>alert(1)</script>"
    row = replace(
        shown.rows[1],
        troubles=[hostile],
        expiring=[fleet.Expiry(what="stage prod", when=date(2027, 1, 1))],
    )
    html = fleet.page(replace(shown, rows=[shown.rows[0], row]))
    assert "2 stages, 1 needs a person" in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "stage prod ends on 2027-01-01" in html


# --- lineage ---


def manifest(**changes: Any) -> dict[str, Any]:
    files = {
        name: {"sha256": letter * 64, "rows": rows}
        for name, letter, rows in (("train", "a", 360), ("evaluation", "b", 120))
    }
    return {
        "schema": 1,
        "environment": STACK,
        "run": RUN,
        "outcome": "promoted",
        "sentence": "Promoted: better.",
        "approver": "ann",
        "locked_until": None,
        "lineage": {
            "deployment": {"revision": "54f6bc3", "template_sha256": "c0"},
            "dataset": {
                "sha256": "d" * 64,
                "source": {"train": "s3://x/t", "evaluation": "s3://x/e"},
                **files,
            },
            "models": {
                "base_model": "amazon.nova-2-lite-v1:0:256k",
                "custom_model_arn": MODEL,
                "champion_deployment_arn": DEPLOYMENT,
                "reward_version": f"arn:aws:lambda:{REGION}:{HOME}:function:Reward:7",
                "reward_sha256": "c29tZQ==",
            },
            "settings": {"training": {"epochCount": 2}},
            "job": {"jobArn": f"arn:aws:bedrock:{REGION}:{HOME}:model-customization-job/m/abcdefghijkl"},
        },
        **changes,
    }


@pytest.fixture
def environments(world, team, platform) -> list[Any]:
    world.objects |= {
        f"runs/{RUN}/manifest.json": json.dumps(manifest()).encode(),
        f"runs/{GOING}/run.json": b"{}",
        "runs/run-1111111111111111/manifest.json": b'{"schema": "older"}',
    }
    found = fleet.Places(home(), platform).stages([team])
    return [each for _, _, each in found if each is not None and not isinstance(each, CloudError)]


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize(
    "what",
    [MODEL, DEPLOYMENT, RUN, manifest()["lineage"]["job"]["jobArn"]],
    ids=["model", "deployment", "run", "job"],
)
def test_leads_from_a_model_to_its_rows_also_when_bedrock_has_deleted_it(world, environments, what, deleted):
    world.model_is_deleted = deleted
    world.deployments = {} if deleted else world.deployments
    [trace] = lineage.of(what, environments)
    assert (trace.run, trace.stack, trace.model, trace.approver) == (RUN, STACK, MODEL, "ann")
    assert (trace.revision, trace.reward_sha256) == ("54f6bc3", "c29tZQ==")
    assert [(rows.name, rows.rows, rows.uri) for rows in trace.rows] == [
        (name, count, f"s3://datasets/datasets/{'d' * 64}/{name}.jsonl")
        for name, count in (("train", 360), ("evaluation", 120))
    ]
    assert trace.verified is None


@pytest.mark.parametrize("sha256", ["d" * 64, "dddddddd", "a" * 64, "bbbbbbbbbb"])
def test_leads_from_rows_to_the_models_trained_on_them(environments, sha256):
    assert [trace.model for trace in lineage.of_dataset(sha256, environments)] == [MODEL]


def test_rows_that_passed_a_filter_are_told_found_and_checked(world, environments):
    bodies = {"train": b"rows", "evaluation": b"held out", "regression": b"still known"}
    named = dataset.identity(*(sha256(body).hexdigest() for body in bodies.values()))
    kept = sha256(b"ro").hexdigest()
    uri = f"s3://artifacts/runs/{RUN}/filtered/{kept}.jsonl"
    changed = manifest()
    changed["lineage"]["dataset"] |= {
        "sha256": named,
        "regression": {"rows": 30, "sha256": "e" * 64},
        "filtered": {"kept": 300, "left_out": 60, "sha256": kept, "uri": uri},
    }
    world.objects[f"runs/{RUN}/manifest.json"] = json.dumps(changed).encode()
    world.objects |= {f"datasets/{named}/{name}.jsonl": body for name, body in bodies.items()}
    world.objects[f"runs/{RUN}/filtered/{kept}.jsonl"] = b"ro"
    [trace] = lineage.of(RUN, environments, verify=True)
    assert [(rows.name, rows.rows) for rows in trace.rows] == [
        ("train", 360),
        ("evaluation", 120),
        ("regression", 30),
        ("filtered", 300),
    ]
    assert (trace.rows[-1].uri, trace.rows[-1].source) == (uri, trace.rows[0].uri)
    assert trace.verified is True
    assert [each.run for each in lineage.of_dataset(kept, environments)] == [RUN]
    world.objects[f"runs/{RUN}/filtered/{kept}.jsonl"] = b"r"
    assert lineage.of(RUN, environments, verify=True)[0].verified is False


def test_finds_nothing_where_there_is_nothing(environments):
    assert lineage.of_dataset("e" * 64, environments) == []
    assert lineage.of(GOING, environments) == [], "a run without a manifest"
    elsewhere = MODEL.replace(HOME, OTHER)
    assert lineage.of(elsewhere, environments) == []


@pytest.mark.parametrize("what", ["run-1", "arn:aws:s3:::bucket", "quotes"])
def test_fails_when_asked_for_what_has_no_lineage(environments, what):
    with pytest.raises(CloudError, match="expected the ARN of a custom model"):
        lineage.of(what, environments)


def test_fails_when_a_hash_is_none(environments):
    with pytest.raises(CloudError, match="expected a SHA-256"):
        lineage.of_dataset("ddd", environments)


def test_checks_that_the_rows_are_still_the_ones_that_were_trained_on(world, environments):
    bodies = {"train": b"rows", "evaluation": b"held out"}
    named = dataset.identity(*(sha256(body).hexdigest() for body in bodies.values()))
    changed = manifest()
    changed["lineage"]["dataset"]["sha256"] = named
    world.objects[f"runs/{RUN}/manifest.json"] = json.dumps(changed).encode()
    world.objects |= {f"datasets/{named}/{name}.jsonl": body for name, body in bodies.items()}
    assert lineage.of(RUN, environments, verify=True)[0].verified is True
    world.objects[f"datasets/{named}/train.jsonl"] = b"other rows"
    assert lineage.of(RUN, environments, verify=True)[0].verified is False
    del world.objects[f"datasets/{named}/train.jsonl"]
    assert lineage.of(RUN, environments, verify=True)[0].verified is False
