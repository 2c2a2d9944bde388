"""Rewards visible steps of reasoning, up to a number of them. Weak shaping, and nothing more.

Counting markers of steps and capping the count is the reasoning steps reward of Open-R1 (Hugging Face, 2025):
min(1, steps / target). Nobody can tell by counting whether a step is right, or a step at all: a model that is
paid for steps writes steps. So keep its weight small, beside a reward for being right, and drop it once the
model shows its work. What is refused here is only the cheap way to that: a marker without a text behind it,
and the same text again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from lambdas.completion import tagged
from lambdas.contract import Reward, Sample

_MOST_STEPS = 50
_MOST_MARKERS = 400
_LONGEST_STEP = 600

# Share of common words above which a step is an earlier one again, with other numbers perhaps.
_ALIKE = 0.6

_CONNECTIVES = (
    "first",
    "firstly",
    "second",
    "secondly",
    "third",
    "thirdly",
    "next",
    "then",
    "now",
    "so",
    "because",
    "since",
    "therefore",
    "thus",
    "hence",
    "consequently",
    "however",
    "finally",
)

# At the start of a line: "step 1", "1.", "2)" or a bullet, with or without emphasis.
_LINE = r"^[ \t>#*_]*(?:step[ \t]+\d{1,3}\b|\d{1,3}[.)](?=[\s*_])|[-*+\u2022\u2013](?=\s))"


@dataclass(frozen=True, kw_only=True)
class ReasoningSteps:
    """Scores min(1, steps / target): different steps with something in them.

    A step begins with ``1.``, ``2)``, ``Step 3`` or a bullet at the start of a line, or with a connective at
    the start of a sentence, and ends where the next one begins. It counts when it has at least
    ``minimum_words`` different words or numbers and is not an earlier one again: steps that share three
    fifths of their words are the same. The cost is linear in the completion; of its markers, the
    first 400 are looked at.

    Attributes:
        target: Steps that earn everything, 1 to 50; more of them earn nothing more.
        minimum_words: Different words or numbers a step needs.
        tag: Name of the tag the steps stand in, such as ``think``; empty looks at the whole completion.
        connectives: Words that begin a step at the start of a sentence, in any case.
    """

    target: int = 3
    minimum_words: int = 4
    tag: str = ""
    connectives: tuple[str, ...] = _CONNECTIVES

    def __post_init__(self) -> None:
        given: object = self.connectives
        # A text is a list of letters to Python.
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"connectives is a list of words, not {given!r}")
        object.__setattr__(self, "connectives", tuple(self.connectives))
        for name in ("target", "minimum_words"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_STEPS:
                raise ValueError(f"{name} is a whole number of 1 to {_MOST_STEPS}, not {value!r}")
        if self.tag and not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as think, or empty, not {self.tag!r}")
        for word in self.connectives:
            if not isinstance(word, str) or not re.fullmatch(r"\w+(?: \w+)*", word):
                raise ValueError(f"connectives are words, not {word!r}")

    def score(self, sample: Sample) -> Reward:
        """Counts the completion's steps; needs no reference answer."""
        text = "\n".join(tagged(sample.completion, self.tag)) if self.tag else sample.completion
        texts = self._steps(text)
        steps: list[frozenset[str]] = []
        first = ""
        empty = repeated = 0
        for step in texts:
            words = frozenset(re.findall(r"\w+", step.casefold()))
            if len(words) < self.minimum_words:
                empty += 1
            elif any(_are_alike(words, other) for other in steps):
                repeated += 1
            elif len(steps) < _MOST_STEPS:
                first = first or " ".join(step.split())[:100]
                steps.append(words)
        left_out = [f"{count} {name}" for count, name in ((empty, "empty"), (repeated, "repeated")) if count]
        return Reward(
            min(1.0, len(steps) / self.target),
            metrics={"steps": float(len(steps)), "repeated": float(repeated), "empty": float(empty)},
            extracted=first or None,
            reason=f"{len(steps)} of {self.target} steps" + "".join(f", {text}" for text in left_out),
        )

    def _steps(self, text: str) -> list[str]:
        """Returns what stands between one marker of a step and the next."""
        steps: list[str] = []
        begin = None
        for match in islice(self._marker.finditer(text), _MOST_MARKERS):
            if begin is not None:
                steps.append(text[begin : min(match.start(), begin + _LONGEST_STEP)])
                # "1. First, ..." has two markers and is one step.
                if re.fullmatch(r"[^\w\n]*", steps[-1]):
                    steps.pop()
            begin = match.end()
        return steps if begin is None else [*steps, text[begin : begin + _LONGEST_STEP]]

    @property
    def _marker(self) -> re.Pattern[str]:
        words = "|".join(map(re.escape, sorted(self.connectives, key=len, reverse=True)))
        connective = rf"|(?:^[ \t]*|(?<=[.!?;:]\s))(?:{words})\b" if words else ""
        return re.compile(_LINE + connective, re.IGNORECASE | re.MULTILINE)


def _are_alike(one: frozenset[str], other: frozenset[str]) -> bool:
    common = len(one & other)
    return common >= _ALIKE * (len(one) + len(other) - common)
