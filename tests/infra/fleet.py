"""Generated teams, as many as are asked for: five shapes in one account for dev and two for prod."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk

from infra.config import load_platform, load_teams
from infra.environment import RftEnvironment
from tests.infra.conftest import BOUNDARY, CLOSED, REGION, REPOSITORY, VARIANTS, Assembly, checked_app

ACCOUNTS = ("111122223333", "444455556666", "777788889999")
SHAPES: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "closed": lambda text: text + CLOSED,
    **{name: VARIANTS[name] for name in ("deploying", "watched", "patient")},
}
RULES = f"""\
permissions_boundary = "{BOUNDARY}"
lasting_stages = ["prod"]
"""
NETWORK_RULES = f"""
[accounts]
dev = {[*ACCOUNTS[:1]]}
prod = {[*ACCOUNTS[1:]]}
[network.vpcs.vpc-0123456789abcdef0]
subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
security_group_ids = ["sg-0123456789abcdef0", "sg-0123456789abcdef1"]
"""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One generated team, in the one stage and account that is synthesized."""

    team: str
    shape: str
    account: str

    @property
    def stage(self) -> str:
        """The stage that is deployed to its account."""
        return "dev" if self.account == ACCOUNTS[0] else "prod"

    @property
    def stack(self) -> str:
        """The name of its stack."""
        return f"rft-{self.team}-{self.stage}"


def fleet(root: Path, count: int) -> tuple[list[Member], Assembly, Path]:
    """Writes the teams' files, reads them as the app does, and synthesizes all of them in one app."""
    members = [
        Member(
            team=f"team-{number:03}",
            shape=list(SHAPES)[number % len(SHAPES)],
            account=ACCOUNTS[number // len(SHAPES) % len(ACCOUNTS)],
        )
        for number in range(count)
    ]
    project, packages = root / "project", root / "packages"
    (project / "teams").mkdir(parents=True)
    (packages / "workflow").mkdir(parents=True)
    (packages / "workflow" / "package.txt").write_text("workflow")
    sample = REPOSITORY / "teams" / "quotes"
    rules = (REPOSITORY / "teams" / "platform.toml").read_text()
    (project / "teams" / "platform.toml").write_text(RULES + rules + NETWORK_RULES)
    for member in members:
        folder = shutil.copytree(sample, project / "teams" / member.team)
        text = (sample / "team.toml").read_text().replace("quotes-ml@", f"{member.team}@")
        placed = re.sub(rf"(?m)^\[stages.{member.stage}\]$", rf'\g<0>\naccount = "{member.account}"', text)
        (folder / "team.toml").write_text(SHAPES[member.shape](placed))
        (packages / member.team / "reward").mkdir(parents=True)
        (packages / member.team / "reward" / "package.txt").write_text("reward")
    platform = load_platform(project)
    app = checked_app(root / "assembly", platform)
    teams = {team.name: team for team in load_teams(project)}
    for member in members:
        RftEnvironment(
            app,
            team=teams[member.team],
            stage=member.stage,
            platform=platform,
            packages=packages,
            env=cdk.Environment(account=member.account, region=REGION),
        )
    app.synth()
    return members, Assembly(folder=root / "assembly"), project
