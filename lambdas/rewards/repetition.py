"""Rewards a completion for not saying the same thing again: shaping against loops and padding.

The share of repeated n-grams, 1 - different / all, is the repetition penalty of Yeo and others (2025,
arXiv:2502.03373). The score is 1 while the share is at most ``allowed_share``, and falls in a line to 0 at
``largest_share``; with 0 and 1 it is that penalty itself, moved to 0..1.

It sees the same words in the same order and nothing else: the same thought in other words is new to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lambdas.contract import Reward, Sample

_LONGEST_GRAM = 10

# A word, in any case. Where a script writes no spaces (Thai to Khmer, kana, Han) each character is one, and a
# long word is cut into pieces, because a loop written without spaces is a loop too. Each mark is one as well.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]{{1,12}}|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Scores 1.0 for a completion that repeats little, falling to 0.0 where too much of it is repeated.

    A completion without a word or a mark earns nothing; one of fewer than ``n`` words repeats nothing. Cost
    and memory are linear in the completion: at most one n-gram per character.

    Attributes:
        n: Words in a row that make a repetition, 1 to 10. Code, tables and JSON repeat short ones honestly,
            and need a larger one.
        allowed_share: Share of repeated n-grams that costs nothing, for the words every text says twice.
        largest_share: Share of repeated n-grams at which nothing is left.
    """

    n: int = 4
    allowed_share: float = 0.1
    largest_share: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or not 1 <= self.n <= _LONGEST_GRAM:
            raise ValueError(f"n is a whole number of 1 to {_LONGEST_GRAM}, not {self.n!r}")
        for name in ("allowed_share", "largest_share"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name} is a number of 0 to 1, not {value!r}")
        if not self.allowed_share < self.largest_share:
            raise ValueError(
                f"allowed_share, {self.allowed_share}, has to be below largest_share, {self.largest_share}"
            )

    def score(self, sample: Sample) -> Reward:
        """Counts the completion's repeated n-grams; needs no reference answer."""
        words = _WORD.findall(sample.completion.casefold())
        grams = Counter(zip(*(words[start:] for start in range(self.n)), strict=False))
        count = max(len(words) - self.n + 1, 0)
        share = 1 - len(grams) / count if count else 0.0
        metrics = {"repeated_share": share}
        if not words:
            return Reward(0.0, metrics=metrics, reason="the completion has no words")
        room = (self.largest_share - share) / (self.largest_share - self.allowed_share)
        extracted, times = _most_repeated(grams.items())
        reason = f"{share:.0%} of {count} runs of {self.n} words are repeated"
        if times > 1:
            reason += f"; most often, {times} times: {extracted!r}"
        return Reward(
            min(max(room, 0.0), 1.0),
            metrics=metrics,
            extracted=extracted if times > 1 else None,
            reason=reason,
        )


def _most_repeated(grams: Iterable[tuple[tuple[str, ...], int]]) -> tuple[str, int]:
    """Returns the n-gram that appears most often, the first of several, and how often it does."""
    gram, times = max(grams, key=lambda item: item[1], default=((), 0))
    return " ".join(gram), times
