"""Rewards the tool calls of a completion: their names and arguments, against the reference.

Each call of the reference is compared with the call of the completion that suits it best, one with one. A
pair of the same name earns ``name_weight``, plus the rest times the Jaccard share of its arguments: the equal
ones / all that either of the two has. What a completion earns is then

    sum of its pairs / (calls of the reference + extra_call_penalty * calls too many)

where a call is one too many when the reference has no call of its name left. An argument, or a call, that is
made up is in a denominator and never in a numerator; and as a call too many costs as much as a call that is
expected, listing several guesses earns at most what the best one of them would.

Argument values are compared as JSON: 1 is 1.0 and is not "1", true is not 1, objects have no order, arrays
do, and an array or object is right as a whole or not at all.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from lambdas.completion import DEEPEST, fenced, is_deep, strict_json, tagged
from lambdas.contract import Reward, Sample, UnscorableError

Form = Literal["any", "messages", "tag", "json"]
Strings = Literal["exact", "casefold"]

# Bounds of the matching: with them it takes milliseconds, whatever is compared.
_MOST_EXPECTED = 32
_MOST_CALLS = 64

# Shares as whole numbers, so that the order in which they are added up changes nothing.
_WHOLE = 10**9

# Where the writers of tool calls put the arguments: OpenAI and Hermes, Llama, Bedrock's Converse.
_ARGUMENTS = ("arguments", "parameters", "input")
_WRAPPERS = ("function", "toolUse")

# Without one of these, what looks like JSON is not even meant as a call.
_KEY_OF_CALLS = re.compile('"(?:name|function|toolUse|tool_calls)"')


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """Scores how well a completion's tool calls are the expected ones, from 0.0 to 1.0.

    A reference is one call, ``{name, arguments}``, or a list of them under ``tool_calls``, in OpenAI's shape;
    arguments are an object, or an object as text. All of it may be text, too. Where the list is empty, no
    call is expected, and any text without a call earns everything. A call that cannot be read is one too
    many. A completion of more than 64 calls earns nothing, and a reference has at most 32; so the cost is
    linear in the completion, plus at most 64 times the size of the reference.

    Attributes:
        form: Where calls stand. ``messages``: in the ``tool_calls`` of the message. ``tag``: as JSON in
            ``<tool_call></tool_call>`` (see ``tag``). ``json``: the completion is JSON, or its fenced code
            blocks are. ``any``: in messages and tags, and as JSON where there are none of either.
        tag: Name of the tag of the form ``tag``.
        ordered: Whether the calls have to be made in the reference's order.
        name_weight: What the right name alone earns of a call, 0 to 1; the rest is for the arguments.
        extra_call_penalty: What a call too many costs, in expected calls; at least 1.
        ignored_arguments: Arguments that do not count, such as a free text.
        strings: ``exact``, or ``casefold``: neither case nor the amount of white space matters in arguments.
        numbers_as_text: Whether "5" is 5 and "true" is true in arguments.
        absolute_tolerance: How far off a number may be.
        relative_tolerance: How far off a number may be, as a share of the reference. The wider one counts.
        partial_credit: Whether some right calls or arguments earn something; otherwise it is all or nothing.
        reference_field: Field of the reference answer that holds the calls; empty takes all of it.
    """

    form: Form = "any"
    tag: str = "tool_call"
    ordered: bool = False
    name_weight: float = 0.25
    extra_call_penalty: float = 1.0
    ignored_arguments: tuple[str, ...] = ()
    strings: Strings = "exact"
    numbers_as_text: bool = False
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 0.0
    partial_credit: bool = True
    reference_field: str = ""

    def __post_init__(self) -> None:
        ignored: object = self.ignored_arguments
        if not isinstance(ignored, (list, tuple)) or not all(isinstance(name, str) for name in ignored):
            raise ValueError(f"ignored_arguments is a list of names, not {ignored!r}")
        object.__setattr__(self, "ignored_arguments", tuple(self.ignored_arguments))
        for name, allowed in (("form", get_args(Form)), ("strings", get_args(Strings))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        for name in ("ordered", "numbers_as_text", "partial_credit"):
            if getattr(self, name) not in (True, False):
                raise ValueError(f"{name} is true or false, not {getattr(self, name)!r}")
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as tool_call, not {self.tag!r}")
        for name, low, high, wanted in (
            ("name_weight", 0.0, 1.0, "0 to 1"),
            ("extra_call_penalty", 1.0, 1_000.0, "1 to 1,000; below 1, listing guesses would pay"),
            ("absolute_tolerance", 0.0, 1e300, "at least 0"),
            ("relative_tolerance", 0.0, 1e300, "at least 0"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"{name} is a number of {wanted}, not {value!r}")

    def score(self, sample: Sample) -> Reward:
        """Compares the completion's calls with the reference.

        Raises:
            UnscorableError: The reference answer is missing, or is not a list of at most 32 calls.
        """
        expected = self._reference(sample.reference_answer)
        found = self._found(sample)
        calls = [call for call in found if call is not None]
        malformed = len(found) - len(calls)
        unexpected = Counter(call.name for call in calls) - Counter(call.name for call in expected)
        extra = malformed + unexpected.total()
        share, reason = self._judged(expected, found, extra, sample.completion)
        right = share == 1.0
        return Reward(
            share if self.partial_credit or right else 0.0,
            metrics={
                "calls": float(len(found)),
                "extra_calls": float(extra),
                "malformed_calls": float(malformed),
                "exact_match": float(right),
            },
            extracted=_shown(calls),
            reason=reason,
        )

    def _reference(self, reference: Any) -> list[_Call]:
        value = reference
        if self.reference_field:
            value = reference.get(self.reference_field) if isinstance(reference, Mapping) else None
            if value is None:
                raise UnscorableError(f"the reference answer has no field {self.reference_field!r}")
        if value is None:
            raise UnscorableError("the row has no reference answer")
        if isinstance(value, str):
            try:
                value = strict_json(value)
            except ValueError as error:
                raise UnscorableError(f"the reference answer is not valid JSON: {error}") from None
        if not isinstance(value, (list, tuple, Mapping)):
            raise UnscorableError(f"the reference answer is {type(value).__name__}, not a list of tool calls")
        calls = self._read(value)
        if len(calls) > _MOST_EXPECTED:
            raise UnscorableError(
                f"the reference answer has {len(calls)} calls; {_MOST_EXPECTED} are allowed"
            )
        read = [call for call in calls if call is not None]
        if len(read) < len(calls):
            raise UnscorableError(
                f"the reference answer's call {calls.index(None) + 1} is no object with a name and arguments "
                f"nested at most {DEEPEST} levels deep"
            )
        return read

    def _found(self, sample: Sample) -> list[_Call | None]:
        """Reads the calls of a completion where they are declared; None is one that cannot be read."""
        found: list[_Call | None] = []
        if self.form in {"any", "messages"}:
            found += self._read(list(sample.tool_calls))
        if self.form in {"any", "tag"}:
            texts = tagged(sample.completion, self.tag)
            opened = len(re.findall(f"<{re.escape(self.tag)}>", sample.completion, re.IGNORECASE))
            for text in texts[: _MOST_CALLS + 1]:
                found += self._parsed(text, _is_object) or [None]
            # What is not read, because there is too much of it or it never ends, counts all the same.
            found += [None] * (opened - min(len(texts), _MOST_CALLS + 1))
        if self.form == "json" or (self.form == "any" and not found):
            text = sample.completion.strip()
            blocks = [text] if text[:1] in {"{", "["} else fenced(text)
            for block in blocks:
                if block.lstrip()[:1] in {"{", "["} and _KEY_OF_CALLS.search(block):
                    found += self._parsed(block, _is_call)
        return found

    def _parsed(self, text: str, meant: Callable[[Any], bool]) -> list[_Call | None]:
        """Reads the calls in a JSON text; data in which nothing is meant as a call holds none."""
        try:
            value = strict_json(text)
        except ValueError:
            return [None]
        if isinstance(value, list):
            return self._read(value) if any(map(meant, value)) else []
        return self._read(value) if meant(value) else []

    def _read(self, value: Any) -> list[_Call | None]:
        """Reads one call, a list of calls, or an object with a list of calls."""
        if isinstance(value, Mapping) and isinstance(value.get("tool_calls"), (list, tuple)):
            value = value["tool_calls"]
        return [self._call(item) for item in ([value] if isinstance(value, Mapping) else value)]

    def _call(self, item: Any) -> _Call | None:
        for wrapper in _WRAPPERS:
            if isinstance(item, Mapping) and isinstance(item.get(wrapper), Mapping):
                item = item[wrapper]
        if not isinstance(item, Mapping):
            return None
        name = item.get("name")
        given = [item[key] for key in _ARGUMENTS if item.get(key) is not None]
        if not isinstance(name, str) or not name.strip() or len(given) > 1:
            return None
        arguments = given[0] if given else {}
        if isinstance(arguments, str):
            try:
                arguments = strict_json(arguments) if arguments.strip() else {}
            except ValueError:
                return None
        if not isinstance(arguments, dict) or is_deep(arguments):
            return None
        # Once per call, and not again for each call it is compared with.
        kept = {
            key: self._normal(value) for key, value in arguments.items() if key not in self.ignored_arguments
        }
        return _Call(name.strip(), kept)

    def _alike(self, expected: _Call, made: _Call) -> int:
        """Returns how far a call is the expected one, in parts of ``_WHOLE``."""
        if expected.name != made.name:
            return 0
        equal = sum(
            self._equal(value, made.arguments[key])
            for key, value in expected.arguments.items()
            if key in made.arguments
        )
        either = len(expected.arguments) + len(made.arguments) - equal
        share = equal / either if either else 1.0
        return round(_WHOLE * (self.name_weight + (1 - self.name_weight) * share))

    def _equal(self, expected: Any, made: Any) -> bool:
        if isinstance(expected, dict) and isinstance(made, dict):
            return expected.keys() == made.keys() and all(
                self._equal(value, made[key]) for key, value in expected.items()
            )
        if isinstance(expected, list) and isinstance(made, list):
            return len(expected) == len(made) and all(map(self._equal, expected, made))
        if _is_number(expected) and _is_number(made):
            return expected == made or self._close(expected, made)
        return type(expected) is type(made) and bool(expected == made)

    def _normal(self, value: Any) -> Any:
        """Writes what is allowed to differ in one way."""
        if isinstance(value, dict):
            return {key: self._normal(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._normal(inner) for inner in value]
        if self.numbers_as_text:
            value = _unwritten(value)
        if isinstance(value, str) and self.strings == "casefold":
            return " ".join(unicodedata.normalize("NFC", value).casefold().split())
        return value

    def _close(self, expected: float, made: float) -> bool:
        if self.absolute_tolerance == self.relative_tolerance == 0:
            return False
        # Not every integer has a float, and not every float has a fraction.
        if any(isinstance(value, float) and not math.isfinite(value) for value in (expected, made)):
            return False
        # As fractions of what was written, so that 1.1 is within 0.01 of 1.11.
        wanted, given = (
            Fraction(value if isinstance(value, int) else repr(value)) for value in (expected, made)
        )
        allowed = max(
            Fraction(repr(self.absolute_tolerance)), Fraction(repr(self.relative_tolerance)) * abs(wanted)
        )
        return abs(given - wanted) <= allowed

    def _judged(
        self, expected: list[_Call], found: list[_Call | None], extra: int, said: str
    ) -> tuple[float, str]:
        """Returns the share of the expected calls that were made, and the verdict in words."""
        if len(found) > _MOST_CALLS:
            return 0.0, f"{len(found)} calls are made; {_MOST_CALLS} are read at most"
        if not expected and not found and not said.strip():
            return 0.0, "no call is expected, and the completion is empty"
        if not expected:
            made = f"{len(found)} are made" if found else "there is none"
            return float(not found), f"no call is expected, and {made}"
        if not found:
            return 0.0, "no call is made"
        calls = [call for call in found if call is not None]
        pairs = [[self._alike(one, other) for other in calls] for one in expected]
        earned = _best_in_order(pairs) if self.ordered else _best(pairs)
        share = earned / _WHOLE / (len(expected) + self.extra_call_penalty * extra)
        if share == 1.0:
            return 1.0, "every call is right"
        names = {call.name for call in calls}
        missing = [call.name[:60] for call in expected if call.name not in names]
        faults = (
            [f"missing: {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}"] if missing else []
        )
        if extra:
            faults.append(f"{extra} calls too many")
        wrong = f"not every argument {'or not the order ' if self.ordered else ''}is right"
        return share, "; ".join(faults) or wrong


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    arguments: dict[str, Any]


def _best(pairs: Sequence[Sequence[int]]) -> int:
    """Returns the most that pairs of a row and a column can add up to, each used at most once.

    This is the assignment problem, solved by shortest augmenting paths (Jonker and Volgenant, 1987) in
    rows * rows * columns steps.
    """
    rows = [list(row) for row in pairs]
    if not rows or not rows[0]:
        return 0
    if len(rows) > len(rows[0]):
        rows = [list(column) for column in zip(*rows, strict=True)]
    columns = len(rows[0])
    # Potentials keep every reduced cost at 0 or above; row and column 0 stand for "none".
    row_potential, column_potential = [0] * (len(rows) + 1), [0] * (columns + 1)
    owner = [0] * (columns + 1)
    for row in range(1, len(rows) + 1):
        owner[0] = row
        column = 0
        distance = [math.inf] * (columns + 1)
        before = [0] * (columns + 1)
        done = [False] * (columns + 1)
        while owner[column]:
            done[column] = True
            current = owner[column]
            step, nearest = math.inf, 0
            for other in range(1, columns + 1):
                if done[other]:
                    continue
                cost = -rows[current - 1][other - 1] - row_potential[current] - column_potential[other]
                if cost < distance[other]:
                    distance[other], before[other] = cost, column
                if distance[other] < step:
                    step, nearest = distance[other], other
            for other in range(columns + 1):
                if done[other]:
                    row_potential[owner[other]] += int(step)
                    column_potential[other] -= int(step)
                else:
                    distance[other] -= step
            column = nearest
        while column:
            owner[column] = owner[before[column]]
            column = before[column]
    return sum(rows[owner[column] - 1][column - 1] for column in range(1, columns + 1) if owner[column])


def _best_in_order(pairs: Sequence[Sequence[int]]) -> int:
    """Returns the most that pairs of a row and a column can add up to, when no two of them cross."""
    most = [0] * ((len(pairs[0]) if pairs else 0) + 1)
    for row in pairs:
        diagonal = 0
        for column, value in enumerate(row, start=1):
            diagonal, most[column] = most[column], max(most[column], most[column - 1], diagonal + value)
    return most[-1]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_call(value: Any) -> bool:
    """Tells whether JSON data is meant as a call, well made or not: an answer may be an object, too."""
    if not isinstance(value, dict):
        return False
    named = "name" in value and not value.keys().isdisjoint(_ARGUMENTS)
    return named or not value.keys().isdisjoint((*_WRAPPERS, "tool_calls"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unwritten(value: Any) -> Any:
    """Reads a number or a truth value that was written as text."""
    if not isinstance(value, str) or len(value) > 40:
        return value
    try:
        read = strict_json(value.strip().lower())
    except ValueError:
        return value
    return read if isinstance(read, (bool, int, float)) else value


def _shown(calls: Sequence[_Call]) -> str | None:
    """Writes the first calls in one line, for people."""
    if not calls:
        return None
    shown: list[str] = []
    for call in calls[:3]:
        try:
            arguments = json.dumps(call.arguments, ensure_ascii=False)[:100]
        # An integer of more digits than can be written.
        except ValueError:
            arguments = "..."
        shown.append(f"{call.name[:60]} {arguments}")
    more = f" and {len(calls) - 3} more" if len(calls) > 3 else ""
    return "; ".join(shown) + more
