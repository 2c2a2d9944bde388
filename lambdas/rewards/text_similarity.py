"""Rewards how much of its wording a text shares with the expected one, from 0.0 to 1.0.

These are measures of wording, not of meaning: two texts that say the same in other words score low, and a
sentence with a "not" too many scores high. They are computed here from their published definitions, in pure
Python and on the text alone; there is no stemming, no synonym list and no embedding model behind any of them.

* ``fuzzy``: characters kept in order, 2 * LCS / (characters of both): the normalized Indel similarity, which
  is what RapidFuzz calls ``ratio``.
* ``bleu``: Papineni et al. 2002, for one sentence as sacreBLEU computes it (Post 2018): orders 1 to 4 as far
  as the text has them, brevity penalty, exponential smoothing (Chen and Cherry 2014, method 3).
* ``gleu``: the Google-BLEU of Wu et al. 2016, section 4.3: shared n-grams of orders 1 to 4, by the longer of
  the two.
* ``rouge_1`` to ``rouge_5``: ROUGE-N of Lin 2004 as an F1; ``rouge_l``: its sentence-level ROUGE-L, with the
  longest common subsequence of words, as an F1.
* ``meteor``: Lavie and Agarwal 2007 with the parameters 0.9, 3 and 0.5, by exact words only, which are paired
  from left to right; an equal text has no fragmentation (Denkowski and Lavie 2011), so it scores 1.0.
* ``cosine``: the angle between the two vectors of word counts.

``bleu`` and ``gleu`` see the tokens of the NIST script mteval-v13a, with case and punctuation. The others see
lower-cased words without punctuation; where a script does not put spaces between words (Chinese, Japanese,
Thai, ...), every character is a word, for ``bleu`` and ``gleu`` as well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lambdas.answer import json_field, quoted, reference_text
from lambdas.contract import Reward, Sample, UnscorableError

Metric = Literal[
    "fuzzy",
    "bleu",
    "gleu",
    "meteor",
    "cosine",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]

# A longer text is not compared. Subsequences take the time of one long addition per character of the other
# text, everything else is linear.
_LONGEST = 20_000

_ORDERS = (1, 2, 3, 4)

# Hiragana, Katakana, ideographs; Thai, Lao, Myanmar, Khmer.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# What stands between words: white space, and punctuation of Latin, Arabic, Hindi and East Asian text.
_BETWEEN = (
    r"\s!-/:-@\[-`{-~\u00a0-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb-\u00bf\u060c\u061b\u061f\u06d4"
    r"\u0964\u0965\u2000-\u206f\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^{_BETWEEN}{_UNSPACED}]+")

# The rules of mteval-v13a: symbols stand alone; so do a full stop and a comma outside of a number, and a dash
# after a digit.
_NIST = (
    (re.compile(rf"([{_UNSPACED}])"), r" \1 "),
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}


@dataclass(frozen=True, kw_only=True)
class TextSimilarity:
    """Scores the similarity of the two texts or, with a threshold, 1.0 where it is reached and else 0.0.

    A text of more than 20,000 characters scores 0.0; the cost of a shorter one is bounded by that length
    times the length of the expected text, a machine word at a time.

    Attributes:
        metric: ``fuzzy``, ``bleu``, ``gleu``, ``meteor``, ``cosine``, ``rouge_1`` to ``rouge_5`` or
            ``rouge_l``; see the top of the file for what each is.
        field: Path of the compared value in the completion's JSON, such as ``customer.name``; empty takes the
            whole completion.
        reference_field: Path of the expected text in the reference answer; empty takes all of it.
        value: A fixed expected text, in place of the row's reference answer.
        pass_threshold: Similarity, above 0 and at most 1, from which the score is 1.0; left out, the
            similarity is the score.
    """

    metric: Metric = "fuzzy"
    field: str = ""
    reference_field: str = ""
    value: str | None = None
    pass_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise ValueError(f"metric is one of {', '.join(get_args(Metric))}, not {self.metric!r}")
        threshold = self.pass_threshold
        number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if threshold is not None and not (number and 0 < threshold <= 1):
            raise ValueError(f"pass_threshold is a number above 0 and at most 1, not {threshold!r}")
        if self.value is None:
            return
        if self.reference_field:
            raise ValueError("value and reference_field both say what is expected; keep one of them")
        fault = self._fault(self.value) if isinstance(self.value, str) else f"is a text, not {self.value!r}"
        if fault:
            raise ValueError(f"value {fault}")

    def score(self, sample: Sample) -> Reward:
        """Compares the completion, or one field of it, with the expected text.

        Raises:
            UnscorableError: The row has no expected text, or not one that this metric can compare with.
        """
        expected = self.value
        if expected is None:
            expected = reference_text(sample.reference_answer, self.reference_field)
            fault = self._fault(expected)
            if fault:
                raise UnscorableError(f"the reference answer {fault}")
        text = json_field(sample.completion, self.field) if self.field else sample.completion
        if text is None or not text.strip():
            absent = f"no JSON with a value at {self.field!r}" if self.field else "the completion is empty"
            return Reward(0.0, metrics={"answered": 0.0, "similarity": 0.0}, reason=absent)
        text, shown = text.strip(), text.strip()[:200]
        if len(text) > _LONGEST:
            reason = f"the text has {len(text)} characters; {_LONGEST} are compared at most"
            return Reward(0.0, metrics={"answered": 1.0, "similarity": 0.0}, extracted=shown, reason=reason)
        similarity = self._similarity(expected.strip(), text)
        score = similarity if self.pass_threshold is None else float(similarity >= self.pass_threshold)
        return Reward(
            score,
            metrics={"answered": 1.0, "similarity": similarity},
            extracted=shown,
            reason=f"{self.metric} {similarity:.4f} between {quoted([text])} and {quoted([expected])}",
        )

    def _fault(self, expected: str) -> str:
        """Says why nothing could ever be similar to this text; empty when something can."""
        if not expected.strip():
            return "is empty"
        if len(expected) > _LONGEST:
            return f"has {len(expected)} characters; {_LONGEST} are compared at most"
        needed = int(self.metric[-1]) if re.fullmatch(r"rouge_\d", self.metric) else 1
        if self.metric not in {"fuzzy", "bleu", "gleu"} and len(_words(expected)) < needed:
            return f"has fewer than {needed} words, which {self.metric} compares"
        return ""

    def _similarity(self, expected: str, text: str) -> float:
        if self.metric == "fuzzy":
            return _f1(_subsequence(expected, text), len(expected), len(text))
        if self.metric in {"bleu", "gleu"}:
            return (_bleu if self.metric == "bleu" else _gleu)(_tokens(expected), _tokens(text))
        wanted, given = _words(expected), _words(text)
        match self.metric:
            case "meteor":
                return _meteor(wanted, given)
            case "cosine":
                return _cosine(Counter(wanted), Counter(given))
            case "rouge_l":
                return _f1(_subsequence(wanted, given), len(wanted), len(given))
        order = int(self.metric[-1])
        one, two = _grams(wanted, order), _grams(given, order)
        return _f1((one & two).total(), one.total(), two.total())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _tokens(text: str) -> list[str]:
    text = f" {text} ".replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    for pattern, spaced in _NIST:
        text = pattern.sub(spaced, text)
    return text.split()


def _grams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _f1(shared: int, one: int, two: int) -> float:
    """The harmonic mean of shared / one and shared / two."""
    return 2 * shared / (one + two) if shared else 0.0


def _subsequence(one: Sequence[str], two: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence, one long addition per item of ``two``.

    A bit of ``row`` is 0 where the subsequence grows by the item of ``one`` at that position: the bit-vector
    algorithm of Hyyrö 2004, with Python's integers as its vectors.
    """
    where: dict[str, int] = {}
    for position, item in enumerate(one):
        where[item] = where.get(item, 0) | 1 << position
    full = (1 << len(one)) - 1
    row = full
    for item in two:
        hits = row & where.get(item, 0)
        row = (row + hits | row - hits) & full
    return len(one) - row.bit_count()


def _bleu(wanted: list[str], given: list[str]) -> float:
    precisions: list[float] = []
    halvings = 0
    for order in _ORDERS:
        grams = _grams(given, order)
        total = grams.total()
        if not total:
            break
        shared = (grams & _grams(wanted, order)).total()
        # Without one shared word there is nothing to smooth.
        if order == 1 and not shared:
            return 0.0
        halvings += not shared
        precisions.append((shared or 0.5**halvings) / total)
    if not precisions:
        return 0.0
    brevity = min(0.0, 1 - len(wanted) / len(given))
    return math.exp(brevity + math.fsum(map(math.log, precisions)) / len(precisions))


def _gleu(wanted: list[str], given: list[str]) -> float:
    pairs = [(_grams(wanted, order), _grams(given, order)) for order in _ORDERS]
    shared = sum((one & two).total() for one, two in pairs)
    longer = max(sum(one.total() for one, _ in pairs), sum(two.total() for _, two in pairs))
    return shared / longer if longer else 0.0


def _meteor(wanted: list[str], given: list[str]) -> float:
    if wanted == given:
        return 1.0
    places: dict[str, list[int]] = {}
    for position in reversed(range(len(wanted))):
        places.setdefault(wanted[position], []).append(position)
    taken: set[int] = set()
    chunks = matches = 0
    last = -2
    for word in given:
        # A word that goes on where the last one stood keeps the chunk; any other takes the first free place.
        free = places.get(word, [])
        position = last + 1
        if not (0 <= position < len(wanted) and wanted[position] == word and position not in taken):
            while free and free[-1] in taken:
                free.pop()
            position = free.pop() if free else -2
        if position < 0:
            last = -2
            continue
        chunks += position != last + 1
        matches += 1
        taken.add(position)
        last = position
    if not matches:
        return 0.0
    precision, recall = matches / len(given), matches / len(wanted)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


def _cosine(one: Counter[str], two: Counter[str]) -> float:
    product = sum(count * two[word] for word, count in one.items())
    lengths = sum(count**2 for count in one.values()) * sum(count**2 for count in two.values())
    return product / math.sqrt(lengths) if product else 0.0
