"""A team's life beside others and its end: stages side by side, and retirements that leave nothing."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.config import load_platform
from rft.cloud import Cloud, Deployed, Run
from rft.embedded.aws import EmbeddedAws
from rft.retirement import Item, Retirement
from tests.embedded.conftest import package_repository, shorten

REPOSITORY = Path(__file__).resolve().parents[2]

STAGES = """\
[stages.dev]
retention = "throwaway"
expires = 2027-01-31

[stages.prod]
retention = "lasting"
train_when = "on-upload"

[stages.west]
retention = "throwaway"
region = "us-west-2"

"""
STACKS = {
    "rft-quotes-dev": "us-east-1",
    "rft-quotes-prod": "us-east-1",
    "rft-quotes-west": "us-west-2",
    "rft-support-dev": "us-east-1",
}


class Fleet:
    """Four stacks in one account: a team in two stages and in a second region, and another team beside it."""

    def __init__(self, aws: EmbeddedAws, root: Path, synthesize: Any, clients_of: Any, deploy: Any) -> None:
        self._aws = aws
        self.root = root
        for name in ("app.py", "cdk.json", "infra", "lambdas", "requirements"):
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        for team in ("quotes", "support"):
            shutil.copytree(REPOSITORY / "teams" / team, root / "teams" / team)
        platform = (REPOSITORY / "teams/platform.toml").read_text()
        platform = platform.replace('regions = ["us-east-1"]', 'regions = ["us-east-1", "us-west-2"]', 1)
        (root / "teams/platform.toml").write_text(platform)
        settings = root / "teams/quotes/team.toml"
        text = re.sub(r"(?ms)^\[stages\..*?(?=^\[model\])", STAGES, settings.read_text())
        settings.write_text(text)
        shorten(settings)
        # What is packaged depends on the reward and the code, which are those of the repository.
        shutil.copytree(package_repository(), root / "build" / "embedded")
        assembly = synthesize(root, "quotes,support", "")
        self.outputs = {
            stack: deploy(clients_of(aws.endpoint, region), assembly, stack)
            for stack, region in STACKS.items()
        }
        self._deploy = lambda stack: deploy(clients_of(aws.endpoint, STACKS[stack]), assembly, stack)

    def again(self, stack: str) -> None:
        self.outputs[stack] = self._deploy(stack)

    def cloud(self, stack: str) -> Cloud:
        return Cloud.embedded(self._aws, STACKS[stack])

    def deployed(self, stack: str) -> Deployed:
        return self.cloud(stack).deployed(stack)

    def retirement(self, stack: str, *, purge: bool = False) -> Retirement:
        prices = load_platform(self.root).prices
        return Retirement(self.cloud(stack), stack, purge=purge, prices=prices)

    def retire(self, stack: str, *, purge: bool = False) -> list[Item]:
        retirement = self.retirement(stack, purge=purge)
        for _, step in retirement.steps():
            step(lambda _said: None)
        return retirement.rest()


@pytest.fixture(scope="module")
def fleet(
    aws: EmbeddedAws,
    tmp_path_factory: pytest.TempPathFactory,
    synthesize: Callable[..., Path],
    assembly: Path,
    clients_of: Callable[..., Any],
    deploy_assembly: Callable[..., dict[str, str]],
) -> Iterator[Fleet]:
    fleet = Fleet(aws, tmp_path_factory.mktemp("fleet"), synthesize, clients_of, deploy_assembly)
    yield fleet
    for stack in STACKS:
        if fleet.retirement(stack, purge=True).plan():
            fleet.retire(stack, purge=True)


def ended(deployed: Deployed, run: Run, seconds: float = 120) -> Run:
    deadline = time.monotonic() + seconds
    while run.status == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.3)
        run = deployed.run(run.name)
    return run


def told(items: list[Item]) -> dict[str, set[str]]:
    """The fates of each kind."""
    found: dict[str, set[str]] = {}
    for item in items:
        found.setdefault(item.kind, set()).add(item.fate)
    return found


def test_stages_teams_and_regions_share_nothing(fleet: Fleet):
    names = [value for outputs in fleet.outputs.values() for value in outputs.values()]
    assert len(names) == len(set(names)) >= 8 * len(STACKS)
    # One of them may have been trained by another test.
    champions = [found for stack in STACKS if (found := fleet.deployed(stack).champion())]
    assert len(champions) == len(set(champions)) <= 1


def test_a_retirement_that_is_interrupted_again_and_again_ends_the_same(fleet: Fleet):
    stack = "rft-quotes-prod"
    deployed = fleet.deployed(stack)
    first, _ = deployed.start({})
    assert ended(deployed, first).status == "SUCCEEDED", deployed.document(first, "failure.json")
    other = fleet.deployed("rft-quotes-dev")
    beside, _ = other.start({})
    deployed.start({"attempt": 2, "training": {"epochCount": 9}})
    bedrock = deployed.cloud.client("bedrock")
    deadline = time.monotonic() + 60
    while not bedrock.list_model_customization_jobs(nameContains=stack, statusEquals="InProgress")[
        "modelCustomizationJobSummaries"
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    plan = told(fleet.retirement(stack, purge=True).plan())
    assert plan["run"] == plan["customization job"] == {"stopped"}
    assert (
        plan["deployment"] == plan["model"] == plan["bucket"] == plan["key"] == plan["stack"] == {"deleted"}
    )
    assert told(fleet.retirement(stack).plan())["bucket"] == {"kept"}

    # After every other step; tests/unit/test_retirement.py interrupts at every single call.
    for last in (0, 2, 4, 6, 7):
        retirement = fleet.retirement(stack, purge=True)
        for _, step in retirement.steps()[: last + 1]:
            step(lambda _said: None)
    retirement = fleet.retirement(stack, purge=True)
    assert retirement.plan() == retirement.rest() == []
    for bucket in ("DatasetBucket", "ArtifactBucket"):
        with pytest.raises(ClientError, match="404"):
            deployed.cloud.client("s3").head_bucket(Bucket=deployed.outputs[bucket])

    # The other stage of the team goes on, as far as to a champion of its own.
    assert ended(other, beside).status == "SUCCEEDED", other.document(beside, "failure.json")
    assert other.champion() is not None


def test_a_throwaway_stage_goes_with_its_data_and_leaves_others_alone(fleet: Fleet):
    assert fleet.retire("rft-quotes-dev") == []
    assert fleet.retirement("rft-quotes-dev").plan() == []
    assert fleet.deployed("rft-quotes-west").status == fleet.deployed("rft-support-dev").status
    assert fleet.retire("rft-quotes-west") == []


def test_a_lasting_stage_keeps_its_data_until_it_is_purged(fleet: Fleet):
    stack = "rft-quotes-prod"
    fleet.again(stack)
    outputs = fleet.outputs[stack]
    s3 = fleet.cloud(stack).client("s3")
    s3.put_object(Bucket=outputs["DatasetBucket"], Key="incoming/x/evaluation.jsonl", Body=b"{}")
    s3.delete_object(Bucket=outputs["DatasetBucket"], Key="incoming/x/evaluation.jsonl")
    rest = fleet.retire(stack)
    assert {item.fate for item in rest} == {"kept"}
    assert {"bucket", "key", "log group", "parameter"} == {item.kind for item in rest}
    [kept] = [item for item in rest if item.name == outputs["DatasetBucket"]]
    assert kept.note == "2 versions of objects, 2 B"
    assert fleet.retirement(stack, purge=True).purges()
    assert fleet.retire(stack, purge=True) == []


def test_what_bears_the_tags_of_a_retired_stage_is_told(fleet: Fleet):
    kms = fleet.cloud("rft-quotes-west").client("kms")
    key = kms.create_key(Tags=[{"TagKey": "rft:environment", "TagValue": "rft-quotes-west"}])
    [left] = fleet.retirement("rft-quotes-west").rest()
    assert (left.fate, left.kind) == ("left", "kms")
    assert key["KeyMetadata"]["KeyId"] in left.name
    kms.schedule_key_deletion(KeyId=key["KeyMetadata"]["KeyId"], PendingWindowInDays=7)
    assert fleet.retirement("rft-quotes-west").rest() == []
