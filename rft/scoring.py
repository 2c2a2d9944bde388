"""`rft score`: the deployed reward code on a team's rows, in this process, and what happened.

The reward is composed from the same [reward] table by the same code as in Lambda, each row is put into the
shape in which Bedrock sends it, and samples are scored in batches by the same function. What is shown is
made of what that function returns; nothing is scored a second way.

Completions and rows are strangers' text: whatever of it could steer a terminal or a spreadsheet is shown as
an escape instead.
"""

import csv
import io
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from infra.config import OWN_REWARD, RewardSettings, Team
from lambdas.composition import CompositionError, Score, compose, reference_completion, reward_range
from lambdas.contract import (
    TROUBLES,
    BrokenRewardError,
    InfrastructureError,
    Outcome,
    Sample,
    UnscorableError,
    parse_event,
    score_samples,
)
from lambdas.dataset import TRAINING_ROWS, check

# As many samples as a batch of the service has by default.
BATCH = 64

_SHOWN_ROWS = 20
_SHOWN_ALIKE = 5
_SHOWN_FULL_ROWS = 5
_EXPLAINED_ROWS = 3
_SLOWEST_ROWS = 5
_LONGEST_SHOWN = 20_000
_SHOWN_FAULTS = 20
_MOST_BARS = 8
_BINS = 10
# Columns from which there is room for ids and longer bars.
_WIDE = 110
# What the contract writes before the exception; a narrow table has room for the exception only.
_RAISED = "the reward function raised "
_BLOCKS = " ▏▎▍▌▋▊▉█"
_CLOSE = 1e-9

# Where no component can write a reference down, it is written in each of these ways; the best one counts.
_FORMS = ("{}", "#### {}", r"\boxed{{{}}}", "<answer>{}</answer>", "Answer: {}")


class ScoringError(Exception):
    """The rows cannot be scored; the message says what, where, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a team's dataset.

    Attributes:
        number: Its place in the dataset, from 1, counted through all files.
        place: File and line, as an editor opens it.
        id: The row's own id, or a name made of its place.
        data: What the line says.
    """

    number: int
    place: str
    id: str
    data: Mapping[str, Any]

    def sample(self, message: Mapping[str, Any]) -> Sample:
        """The row with a completion, read from the shape in which Bedrock sends it."""
        rest = {k: v for k, v in self.data.items() if k not in ("messages", "id")}
        item = {"id": self.id, "messages": [*self.data["messages"], message], "metadata": rest}
        return parse_event([item])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A row, and what a completion to it earned."""

    row: Row
    outcome: Outcome

    @property
    def score(self) -> float:
        """The total reward."""
        return self.outcome.reward.score


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All that was scored, in the order of the rows.

    Attributes:
        team: Whose reward it was.
        low: The lowest score there can be, which troubled samples get.
        high: The highest score there can be.
        references: Whether the completions are the rows' own reference answers.
        found: What each completion earned.
        broken: Whether the deployed function would have failed a batch of these, for raising on all of it.
    """

    team: Team
    low: float
    high: float
    references: bool
    found: Sequence[Scored]
    broken: bool = False

    @property
    def missed(self) -> list[Scored]:
        """Those that earned less than the maximum, the lowest first."""
        missed = [each for each in self.found if each.score < self.high - _CLOSE]
        return sorted(missed, key=lambda each: (not each.outcome.trouble, each.score))

    @property
    def mistaken(self) -> bool:
        """Whether the team's rows or its reward need mending: a bug, or a reference that is not enough."""
        return self.broken or (self.references and bool(self.missed))

    def troubles(self) -> dict[str, int]:
        """Counts samples by kind of trouble, the contract's kinds in their order."""
        counts = Counter(each.outcome.trouble for each in self.found)
        return {name: counts[name] for name in TROUBLES if counts[name]}

    def value(self, scored: Scored, component: str) -> float | None:
        """What one component gave, optimized or watched; None where it gave nothing."""
        reward = scored.outcome.reward
        return reward.components.get(component, reward.metrics.get(component))

    def summary(self) -> dict[str, Any]:
        """The whole in numbers."""
        scores = [each.score for each in self.found]
        return {
            "team": self.team.name,
            "completions": "references" if self.references else "given",
            "samples": len(scores),
            "range": [self.low, self.high],
            "mean": math.fsum(scores) / len(scores),
            "standard_deviation": statistics.pstdev(scores),
            "maximum_share": sum(score >= self.high - _CLOSE for score in scores) / len(scores),
            "floor_share": sum(score <= self.low + _CLOSE for score in scores) / len(scores),
            "troubles": self.troubles(),
            "seconds": math.fsum(each.outcome.seconds for each in self.found),
        }


def dataset_rows(root: Path, team: Team, other: Path | None = None) -> list[Row]:
    """Reads a team's rows, file by file and training first; or those of another file in their place.

    Raises:
        ScoringError: The rows are in S3, or a file cannot be read.
        DatasetError: A file is no dataset.
    """
    places = [*team.dataset.files().values()]
    near = [team.folder / place for place in places if not place.startswith("s3://")]
    if other is None and not near:
        raise ScoringError(
            f"the rows of {team.name} are in S3, and `rft score` works offline: fetch them, as in "
            f"`aws s3 cp {places[0]} rows.jsonl`, and name the file: --rows rows.jsonl"
        )
    rows: list[Row] = []
    for file in near if other is None else [other]:
        name = str(file.relative_to(root) if file.is_relative_to(root) else file)
        try:
            # How many rows a training needs is not the question here.
            with file.open("rb") as stream:
                check(stream, name, rows=(1, TRAINING_ROWS[1]))
            lines = file.read_bytes().removesuffix(b"\n").split(b"\n")
        except OSError as error:
            raise ScoringError(f"{name} cannot be read: {error.strerror}") from error
        for line, text in enumerate(lines, start=1):
            data = json.loads(text)
            identity = data.get("id", f"{file.stem}-{line}")
            rows.append(Row(number=len(rows) + 1, place=f"{name}:{line}", id=identity, data=data))
    return rows


def chosen(rows: Sequence[Row], wanted: Sequence[str]) -> list[Row]:
    """Returns the rows of these numbers or ids, in the dataset's order; all rows for none.

    Raises:
        ScoringError: There is no such row.
    """
    found = _Finder(rows)
    numbers = {
        found.row(int(word) if word.isdecimal() and word not in found.ids else word) for word in wanted
    }
    return [row for row in rows if not wanted or row.number in numbers]


class _Finder:
    """Finds rows by number or id, and says what to write where there is none."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._count = len(rows)
        self.ids = {row.id: row.number for row in rows}

    def row(self, name: object) -> int:
        """Returns the number of a row.

        Raises:
            ScoringError: There is no such row.
        """
        if isinstance(name, str):
            if name in self.ids:
                return self.ids[name]
            raise ScoringError(f"no row has the id {name!r}: the first one's is {next(iter(self.ids))!r}")
        if isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= self._count:
            return name
        raise ScoringError(f"there is no row {name!r}: rows are numbered from 1 to {self._count}")


def completions(
    path: Path, rows: Sequence[Row], wanted: Sequence[Row]
) -> list[tuple[Row, Mapping[str, Any]]]:
    """Reads the completions of a JSONL file, each with its row; a row may have several or none.

    A line is ``{"id": "...", "completion": "..."}`` or ``{"row": 1, "completion": "..."}``, whose completion
    may also be a whole message of the assistant, with tool calls. Other keys are not read.

    Args:
        path: The file.
        rows: The dataset.
        wanted: The rows to return completions of.

    Raises:
        ScoringError: The file cannot be read, or lines of it say something else: all of them are told.
    """
    found: list[tuple[Row, Mapping[str, Any]]] = []
    faults: list[str] = []
    finder = _Finder(rows)
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise ScoringError(f"{path} cannot be read: {error.strerror}") from error
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            number, message = _completion(text, finder)
            found.append((rows[number - 1], message))
        except ScoringError as error:
            faults.append(f"{path}:{line}: {error}")
    if len(faults) > _SHOWN_FAULTS:
        faults[_SHOWN_FAULTS:] = [f"and {len(faults) - _SHOWN_FAULTS} more lines"]
    if faults:
        raise ScoringError("\n".join(faults))
    kept = {row.number for row in wanted}
    found = [each for each in found if each[0].number in kept]
    if not found:
        which = "" if len(kept) == len(rows) else " of the rows asked for"
        example = '{"row": 1, "completion": "..."}'
        raise ScoringError(f"{path} has no completion{which}: its lines look like {example}")
    return found


def _completion(text: bytes, finder: _Finder) -> tuple[int, Mapping[str, Any]]:
    try:
        line = json.loads(text)
    except UnicodeDecodeError as error:
        raise ScoringError("is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise ScoringError(f"is not JSON: {error}") from error
    named = [key for key in ("id", "row") if isinstance(line, dict) and key in line]
    if len(named) != 1 or "completion" not in line:
        raise ScoringError(
            'expected an object with "completion" and either "id" or "row", as in '
            '{"row": 1, "completion": "..."}'
        )
    if (named == ["id"]) != isinstance(line[named[0]], str):
        kind = "a text" if named == ["id"] else "a whole number"
        raise ScoringError(f'"{named[0]}" is {kind}, not {line[named[0]]!r:.60}')
    number = finder.row(line[named[0]])
    message = line["completion"]
    if isinstance(message, str):
        return number, {"role": "assistant", "content": message}
    if isinstance(message, dict) and message.get("role") == "assistant":
        return number, message
    raise ScoringError('"completion" is a text, or a message with the role "assistant"')


def reward_of(team: Team) -> Score:
    """Composes a team's reward as its Lambda does, with the team's own reward.py where it has one.

    Raises:
        ScoringError: It cannot be composed.
    """
    return composed(team.folder, team.reward)


def composed(folder: Path, reward: RewardSettings) -> Score:
    """Composes the reward of the team in a folder; see `reward_of`.

    Raises:
        ScoringError: It cannot be composed.
    """
    settings = f"teams/{folder.name}"
    try:
        return compose(reward.document(), folder / OWN_REWARD)
    except CompositionError as error:
        advice = ""
        if "ModuleNotFoundError" in str(error) and (folder / "requirements.txt").exists():
            list_ = f"{settings}/requirements.txt"
            advice = f"; its packages come by `.venv/bin/uv pip install --python .venv/bin/python -r {list_}`"
        raise ScoringError(f"{settings}/team.toml: {error}{advice}") from error


def require_judges(team: Team, environment: MutableMapping[str, str]) -> None:
    """Makes sure that the team's judges can be asked, where it has any: the one thing that needs AWS.

    Args:
        team: The team.
        environment: The process's environment variables; gets the one of the two names for a region that
            boto3 reads.

    Raises:
        ScoringError: Credentials or a region are missing.
    """
    asking = judges(team.reward)
    if not asking:
        return
    if "AWS_REGION" in environment:
        environment.setdefault("AWS_DEFAULT_REGION", environment["AWS_REGION"])
    # It takes longer to import than most rewards take to score.
    import boto3

    session = boto3.Session()
    keys = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    needed: dict[str, object] = {
        f"credentials ({keys})": session.get_credentials(),
        "region (AWS_REGION)": session.region_name,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise ScoringError(
            f"{' and '.join(asking)}, which answers on Amazon Bedrock only, and there are no AWS "
            f"{' and no '.join(missing)}: sign in as someone who may call bedrock:InvokeModel on it. Every "
            "other reward function is scored without AWS"
        )


def judges(reward: RewardSettings) -> list[str]:
    """Says which components of a reward ask a judge, and which: the ones that need AWS."""
    return [
        f"reward.components.{name} asks {component.parameters['model']}"
        for name, component in reward.components.items()
        if component.function == "judge"
    ]


def score_references(team: Team, rows: Sequence[Row], done: Callable[[int], None]) -> Scores:
    """Scores every row's reference answer as if the model had written it.

    The components write the completion (see ``reference_completion``). Where none of them can, as with a
    team's own reward.py without such a function, the reference answer is written in the usual forms, and the
    one that earns the most counts.

    Args:
        team: The team.
        rows: Its rows.
        done: Hears how many samples have been scored since it heard last.
    """
    score = reward_of(team)
    # Each try of a judge costs money.
    forms = _FORMS[:1] if judges(team.reward) else _FORMS
    found: list[Scored] = []
    broken = False
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        tries = [(row, sample) for row in batch for sample in _answered(score, row, forms)]
        scored, failed = _scored(team, score, tries)
        broken = broken or failed
        best: dict[int, Scored] = {}
        for each in scored:
            if each.row.number not in best or each.score > best[each.row.number].score:
                best[each.row.number] = each
        found += best.values()
        done(len(batch))
    low, high = reward_range(team.reward.document())
    return Scores(team=team, low=low, high=high, references=True, found=found, broken=broken)


def score_completions(
    team: Team, answered: Sequence[tuple[Row, Mapping[str, Any]]], done: Callable[[int], None]
) -> Scores:
    """Scores completions to rows.

    Args:
        team: The team.
        answered: Rows with a message of the assistant each, as ``completions`` reads them.
        done: Hears how many samples have been scored since it heard last.
    """
    score = reward_of(team)
    found: list[Scored] = []
    broken = False
    for start in range(0, len(answered), BATCH):
        batch = answered[start : start + BATCH]
        scored, failed = _scored(team, score, [(row, row.sample(message)) for row, message in batch])
        broken = broken or failed
        found += scored
        done(len(batch))
    low, high = reward_range(team.reward.document())
    return Scores(team=team, low=low, high=high, references=False, found=found, broken=broken)


def _answered(score: Score, row: Row, forms: Sequence[str]) -> list[Sample]:
    """Returns a row with its reference as the completion: one that a component wrote, or one per form."""
    sample = row.sample({"role": "assistant", "content": ""})
    try:
        text = reference_completion(score, sample)
    # What is wrong with a row is for its score to say.
    except UnscorableError:
        text = ""
    if text is not None:
        return [replace(sample, completion=text)]
    reference = sample.reference_answer
    plain = reference if isinstance(reference, str) else json.dumps(reference, ensure_ascii=False)
    return [replace(sample, completion=form.format(plain)) for form in forms]


def _scored(team: Team, score: Score, batch: Sequence[tuple[Row, Sample]]) -> tuple[list[Scored], bool]:
    """Scores a batch as the deployed function does; tells whether that would have failed the batch."""
    broken = False
    try:
        outcomes = score_samples(
            score,
            [sample for _, sample in batch],
            floor=reward_range(team.reward.document())[0],
            seconds_per_sample=team.reward.seconds_per_sample,
            completion_limit=team.reward.completion_limit,
        )
    except BrokenRewardError as error:
        broken, outcomes = True, [*error.outcomes]
    except InfrastructureError as error:
        raise ScoringError(str(error)) from error
    pairs = zip(batch, outcomes, strict=True)
    return [Scored(row=row, outcome=outcome) for (row, _), outcome in pairs], broken


# --- what is written to files


def write_json(scores: Scores, path: Path) -> None:
    """Writes everything: the summary, and each sample with its components, metrics, reason and texts."""
    samples = [
        {
            "row": each.row.number,
            "id": each.row.id,
            "place": each.row.place,
            "score": each.score,
            "components": dict(each.outcome.reward.components),
            "metrics": dict(each.outcome.reward.metrics),
            "trouble": each.outcome.trouble,
            "extracted": each.outcome.reward.extracted,
            "reason": each.outcome.reward.reason,
            "completion": each.outcome.sample.completion,
            "reference_answer": each.outcome.sample.reference_answer,
            "seconds": each.outcome.seconds,
        }
        for each in scores.found
    ]
    document = {"summary": scores.summary(), "samples": samples}
    _write(path, json.dumps(document, indent=2) + "\n")


def write_csv(scores: Scores, path: Path) -> None:
    """Writes one line per sample: what it earned and why, a column per component and metric."""
    rewards = [each.outcome.reward for each in scores.found]
    numbers = [*dict.fromkeys(name for reward in rewards for name in (*reward.components, *reward.metrics))]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["row", "id", "score", *numbers, "trouble", "extracted", "reason", "characters", "seconds"]
    )
    for each in scores.found:
        outcome = each.outcome
        values = [scores.value(each, name) for name in numbers]
        texts = (outcome.trouble, outcome.reward.extracted or "", outcome.reward.reason)
        table.writerow(
            [
                each.row.number,
                _cell(each.row.id),
                each.score,
                *("" if value is None else value for value in values),
                *map(_cell, texts),
                len(outcome.sample.completion),
                f"{outcome.seconds:.6f}",
            ]
        )
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ScoringError(f"{path} cannot be written: {error.strerror}") from error


def _cell(text: str) -> str:
    """Keeps a spreadsheet from running a text as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# --- what a person sees


def overview(scores: Scores, width: int) -> RenderableType:
    """The table of rows, the distribution of scores, the slowest rows and the verdict, in so many columns."""
    shown = _telling(scores.missed) or scores.found[:_SHOWN_FULL_ROWS]
    parts: list[RenderableType] = [_heading(scores), _rows(scores, shown, width)]
    hidden = len(scores.found) - len(shown)
    if hidden:
        kind = "shown are some of every low score" if scores.missed else "every one earns the maximum"
        parts.append(Text(f" {hidden:,} more: {kind}; --csv or --json writes all", "dim"))
    parts.append(Text())
    parts.append(_beside(_distribution(scores, width // 2 - 2), _slowest(scores)))
    parts += [Text(), _components(scores, width), Text(), _verdict(scores)]
    return Group(*parts)


def explanation(scores: Scores, *, named: bool) -> RenderableType:
    """Rows in full: what was asked, written and expected, and what the reward function made of it.

    Args:
        scores: What was scored.
        named: Whether a person named the rows; of a whole dataset the lowest ones are shown.
    """
    shown = scores.found if named else (scores.missed or scores.found)[:_EXPLAINED_ROWS]
    return Group(*(_explained(scores, each) for each in shown))


def _telling(missed: Sequence[Scored]) -> list[Scored]:
    """Picks rows that differ in their score, the lowest first, and only then more of the same score."""
    seen: Counter[tuple[str, float]] = Counter()
    ranked = []
    for place, each in enumerate(missed):
        kind = (each.outcome.trouble, round(each.score, 3))
        if seen[kind] < _SHOWN_ALIKE:
            ranked.append((seen[kind], place, each))
        seen[kind] += 1
    picked = sorted(ranked, key=lambda entry: entry[:2])[:_SHOWN_ROWS]
    return [each for _, _, each in sorted(picked, key=lambda entry: entry[1])]


def _heading(scores: Scores) -> Text:
    what = "references as completions" if scores.references else "completions"
    count = len(scores.found)
    return Text.assemble(
        (scores.team.name, "bold"),
        f"  {count:,} {what if count != 1 or scores.references else 'completion'}",
        ("  scored by the deployed code\n", "dim"),
    )


def _rows(scores: Scores, shown: Sequence[Scored], width: int) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1), expand=True)
    table.add_column("row", justify="right", style="dim", no_wrap=True)
    if width >= _WIDE:
        longest = max(len(visible(each.row.id)) for each in shown)
        table.add_column("id", no_wrap=True, overflow="ellipsis", width=min(longest, 24))
    table.add_column("score", justify="right", no_wrap=True)
    names = list(scores.team.reward.components)
    columns = [max(len(name), 5) + 2 for name in names]
    # One component is the score; and of many there is only room for the names of the bad ones.
    apart = len(names) > 1 and sum(columns) <= width * 2 // 5
    for name in names if apart else []:
        table.add_column(name, justify="right", no_wrap=True)
    if len(names) > 1 and not apart:
        table.add_column("components", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("extracted", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("reason", ratio=5, no_wrap=True, overflow="ellipsis")
    for each in shown:
        reward, trouble = each.outcome.reward, each.outcome.trouble
        values = {name: scores.value(each, name) for name in names}
        reason = (
            Text.assemble((f"{_words(trouble)}: ", "red"), _line(reward.reason.removeprefix(_RAISED)))
            if trouble
            else _line(reward.reason)
        )
        table.add_row(
            str(each.row.number),
            *([_line(each.row.id)] if width >= _WIDE else []),
            _colored(scores, each.score),
            *((_number(value) for value in values.values()) if apart else ()),
            *([_mixed(values)] if len(names) > 1 and not apart else []),
            _line(reward.extracted or ""),
            reason,
        )
    return table


def _mixed(values: Mapping[str, float | None]) -> Text:
    """Components in one cell, the lowest first, for those are why a score is low."""
    known = sorted((value, name) for name, value in values.items() if value is not None)
    return Text("  ".join(f"{name} {value:.2f}" for value, name in known))


def _distribution(scores: Scores, width: int) -> Table:
    """A bar per score where there are few different ones, and per tenth of the range where there are many."""
    values = [each.score for each in scores.found]
    exact = Counter(_thousandths(value) for value in values)
    if len(exact) <= _MOST_BARS:
        bars = [(_number(value), value, exact[value]) for value in sorted(exact, reverse=True)]
    else:
        step = (scores.high - scores.low) / _BINS
        places = Counter(min(int((value - scores.low) / step), _BINS - 1) for value in values)
        bars = []
        for place in reversed(range(_BINS)):
            low, high = scores.low + place * step, scores.low + (place + 1) * step
            # The outermost ones have the colors of the floor and of the maximum.
            value = high if place == _BINS - 1 else low
            bars.append((f"{low:.2f} to {high:.2f}", value, places[place]))
    table = Table(box=None, header_style="dim", padding=(0, 1))
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    most = max(count for _, _, count in bars)
    room = max(8, min(width - 26, 40))
    for name, value, count in bars:
        table.add_row(
            name,
            Text(_bar(count / most, room), _style(scores, value)),
            f"{count:,} {_share(count, len(values))}",
        )
    return table


def _slowest(scores: Scores) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1))
    table.add_column("slowest", justify="right", style="dim", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("characters", justify="right", no_wrap=True)
    slow = sorted(scores.found, key=lambda each: each.outcome.seconds, reverse=True)[:_SLOWEST_ROWS]
    for each in slow:
        size = len(each.outcome.sample.completion)
        table.add_row(f"row {each.row.number}", f"{each.outcome.seconds * 1000:.2f}", f"{size:,}")
    return table


def _components(scores: Scores, width: int) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1))
    table.add_column("component", no_wrap=True)
    table.add_column("function", no_wrap=True)
    table.add_column("weight", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("lowest", justify="right", no_wrap=True)
    table.add_column("zero", justify="right", no_wrap=True)
    formula = scores.team.reward.formula
    for name, component in scores.team.reward.components.items():
        known = [value for each in scores.found if (value := scores.value(each, name)) is not None]
        weight = Text("formula", "dim") if formula else Text(f"{component.weight:g}")
        if not known:
            table.add_row(_line(name), component.function, weight, "", Text("no value", "red"))
            continue
        mean = math.fsum(known) / len(known)
        low, high = min(scores.low, 0.0), max(scores.high, 1.0)
        share = (mean - low) / (high - low)
        table.add_row(
            _line(name),
            component.function,
            weight,
            _number(mean),
            Text(_bar(share, 12 if width < _WIDE else 24).ljust(12 if width < _WIDE else 24, "·"), "cyan"),
            _number(min(known)),
            _share(sum(value == 0 for value in known), len(known)),
        )
    return table


def _verdict(scores: Scores) -> Text:
    facts = scores.summary()
    text = Text()
    missed, name = len(scores.missed), scores.team.name
    if scores.broken:
        text.append("✗ ", "bold red").append(
            "the reward function raised on all of a batch, which fails a job\n"
        )
    elif scores.references and missed:
        text.append("✗ ", "bold red")
        text.append(f"{missed:,} of {len(scores.found):,} references miss the maximum of {scores.high:g}: ")
        text.append("mend the row or the reward\n")
    if scores.mistaken:
        text.append(f"  rft score {name} --row {scores.missed[0].row.number} --explain\n", "cyan")
    elif scores.references:
        text.append("✓ ", "bold green").append(f"every reference earns the maximum of {scores.high:g}\n")
    speed = len(scores.found) / facts["seconds"] if facts["seconds"] > 0 else 0
    numbers = (
        f"  mean {_number(facts['mean'])} · deviation {facts['standard_deviation']:.3f}"
        f" · maximum {_percent(facts['maximum_share'])} · floor {_percent(facts['floor_share'])}"
    )
    text.append(f"{numbers}\n  {facts['seconds']:.2f} s of processor time")
    text.append(f" · {speed:,.0f} samples a second · " if speed else " · ")
    troubles = scores.troubles()
    if not troubles:
        return text.append("no trouble")
    told = ", ".join(f"{count:,} {_words(kind)}" for kind, count in troubles.items())
    return text.append(told, "red")


def _explained(scores: Scores, each: Scored) -> RenderableType:
    outcome, row = each.outcome, each.row
    reward, sample = outcome.reward, outcome.sample
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, justify="right")
    grid.add_column(overflow="fold")
    for message in sample.messages:
        grid.add_row(_line(str(message.get("role"))), _block(_content(message)))
    rest = len(sample.completion) - _LONGEST_SHOWN
    written = sample.completion[:_LONGEST_SHOWN] + (f"\n… {rest:,} more characters" if rest > 0 else "")
    grid.add_row("completion", _block(written) if written else Text("empty", "red"))
    if sample.tool_calls:
        grid.add_row("tool calls", _block(_json(sample.tool_calls)))
    reference = sample.reference_answer
    grid.add_row("reference", _block(reference if isinstance(reference, str) else _json(reference)))
    grid.add_row(
        "extracted", _block(reward.extracted) if reward.extracted is not None else Text("nothing", "dim")
    )
    reason = _block(reward.reason)
    grid.add_row(
        "reason",
        Text.assemble((f"{_words(outcome.trouble)}: ", "red"), reason) if outcome.trouble else reason,
    )
    for title, values in (("components", reward.components), ("metrics", reward.metrics)):
        grid.add_row(title, _figures(values))
    grid.add_row("time", f"{outcome.seconds * 1000:.2f} ms of processor time")
    heading = Text.assemble(f"row {row.number} · ", _line(row.id), " · ", (_number(each.score)), " ")
    rule = Rule(heading, align="left", style=_style(scores, each.score))
    return Group(rule, Text(f" {row.place}", "dim"), Padding(grid, (0, 0, 1, 1)))


def _figures(values: Mapping[str, float]) -> RenderableType:
    if not values:
        return Text("none", "dim")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in values.items():
        grid.add_row(_line(name), Text(_number(value), "dim" if name in TROUBLES and not value else ""))
    return grid


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "".join(part["text"] for part in content or [])


def _beside(left: Table, right: Table) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_row(left, right)
    return grid


def visible(text: str) -> str:
    r"""Writes what steers a terminal, or is no character at all, as an escape such as ``\x1b``."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def _line(text: str) -> Text:
    """A text in one line, as far as a table cell can need it."""
    return Text(visible(" ⏎ ".join(text[:500].splitlines())).replace("\t", " "))


def _block(text: str) -> Text:
    return Text(visible(text))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _colored(scores: Scores, score: float) -> Text:
    return Text(_number(score), _style(scores, score))


def _style(scores: Scores, score: float) -> str:
    if score >= scores.high - _CLOSE:
        return "green"
    return "red" if score <= scores.low + _CLOSE else "yellow"


def _number(value: float | None) -> str:
    return "" if value is None else f"{_thousandths(value):.3f}"


def _thousandths(value: float) -> float:
    # Down, so that nothing less than the maximum looks like it.
    return math.floor(value * 1000 + 1e-6) / 1000


def _words(trouble: str) -> str:
    return trouble.replace("_", " ")


def _percent(share: float) -> str:
    # Neither all nor nothing is said of what is only nearly so.
    rounded = round(share * 100)
    return "<1%" if rounded == 0 and share else ">99%" if rounded == 100 and share < 1 else f"{rounded}%"


def _share(count: int, whole: int) -> str:
    return f"{_percent(count / whole):>4}"


def _bar(share: float, room: int) -> str:
    eighths = max(round(share * room * 8), 1 if share > 0 else 0)
    return _BLOCKS[-1] * (eighths // 8) + _BLOCKS[eighths % 8].strip()
