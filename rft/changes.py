"""What a change of the repository means for deployed stacks: what it touches, and what would be lost."""

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.config import Team, team_names

# A change of one of these can change the template of every team.
_SHARED = re.compile(
    r"(app\.py|cdk\.json|package-lock\.json|pyproject\.toml|(infra|lambdas|requirements)/.*"
    r"|rft/packaging\.py|teams/platform\.toml)"
)
_TEAM = re.compile(r"teams/([^/]+)/.+")

# What `cdk diff` says of a resource: what happens to it, its type and its path with the logical id.
_CHANGE = re.compile(r"^\[([-+~])\] (\S+) (.+?)(?: (destroy|orphan|replace|may be replaced))?\s*$")
# What cannot be had back, or what others hold on to by its name.
_STATEFUL = frozenset(
    {
        "AWS::KMS::Key",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SNS::Topic",
        "AWS::SSM::Parameter",
        "AWS::StepFunctions::StateMachine",
    }
)


# The order of stages where `[delivery]` of platform.toml gives none.
WAVES = ("dev", "prod")


class ChangesError(Exception):
    """Git cannot say what has changed; the message says why and what to do."""


def git(root: Path, *words: str, to: str) -> bytes:
    """Returns what git says in a folder; `to` says what it is asked for, after "git cannot".

    Raises:
        ChangesError: It cannot say it.
    """
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)  # noqa: S607 - the git of the PATH
    except OSError as error:
        raise ChangesError(f"git cannot {to} ({error.strerror}): install it") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ChangesError(
            f"git cannot {to} ({said[0] if said else 'no reason given'}): fetch the whole history, or name"
            " another revision"
        )
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Stacks of one stage that go to one account and region together."""

    account: str
    """12 digits, or "default": the account of the credentials in use."""
    region: str
    """A region, or "default"."""
    teams: tuple[str, ...]
    stacks: tuple[str, ...]

    def document(self) -> dict[str, str]:
        """Returns it as a workflow's matrix takes it."""
        return {
            "account": self.account,
            "region": self.region,
            "teams": ",".join(self.teams),
            "stacks": " ".join(self.stacks),
        }


def revision(root: Path) -> str | None:
    """Returns the commit of the sources, with "-dirty" where they differ from it; None outside of git."""
    words = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        return git(root, *words, to="name the commit").decode().strip()
    except ChangesError:
        return None


def changed_teams(root: Path, since: str) -> list[str]:
    """Returns the teams whose stacks the commits since a revision can change; those that are gone are not.

    Raises:
        ChangesError: There is no such revision, or this is no git checkout.
    """
    words = ("diff", "--name-only", "--no-renames", "-z", f"{since}...HEAD")
    said = git(root, *words, to=f"compare HEAD with {since}").decode(errors="surrogateescape")
    paths = [path for path in said.split("\0") if path]
    known = team_names(root)
    if any(_SHARED.fullmatch(path) for path in paths):
        return known
    touched = {found[1] for path in paths if (found := _TEAM.fullmatch(path))}
    return [name for name in known if name in touched]


def wave(teams: Iterable[Team], stage: str) -> list[Deployment]:
    """Returns what has to be deployed where, for the teams that have the stage."""
    places: dict[tuple[str, str], list[Team]] = {}
    for team in teams:
        if stage in team.stages:
            where = team.stages[stage]
            places.setdefault((where.account or "default", where.region or "default"), []).append(team)
    return [
        Deployment(
            account=account,
            region=region,
            teams=tuple(team.name for team in found),
            stacks=tuple(team.stack_id(stage) for team in found),
        )
        for (account, region), found in sorted(places.items())
    ]


def losses(diff: str) -> list[str]:
    """Returns what a `cdk diff` would take away that holds state: a sentence for each resource.

    A resource that the stack leaves behind is a loss as well: a new one takes its place, and it is empty.
    """
    found = []
    for line in diff.splitlines():
        match = _CHANGE.match(line)
        if match is None or match[2] not in _STATEFUL:
            continue
        if fate := match[4] or ("destroy" if match[1] == "-" else ""):
            verb = {
                "destroy": "is deleted",
                "orphan": "is left behind",
                "replace": "is replaced",
                "may be replaced": "may be replaced",
            }[fate]
            found.append(f"{match[2]} {match[3]} {verb}")
    return found
