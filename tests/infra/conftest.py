"""The environments that the tests look at, made once: the sample teams, and all shapes a stack can take."""

import json
import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Importing aws_cdk draws a banner on these versions of Node.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")

import aws_cdk as cdk

from infra.config import Platform, load_platform, load_teams
from infra.environment import RftEnvironment
from infra.validation import check

REPOSITORY = Path(__file__).resolve().parents[2]
ACCOUNT, REGION = "111122223333", "us-east-1"
ENV = cdk.Environment(account=ACCOUNT, region=REGION)
BOUNDARY = "developer-boundary"
KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/01234567-89ab-cdef-0123-456789abcdef"
NETWORK = """
[network]
vpc_id = "vpc-0123456789abcdef0"
subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
security_group_ids = ["sg-0123456789abcdef0"]
"""
ENCRYPTION = f"""
[encryption]
key_arn = "{KEY_ARN}"
"""

BUDGET = """
[budget]
per_run = 50
per_month = 200
"""
CLOSED = f"""{NETWORK}reward_security_group_ids = ["sg-0123456789abcdef1"]
"""

# Teams made of the sample team "quotes" by changing the text of its file: one for every shape of a stack.
VARIANTS = {
    # Equal but for its name, owner and tags.
    "twins": lambda text: text.replace("quotes-ml@example.com", "twins@example.com").replace(
        'cost-center = "sales-tools"', 'cost-center = "twins"'
    ),
    "walled": lambda text: text + NETWORK + ENCRYPTION,
    "closed": lambda text: text + CLOSED,
    "deploying": lambda text: re.sub(r'train_when = ".*"', 'train_when = "on-deploy"', text),
    "uploading": lambda text: re.sub(r'train_when = ".*"', 'train_when = "on-upload"', text),
    "remote": lambda text: text.replace(
        '"data/train.jsonl"', '"s3://rows-elsewhere/quotes/train.jsonl"'
    ).replace('"data/evaluation.jsonl"', '"s3://rows-elsewhere/quotes/evaluation.jsonl"'),
    # Two of them, equal but for the name: what a bill is filtered by must not be in the template.
    "thrifty": lambda text: text + BUDGET,
    "sparing": lambda text: text + BUDGET,
    "watched": lambda text: re.sub(r"(?m)^(retention = .*)$", r"\1\ndashboard = true", text),
    # The same but for one setting that says how the reward function runs.
    "patient": lambda text: text.replace("[reward]\n", "[reward]\ntimeout_seconds = 120\nmemory_mb = 1024\n"),
}


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """What a synthesis wrote."""

    folder: Path

    def text(self, stack: str) -> str:
        """The template of a stack as it was written."""
        return (self.folder / f"{stack}.template.json").read_text()

    def template(self, stack: str) -> dict[str, Any]:
        """The template of a stack."""
        parsed: dict[str, Any] = json.loads(self.text(stack))
        return parsed

    def stack(self, stack: str) -> dict[str, Any]:
        """What the CDK CLI knows of a stack."""
        artifacts = json.loads((self.folder / "manifest.json").read_text())["artifacts"]
        properties: dict[str, Any] = artifacts[stack]["properties"]
        return properties

    @property
    def stacks(self) -> list[str]:
        """The names of all stacks."""
        return sorted(
            path.name.removesuffix(".template.json") for path in self.folder.glob("*.template.json")
        )


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two projects: the sample teams with the variants, and one whose platform bounds every role."""
    free, bounded = (tmp_path_factory.mktemp(name) for name in ("free", "bounded"))
    shutil.copytree(REPOSITORY / "teams", free / "teams")
    for name, change in VARIANTS.items():
        folder = shutil.copytree(free / "teams" / "quotes", free / "teams" / name)
        before = (folder / "team.toml").read_text()
        after = change(before)
        assert after != before, f"the variant {name} changes nothing: quotes/team.toml is not what it was"
        (folder / "team.toml").write_text(after)
    shutil.copytree(REPOSITORY / "teams" / "quotes", bounded / "teams" / "bounded")
    platform = (REPOSITORY / "teams" / "platform.toml").read_text()
    (bounded / "teams" / "platform.toml").write_text(f'permissions_boundary = "{BOUNDARY}"\n{platform}')
    return [free, bounded]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, projects: list[Path]) -> Path:
    """Stand-ins for what `rft package` builds: equal for equal teams, as the real ones are."""
    root = tmp_path_factory.mktemp("packages")
    (root / "workflow").mkdir()
    (root / "workflow" / "package.txt").write_text("workflow")
    for settings in (path for project in projects for path in project.glob("teams/*/team.toml")):
        folder = root / settings.parent.name / "reward"
        folder.mkdir(parents=True)
        (folder / "package.txt").write_text(str(tomllib.loads(settings.read_text())["reward"]["components"]))
    return root


def checked_app(folder: Path, platform: Platform | None = None) -> cdk.App:
    """An app as app.py makes it: with the flags of cdk.json, the security check and the guardrails."""
    app = unchecked_app(folder)
    check(app, platform or load_platform(REPOSITORY))
    return app


def unchecked_app(folder: Path) -> cdk.App:
    """The same without the checks, which are not what is measured or looked at."""
    context = json.loads((REPOSITORY / "cdk.json").read_text())["context"]
    return cdk.App(builtin_cloud_formation_validation=False, outdir=str(folder), context=context)


def synthesize(projects: list[Path], packages: Path, folder: Path) -> Assembly:
    """Synthesizes every stage of every team."""
    # The second project's platform only adds to the first one's: see tests/infra/test_guardrails.py.
    app = checked_app(folder, load_platform(projects[0]))
    for project in projects:
        platform = load_platform(project)
        for team in load_teams(project):
            for stage in team.stages:
                RftEnvironment(app, team=team, stage=stage, platform=platform, packages=packages, env=ENV)
    app.synth()
    return Assembly(folder=folder)


@pytest.fixture(scope="session")
def assembly(projects: list[Path], packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """Everything, synthesized once."""
    return synthesize(projects, packages, tmp_path_factory.mktemp("assembly"))
