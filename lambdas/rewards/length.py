"""Rewards a completion for staying within a length: shaping, to be combined with a reward for being right.

Two shapes, by what is known to work:

- ``soft_overlong`` is the soft overlong punishment of DAPO (Yu and others, 2025, arXiv:2503.14476, section
  3.4), moved from -1..0 to 0..1: 1 up to ``maximum - buffer``, then falling in a line to 0 at ``maximum``.
  Nothing is gained by being shorter than that.
- ``cosine`` is the length scaling of the cosine reward (Yeo and others, 2025, arXiv:2502.03373, section 3.1):
  (1 + cos(pi t)) / 2, where t rises from 0 at ``minimum`` to 1 at ``maximum``. The shorter, the better.
  The paper scales right answers and wrong ones differently, and only the whole reward knows which is which:
  ``formula = "answer * (0.5 + 0.5 * length)"`` pays a long right answer half of what a short one gets, and a
  wrong one nothing.

Below ``minimum`` either one is multiplied by length / minimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lambdas.contract import Reward, Sample

Shape = Literal["soft_overlong", "cosine"]
Unit = Literal["characters", "words", "tokens"]

_LARGEST = 1_000_000

# DAPO's own: 4,096 of 20,480 tokens.
_BUFFER_SHARE = 0.2

# Bytes of UTF-8 per token: about right for English prose, and for other scripts nearer than characters are.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Length:
    """Scores 1.0 for a completion of a good length, falling to 0.0 at ``maximum``.

    It does not look at what is said, and an empty completion earns nothing. Only the text is measured, not
    the tool calls. The cost is linear in the completion.

    Attributes:
        maximum: Length at which nothing is left.
        minimum: Length below which a completion earns less; here white space counts as one space, so that
            padding with it does not help.
        shape: ``soft_overlong``: all the same until shortly before ``maximum``. ``cosine``: the shorter the
            better.
        buffer: Length before ``maximum`` in which the reward falls; only for ``soft_overlong``. Left out, it
            is a fifth of ``maximum``.
        unit: ``characters``. ``words``: what stands between white space, so not for Chinese, Japanese or
            Thai. ``tokens``: an estimate, one per four bytes of UTF-8; the model's own count can differ by
            half, more so in code and in other languages than English.
    """

    maximum: int
    minimum: int = 1
    shape: Shape = "soft_overlong"
    buffer: int | None = None
    unit: Unit = "characters"

    def __post_init__(self) -> None:
        for name, allowed in (("shape", get_args(Shape)), ("unit", get_args(Unit))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        for name, low in (("maximum", 2), ("minimum", 1), ("buffer", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= _LARGEST
            if not whole and not (value is None and name == "buffer"):
                raise ValueError(f"{name} is a whole number of {low} to {_LARGEST:,}, not {value!r}")
        if self.shape == "cosine" and self.buffer is not None:
            raise ValueError("buffer belongs to the shape soft_overlong; leave it out for cosine")
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum has to be below maximum, {self.maximum}, and is {self.minimum}")
        if self.shape == "soft_overlong" and self.minimum > self.maximum - self._buffer:
            raise ValueError(
                f"no length earns everything: minimum, {self.minimum}, is above maximum - buffer, "
                f"{self.maximum} - {self._buffer}"
            )

    def score(self, sample: Sample) -> Reward:
        """Measures the completion; needs no reference answer."""
        text = sample.completion
        length = self._measure(text)
        # Counting white space in full makes it cost what it costs to read, and never earn anything.
        dense = self._measure(" ".join(text.split()))
        score = self._shape(length) * min(1.0, dense / self.minimum)
        if dense < self.minimum:
            reason = f"below the minimum of {self.minimum}"
        elif score == 1.0:
            reason = "a good length"
        elif score == 0.0:
            reason = f"at the maximum of {self.maximum} or beyond"
        else:
            reason = f"on the way to the maximum of {self.maximum}"
        shown = f"{'about ' if self.unit == 'tokens' else ''}{length} {self.unit}"
        return Reward(score, metrics={"length": float(length)}, extracted=shown, reason=f"{shown}: {reason}")

    @property
    def _buffer(self) -> int:
        return int(self.maximum * _BUFFER_SHARE) if self.buffer is None else self.buffer

    def _measure(self, text: str) -> int:
        if self.unit == "words":
            return len(text.split())
        if self.unit == "characters":
            return len(text)
        # Half a surrogate pair has no UTF-8 of its own, and three bytes like its neighbours.
        return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)

    def _shape(self, length: int) -> float:
        if self.shape == "cosine":
            share = (length - self.minimum) / (self.maximum - self.minimum)
            return (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2
        if length <= self.maximum - self._buffer:
            return 1.0
        return max(0.0, self.maximum - length) / max(self._buffer, 1)
