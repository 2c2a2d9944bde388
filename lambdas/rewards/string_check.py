"""Rewards a text that is, is not, contains or matches what is expected: 1.0 or 0.0.

``eq``, ``ne``, ``like`` and ``ilike`` mean what they mean in OpenAI's string check grader: ``like`` is
"contains", and ``%`` and ``_`` are ordinary characters. ``regex`` is matched by RE2, whose time grows with
the length of the text alone, whatever text a model writes; look-around and back-references, which make that
impossible, are not part of its language.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lambdas.answer import json_field, quoted, reference_text
from lambdas.contract import Reward, Sample, UnscorableError

Operation = Literal["eq", "ne", "like", "ilike", "regex"]

# Bounds of what RE2 is given: with them one search ends within tens of milliseconds.
_LONGEST_PATTERN = 1_000
_LARGEST_PROGRAM = 2_000
_LONGEST_SEARCHED = 100_000


@dataclass(frozen=True, kw_only=True)
class StringCheck:
    """Scores 1.0 when the comparison holds and 0.0 when it does not.

    An empty text never earns anything, not even by being different. ``like`` and ``ilike`` also pay a
    completion that lists every answer there is; where that can happen, compare one ``field`` by ``eq``.
    The cost is linear in the length of the completion; of a ``regex``, 100,000 characters are read at most,
    and a longer text does not match.

    Attributes:
        operation: ``eq``: the text is the expected one. ``ne``: it is another one. ``like``: it contains the
            expected one. ``ilike``: it contains it in any case. ``regex``: the expected text is an RE2
            pattern, found somewhere in the text; ``^`` and ``$`` stand for its ends.
        field: Path of the compared value in the completion's JSON, such as ``customer.name``; empty takes the
            whole completion.
        reference_field: Path of the expected text in the reference answer; empty takes all of it.
        value: A fixed expected text, in place of the row's reference answer.
        strip: Whether white space around both texts is ignored.
    """

    operation: Operation = "eq"
    field: str = ""
    reference_field: str = ""
    value: str | None = None
    strip: bool = True

    def __post_init__(self) -> None:
        if self.operation not in get_args(Operation):
            raise ValueError(f"operation is one of {', '.join(get_args(Operation))}, not {self.operation!r}")
        if self.strip not in (True, False):
            raise ValueError(f"strip is true or false, not {self.strip!r}")
        if self.value is None:
            return
        if self.reference_field:
            raise ValueError("value and reference_field both say what is expected; keep one of them")
        if not isinstance(self.value, str) or not self.value.strip():
            raise ValueError(f"value is the expected text and cannot be empty, not {self.value!r}")
        if self.operation == "regex":
            try:
                _pattern(self.value)
            except ValueError as error:
                raise ValueError(f"value: {error}") from None

    def score(self, sample: Sample) -> Reward:
        """Compares the completion, or one field of it, with the expected text.

        Raises:
            UnscorableError: The row has no expected text, or it is no pattern and ``regex`` needs one.
        """
        expected = self.value
        if expected is None:
            expected = reference_text(sample.reference_answer, self.reference_field)
        pattern: Any = None
        if self.operation == "regex":
            try:
                pattern = _pattern(expected)
            except ValueError as error:
                raise UnscorableError(f"the reference answer: {error}") from None
        text = json_field(sample.completion, self.field) if self.field else sample.completion
        if text is None or not text.strip():
            absent = f"no JSON with a value at {self.field!r}" if self.field else "the completion is empty"
            return Reward(0.0, metrics={"answered": 0.0}, reason=absent)
        read = text
        if self.strip:
            text, expected = text.strip(), expected.strip()
        if self.operation == "ilike":
            text, expected = text.casefold(), expected.casefold()
        match self.operation:
            case "eq" | "ne":
                found = text == expected
                verb = "is" if found else "is not"
            case "like" | "ilike":
                found = expected in text
                verb = "contains" if found else "does not contain"
            case "regex" if len(text) > _LONGEST_SEARCHED:
                found = False
                verb = f"has more than {_LONGEST_SEARCHED} characters and is not searched for"
            case "regex":
                # As bytes, because half a surrogate pair has no UTF-8.
                found = bool(pattern.search(text.encode("utf-8", "replace")))
                verb = "matches" if found else "does not match"
        right = found != (self.operation == "ne")
        reason = f"{quoted([read])} {verb} {quoted([expected])}"
        return Reward(float(right), metrics={"answered": 1.0}, extracted=read.strip()[:200], reason=reason)


@functools.lru_cache(maxsize=64)
def _pattern(text: str) -> Any:
    """Compiles a pattern of RE2, which has no types to speak of.

    Raises:
        ValueError: The text is none, or a larger one than is accepted.
    """
    # Imported here, so that the other operations start without it.
    import re2

    if len(text) > _LONGEST_PATTERN:
        raise ValueError(f"the pattern has {len(text)} characters; {_LONGEST_PATTERN} are allowed")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(text, options)
    except UnicodeEncodeError:
        raise ValueError("the pattern is not Unicode text") from None
    except re2.error as error:
        raise ValueError(
            f"{text[:60]!r} is no pattern of RE2 ({error.args[0].decode('utf-8', 'replace')}); "
            "it knows no look-around and no back-references"
        ) from None
    if compiled.programsize > _LARGEST_PROGRAM:
        raise ValueError(f"{text[:60]!r} is too large a pattern; use smaller repetitions")
    return compiled
