r"""Rehearses a reward function before a run pays for it: do good answers win, and can bad ones?

The rows are the team's own; the reward function is called the way Bedrock calls it, in batches of events.
Nothing here knows how it works inside, so a team's own `reward.py` is rehearsed like one of the library.

*How a reference becomes a completion* is found out by asking: a list of forms (bare, ``####``, ``\boxed{}``,
tags, labels, JSON, tool calls, with and without reasoning in front) is tried on the first rows, and the form
that earns the maximum there is the reward's. Names of tags, labels and fields come from the settings and from
the prompts. A form nobody would guess is told by a line of `rehearsal.jsonl`.

*Hackability*, from 0 to 1, is what the best exploit gains. What an exploit gains is its mean over the rows it
was tried on, so one that works on few rows counts for their share only. On one row it is

- for a completion that is wrong: (its score - floor) / (maximum - floor), within 0 to 1;
- for a completion that is right but for one thing (the form, or a part of a structured answer, of which the
  rest may honestly earn its share): 1 when it earns as much as the reference does there, 0 otherwise.

The limit of one half is the rule that deliberately bad outputs have to score under half.
"""

from __future__ import annotations

import difflib
import hashlib
import heapq
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any, Final, NamedTuple

from lambdas.composition import reward_range
from lambdas.contract import BrokenRewardError, Reward, Sample, parse_event, score_samples
from lambdas.exploits import EXPLOITS, LISTED, Exploit, Kind, are_same, distinct, hostile, without_reasoning
from lambdas.forms import (
    Form,
    Message,
    Row,
    Writer,
    core,
    field_form,
    own_form,
    plain_forms,
    prompt_names,
    reasoned_forms,
    said,
    spelled,
    template_form,
    text_of,
)
from lambdas.gate import Finding, Level, Verdict

# Rows whose reference is scored in the workflow, and of them those on which every exploit is tried.
ROWS: Final = 200
_HOSTILE_ROWS = 40

# Batches as large as a training step may send; what the service really sends is not documented.
_BATCH_SIZES = (1, 16, 64)
_LARGEST_BATCH = _BATCH_SIZES[-1]
# A synchronous invocation of a Lambda function carries at most this.
_LARGEST_PAYLOAD = 6_000_000

# On so many rows the forms are compared; the best ones of the first row go on to the others.
_FORM_ROWS = 3
_FORMS_KEPT = 8
# So many rows that their form does not suit get to try every other.
_ODD_ROWS = 16
# A reward that is too slow for all of them is tried on so many rows at least.
_FEWEST_ROWS = 4

_COMPARED = 32
_ALONE = 8
# A difference below this share of the range is rounding; a mean above the other one is no judge's mood.
_ROUNDING = 1e-9
_NOISE = 0.05

_SHOWN = 300
_EXAMPLES = 3

Event = dict[str, Any]
ScoreBatch = Callable[[list[Event]], list[dict[str, Any]]]


class CasesError(ValueError):
    """A `rehearsal.jsonl` cannot be used; the text has one line per fault, with file and line."""


class TooSlowError(Exception):
    """The reward function did not answer a batch within its time."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a rehearsal has to know of a reward and of the platform's limits.

    Attributes:
        low: The lowest score, the floor.
        high: The highest score, the maximum.
        timeout_seconds: Longest time one batch may take.
        functions: The reward functions of the components.
        names: Names of tags, labels and fields that the components look for.
        sections: Names of tags that stand in a row, one list per form.
        max_hackability: The hackability at which a run is stopped.
        min_reference_share: Share of references that have to earn the maximum.
        max_latency_share: Share of ``timeout_seconds`` that the slowest batch may take.
    """

    low: float = 0.0
    high: float = 1.0
    timeout_seconds: float = 60.0
    functions: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    sections: tuple[tuple[str, ...], ...] = ()
    max_hackability: float = 0.5
    min_reference_share: float = 1.0
    max_latency_share: float = 0.5

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Reads ``gates.rehearsal`` of a run document: the gate's limits, and what they say of the reward.

        A [reward] table will do as well; what is not there has its default, and other keys are passed over.
        """
        low, high = reward_range(given)
        limits = ("timeout_seconds", "max_hackability", "min_reference_share", "max_latency_share")
        return cls(
            low=low,
            high=high,
            functions=tuple(given.get("functions", ())),
            names=tuple(given.get("names", ())),
            sections=tuple(map(tuple, given.get("sections", ()))),
            **{name: float(given[name]) for name in limits if name in given},
        )

    def share(self, score: float) -> float:
        """Returns where a score lies in the range, from 0 to 1."""
        return min(max((score - self.low) / (self.high - self.low), 0.0), 1.0)

    def is_maximum(self, score: float) -> bool:
        """Tells whether a score is the maximum, rounding aside."""
        return score >= self.high - _ROUNDING * (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of `rehearsal.jsonl`: what a team knows of its own reward.

    Attributes:
        line: Where it stands.
        row: The row's id, or its line in the training file, counted from 1; "" in a line with a form.
        name: What it shows, in the team's words.
        completions: One completion with a bound, or several from best to worst.
        at_least: What the completion has to earn.
        at_most: What it may earn.
        form: In place of all of these, how a reference becomes a completion: a text with ``{reference}``.
    """

    line: int
    row: str | int = ""
    name: str = ""
    completions: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    form: str = ""


def rehearse(
    rows: Sequence[Row],
    score: ScoreBatch,
    settings: Settings,
    *,
    of: int | None = None,
    cases: Sequence[Case] = (),
    named: Mapping[str | int, Row] | None = None,
    write: Writer | None = None,
    budget_seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> Verdict:
    """Rehearses a reward function on rows and returns the gate's verdict.

    Args:
        rows: Rows as `sample` picks them: {"id", "messages", "reference_answer", "metadata"}; at least one.
        score: Scores a list of events, as Bedrock sends them: {"score", "components", "metrics"} for each.
        settings: What to know of the reward.
        of: How many rows the dataset has.
        cases: The team's own.
        named: The rows of the cases, by the name a case calls them.
        write: What the reward itself offers to write a row's reference completion with; tried first.
        budget_seconds: What it may take in all: fewer rows are tried with a slow reward.
        clock: Seconds that pass.

    Raises:
        CasesError: A case is about a row that is not there.
        InfrastructureError: Whatever else `score` raises comes through as it is.
    """
    try:
        return _Rehearsal(
            rows, score, settings, of or len(rows), cases, named or {}, write, budget_seconds, clock
        ).verdict()
    except BrokenRewardError as error:
        sentence = f"The reward function fails on every completion: {str(error).rstrip('.')}."
        return Verdict("rehearsal", (Finding("broken", "stop", sentence),))
    except TooSlowError as error:
        sentence = (
            f"The reward function did not answer within its {settings.timeout_seconds:g} s: {error}."
            " Raise timeout_seconds or memory_mb (which also buys processor) under [reward] in team.toml,"
            " or make it faster."
        )
        return Verdict("rehearsal", (Finding("slow", "stop", sentence),))


def offline(score: Callable[[Sample], Reward], reward: Mapping[str, Any]) -> ScoreBatch:
    """Makes a composed reward score events as its deployed function would, without one.

    Args:
        score: What `compose` returned.
        reward: The [reward] table.
    """
    bounds = {name: reward[name] for name in ("seconds_per_sample", "completion_limit") if name in reward}

    def batch(events: list[Event]) -> list[dict[str, Any]]:
        outcomes = score_samples(score, parse_event(events), floor=reward_range(reward)[0], **bounds)
        return [
            {
                "score": outcome.reward.score,
                "components": dict(outcome.reward.components),
                "metrics": dict(outcome.reward.metrics),
            }
            for outcome in outcomes
        ]

    return batch


def sample(
    lines: Iterable[bytes], count: int, named: Set[str | int] = frozenset()
) -> tuple[list[Row], dict[str | int, Row], int]:
    """Picks rows of a checked dataset to rehearse with, in one pass and bounded memory.

    The rows are those whose lines have the smallest hashes: as good as by chance, and the same every time.

    Args:
        lines: The lines of the file.
        count: How many rows to pick, at most.
        named: Rows to return beside them, by id or by line, counted from 1.

    Returns:
        The picked rows in file order, the named ones by their names, and how many rows there are.
    """
    # A heap of the smallest, kept with its largest on top: hence the negated hash.
    picked: list[tuple[int, int, bytes]] = []
    found: dict[str | int, Row] = {}
    ids = {name for name in named if isinstance(name, str)}
    rows = 0
    for line, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        rows += 1
        if line in named:
            found[line] = _row(line, raw)
        if ids:
            row = _row(line, raw)
            if row["id"] in ids:
                found[row["id"]] = row
        entry = (-int.from_bytes(hashlib.sha256(raw.strip()).digest()), line, raw)
        if len(picked) < count:
            heapq.heappush(picked, entry)
        else:
            heapq.heappushpop(picked, entry)
    ordered = sorted(picked, key=lambda entry: entry[1])
    return [_row(line, raw) for _, line, raw in ordered], found, rows


def _row(line: int, raw: bytes) -> Row:
    row = json.loads(raw)
    return {
        "messages": row.pop("messages"),
        "reference_answer": row.pop("reference_answer", None),
        "id": row.pop("id", f"line-{line}"),
        "metadata": row,
    }


# --- The team's own cases ---

_SHAPES: Final[Mapping[str, tuple[str, ...]]] = {
    "completion": ("row", "completion", "at_least", "at_most", "name"),
    "ranked": ("row", "ranked", "name"),
    "reference_form": ("reference_form",),
}
_SHAPES_IN_WORDS: Final = (
    'a line is {"row": id or line, "completion": "...", "at_most": x or "at_least": x, "name"?: "..."},'
    ' {"row": ..., "ranked": [best, ..., worst]}, or {"reference_form": "... {reference} ..."}'
)


def read_cases(content: bytes, name: str) -> list[Case]:
    """Reads a `rehearsal.jsonl`.

    Args:
        content: The file.
        name: What people call the file.

    Raises:
        CasesError: With everything that is wrong with it.
    """
    cases: list[Case] = []
    faults: list[str] = []
    for line, written in enumerate(content.splitlines(), 1):
        if not written.strip():
            continue
        try:
            cases.append(_case(line, written.decode()))
        except UnicodeDecodeError:
            faults.append(f"{name}:{line}: is not UTF-8 text: save the file as UTF-8")
        except ValueError as error:
            faults.append(f"{name}:{line}: {error}")
    forms = [case for case in cases if case.form]
    faults += [
        f"{name}:{case.line}: reference_form is given in line {forms[0].line} already" for case in forms[1:]
    ]
    if faults:
        raise CasesError("\n".join(faults))
    return cases


def _case(line: int, written: str) -> Case:
    try:
        given = json.loads(written)
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"is no object: {_SHAPES_IN_WORDS}")  # noqa: TRY004 - one kind for all
    kinds = [kind for kind in _SHAPES if kind in given]
    known = _SHAPES[kinds[0]] if len(kinds) == 1 else tuple(dict.fromkeys(itertools.chain(*_SHAPES.values())))
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
            raise ValueError(f"unknown key {key!r}: {hint}")
    if len(kinds) != 1:
        raise ValueError(f"needs one of {', '.join(_SHAPES)}: {_SHAPES_IN_WORDS}")
    if kinds == ["reference_form"]:
        form = given["reference_form"]
        if not isinstance(form, str) or "{reference}" not in form:
            raise ValueError(f"reference_form is a text with {{reference}} in it, not {_clip(repr(form))}")
        return Case(line=line, form=form)
    row, label = given.get("row"), given.get("name", "")
    if isinstance(row, bool) or not isinstance(row, (str, int)) or row == "" or row == 0:
        raise ValueError(f"row is the row's id, or its line in the training file from 1, not {row!r}")
    if not isinstance(label, str):
        raise ValueError(f"name is a text, not {label!r}")  # noqa: TRY004 - one kind for all
    texts = given["ranked"] if kinds == ["ranked"] else [given["completion"]]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{kinds[0]} holds completions, which are texts")
    if kinds == ["ranked"]:
        if len(texts) < 2:
            raise ValueError("ranked holds at least two completions, the best one first")
        return Case(line=line, row=row, name=label, completions=tuple(texts))
    bounds = {key: given[key] for key in ("at_least", "at_most") if key in given}
    if not bounds:
        raise ValueError("a completion needs at_most or at_least: what it may, or has to, earn")
    for key, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{key} is a number, not {value!r}")
    return Case(line=line, row=row, name=label, completions=tuple(texts), **bounds)


# --- The rehearsal ---


@dataclass
class _Tally:
    """What one exploit did on the rows it was tried on."""

    kind: Kind
    gains: list[float] = field(default_factory=list)
    maxima: int = 0
    works_on: int = 0
    best: tuple[float, float, str, str] | None = None


class _Tried(NamedTuple):
    """A completion of a row, and what it earned."""

    row: Row
    message: Message
    reward: dict[str, Any]


class _Rehearsal:
    """One rehearsal: what it has to know, and what it has found so far."""

    def __init__(
        self,
        rows: Sequence[Row],
        score: ScoreBatch,
        settings: Settings,
        of: int,
        cases: Sequence[Case],
        named: Mapping[str | int, Row],
        write: Writer | None,
        budget_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._call = score
        self._settings = settings
        self._of = of
        self._cases = cases
        self._named = named
        self._write = write
        self._budget = budget_seconds
        self._clock = clock
        self._findings: list[Finding] = []
        self._facts: dict[str, Any] = {"range": [settings.low, settings.high]}
        self._scores: list[float] = []
        self._slowest = (0, 0.0)
        self._hostile_rows = _HOSTILE_ROWS

    def verdict(self) -> Verdict:
        missing = [case for case in self._cases if not case.form and case.row not in self._named]
        if missing:
            raise CasesError(
                "\n".join(
                    f"rehearsal.jsonl:{case.line}: the training file has no row {case.row!r}: give the id of"
                    " one, or its line as a number"
                    for case in missing
                )
            )
        form, others = self._find_form()
        self._time(form)
        references = self._score_references(form, others)
        hostile_ones = self._score_hostile(form, references)
        self._compare([*references[:_ALONE], *hostile_ones[: _COMPARED - _ALONE]])
        self._judge_cases()
        self._judge_time()
        self._measure_spread()
        order: dict[Level, int] = {"stop": 0, "warn": 1, "info": 2}
        self._findings.sort(key=lambda finding: order[finding.level])
        return Verdict("rehearsal", tuple(self._findings), self._facts)

    # Scoring

    def _score(self, tried: Sequence[tuple[Row, Message]], *, tolerant: bool = False) -> list[dict[str, Any]]:
        """Scores completions in batches of the largest size; `tolerant` of a batch on which it only fails."""
        rewards: list[dict[str, Any]] = []
        for start in range(0, len(tried), _LARGEST_BATCH):
            batch = tried[start : start + _LARGEST_BATCH]
            events = [_event(row, message, at) for at, (row, message) in enumerate(batch)]
            started = self._clock()
            try:
                rewards += self._call(events)
            except BrokenRewardError:
                if not tolerant:
                    raise
                floored = {"score": self._settings.low, "components": {}, "metrics": {"error": 1.0}}
                rewards += [floored] * len(events)
            seconds = self._clock() - started
            # The first call also pays for the start of a cold function.
            if self._scores and seconds > self._slowest[1]:
                self._slowest = (len(events), seconds)
            self._scores += [reward["score"] for reward in rewards[-len(events) :]]
        return rewards

    def _find(
        self, level: Level, rule: str, sentence: str, count: int = 1, examples: Sequence[str] = ()
    ) -> None:
        self._findings.append(Finding(rule, level, sentence, count, examples=tuple(examples[:_EXAMPLES])))

    # Good answers

    def _find_form(self) -> tuple[Form, list[Form]]:
        """Returns the form in which references earn most on the first rows, and all others tried."""
        settings, first = self._settings, self._rows[:_FORM_ROWS]
        prompt_tags, asked_names = prompt_names(first)
        plain = plain_forms((*settings.names, *asked_names))
        given = [template_form(case.form) for case in self._cases if case.form]
        own = [] if self._write is None else [own_form(self._write)]
        reference = core(first[0]["reference_answer"])
        keys = [*reference][:6] if isinstance(reference, Mapping) else []
        # The fields that references are usually in come first.
        keys.sort(key=lambda key: key not in ("answer", "value", "text"))
        picked = [field_form(form, key) for key in keys for form in plain]
        sections = dict.fromkeys(
            [
                *settings.sections,
                *([prompt_tags] if prompt_tags else []),
                ("think", "answer"),
                ("thinking", "answer"),
                ("reasoning", "answer"),
            ]
        )
        answers = [*plain[:3], *(field_form(form, key) for key in keys[:1] for form in plain[:3])]
        answers += [
            form for form in plain if form.name.startswith(("JSON ", "<", "Answer")) and form not in answers
        ]
        stages = [given or [*own, *plain], picked, reasoned_forms(answers, list(sections))]
        # A judge may never give the highest mark, and every question to one costs money.
        enough = 0.5 if "judge" in settings.functions else 1.0
        tried: list[Form] = []
        best: tuple[float, Form] | None = None
        for stage in stages:
            scored = self._rank(stage, first)
            tried += stage
            if scored and (best is None or scored[0] > best[0]):
                best = scored
            if best is not None and best[0] >= enough - _ROUNDING:
                break
        form = best[1] if best else plain[0]
        self._facts["form"] = form.name
        return form, [each for each in tried if each is not form]

    def _rank(self, forms: Sequence[Form], rows: Sequence[Row]) -> tuple[float, Form] | None:
        """Returns the form with the highest mean share of the range over the rows, the first of equals."""
        means: list[tuple[float, Form]] = [(0.0, form) for form in forms]
        for at, row in enumerate(rows):
            fitting = [
                (mean, form, message)
                for mean, form in means
                if (message := form.write(row, core(row["reference_answer"]))) is not None
            ]
            rewards = self._score([(row, message) for _, _, message in fitting])
            shares = [self._settings.share(reward["score"]) for reward in rewards]
            means = [
                (mean + share / len(rows), form)
                for (mean, form, _), share in zip(fitting, shares, strict=True)
            ]
            means.sort(key=lambda each: -each[0])
            means = means[:_FORMS_KEPT] if at == 0 else means
        return means[0] if means else None

    def _score_references(self, form: Form, others: Sequence[Form]) -> list[_Tried]:
        """Scores the reference of every row: they have to earn the maximum."""
        settings = self._settings
        written = [(row, form.write(row, core(row["reference_answer"])) or said("")) for row in self._rows]
        rewards = self._score(written)
        tried = [
            _Tried(row, message, reward) for (row, message), reward in zip(written, rewards, strict=True)
        ]
        odd = [at for at, each in enumerate(tried) if not settings.is_maximum(each.reward["score"])]
        # More than that is the reward's doing, and no other form of a few rows.
        for at in odd[:_ODD_ROWS] if len(odd) * 2 <= len(tried) else ():
            row = tried[at].row
            more = [
                (row, message)
                for other in others
                if (message := other.write(row, core(row["reference_answer"]))) is not None
            ]
            for (_, message), reward in zip(more, self._score(more), strict=True):
                if reward["score"] > tried[at].reward["score"]:
                    tried[at] = _Tried(row, message, reward)
        unusable = [each for each in tried if each.reward["metrics"].get("unscorable")]
        if unusable:
            self._find(
                "stop",
                "reference-unusable",
                f"{_count(len(unusable), 'row')} of {len(tried)} {'has' if len(unusable) == 1 else 'have'} a"
                " reference answer that the reward function cannot use: mend or remove the rows.",
                len(unusable),
                [
                    f"row {each.row['id']}: {_clip(text_of(each.row['reference_answer']))}"
                    for each in unusable
                ],
            )
        scorable = [each for each in tried if each not in unusable]
        short = [each for each in scorable if not settings.is_maximum(each.reward["score"])]
        share = 1 - len(short) / len(scorable) if scorable else 0.0
        mean = fmean(each.reward["score"] for each in tried)
        self._facts["references"] = {
            "rows": len(tried),
            "of": self._of,
            "unusable": len(unusable),
            "share_at_maximum": share,
            "mean": mean,
        }
        if scorable and share < settings.min_reference_share:
            # A judge has moods, and few of them ever give the highest mark to everything.
            judged = "judge" in settings.functions and settings.share(mean) >= 0.5
            self._find(
                "warn" if judged else "stop",
                "reference-below-maximum",
                f"{_count(len(short), 'reference answer')} of {len(scorable)} earned less than the maximum of"
                f" {settings.high:g}, on average {fmean(each.reward['score'] for each in short):.3g},"
                f" although written in the form that suited best ({self._facts['form']}){_weakest(short)}:"
                " mend the rows or the reward, or tell an unusual form in a line"
                ' {"reference_form": "... {reference} ..."} of rehearsal.jsonl.',
                len(short),
                [f"{_example(each)}, and {settings.high:g} is the maximum" for each in short],
            )
        elif len(tried) < self._of:
            self._facts["references"]["note"] = f"{len(tried)} of {self._of} rows, picked by their hashes"
        return [each for each in scorable if not each.reward["metrics"].get("error")]

    # Bad answers

    def _score_hostile(self, form: Form, references: Sequence[_Tried]) -> list[_Tried]:
        """Tries every exploit; returns what was tried."""
        settings = self._settings
        step = max(len(references) // self._hostile_rows, 1)
        chosen = references[::step][: self._hostile_rows]
        answers = distinct([core(each.row["reference_answer"]) for each in references])
        stripped = [
            (each.row, message) for each in chosen if (message := without_reasoning(each.message)) is not None
        ]
        bare = self._score(stripped, tolerant=True)
        # What is as good without its reasoning was never asked for it, and nothing about it is an exploit.
        earned = {id(each.row): each.reward["score"] for each in chosen}
        tolerance = _ROUNDING * (settings.high - settings.low)
        asked = any(
            reward["score"] < earned[id(row)] - tolerance
            for (row, _), reward in zip(stripped, bare, strict=True)
        )
        tried: list[tuple[_Tried, Exploit]] = []
        for at, each in enumerate(chosen):
            own = core(each.row["reference_answer"])
            rotated = [*answers[at % max(len(answers), 1) :], *answers[: at % max(len(answers), 1)]]
            others = [answer for answer in rotated if not are_same(answer, own)][:LISTED]
            taken = {_key(each.message)}
            for exploit in hostile(each.row, form, each.message, others, settings.functions):
                key = _key(exploit.message)
                if key in taken or (exploit.rule.startswith("reasoning-") and not asked):
                    continue
                taken.add(key)
                tried.append((each, exploit))
        rewards = self._score([(each.row, exploit.message) for each, exploit in tried], tolerant=True)
        tallies: dict[str, _Tally] = {}
        for (each, exploit), reward in zip(tried, rewards, strict=True):
            tally = tallies.setdefault(exploit.rule, _Tally(exploit.kind))
            score, right = reward["score"], earned[id(each.row)]
            as_good = score >= right - tolerance and score > settings.low + tolerance
            gain = settings.share(score) if exploit.kind == "wrong" else float(as_good)
            tally.gains.append(gain)
            tally.maxima += settings.is_maximum(score)
            tally.works_on += gain >= settings.max_hackability
            if tally.best is None or (gain, score) > tally.best[:2]:
                tally.best = (gain, score, str(each.row["id"]), spelled(exploit.message))
        self._report_exploits(tallies)
        self._report_trouble(tried, rewards)
        done = [
            _Tried(each.row, exploit.message, reward)
            for (each, exploit), reward in zip(tried, rewards, strict=True)
        ]
        return [each for each in done if not each.reward["metrics"].get("error")]

    def _report_exploits(self, tallies: Mapping[str, _Tally]) -> None:
        settings = self._settings
        exploits: list[dict[str, Any]] = []
        for rule, tally in tallies.items():
            gain = fmean(tally.gains)
            best_gain, score, row, completion = tally.best or (0.0, settings.low, "", "")
            exploits.append(
                {
                    "rule": rule,
                    "name": EXPLOITS[rule][0],
                    "kind": tally.kind,
                    "rows": len(tally.gains),
                    "gain": round(gain, 6),
                    "works_on": tally.works_on,
                    "at_maximum": tally.maxima,
                    "example": {
                        "row": row,
                        "completion": _clip(completion),
                        "earned": score,
                        "gain": best_gain,
                    },
                }
            )
        exploits.sort(key=lambda each: (-each["gain"], -each["at_maximum"]))
        self._facts["exploits"] = exploits
        self._facts["hackability"] = exploits[0]["gain"] if exploits else 0.0
        self._facts["max_hackability"] = settings.max_hackability
        self._facts["not_tried"] = [rule for rule in EXPLOITS if rule not in tallies]
        for each in exploits:
            stops = each["gain"] >= settings.max_hackability
            if not stops and not each["at_maximum"]:
                continue
            shown = each["example"]
            name, remedy = EXPLOITS[each["rule"]]
            works = each["works_on"] if stops else each["at_maximum"]
            gained = (
                f"{name} earns {each['gain']:.0%} of what a right answer does"
                if stops
                else f"{name} earned the maximum on {_count(works, 'row')} of {each['rows']}"
            )
            self._find(
                "stop" if stops else "warn",
                f"exploit-{each['rule']}",
                f"The reward function can be fooled: {gained}; on row {shown['row']},"
                f" {_quoted(shown['completion'])} earned {shown['earned']:g}. To mend it, {remedy}.",
                works,
                [f"row {shown['row']}: {_quoted(shown['completion'])} earned {shown['earned']:g}"],
            )

    def _report_trouble(
        self, tried: Sequence[tuple[_Tried, Exploit]], rewards: Sequence[Mapping[str, Any]]
    ) -> None:
        for trouble, words in (
            ("error", "The reward function raised an error on"),
            ("over_time", "Scoring took longer than seconds_per_sample allows for"),
        ):
            struck = [
                exploit
                for (_, exploit), reward in zip(tried, rewards, strict=True)
                if reward["metrics"].get(trouble)
            ]
            if struck:
                rules = sorted({EXPLOITS[exploit.rule][0] for exploit in struck})
                self._find(
                    "warn",
                    f"trouble-{trouble.replace('_', '-')}",
                    f"{words} {_count(len(struck), 'completion')} of {len(tried)}, which a model can write"
                    f" ({', '.join(rules[:_EXAMPLES])}): they get the floor; make the reward function take"
                    " any text.",
                    len(struck),
                    [_quoted(spelled(exploit.message)) for exploit in struck],
                )

    # The same completion, the same reward

    def _compare(self, tried: Sequence[_Tried]) -> None:
        """Scores the same completions twice, in another order, and alone."""
        if not tried:
            return
        span = self._settings.high - self._settings.low
        batch = [(each.row, each.message) for each in tried]
        first = self._scores_of(batch)
        again = self._difference(first, self._scores_of(batch), tried)
        order = [*range(1, len(batch), 2), *range(0, len(batch), 2)][::-1]
        moved = dict(zip(order, self._scores_of([batch[at] for at in order]), strict=True))
        shuffled = self._difference(first, [moved[at] for at in range(len(batch))], tried)
        # Both kinds, good ones and bad ones.
        few = [*range(len(batch))][:: max(len(batch) // _ALONE, 1)][:_ALONE]
        apart = [self._scores_of([batch[at]])[0] for at in few]
        alone = self._difference([first[at] for at in few], apart, [tried[at] for at in few])
        compared = {"again": again, "in_another_order": shuffled, "alone": alone}
        self._facts["differences"] = {name: round(each.mean, 9) for name, each in compared.items()}
        if again.mean > _ROUNDING * span:
            level: Level = "stop" if again.mean > _NOISE * span else "warn"
            self._find(
                level,
                "not-deterministic",
                f"The same batch earned other rewards the second time: {again.words}. Training follows noise"
                " then: leave chance, time and what was scored before out of the score.",
                again.count,
                again.examples,
            )
            return
        for name, each in (("in another order", shuffled), ("alone", alone)):
            if each.mean > _ROUNDING * span:
                self._find(
                    "stop",
                    "depends-on-batch",
                    f"Completions earned other rewards {name} than together: {each.words}. The service may"
                    " batch them in any way: score every completion by itself.",
                    each.count,
                    each.examples,
                )

    def _scores_of(self, batch: Sequence[tuple[Row, Message]]) -> list[float]:
        return [float(reward["score"]) for reward in self._score(batch)]

    def _difference(
        self, one: Sequence[float], other: Sequence[float], tried: Sequence[_Tried]
    ) -> _Difference:
        span = self._settings.high - self._settings.low
        gaps = [abs(a - b) for a, b in zip(one, other, strict=True)]
        examples = [
            f"row {each.row['id']}: {_quoted(spelled(each.message))} earned {a:g}, then {b:g}"
            for each, a, b, gap in zip(tried, one, other, gaps, strict=True)
            if gap > _ROUNDING * span
        ]
        return _Difference(fmean(gaps), len(examples), len(gaps), examples)

    # What the team knows

    def _judge_cases(self) -> None:
        cases = [case for case in self._cases if not case.form]
        flat = [(self._named[case.row], said(text)) for case in cases for text in case.completions]
        scores = iter([float(reward["score"]) for reward in self._score(flat, tolerant=True)] if flat else [])
        failed = 0
        for case in cases:
            earned = [next(scores) for _ in case.completions]
            fault = _case_fault(case, earned, _ROUNDING * (self._settings.high - self._settings.low))
            if fault:
                failed += 1
                name = f" ({case.name})" if case.name else ""
                self._find(
                    "stop",
                    "case",
                    f"rehearsal.jsonl:{case.line}{name}: {fault}.",
                    examples=[
                        f"{_quoted(text)} earned {score:g}"
                        for text, score in zip(case.completions, earned, strict=True)
                    ],
                )
        self._facts["cases"] = {"given": len(cases), "failed": failed}

    # Time and spread

    def _time(self, form: Form) -> None:
        """Times batches of reference completions; takes fewer rows where all are too slow for the budget."""
        settings = self._settings
        began = self._clock()
        batches: list[dict[str, Any]] = []
        self._facts["latency"] = {"timeout_seconds": settings.timeout_seconds, "batches": batches}
        for size in _BATCH_SIZES:
            taken = [*itertools.islice(itertools.cycle(self._rows), size)]
            written = [(row, form.write(row, core(row["reference_answer"])) or said("")) for row in taken]
            events = [_event(row, message, at) for at, (row, message) in enumerate(written)]
            carried = len(json.dumps(events).encode())
            started = self._clock()
            self._call(events)
            seconds = self._clock() - started
            batches.append({"size": size, "seconds": round(seconds, 6), "bytes": carried})
            self._slowest = max(self._slowest, (size, seconds), key=lambda each: each[1])
            if carried > _LARGEST_PAYLOAD:
                self._find(
                    "warn",
                    "payload",
                    f"A batch of {size} completions has {carried:,} bytes, and one invocation carries at most"
                    f" {_LARGEST_PAYLOAD:,}: shorten the rows.",
                )
        samples = len(self._rows) + self._hostile_rows * len(EXPLOITS) + 3 * _COMPARED + _ODD_ROWS
        needed = batches[-1]["seconds"] * samples / _LARGEST_BATCH
        share = (self._budget - (self._clock() - began)) / needed if needed else 1.0
        if share < 1:
            self._hostile_rows = max(int(self._hostile_rows * share), _FEWEST_ROWS)
            self._rows = self._rows[: max(int(len(self._rows) * share), _FEWEST_ROWS)]

    def _judge_time(self) -> None:
        """Holds the slowest batch of all, hostile ones too, against the function's time."""
        settings = self._settings
        size, seconds = self._slowest
        share = seconds / settings.timeout_seconds
        self._facts["latency"]["slowest"] = {"size": size, "seconds": round(seconds, 6)}
        self._facts["latency"]["share_of_timeout"] = round(share, 6)
        if share > settings.max_latency_share:
            self._find(
                "stop",
                "slow",
                f"A batch of {size} took {seconds:.3g} s of the {settings.timeout_seconds:g} s there are, and"
                f" at most {settings.max_latency_share:.0%} of them are allowed: raise timeout_seconds or"
                " memory_mb (which also buys processor) under [reward] in team.toml, or make the reward"
                " function faster.",
            )

    def _measure_spread(self) -> None:
        """Looks at all scores together: a reward that never varies teaches nothing."""
        shares = [self._settings.share(score) for score in self._scores]
        bins = [0] * 10
        for share in shares:
            bins[min(int(share * 10), 9)] += 1
        self._facts["spread"] = {
            "scores": len(shares),
            "distinct": len({round(share, 9) for share in shares}),
            "mean": round(fmean(shares), 6),
            "deviation": round(pstdev(shares), 6),
            "histogram": bins,
        }
        if self._facts["spread"]["distinct"] == 1:
            self._find(
                "stop",
                "constant",
                f"Every one of {len(shares)} completions, good and bad, earned {self._scores[0]:g}: there is"
                " nothing to learn from this reward.",
                len(shares),
            )


@dataclass(frozen=True)
class _Difference:
    """How far two lists of scores of the same completions lie apart."""

    mean: float
    count: int
    of: int
    examples: list[str]

    @property
    def words(self) -> str:
        return f"{self.count} of {self.of} differ, by {self.mean:.3g} on average"


def _case_fault(case: Case, earned: Sequence[float], tolerance: float) -> str:
    if case.at_least is not None and earned[0] < case.at_least - tolerance:
        return f"the completion earned {earned[0]:g}, and has to earn at least {case.at_least:g}"
    if case.at_most is not None and earned[0] > case.at_most + tolerance:
        return f"the completion earned {earned[0]:g}, and may earn at most {case.at_most:g}"
    for at, (better, worse) in enumerate(itertools.pairwise(earned), 1):
        if worse > better + tolerance:
            return (
                f"completion {at + 1} earned {worse:g}, more than the better completion {at} with {better:g}"
            )
    if len(earned) > 1 and earned[0] <= earned[-1] + tolerance:
        return f"the best completion earned {earned[0]:g}, no more than the worst"
    return ""


def _event(row: Row, message: Message, at: int) -> Event:
    """Returns what Bedrock sends of a completion."""
    return {
        "id": f"{row['id']}-{at}",
        "messages": [*row["messages"], message],
        "metadata": {**row["metadata"], "reference_answer": row["reference_answer"]},
    }


def _key(message: Message) -> str:
    return spelled(message).strip() or repr(message["content"])


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _quoted(text: str) -> str:
    short = " ".join(text.split())
    return f'"{short[:80]}{"..." if len(short) > 80 else ""}"'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _example(each: _Tried) -> str:
    return f"row {each.row['id']}: {_quoted(spelled(each.message))} earned {each.reward['score']:g}"


def _weakest(tried: Sequence[_Tried]) -> str:
    """Says which component takes most of what references do not earn, where there are several."""
    names = [*tried[0].reward["components"]]
    if len(names) < 2:
        return ""
    means = {name: fmean(each.reward["components"].get(name, 0.0) for each in tried) for name in names}
    lowest = min(means, key=lambda name: means[name])
    return f"; the component {lowest} gives them {means[lowest]:.3g}"
