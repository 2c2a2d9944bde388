"""Finds prompts that say almost the same in other words, by MinHash.

Two prompts are as similar as the share of three-word sequences they have in common (Jaccard), estimated
from 120 MinHash values of each. What a file repeats in most of its rows (instructions around a short
question) says nothing about how alike two of them are and is left out.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

# 20 bands of 6 values: pairs at 0.8 are found in 99.8 of 100 cases, and most of those below 0.5 never met.
_VALUES, _BANDS, _SEED = 120, 20, 42
_SEQUENCE: Final = 3
# With fewer sequences than these, similarity is a matter of one word.
_FEWEST: Final = 5
# Of a longer prompt only the first and the last words are read: the cost of a row is bounded.
_WORDS_AT_EACH_END: Final = 1000
# Rows from which is learned what a file repeats, and in which share of them that must stand.
_LEARNED_FROM: Final = 64
_LEARNED_FROM_AT_LEAST: Final = 8
_REPEATED: Final = 0.5
# A prompt is held against so many candidates; who has more is found by the first of them.
_CANDIDATES: Final = 100
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts that are near duplicates: the line of the later one, and the line of the one it repeats."""

    line: int
    other: int
    same_answer: bool


class NearDuplicates:
    """Near duplicates among the rows it is told of, or among them and the rows of `against`.

    A row that repeats another is not kept itself, so that a thousand copies are a thousand pairs. Memory is
    bounded by the number of rows, at about 3 KB each.
    """

    def __init__(self, similarity: float, against: "NearDuplicates | None" = None) -> None:
        # Not above: whoever leaves the search out needs no MinHash at all.
        from rensa import RMinHash, RMinHashLSH

        self._minhash: Any = RMinHash
        self._similarity = similarity
        self._against = against
        self._index: Any = RMinHashLSH(threshold=similarity, num_perm=_VALUES, num_bands=_BANDS)
        self._kept: list[tuple[int, int, Any]] = []
        self._waiting: list[tuple[int, set[str], int]] | None = [] if against is None else None
        self._repeated: frozenset[str] = frozenset()
        self._prompts: set[int] = set()
        self._pairs: list[Pair] = []

    def read(self, line: int, text: str, prompt: int, answer: int) -> None:
        """Takes in a row: what its conversation says, and hashes of its whole prompt and of its answer.

        A prompt that `against` has word for word is no near duplicate of it.
        """
        self._prompts.add(prompt)
        if self._against and prompt in self._against._prompts:
            return
        sequences = _sequences(text)
        if self._waiting is None:
            self._compare(line, sequences, answer)
            return
        self._waiting.append((line, sequences, answer))
        if len(self._waiting) == _LEARNED_FROM:
            self._learn()

    def pairs(self) -> list[Pair]:
        """Returns what was found, in the order of the rows."""
        self._learn()
        return self._pairs

    def _learn(self) -> None:
        """Finds out what most of the waiting rows repeat, and takes them in."""
        if self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        if len(waiting) >= _LEARNED_FROM_AT_LEAST:
            counts = Counter(chain.from_iterable(sequences for _, sequences, _ in waiting))
            most = len(waiting) * _REPEATED
            self._repeated = frozenset(sequence for sequence, count in counts.items() if count >= most)
        for line, sequences, answer in waiting:
            self._compare(line, sequences, answer)

    def _compare(self, line: int, sequences: set[str], answer: int) -> None:
        held = self._against or self
        held._learn()
        own = sequences - held._repeated
        if len(own) < _FEWEST:
            return
        minhash = self._minhash(_VALUES, _SEED)
        minhash.update(list(own))
        alike = [
            held._kept[key]
            for key in held._index.query(minhash)[:_CANDIDATES]
            if minhash.jaccard(held._kept[key][2]) >= self._similarity
        ]
        if alike:
            # Of several, the one with the same answer says the most.
            other = next((kept for kept in alike if kept[1] == answer), alike[0])
            self._pairs.append(Pair(line, other[0], other[1] == answer))
        elif held is self:
            self._index.insert(len(self._kept), minhash)
            self._kept.append((line, answer, minhash))


def _sequences(text: str) -> set[str]:
    words = _WORD.findall(text.lower())
    if len(words) > 2 * _WORDS_AT_EACH_END:
        words = words[:_WORDS_AT_EACH_END] + words[-_WORDS_AT_EACH_END:]
    return {" ".join(each) for each in zip(*(words[start:] for start in range(_SEQUENCE)), strict=False)}
