"""What the repository knows of endings: which stages have expired, are retired, or are forgotten.

`teams/retired.toml` remembers what a deleted folder cannot: where a stage was, when it ended, what was kept.

    [quotes.dev]
    date = 2027-01-31
    account = "111122223333"
    region = "us-east-1"
    kept = ["bucket rft-quotes-dev-datasets-0123456789ab"]
"""

import datetime
import json
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from infra.config import TEAM_FILE, TEAMS, Account, Region, SettingsError, Stage, Table, Team, team_names
from infra.faults import plain, read_toml
from rft.changes import git

RETIRED_FILE: Final = "retired.toml"

_HEAD: Final = """\
# Stages that are gone, written by `rft retire`; a team's folder may go when its stages are listed here.
"""
_DAYS_OF_WARNING: Final = 14


class Retired(Table):
    """One `[<team>.<stage>]` of `teams/retired.toml`: where it was, when it ended and what was kept."""

    date: datetime.date
    account: Account
    region: Region
    kept: Annotated[tuple[str, ...], Field(strict=False)] = ()


_Stages = TypeAdapter(dict[str, dict[str, Retired]])


def expired(teams: Iterable[Team], today: datetime.date) -> list[dict[str, str]]:
    """Returns the stages whose last day is over, with where they are: what the nightly workflow retires."""
    return [
        place(team, stage)
        for team in teams
        for stage in team.stages.values()
        if stage.expires and stage.expires < today
    ]


def place(team: Team, stage: Stage) -> dict[str, str]:
    """Returns where a stage is, as a pipeline wants to know it; "default" is what the credentials say."""
    return {
        "team": team.name,
        "stage": stage.name,
        "account": stage.account or "default",
        "region": stage.region or "default",
    }


def expiring(teams: Iterable[Team], today: datetime.date) -> list[str]:
    """Returns a sentence for every stage that has expired or is about to."""
    sentences = []
    for team in teams:
        for stage in team.stages.values():
            if not stage.expires or (stage.expires - today).days > _DAYS_OF_WARNING:
                continue
            where = f"{TEAMS}/{team.name}/{TEAM_FILE}: stages.{stage.name}"
            end = f"rft retire {team.name} --stage {stage.name}"
            sentences.append(
                f"{where} expired on {stage.expires}: retire it (`{end}`), or set a later date"
                if stage.expires < today
                else f"{where} expires after {stage.expires}: set a later date, or it is retired"
            )
    return sentences


def retired(root: Path) -> dict[str, dict[str, Retired]]:
    """Reads `teams/retired.toml`: `{team: {stage: what is known of it}}`, empty without the file.

    Raises:
        SettingsError: The file is wrong.
    """
    path = root / TEAMS / RETIRED_FILE
    return read_retired(root, path) if path.exists() else {}


def read_retired(root: Path, path: Path) -> dict[str, dict[str, Retired]]:
    """Reads a file like `teams/retired.toml`, wherever under the project's root it is.

    Raises:
        SettingsError: The file is wrong, or there is none.
    """
    file, faults = read_toml(root, path)
    if file is None:
        raise SettingsError(faults)
    try:
        return _Stages.validate_python(file.document)
    except ValidationError as error:
        raise SettingsError(file.faults(error, plain(_Stages.json_schema()))) from None


def record(root: Path, team: str, stage: str, entry: Retired) -> None:
    """Writes down that a stage is gone, in place of what was known of it."""
    known = retired(root)
    known.setdefault(team, {})[stage] = entry
    tables = [entry_text(team, stage, known[team][stage]) for team in sorted(known) for stage in known[team]]
    path = root / TEAMS / RETIRED_FILE
    beside = path.with_suffix(".tmp")
    beside.write_text("\n".join([_HEAD, *tables]), encoding="utf-8")
    # At once: a half-written file would be refused, and what it remembered lost.
    beside.replace(path)


def entry_text(team: str, stage: str, entry: Retired) -> str:
    """Returns the table of one stage as it stands in the file."""
    lines = [f"[{team}.{stage}]", f"date = {entry.date}"]
    lines += [f"account = {json.dumps(entry.account)}", f"region = {json.dumps(entry.region)}"]
    # What JSON says of a list of texts means the same in TOML.
    lines += [f"kept = {json.dumps(list(entry.kept))}"] if entry.kept else []
    return "\n".join(lines) + "\n"


def end(root: Path, team: str, stage: str, entry: Retired) -> list[str]:
    """Takes a stage that is gone out of the files: listed as retired, its table removed, or its folder.

    The folder goes with its last stage. A stage that has been set up elsewhere since then stays.

    Returns:
        A sentence for each thing that was done.

    Raises:
        SettingsError: The stage stands in its file in a form that only a person can take out.
    """
    folder = root / TEAMS / team
    file = folder / TEAM_FILE
    done = [f"{TEAMS}/{RETIRED_FILE} lists {team}.{stage}"]
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        stages = _stages(text.encode())
        if stage in stages and not _moved(stages[stage], (entry.account, entry.region)):
            if len(stages) == 1:
                shutil.rmtree(folder)
                done.append(f"{TEAMS}/{team} is removed with its rows: {stage} was its last stage")
            else:
                file.write_text(_without_stage(text, team, stage), encoding="utf-8")
                done.append(f"{TEAMS}/{team}/{TEAM_FILE} has no stage {stage} any more")
    record(root, team, stage, entry)
    return done


def _without_stage(text: str, team: str, stage: str) -> str:
    """A team's file without the table of a stage, and otherwise as it was written."""
    lines = text.splitlines(keepends=True)
    header = re.compile(rf"\s*\[\s*stages\s*\.\s*[\"']?{re.escape(stage)}[\"']?\s*\]\s*(#.*)?")
    starts = [number for number, line in enumerate(lines) if header.fullmatch(line.rstrip("\r\n"))]
    if starts:
        after = starts[0] + 1
        while after < len(lines) and not lines[after].lstrip().startswith("["):
            after += 1
        # What is said right above the next table belongs to it.
        while after < len(lines) and lines[after - 1].startswith("#"):
            after -= 1
        lines = lines[: starts[0]] + lines[after:]
    expected = tomllib.loads(text)
    del expected["stages"][stage]
    left = "".join(lines)
    try:
        found = tomllib.loads(left)
    except tomllib.TOMLDecodeError:
        found = {}
    if found != expected:
        raise SettingsError(
            [
                f"{TEAMS}/{team}/{TEAM_FILE}: stages.{stage}: is no table [stages.{stage}] of its own, so a "
                "person has to take it out"
            ]
        )
    return left


def missing_teams(root: Path, since: str) -> list[str]:
    """Returns a line for every stage that was there at a revision, is gone now, and is not retired.

    A renamed folder, a deleted stage and a stage that moves to another account or region leave a stack behind
    just as a deleted folder does. Works on the working tree, offline.

    Raises:
        ChangesError: Git knows no such revision, or this is no git checkout.
        SettingsError: `teams/retired.toml` is wrong.
    """
    ended = retired(root)
    faults = []
    present = {name: _stages((root / TEAMS / name / TEAM_FILE).read_bytes()) for name in _folders(root)}
    for name, stages in sorted(_at(root, since).items()):
        for stage, there in stages.items():
            now = present.get(name, {}).get(stage)
            if now is not None and not _moved(there, now):
                continue
            entry = ended.get(name, {}).get(stage)
            if entry and not _moved(there, (entry.account, entry.region)):
                continue
            what = "was renamed or deleted" if name not in present else "has no such stage any more"
            if now is not None:
                what = f"moves the stage from {_shown(there)} to {_shown(now)}"
            faults.append(
                f"{TEAMS}/{name}: {what}, and its stack rft-{name}-{stage} stays behind: put it back, "
                f"run `rft retire {name} --stage {stage}`, and bring {TEAMS}/{RETIRED_FILE} along"
            )
    for name, entries in ended.items():
        here = present.get(name, {})
        faults += [
            f"{TEAMS}/{RETIRED_FILE}: {name}.{stage} is listed as retired, and {TEAMS}/{name}/{TEAM_FILE} has"
            " it: remove it from one of the two"
            for stage, entry in entries.items()
            if stage in here and not _moved(here[stage], (entry.account, entry.region))
        ]
    return faults


_Place = tuple[str | None, str | None]


def _folders(root: Path) -> list[str]:
    return [name for name in team_names(root) if (root / TEAMS / name / TEAM_FILE).is_file()]


def _stages(text: bytes) -> dict[str, _Place]:
    """Account and region of every stage of a team file, as far as it can be read."""
    try:
        stages = tomllib.loads(text.decode()).get("stages")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        # Whoever reads the settings says so.
        return {}
    found: Mapping[str, Any] = stages if isinstance(stages, dict) else {}
    return {
        name: (table.get("account"), table.get("region"))
        for name, table in found.items()
        if isinstance(table, dict)
    }


def _moved(before: _Place, after: _Place) -> bool:
    """Whether two places cannot be the same; one that is left to the credentials can be any."""
    return any(old and new and old != new for old, new in zip(before, after, strict=True))


def _shown(place: _Place) -> str:
    return "/".join(part or "the default" for part in place)


def _at(root: Path, since: str) -> dict[str, dict[str, _Place]]:
    """The stages of all teams at a revision."""
    to = f"read {TEAMS}/ at {since}"
    listing = git(root, "ls-tree", "-r", "-z", "--name-only", since, "--", f"{TEAMS}/", to=to)
    paths = [path for path in listing.decode().split("\0") if path.count("/") == 2]
    return {
        path.split("/")[1]: _stages(git(root, "show", f"{since}:./{path}", to=to))
        for path in paths
        if path.endswith(f"/{TEAM_FILE}")
    }
