"""What a change means for a team's rows, its reward and its settings, beside an earlier revision.

Rows are the same row by their ids, where both files have them once, and else by their prompts. A reward is
compared by what it gives to the same completions: those that today's rehearsal tries, references and exploits
alike, and those that the team has frozen in `rollouts.jsonl`. Two numbers say how far the rewards agree:
Spearman's rank correlation, and flips, the share of completions that are in the upper half of the range for
one of them and in the lower half for the other.
"""

import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from lambdas.gate import Finding

# Two rewards that rank completions less alike than this do not teach the same.
LEAST_CORRELATION: Final = 0.8

# Tables of team.toml of which every change is another run; the filter's table is only in part.
_RUN_TABLES = ("model", "training", "measurement", "promotion", "reward")

_EXAMPLES = 3
_ANSWERS = 6
_BINS = 8
_SHOWN = 200
_BYTES_PER_TOKEN = 4
_SAME = 1e-9


class _Row(NamedTuple):
    line: int
    id: str | None
    prompt: bytes
    reference: str
    others: bytes
    size: int
    asked: str


@dataclass(frozen=True, kw_only=True)
class RowChange:
    """One row that has changed.

    Attributes:
        kind: What is different: added, removed, reference, prompt or metadata.
        line: Where it stands today; where it stood, if it was removed.
        id: Its id, if it has one.
        asked: The beginning of what the prompt asks last.
        before: The reference answer of then, "" if there was none.
        after: The reference answer of today, "" if there is none.
    """

    kind: str
    line: int
    id: str | None
    asked: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many rows of then and of today lie from one edge up to the next; the last edge is within."""

    of: str
    edges: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class FileDifference:
    """What has become of one file of a dataset.

    Attributes:
        file: train, evaluation or regression.
        before: How many rows there were; None where there is no such file to read.
        after: How many there are.
        counts: How many rows have changed, by kind of change.
        examples: A few of each kind.
        answers: The most frequent reference answers, with their counts then and today; none where no answer
            comes often.
        histograms: Of the lengths of prompts and of reference answers.
        note: Why rows are not compared, where they are not.
    """

    file: str
    before: int | None = None
    after: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[RowChange] = ()
    answers: Sequence[tuple[str, int, int]] = ()
    histograms: Sequence[Histogram] = ()
    note: str = ""

    @property
    def words(self) -> str:
        """The difference in words, as part of a sentence."""
        if self.note:
            return self.note
        told = [f"{count:,} {_KINDS[kind]}" for kind, count in self.counts.items()]
        return ", ".join(told) or "the same rows in another order or spelling"


_KINDS: Final = {
    "added": "added",
    "removed": "removed",
    "reference": "with another reference answer",
    "prompt": "with another prompt",
    "metadata": "with other metadata",
}


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """A completion and what it earned, then and today."""

    row: str
    completion: str
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class RewardDifference:
    """How far two rewards agree on the same completions.

    Attributes:
        source: Where the completions are from: rehearsal or rollouts.
        completions: How many there are.
        correlation: Spearman's; None where one of the rewards gives the same to all of them.
        flips: How many changed halves of the range.
        higher: How many earn more today, as a share of the range.
        lower: How many earn less.
        examples: Those that differ most, flips first.
    """

    source: str
    completions: int
    correlation: float | None
    flips: int
    higher: int
    lower: int
    examples: Sequence[Rescored]

    @property
    def flipped(self) -> float:
        """The share of completions that changed halves."""
        return self.flips / self.completions


@dataclass(frozen=True, kw_only=True)
class SettingChange:
    """A key of team.toml whose value, defaults filled in, is another one; None where there was or is none."""

    key: str
    before: Any
    after: Any

    @property
    def names_run(self) -> bool:
        """Whether a run is named by it, so that another value makes another run."""
        return self.key.split(".")[0] in _RUN_TABLES or self.key == "gates.filter.drop"


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def compare_rows(file: str, before: Path | None, after: Path | None) -> FileDifference | None:
    """Compares two files of rows; None where their bytes are the same.

    Args:
        file: What to call it: train, evaluation or regression.
        before: The file of then; None where there was none, or where it is in S3.
        after: The file of today, which the dataset gate need not have accepted.
    """
    if before and after and sha256(before) == sha256(after):
        return None
    try:
        old, new = _rows(before), _rows(after)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        # The file of today is judged by its own gate; one of then may be a pointer to a large file elsewhere.
        return FileDifference(file=file, note="its rows cannot be compared: one of the files is no dataset")
    counts: Counter[str] = Counter()
    examples: dict[str, list[RowChange]] = defaultdict(list)
    for was, now in _pairs(old, new):
        for kind in _kinds(was, now):
            counts[kind] += 1
            if len(examples[kind]) < _EXAMPLES:
                examples[kind].append(_change(kind, was, now))
    return FileDifference(
        file=file,
        before=None if before is None else len(old),
        after=None if after is None else len(new),
        counts={kind: counts[kind] for kind in _KINDS if counts[kind]},
        examples=[each for kind in _KINDS for each in examples[kind]],
        answers=_answers(old, new),
        histograms=[
            found
            for found in (
                _histogram("prompt tokens", [[_tokens(row) for row in rows] for rows in (old, new)]),
                _histogram(
                    "reference characters", [[len(row.reference) for row in rows] for rows in (old, new)]
                ),
            )
            if found
        ],
    )


def _rows(path: Path | None) -> list[_Row]:
    found: list[_Row] = []
    if path is None:
        return found
    with path.open("rb") as stream:
        for line, raw in enumerate(stream, 1):
            if not raw.strip():
                continue
            row = json.loads(raw)
            messages, reference, identity = (
                row.pop("messages"),
                row.pop("reference_answer"),
                row.pop("id", None),
            )
            texts = [_text(message["content"]) for message in messages]
            found.append(
                _Row(
                    line=line,
                    id=identity,
                    prompt=_digest(
                        [[message["role"], text] for message, text in zip(messages, texts, strict=True)]
                    ),
                    reference=reference if isinstance(reference, str) else _json(reference),
                    others=_digest(row),
                    size=sum(len(text.encode()) for text in texts),
                    asked=texts[-1][:_SHOWN],
                )
            )
    return found


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


def _pairs(old: Sequence[_Row], new: Sequence[_Row]) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Pairs rows of then with rows of today, in today's order; those that are gone come last."""
    once = [
        {identity for identity, count in Counter(row.id for row in rows).items() if identity and count == 1}
        for rows in (old, new)
    ]
    named = once[0] & once[1]
    by_id = {row.id: row for row in old if row.id in named}
    by_prompt: dict[bytes, list[_Row]] = defaultdict(list)
    for row in reversed(old):
        if row.id not in named:
            by_prompt[row.prompt].append(row)
    for row in new:
        if row.id in named:
            yield by_id[row.id], row
        else:
            same = by_prompt[row.prompt]
            yield (same.pop() if same else None), row
    for row in sorted((row for rows in by_prompt.values() for row in rows), key=lambda row: row.line):
        yield row, None


def _kinds(was: _Row | None, now: _Row | None) -> list[str]:
    if was is None:
        return ["added"]
    if now is None:
        return ["removed"]
    found = [kind for kind in ("reference", "prompt") if getattr(was, kind) != getattr(now, kind)]
    return found or (["metadata"] if (was.others, was.id) != (now.others, now.id) else [])


def _change(kind: str, was: _Row | None, now: _Row | None) -> RowChange:
    row = now or was
    assert row is not None  # noqa: S101 - one of them is there
    return RowChange(
        kind=kind,
        line=row.line,
        id=row.id,
        asked=row.asked,
        before=was.reference[:_SHOWN] if was else "",
        after=now.reference[:_SHOWN] if now else "",
    )


def _tokens(row: _Row) -> int:
    return -(-row.size // _BYTES_PER_TOKEN)


def _answers(old: Sequence[_Row], new: Sequence[_Row]) -> list[tuple[str, int, int]]:
    """Returns the answers that come most often; none where hardly any comes twice, as with free text."""
    before, after = (Counter(row.reference for row in rows) for rows in (old, new))
    both = before + after
    if len(both) * 4 > both.total():
        return []
    return [(answer[:_SHOWN], before[answer], after[answer]) for answer, _ in both.most_common(_ANSWERS)]


def _histogram(of: str, values: Sequence[Sequence[int]]) -> Histogram | None:
    together = [value for side in values for value in side]
    if not together:
        return None
    low, high = min(together), max(together)
    width = max(-(-(high - low + 1) // _BINS), 1)
    edges = [*range(low, high + width, width)]
    edges = edges if edges[-1] > high else [*edges, edges[-1] + width]
    counted = [Counter((value - low) // width for value in side) for side in values]
    before, after = ([side[at] for at in range(len(edges) - 1)] for side in counted)
    return Histogram(of=of, edges=edges, before=before, after=after)


# --- Rewards


def compare_rewards(
    source: str,
    completions: Sequence[tuple[str, str]],
    before: tuple[tuple[float, float], Sequence[float]],
    after: tuple[tuple[float, float], Sequence[float]],
) -> RewardDifference:
    """Compares two rewards by what they gave to the same completions.

    Args:
        source: rehearsal or rollouts.
        completions: The id of each one's row, and its text; at least one.
        before: The range of the reward of then, and what it gave.
        after: The same of today's.
    """
    shares = [[(score - low) / (high - low) for score in scores] for (low, high), scores in (before, after)]
    moves = [now - was for was, now in zip(*shares, strict=True)]
    flips = [(was >= 0.5) != (now >= 0.5) for was, now in zip(*shares, strict=True)]
    # One of each row first, for a row that moved moves in many completions.
    ranked: list[tuple[int, int]] = []
    seen: Counter[str] = Counter()
    for at in sorted(range(len(moves)), key=lambda at: (not flips[at], -abs(moves[at]), at)):
        if abs(moves[at]) > _SAME:
            ranked.append((seen[completions[at][0]], at))
            seen[completions[at][0]] += 1
    ranked.sort(key=lambda entry: entry[0])
    return RewardDifference(
        source=source,
        completions=len(completions),
        correlation=rank_correlation(*shares),
        flips=sum(flips),
        higher=sum(move > _SAME for move in moves),
        lower=sum(move < -_SAME for move in moves),
        examples=[
            Rescored(
                row=completions[at][0],
                completion=completions[at][1][:_SHOWN],
                before=before[1][at],
                after=after[1][at],
            )
            for _, at in ranked[: 2 * _EXAMPLES]
        ],
    )


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, ties at their mean rank; None where either is constant."""
    if len({*one}) < 2 or len({*other}) < 2:
        return None
    return statistics.correlation(_ranks(one), _ranks(other))


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for at in order[start:end]:
            ranks[at] = (start + end - 1) / 2
        start = end
    return ranks


def reward_findings(difference: RewardDifference) -> Iterator[Finding]:
    """Says where two rewards agree too little: frozen rollouts stop a change, the rehearsal only warns.

    A reward that has been mended is meant to think otherwise of exploits; of what a model really wrote it
    is not, unless the team says so by freezing others.
    """
    frozen = difference.source == "rollouts"
    of = (
        f"the {difference.completions:,} frozen completions of rollouts.jsonl"
        if frozen
        else f"the {difference.completions:,} completions of the rehearsal"
    )
    examples = tuple(
        f"row {each.row}: {' '.join(each.completion.split())[:80]!r} earned {each.before:g},"
        f" now {each.after:g}"
        for each in difference.examples[:_EXAMPLES]
    )
    changed = difference.higher + difference.lower
    if not changed:
        return
    remedy = (
        "if that is meant, freeze new completions, or remove the file"
        if frozen
        else "look at the examples, and freeze real completions in rollouts.jsonl to compare by those"
    )
    if difference.correlation is None:
        yield Finding(
            "reward-constant",
            "stop" if frozen else "warn",
            f"Of {of} {changed:,} earn another score, and one of the rewards gives the same to all, so there"
            f" is no order to compare: {remedy}.",
            changed,
            examples=examples,
        )
    elif difference.correlation < LEAST_CORRELATION:
        yield Finding(
            "reward-order",
            "stop" if frozen else "warn",
            f"The reward ranks {of} otherwise than before: the rank correlation is"
            f" {difference.correlation:.2f}, under {LEAST_CORRELATION:g}, and {difference.flipped:.0%} flip:"
            f" {remedy}.",
            changed,
            examples=examples,
        )


# --- Settings


def compare_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[SettingChange]:
    """Returns the keys whose values differ, dotted, in the order of the file."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return [
        SettingChange(key=key, before=old.get(key), after=new.get(key))
        for key in dict.fromkeys((*new, *old))
        if old.get(key) != new.get(key)
    ]


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        # `tags` is called otherwise in the code only.
        name = f"{above}{'tags' if key == 'extra_tags' and not above else key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
