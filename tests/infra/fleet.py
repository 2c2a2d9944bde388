"""Generated teams, as many as are asked for: five shapes in one account for dev and two for prod."""

import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import aws_cdk as cdk

from infra.config import load_platform, load_teams
from infra.environment import RftEnvironment
from tests.infra.conftest import (
    BOUNDARY,
    CLOSED,
    REGION,
    REPOSITORY,
    VARIANTS,
    Assembly,
    checked_app,
    unchecked_app,
)

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


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The generated teams, their project, and what was synthesized of each."""

    members: list[Member]
    project: Path
    assemblies: dict[Member, Assembly]

    def text(self, member: Member) -> str:
        """The template of a team as it was written."""
        return self.assemblies[member].text(member.stack)


def fleet(
    root: Path, count: int, *, shapes: Sequence[str] = tuple(SHAPES), processes: int = 1, checked: bool = True
) -> Fleet:
    """Writes the teams' files and synthesizes all of them, in one app for each process.

    Each app knows the whole project and makes its share of the teams, as `cdk synth -c team=a,b` does.
    """
    members = [
        Member(
            team=f"team-{number:03}",
            shape=shapes[number % len(shapes)],
            account=ACCOUNTS[number // len(shapes) % len(ACCOUNTS)],
        )
        for number in range(count)
    ]
    _write(root, members)
    shares = [members[number::processes] for number in range(processes)]
    folders = [root / f"assembly-{number}" for number in range(processes)]
    if processes == 1:
        _synthesize(root, folders[0], members, checked)
    else:
        # Not forked: the library's process cannot be shared.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_synthesize, [root] * processes, folders, shares, [checked] * processes))
    return Fleet(
        members=members,
        project=root / "project",
        assemblies={
            member: Assembly(folder=folder)
            for folder, share in zip(folders, shares, strict=True)
            for member in share
        },
    )


def _write(root: Path, members: list[Member]) -> None:
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


def _synthesize(root: Path, folder: Path, members: list[Member], checked: bool) -> None:
    platform = load_platform(root / "project")
    app = checked_app(folder, platform) if checked else unchecked_app(folder)
    teams = {team.name: team for team in load_teams(root / "project", [each.team for each in members])}
    for member in members:
        RftEnvironment(
            app,
            team=teams[member.team],
            stage=member.stage,
            platform=platform,
            packages=root / "packages",
            env=cdk.Environment(account=member.account, region=REGION),
        )
    app.synth()
