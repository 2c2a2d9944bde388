"""`rft check`: all that can be known of a team before the first paid call, offline and in seconds.

The gates are those of the workflow, run by the same code on the same files: what stops here would have
stopped there, an upload and a deploy later. A gate that needs AWS is skipped and says so. Settings with
faults do not end a check: what is sound of them is checked all the same.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from infra.config import CASES, Gates, RewardSettings, SettingsError, Stage, Team, examine_team, load_platform
from infra.runs import cost_basis, run_settings
from lambdas import dataset, rehearsal
from lambdas.composition import Score, reference_completion, reward_range
from lambdas.contract import InfrastructureError, UnscorableError, parse_event
from lambdas.cost import Estimate, Range
from lambdas.dataset import Dataset, DatasetError, Rules
from lambdas.gate import Finding, Verdict
from lambdas.rehearsal import CasesError, Settings
from rft import scoring
from rft.differences import (
    FileDifference,
    RewardDifference,
    SettingChange,
    compare_rewards,
    compare_rows,
    compare_settings,
    reward_findings,
    sha256,
)
from rft.packaging import PackagingError, reward_sources
from rft.retire import expiring, missing_teams
from rft.revision import OldCodeError, Revision, revision
from rft.run_cost import Rows, cost_verdict, rows_of, run_cost, tried
from rft.scoring import ScoringError

# Completions a team has frozen to compare rewards by; lines as `rft score --completions` takes them.
ROLLOUTS: Final = "rollouts.jsonl"

# A slow reward is rehearsed on fewer rows; nobody waits longer for a check.
_REHEARSAL_SECONDS: Final = 30.0
# Beside the package, what decides whether a reward function gets a new version.
_MAY_CHANGE_VERSIONS: Final = ("infra/functions.py", "infra/rewards.py", "rft/packaging.py")

Level = Literal["pass", "warn", "stop", "skipped"]
Event = dict[str, Any]


class CheckError(Exception):
    """What is asked for cannot be checked; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate's verdict, or why there is none here."""

    name: str
    verdict: Verdict | None = None
    skipped: str = ""
    """Why it was not run, as a whole sentence."""
    says: str = ""
    """What is worth knowing of a gate that lets pass, in a few words."""

    @property
    def level(self) -> Level:
        """Its verdict in a word."""
        return self.verdict.verdict if self.verdict else "skipped"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that it found."""
        return self.verdict.findings if self.verdict else ()

    def document(self) -> dict[str, Any]:
        """The gate as JSON values: the document of lambdas/gate.py, whose verdict may also be "skipped"."""
        if self.verdict:
            return self.verdict.document()
        return {
            "gate": self.name,
            "verdict": "skipped",
            "sentence": self.skipped,
            "findings": [],
            "facts": {},
        }


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a run of today's files is named by, and what starts it.

    Attributes:
        dataset: Identity of the rows; None where they are in S3.
        reward: Identity of the reward function's package, which is our own and not the Lambda version's.
        settings: base_model, training, measurement and promotion, as a run has them.
        starts: By stage, what starts a run there.
    """

    dataset: str | None
    reward: str
    settings: Mapping[str, Any]
    starts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run may cost, by today's prices; ranges are (lowest, highest).

    Attributes:
        tokens: Of training, prompts and completions.
        total: What has a price.
        currency: Its currency.
        unpriced: The parts without a price.
    """

    tokens: tuple[float, float]
    total: tuple[float, float]
    currency: str
    unpriced: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Against:
    """What is different from an earlier revision.

    Attributes:
        revision: As it was asked for.
        commit: The commit that was compared with.
        new_team: Whether the team was not there.
        new_run: Whether a run of today's content is another one than a run of then; None where that cannot
            be known.
        reasons: What makes it another one, or what keeps that from being known.
        settings: Every setting with another value.
        files: Files of rows that differ.
        rewards: How the reward of then and today's agree, where the reward has changed.
        costs: What a run of then and one of today may cost, where it is another run and that is known.
        notes: What could not be compared, and why.
    """

    revision: str
    commit: str
    new_team: bool = False
    new_run: bool | None = None
    reasons: Sequence[str] = ()
    settings: Sequence[SettingChange] = ()
    files: Sequence[FileDifference] = ()
    rewards: Sequence[RewardDifference] = ()
    costs: Sequence[Cost] = ()
    notes: Sequence[str] = ()

    @property
    def run_sentence(self) -> str:
        """Whether this is a new run, and why."""
        why = "; ".join(self.reasons)
        if self.new_run:
            return f"A run on this is a new run: {why}."
        if self.new_run is None:
            return f"Whether a run on this is a new run cannot be said here: {why}."
        return (
            "A run on this is no new run: rows, reward, model and settings are the same, so it is found, not"
            " repeated."
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """All that a check found."""

    team: str
    gates: Sequence[Gate]
    content: Content | None
    against: Against | None = None

    @property
    def verdict(self) -> Literal["pass", "warn", "stop"]:
        """The gravest of the gates'; a skipped one has none."""
        levels = {gate.level for gate in self.gates}
        return "stop" if "stop" in levels else "warn" if "warn" in levels else "pass"

    @property
    def sentence(self) -> str:
        """The check in one sentence."""
        by = {
            level: sum(finding.level == level for gate in self.gates for finding in gate.findings)
            for level in ("stop", "warn")
        }
        skipped = [gate.name for gate in self.gates if gate.level == "skipped"]
        rest = f" Not checked: {', '.join(skipped)}." if skipped else ""
        warnings = f"{by['warn']} warning{'' if by['warn'] == 1 else 's'}"
        match self.verdict:
            case "stop":
                what = "1 finding stops" if by["stop"] == 1 else f"{by['stop']} findings stop"
                more = f", with {warnings}" if by["warn"] else ""
                return f"{self.team} would fail: {what} a run{more}.{rest}"
            case "warn":
                return f"{self.team} passes with {warnings}.{rest}"
        return f"{self.team} passes: there is nothing to object to.{rest}"

    def document(self) -> dict[str, Any]:
        """The check as JSON values; docs/operations.md describes them."""
        return {
            "team": self.team,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "gates": [gate.document() for gate in self.gates],
            "content": dataclasses.asdict(self.content) if self.content else None,
            "against": dataclasses.asdict(self.against) if self.against else None,
        }


def check(
    root: Path,
    name: str,
    *,
    stage: str | None = None,
    against: str | None = None,
    today: datetime.date | None = None,
    tell: Callable[[str], None] = lambda _step: None,
) -> Check:
    """Checks a team offline.

    Args:
        root: The project's folder.
        name: The team's name.
        stage: The stage to speak of; all of them without one.
        against: A git revision to compare with.
        today: What expires is judged by it; nothing expires without one.
        tell: Hears what is being done.

    Raises:
        CheckError: The team has no such stage.
        ChangesError: There is no such revision.
        CloudError: What has been retired since then cannot be told.
    """
    tell("settings")
    team, parts, faults = examine_team(root, name)
    stages: Mapping[str, Any] = parts.get("stages", {})
    if stage is not None and stages and stage not in stages:
        raise CheckError(f"team {name} has no stage {stage!r} (stages: {', '.join(stages)})")
    folder = root / "teams" / name
    settings = Gate(
        name="settings",
        verdict=Verdict("settings", tuple(Finding("settings", "stop", f"{each}.") for each in faults)),
        says=f"stages {', '.join(stages)}" if stages else "",
    )
    tell("dataset")
    rows, found = _dataset_gate(folder, parts)
    tell("rehearsal")
    scored = _Scored()
    # What the code of a team prints is not for who reads our output.
    with contextlib.redirect_stdout(sys.stderr):
        rehearsed = _rehearsal_gate(folder, parts, found, scored, faults=bool(faults))
    content = _content(root, team, stage, found) if team else None
    cost, estimate = _cost_gate(root, team, content, found, rehearsed)
    endings = [
        Finding("expires", "warn", f"{each}.") for each in (expiring([team], today) if team and today else ())
    ]
    gates = [settings, rows, rehearsed, cost]
    difference = None
    if against is not None:
        tell(f"compare with {against}")
        with revision(root, name, against) as old, contextlib.redirect_stdout(sys.stderr):
            comparison = _Comparison(root, folder, team, content, old, scored, estimate)
            difference = comparison.made()
        endings += _left_behind(root, difference.commit)
        verdict = Verdict("difference", tuple(comparison.findings))
        gates.append(Gate(name="difference", verdict=verdict, says=_difference_says(difference)))
    if endings or against is not None:
        gates.append(Gate(name="endings", verdict=Verdict("endings", tuple(endings))))
    return Check(team=name, gates=gates, content=content, against=difference)


def _left_behind(root: Path, since: str) -> list[Finding]:
    """Finds stages of all teams that are gone from the repository and still stand in an account."""
    try:
        told = missing_teams(root, since)
    except SettingsError as error:
        told = [*error.faults]
    return [Finding("left-behind", "stop", f"{each}.") for each in told]


# --- The dataset


def _dataset_gate(folder: Path, parts: Mapping[str, Any]) -> tuple[Gate, dict[str, Dataset]]:
    """Returns the gate, and what the files turned out to hold that can be used."""
    places = parts.get("dataset")
    if places is None:
        return Gate(name="dataset", skipped="[dataset] of team.toml has to be mended first."), {}
    rules = Rules(**parts.get("gates", Gates()).dataset.model_dump())
    training = parts.get("training")
    files: dict[str, str] = places.files()
    held_out = {"rows": dataset.EVALUATION_ROWS, "row_bytes": dataset.EVALUATION_ROW_BYTES}
    found: dict[str, Dataset] = {}
    troubles: list[DatasetError] = []
    elsewhere: list[str] = []
    for (file, place), near in zip(
        files.items(), dataset.near_duplicates(rules, len(files) - 1), strict=True
    ):
        if place.startswith("s3://"):
            elsewhere.append(place)
            continue
        name = f"teams/{folder.name}/{place}"
        try:
            found[file] = _read(
                folder / place,
                name,
                max_prompt_length=training.max_prompt_length if training else None,
                near=near,
                look_for_personal_data=rules.personal_data,
                **({} if file == "train" else held_out),
            )
        except DatasetError as error:
            troubles.append(error)
    for file in [each for each in found if each != "train"] if "train" in found else ():
        with (folder / files[file]).open("rb") as stream:
            items = dataset.held_out(
                stream, dataset.EVALUATION_ROWS[0], training=found["train"].prompts.keys()
            )
        try:
            dataset.require_held_out(len(items), train=found["train"].name, evaluation=found[file].name)
        except DatasetError as error:
            troubles.append(error)
    if troubles:
        findings = [finding for error in troubles for finding in error.findings]
        trouble = DatasetError("\n".join(map(str, troubles)), findings)
        return Gate(name="dataset", verdict=dataset.refusal(trouble)), found
    if len(elsewhere) == len(files):
        skipped = f"{' and '.join(elsewhere)} are not readable offline: a run checks them before all else."
        return Gate(name="dataset", skipped=skipped), found
    if elsewhere:
        them = "it" if len(elsewhere) == 1 else "them"
        sentence = (
            f"{' and '.join(elsewhere)} {'is' if them == 'it' else 'are'} not readable offline: a run checks"
            f" {them}, and all files together."
        )
        facts = {file: each.profile() for file, each in found.items()}
        verdict = Verdict("dataset", (Finding("elsewhere", "info", sentence),), facts)
    else:
        verdict = dataset.judge(
            found["train"], found["evaluation"], rules, regression=found.get("regression")
        )
    purposes = {
        "train": "rows to train on",
        "evaluation": "rows to measure on",
        "regression": "rows not to unlearn",
    }
    told = [f"{each.rows:,} {purposes[file]}" for file, each in found.items()]
    return Gate(name="dataset", verdict=verdict, says=", ".join(told)), found


def _read(path: Path, name: str, **limits: Any) -> Dataset:
    try:
        if path.stat().st_size > dataset.FILE_BYTES:
            raise DatasetError(f"{name} is larger than {dataset.FILE_BYTES:,} bytes: take a sample of it")
        with path.open("rb") as stream:
            return dataset.check(stream, name, **limits)
    except OSError as error:
        raise DatasetError(f"{name} cannot be read: {error.strerror}") from error


# --- The rehearsal


class _Scored:
    """Every different completion that a rehearsal has tried, and what it earned."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[Event, float]] = {}

    def through(self, score: rehearsal.ScoreBatch) -> rehearsal.ScoreBatch:
        """Returns a function that scores alike and remembers it."""

        def batch(events: list[Event]) -> list[dict[str, Any]]:
            rewards = score(events)
            for event, reward in zip(events, rewards, strict=True):
                key = repr((event["messages"], event["metadata"]))
                self.found.setdefault(key, (event, reward["score"]))
            return rewards

        return batch


def _rehearsal_gate(
    folder: Path, parts: Mapping[str, Any], found: Mapping[str, Dataset], scored: _Scored, *, faults: bool
) -> Gate:
    reward: RewardSettings | None = parts.get("reward")
    if reward is None:
        return Gate(name="rehearsal", skipped="[reward] of team.toml has to be mended first.")
    try:
        cases = _cases(folder)
    except CasesError as error:
        lines = tuple(Finding("case", "stop", f"{line}.") for line in str(error).splitlines())
        return Gate(name="rehearsal", verdict=Verdict("rehearsal", lines))
    if asking := scoring.judges(reward):
        return Gate(
            name="rehearsal",
            skipped=f"{' and '.join(asking)}, which answers on AWS only: a run rehearses it there.",
        )
    try:
        score = scoring.composed(folder, reward)
    except (ScoringError, SystemExit) as error:
        if faults:
            return Gate(name="rehearsal", skipped="The settings of the reward have to be mended first.")
        words = (
            f"{error}."
            if isinstance(error, ScoringError)
            else "reward.py ends the program when it is loaded."
        )
        return Gate(name="rehearsal", verdict=Verdict("rehearsal", (Finding("reward", "stop", words),)))
    if "train" not in found:
        return Gate(
            name="rehearsal",
            skipped="There are no rows to train on that could be read: it takes those of the training file.",
        )
    verdict = _rehearse(folder, parts, score, cases, scored)
    return Gate(name="rehearsal", verdict=verdict, says=_rehearsal_says(verdict))


def _cases(folder: Path) -> list[rehearsal.Case]:
    path = folder / CASES
    try:
        return rehearsal.read_cases(path.read_bytes(), CASES) if path.exists() else []
    except OSError as error:
        raise CasesError(f"{CASES} cannot be read: {error.strerror}") from error


def _rehearse(
    folder: Path,
    parts: Mapping[str, Any],
    score: Score,
    cases: Sequence[rehearsal.Case],
    scored: _Scored,
) -> Verdict:
    reward: RewardSettings = parts["reward"]
    limits = parts.get("gates", Gates()).rehearsal.model_dump()
    named = frozenset(case.row for case in cases if not case.form)
    try:
        with (folder / parts["dataset"].train).open("rb") as lines:
            rows, rows_of_cases, count = rehearsal.sample(lines, limits["rows"], named)
        return rehearsal.rehearse(
            rows,
            scored.through(rehearsal.offline(score, reward.document())),
            Settings.of({**reward.rehearsed(), **limits}),
            of=count,
            cases=cases,
            named=rows_of_cases,
            write=lambda row: _reference(score, row),
            budget_seconds=_REHEARSAL_SECONDS,
        )
    except CasesError as error:
        findings = tuple(Finding("case", "stop", f"{line}.") for line in str(error).splitlines())
    except InfrastructureError as error:
        sentence = f"The reward function needs what is not there, so it was not rehearsed: {error}."
        findings = (Finding("unavailable", "warn", sentence),)
    except SystemExit:
        findings = (Finding("broken", "stop", "The reward function ends the program that calls it."),)
    return Verdict("rehearsal", findings)


def _reference(score: Score, row: Mapping[str, Any]) -> str | None:
    """Writes a row's reference as the reward's own components would."""
    event = {
        "id": row["id"],
        "messages": [*row["messages"], {"role": "assistant", "content": ""}],
        "metadata": {**row["metadata"], "reference_answer": row["reference_answer"]},
    }
    try:
        return reference_completion(score, parse_event([event])[0])
    except UnscorableError:
        return None


def _rehearsal_says(verdict: Verdict) -> str:
    facts = verdict.facts
    if "hackability" not in facts:
        return ""
    references = facts["references"]
    return (
        f"{references['share_at_maximum']:.0%} of {references['rows']:,} references earn the maximum;"
        f" hackability {facts['hackability']:.2f}, allowed is under {facts['max_hackability']:g}"
    )


# --- What a run is


def _content(root: Path, team: Team, stage: str | None, found: Mapping[str, Dataset]) -> Content | None:
    try:
        files = _package(root, team.folder, team.reward.document())
    except PackagingError:
        # A team's own code that is missing or does not parse is told with the settings.
        return None
    run = run_settings(team, source={}, reward_version="")
    stages: Mapping[str, Stage] = team.stages
    return Content(
        dataset=dataset.identity(*(each.sha256 for each in found.values()))
        if len(found) == len(team.dataset.files())
        else None,
        reward=hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest(),
        settings={key: value for key, value in run.items() if key not in ("source", "reward_version")},
        starts={name: each.train_when for name, each in stages.items() if stage in (None, name)},
    )


def _package(root: Path, folder: Path, reward: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of all that a reward function's package is made of, by path."""
    files, locks = reward_sources(root, folder, reward)
    listed = {lock.relative_to(root).as_posix(): lock.read_bytes() for lock in locks}
    return {name: hashlib.sha256(content).hexdigest() for name, content in {**files, **listed}.items()}


# --- The cost


def _cost_gate(
    root: Path,
    team: Team | None,
    content: Content | None,
    found: Mapping[str, Dataset],
    rehearsed: Gate,
) -> tuple[Gate, Callable[[Rows, Mapping[str, Any], Mapping[str, Any]], Estimate] | None]:
    """Returns the gate and, where there is one, what estimates any run of the team by today's prices."""
    if team is None or content is None:
        return Gate(name="cost", skipped="The settings have to be mended first."), None
    if len(found) < len(team.dataset.files()):
        return Gate(name="cost", skipped="Not all rows could be read, and all of them are paid for."), None
    try:
        basis = cost_basis(team, load_platform(root))
    except SettingsError:
        return Gate(
            name="cost", skipped="teams/platform.toml, which has the prices, has to be mended first."
        ), None
    batches = rehearsed.verdict.facts.get("latency", {}).get("batches", []) if rehearsed.verdict else []
    seconds = batches[-1]["seconds"] / batches[-1]["size"] if batches else 0.0

    def estimate(rows: Rows, run: Mapping[str, Any], reward: Mapping[str, Any]) -> Estimate:
        own = {**basis["reward"], **{key: reward[key] for key in ("memory_mb", "seconds_per_sample")}}
        return run_cost(rows, run, {**basis, "reward": own}, team.gates.signal.prompts, seconds)

    rows = rows_of(*(team.folder / place for place in team.dataset.files().values()))
    made = estimate(rows, content.settings, team.reward.document())
    says = _cost_says(made, tried(rows, content.settings))
    return Gate(name="cost", verdict=cost_verdict(made, basis), says=says), estimate


def _cost_says(made: Estimate, tried: int) -> str:
    tokens = made.parts[0].quantities["tokens"]
    amount = f"{_amount(tokens.low)} to {_amount(tokens.high)} tokens of training"
    return (
        f"{amount}; {made.money(made.total)}"
        + (f" without {', '.join(part.name for part in made.unpriced)}" if made.unpriced else "")
        + (f"; {tried:,} training prompts are tried first, and none is taken to be left out" if tried else "")
    )


def _amount(count: float) -> str:
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{round(count):,}"


# --- What has changed


class _Comparison:
    """A team beside itself at an earlier revision."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        team: Team | None,
        content: Content | None,
        old: Revision,
        scored: _Scored,
        estimate: Callable[[Rows, Mapping[str, Any], Mapping[str, Any]], Estimate] | None,
    ) -> None:
        self._root = root
        self._estimate = estimate
        self._folder = folder
        self._team = team
        self._content = content
        self._old = old
        self._scored = scored
        self._reasons: list[str] = []
        self._unknown: list[str] = []
        self._notes: list[str] = []
        self.findings: list[Finding] = []

    def made(self) -> Against:
        """Compares all that can be compared."""
        old = self._old
        if not old.folder.exists():
            reasons = ["the team is new"]
            return Against(revision=old.name, commit=old.commit, new_team=True, new_run=True, reasons=reasons)
        before: dict[str, Any] = {}
        try:
            before = old.settings()
        except OldCodeError as error:
            self._unknown.append(f"the settings at {old.name} cannot be read: {error}")
        files = self._files(before)
        settings: list[SettingChange] = []
        rewards: list[RewardDifference] = []
        costs: tuple[Cost, ...] = ()
        if self._team and self._content and before:
            today = self._team.model_dump(mode="json", exclude={"folder", "name"})
            settings = compare_settings(before["settings"], today)
            self._compare_runs(before["run"])
            # A function's place in the network is part of its version, and none of its package.
            self._unknown += [
                f"{each.key} has changed, which can make a new version of the same reward"
                for each in settings
                if each.key.startswith("network.")
            ]
            rewards = self._rewards(self._team, before["reward"])
            costs = self._costs(self._team, self._content, before)
        elif before:
            self._unknown.append("today's settings have to be mended first")
        return Against(
            revision=old.name,
            commit=old.commit,
            new_run=True if self._reasons else None if self._unknown else False,
            reasons=self._reasons or self._unknown,
            settings=settings,
            files=files,
            rewards=rewards,
            costs=costs,
            notes=[*self._notes, *(self._unknown if self._reasons else [])],
        )

    def _files(self, before: Mapping[str, Any]) -> list[FileDifference]:
        was = before["settings"]["dataset"] if before else _places(self._old.folder)
        now = self._team.dataset.model_dump() if self._team else _places(self._folder)
        found = []
        for file in dataset.FILES:
            # An optional file that there is not is no place at all.
            places = [was.get(file) or "", now.get(file) or ""]
            if not any(places):
                continue
            remote = [place for place in places if place.startswith("s3://")]
            if remote:
                if places[0] == places[1]:
                    self._unknown.append(f"the rows of {places[0]} may be others by now")
                else:
                    self._unknown.append(
                        f"the rows of {file} come from {places[1]}, and came from {places[0]}"
                    )
                continue
            paths = [
                folder / place if place and (folder / place).is_file() else None
                for folder, place in zip((self._old.folder, self._folder), places, strict=True)
            ]
            if difference := compare_rows(file, *paths):
                found.append(difference)
                self._reasons.append(f"rows of {file}: {difference.words}")
        return found

    def _compare_runs(self, before: Mapping[str, Any]) -> None:
        today = self._content.settings if self._content else {}
        same = {key: each for key, each in before.items() if key not in ("source", "reward_version")}
        for change in compare_settings(same, today):
            self._reasons.append(f"{change.key}: {change.before} → {change.after}")

    def _costs(self, team: Team, content: Content, before: Mapping[str, Any]) -> tuple[Cost, ...]:
        """Returns what a run would have cost then and what it costs today, both by today's prices."""
        if self._estimate is None or not self._reasons:
            return ()
        made = []
        for folder, places, run, reward in (
            (self._old.folder, before["settings"]["dataset"], before["run"], before["reward"]),
            (team.folder, team.dataset.model_dump(), content.settings, team.reward.document()),
        ):
            try:
                rows = rows_of(*(folder / place for place in map(places.get, dataset.FILES) if place))
                made.append(self._estimate(rows, run, reward))
            except (OSError, ValueError, KeyError, TypeError):
                self._notes.append(
                    f"the cost at {self._old.name} cannot be estimated: its rows are not there"
                )
                return ()
        return tuple(
            Cost(
                tokens=_ends(each.parts[0].quantities["tokens"]),
                total=_ends(each.total),
                currency=each.currency,
                unpriced=[part.name for part in each.unpriced],
            )
            for each in made
        )

    # The reward

    def _rewards(self, team: Team, before: Mapping[str, Any]) -> list[RewardDifference]:
        """Notes whether the reward has changed; if so, scores the same completions with both."""
        today = team.reward.document()
        files = self._changed_files(before, today)
        if not files:
            self._look_beside_the_package()
            return []
        self._reasons.append(f"the reward: {_listed(files)}")
        if asked := [each for each in (before, today) if _asks_a_judge(each)]:
            which = "today's reward" if asked[0] is today else f"the reward at {self._old.name}"
            self._notes.append(f"the rewards were not compared, because {which} asks a judge on AWS")
            return []
        sets = {"rehearsal": [*self._scored.found.values()], "rollouts": self._rollouts(team)}
        events = [event for each in sets.values() for event, _ in each]
        if not events:
            self._notes.append("the rewards were not compared, because there is no completion to score")
            return []
        try:
            span, scores = self._old.scores(events)
        except OldCodeError as error:
            self._notes.append(f"the reward at {self._old.name} cannot score: {error}")
            return []
        found = []
        for source, each in sets.items():
            given, scores = scores[: len(each)], scores[len(each) :]
            if each:
                difference = compare_rewards(
                    source,
                    [(_row_of(event, source), _completion(event)) for event, _ in each],
                    (span, given),
                    (reward_range(today), [score for _, score in each]),
                )
                found.append(difference)
                self.findings += reward_findings(difference)
        return found

    def _changed_files(self, before: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
        try:
            new = _package(self._root, self._folder, today)
            old = _package(self._old.root, self._old.folder, before)
        except PackagingError as error:
            return [f"what it was made of cannot be read: {error}"]
        return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))

    def _look_beside_the_package(self) -> None:
        for name in _MAY_CHANGE_VERSIONS:
            paths = [root / name for root in (self._old.root, self._root)]
            if all(path.is_file() for path in paths) and sha256(paths[0]) != sha256(paths[1]):
                self._unknown.append(f"{name} has changed, which can make a new version of the same reward")

    def _rollouts(self, team: Team) -> list[tuple[Event, float]]:
        path = self._folder / ROLLOUTS
        if not path.exists():
            return []
        try:
            rows = scoring.dataset_rows(self._root, team)
            answered = scoring.completions(path, rows, rows)
        except (ScoringError, DatasetError) as error:
            faults = str(error).replace(f"{path}", f"teams/{team.name}/{ROLLOUTS}").splitlines()
            self.findings += [Finding("rollouts", "stop", f"{fault}.") for fault in faults]
            return []
        events = [
            {
                "id": row.id,
                "messages": [*row.data["messages"], message],
                "metadata": {key: value for key, value in row.data.items() if key not in ("messages", "id")},
            }
            for row, message in answered
        ]
        try:
            scores = scoring.score_completions(team, answered, lambda _done: None)
        except ScoringError as error:
            self._notes.append(f"{ROLLOUTS} was not scored: {error}")
            return []
        return [(event, each.score) for event, each in zip(events, scores.found, strict=True)]


def _ends(amount: Range) -> tuple[float, float]:
    return amount.low, amount.high


def _asks_a_judge(reward: Mapping[str, Any]) -> bool:
    return any(component["function"] == "judge" for component in reward["components"].values())


def _row_of(event: Event, source: str) -> str:
    # The rehearsal numbers the events of a batch behind the row's id.
    return str(event["id"]).rpartition("-")[0] if source == "rehearsal" else str(event["id"])


def _completion(event: Event) -> str:
    message = event["messages"][-1]
    return str(message.get("content") or message.get("tool_calls") or "")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - 4
    return ", ".join(names[:4]) + (f" and {more} more files" if more > 0 else "")


def _places(folder: Path) -> dict[str, str]:
    """Returns what [dataset] of a team file says, where it can be read as TOML."""
    try:
        table = tomllib.loads((folder / "team.toml").read_text(encoding="utf-8")).get("dataset", {})
        return {key: value for key, value in table.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):
        return {}


def _difference_says(difference: Against) -> str:
    if difference.new_team:
        return f"the team is not at {difference.revision}"
    told = [f"{each.file} rows changed" for each in difference.files]
    told += ["settings changed"] if difference.settings else []
    told += [
        f"on {each.completions:,} completions of the {each.source} {each.flipped:.0%} flip, correlation"
        f" {'none' if each.correlation is None else f'{each.correlation:.2f}'}"
        for each in difference.rewards
    ]
    run = {True: "a new run", False: "no new run", None: "perhaps a new run"}[difference.new_run]
    return "; ".join([*told, run])
