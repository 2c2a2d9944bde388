r"""Rewards a formula: the answer the completion *declares*, if it is the same as the reference.

Most answers are decided by reading: the same LaTeX, or two numbers, compared exactly as ``numeric_answer``
does. Only what that cannot decide goes to Math-Verify: radicals, polynomials, sets, intervals, matrices,
equations, inequalities. It runs in a process of its own with hard limits on time and memory (see
``lambdas.algebra``), which the first row that needs it starts.

Symbolic equality knows no difference between a result and the task it solves, so a few things that are equal
earn nothing, or copying the task would: a formula that stands in the task just so, an equation that has to be
solved first, arithmetic, integrals and sums left undone, an equation whose right side alone is the answer
(``7 = 5``). The order matters: the reference says what is asked for. ``5`` answers ``x = 5``, an interval
answers an inequality, and not the other way round.

A copy in other words (the task and ``+ 0``) is paid all the same. Where the form is what is asked for
(expand, factor, simplify), watch for it, or compare the text with ``string_check``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lambdas.answer import MOST_ANSWERS, Form, Place, at, quoted, reference_text
from lambdas.completion import message_text
from lambdas.contract import Reward, Sample, UnscorableError
from lambdas.rewards.numeric_answer import NumericAnswer

if TYPE_CHECKING:
    from lambdas.algebra import Algebra, Verdict

Percent = Literal["fraction", "points"]

# Bounds that make the cost of a sample independent of what the model wrote. A text of this length and depth
# is read within the limit of processor time; most that are not formulas never get that far.
_LONGEST_ANSWER = 500
_DEEPEST = 12
_MOST_FORMULAS = 8
_LONGEST_SYMBOLIC_SECONDS = 30

# What people type instead of LaTeX.
_TYPED = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " "),
        "\u00d7": r" \times ",
        "\u00b7": r" \cdot ",
        "\u22c5": r" \cdot ",
        "\u00f7": r" \div ",
        "\u00b1": r" \pm ",
        "\u2213": r" \mp ",
        "\u03c0": r" \pi ",
        "\u221a": r" \sqrt ",
        "\u221e": r" \infty ",
        "\u2264": r" \le ",
        "\u2265": r" \ge ",
        "\u2260": r" \ne ",
        "\u222a": r" \cup ",
        "\u2229": r" \cap ",
        "\u2208": r" \in ",
        "\u2205": r" \emptyset ",
        "\u00b0": r" ^\circ ",
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

# Commands that change how a formula looks and not what it says.
_LOOKS = re.compile(
    r"\\(?:boxed|displaystyle|textstyle|left|right|[bB]igg?|limits|q?quad)(?![A-Za-z])|(?<!\\)\\[,!;:> ]|~"
)
_GROUPING = re.compile(r"(?<=\d)(?:\\[,!;: ]|[~\u00a0\u2007\u2009\u202f])(?=\d{3}(?!\d))")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|mathit|textbf|textit|textrm|mbox|operatorname)\s*\{([^{}]*)\}")
_PART = re.compile(r"\\[A-Za-z]+|\\.|\d+|\S")
# The same, with words in one piece, and what stands around a formula that is part of no larger one.
_WORD = re.compile(r"\\[A-Za-z]+|\\.|[^\W\d_]+|\d+|\S")
_BEFORE = {"", "$", r"\(", r"\[", ":", ";", ",", "=", "?"}
_BEHIND = {"", "$", r"\)", r"\]", ":", ";", ",", "=", "?", "."}

# Words that belong to formulas; any other of four letters, or of two in a text command, makes it prose.
_FORMULA_WORDS = {
    *("and", "or", "if", "inf", "infty", "infinity", "percent", "circ", "frac", "sqrt", "mod", "gcd", "lcm"),
    *("min", "max", "sup", "lim", "log", "ln", "exp", "arcsin", "arccos", "arctan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "sech", "csch", "coth", "cis", "re", "im", "tr", "det", "rank", "dim", "deg"),
}
_UNDONE = re.compile(r"\\(?:i*int|oint|sum|prod|lim|det|gcd|lcm|max|min)(?![A-Za-z])|\\frac\{d(?:\^\w)?\}\{d")
# Not the base of a logarithm and its argument, as in \log_2 8.
_SIDE_BY_SIDE = re.compile(r"(?<![_^\d.])\d[\d.]*\s+[\d.]")
# A number to another base than ten, which computer algebra reads without its base.
_BASE = re.compile(r"\d_")
_INDEX = re.compile(r"_\s*\{[^{}]*\}")
_EQUALS = re.compile(r"(?<![<>!:])=")
_NAME = re.compile(r"(?:\\?[A-Za-z]|_\w|_\{\w+\}|'|\s)+(?:\([^()]*\)\s*)?")
_BRACKETS = {"(": ")", "[": "]", r"\{": r"\}"}


@dataclass(frozen=True, kw_only=True)
class MathAnswer:
    r"""Scores 1.0 for the right formula, in the right place, and 0.0 for everything else.

    A completion that declares several answers earns the reward only if every one of them is right. The cost
    is linear in the length of the completion, plus at most ``symbolic_seconds`` of processor time where
    algebra is needed; an answer of more than 500 characters or 12 levels is no formula. Algebra has a process
    of its own, of about 100 MB, and a comparison may take 256 MB more: ``memory_mb`` stays at 512 or above.

    Attributes:
        form: Where the answer stands. ``boxed``: in ``\boxed{}``. ``hashes``: after ``####``, to the end of
            the line. ``tag``: in ``<answer></answer>`` (see ``tag``). ``label``: after ``Answer:`` at the
            start of a line (see ``label``). ``json``: in a field of a JSON object, bare or in the only fenced
            code block (see ``json_field``). ``last_line``: the last line. ``whole``: the completion.
        tag: Name of the tag of the form ``tag``.
        label: Text before the colon of the form ``label``, in any case.
        json_field: Field of the form ``json``; ``answer.name`` is a field of a nested object.
        absolute_tolerance: How far off a number may be; not for the members of a set, a matrix, an interval.
        relative_tolerance: How far off a number may be, as a share of the reference. The wider one counts.
        percent: What ``12%`` is: the ``fraction`` 0.12, or 12 percentage ``points``.
        units: Words and signs that may stand after an answer and say nothing: ``["cm", "cm^2", "°"]``.
        unevaluated: Whether arithmetic, integrals, sums and limits that are left undone count as what they
            make: ``6 \cdot 12`` as 72. It also pays a formula that is copied from the task.
        symbolic_seconds: Processor seconds that algebra may take for one completion; an answer that takes
            longer is wrong, and the metric ``math_timeout`` is 1.
        reference_field: Path of the right answer in the reference answer; empty takes all of it, or its
            ``answer`` or ``value`` where it is an object.
    """

    form: Form = "boxed"
    tag: str = "answer"
    label: str = "Answer"
    json_field: str = "answer"
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 0.0
    percent: Percent = "fraction"
    units: tuple[str, ...] = ("°",)
    unevaluated: bool = False
    symbolic_seconds: int = 2
    reference_field: str = ""

    def __post_init__(self) -> None:
        given: object = self.units
        # A text is a list of letters to Python.
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"units is a list of words or signs such as cm, not {given!r}")
        object.__setattr__(self, "units", tuple(self.units))
        for unit in self.units:
            if not isinstance(unit, str) or not unit.strip() or unit.strip()[0].isdigit():
                raise ValueError(f"units are words or signs such as cm, not {unit!r}")
        if self.unevaluated not in (True, False):
            raise ValueError(f"unevaluated is true or false, not {self.unevaluated!r}")
        seconds = self.symbolic_seconds
        whole = isinstance(seconds, int) and not isinstance(seconds, bool)
        if not (whole and 1 <= seconds <= _LONGEST_SYMBOLIC_SECONDS):
            raise ValueError(
                f"symbolic_seconds is a whole number from 1 to {_LONGEST_SYMBOLIC_SECONDS}, not {seconds!r}"
            )
        # Both are made once, and find what is wrong with the settings.
        _ = self._place, self._numbers

    def score(self, sample: Sample) -> Reward:
        """Compares every answer the completion declares with the reference.

        Raises:
            UnscorableError: The reference answer is missing, empty or too long.
            InfrastructureError: Algebra is needed and its process does not work.
        """
        expected = self._expected(sample.reference_answer)
        found = self._place.find(sample.completion)
        # The same answer twice is one answer; the order is kept for the reason.
        answers = {_key(text): text for text in map(self._formula, found[:MOST_ANSWERS]) if text is not None}
        if not expected.prose:
            answers = {key: text for key, text in answers.items() if key == expected.key or not _prose(text)}
        several = len(answers) > 1
        verdict: Verdict = "different"
        undecided: list[str] = []
        if answers and len(found) <= MOST_ANSWERS:
            verdict, undecided = self._compared(expected, answers)
        right = verdict == "equal"
        copied = right and not self.unevaluated and _stands_in(sample.messages, undecided)
        if not found:
            reason = self._place.absent
        elif not answers:
            reason = f"{quoted(found)} is no formula that can be read"
        elif copied:
            reason = f"{quoted(found)} is {quoted([expected.text])}, but stands in the task just so"
        elif right:
            reason = f"{quoted(found)} is {quoted([expected.text])}"
        elif several:
            reason = f"several answers, {quoted(found)}, and not every one is {quoted([expected.text])}"
        else:
            reason = f"{quoted(found)} is not {quoted([expected.text])}"
        if verdict == "over":
            reason += f", as far as algebra could tell in {self.symbolic_seconds} s and its memory"
        if verdict == "unreadable":
            reason += ", which algebra cannot read: only the same text is right"
        return Reward(
            float(right and not copied),
            metrics={
                "answered": float(bool(answers)),
                "several_answers": float(several),
                "copied": float(copied),
                "symbolic": float(bool(undecided)),
                "math_timeout": float(verdict == "over"),
            },
            extracted=quoted(found) if found else None,
            reason=reason,
        )

    def _compared(self, expected: _Expected, answers: Mapping[str, str]) -> tuple[Verdict, list[str]]:
        """Returns whether every answer is right, and the answers for which that took algebra."""
        undecided: list[str] = []
        for key, text in answers.items():
            right = self._decided(expected, key, text)
            if right is False:
                return "different", []
            if right is None:
                undecided.append(text)
        if len(undecided) > _MOST_FORMULAS:
            return "different", []
        if not undecided:
            return "equal", []
        verdict = _algebra().compare(
            expected.text,
            undecided,
            percent=self.percent,
            absolute_tolerance=float(self.absolute_tolerance),
            relative_tolerance=float(self.relative_tolerance),
            seconds=self.symbolic_seconds,
        )
        return verdict, undecided

    @functools.cached_property
    def _place(self) -> Place:
        return Place(
            form=self.form,
            tag=self.tag,
            label=self.label,
            json_field=self.json_field,
            longest=_LONGEST_ANSWER,
        )

    @functools.cached_property
    def _numbers(self) -> NumericAnswer:
        """Compares two texts where the first is one number."""
        return NumericAnswer(
            form="last_line",
            absolute_tolerance=self.absolute_tolerance,
            relative_tolerance=self.relative_tolerance,
            percent=self.percent,
            accounting_negatives=False,
        )

    @functools.cached_property
    def _unit(self) -> re.Pattern[str]:
        """Finds a unit at the end of a formula, as text or as letters."""
        either = []
        for unit in self.units:
            base, power, exponent = unit.strip().translate(_TYPED).strip().partition("^")
            base, exponent = re.escape(base.strip()), re.escape(exponent.strip("{} "))
            word = rf"(?:\\(?:text|mathrm|mbox)\s*\{{\s*{base}\s*\}}|{base})" if base else ""
            either.append(word + (rf"\s*\^\s*(?:\{{\s*{exponent}\s*\}}|{exponent})" if power else ""))
        return re.compile(rf"(?<=[\d\s}})])(?:{'|'.join(either) or '(?!)'})\s*$")

    def _expected(self, reference: object) -> _Expected:
        if isinstance(reference, Mapping) and not self.reference_field:
            path = next((key for key in ("answer", "value") if at(reference, key) is not None), "")
            if not path:
                raise UnscorableError("the reference answer is an object without answer or value")
        else:
            path = self.reference_field
        written = reference_text(reference, path)
        text = self._formula(written)
        if self.form not in {"last_line", "whole", "json"}:
            # A worked solution that ends in the declared form carries its answer the same way.
            inside = {_key(piece): piece for piece in map(self._formula, self._place.find(written)) if piece}
            if len(inside) > 1:
                raise UnscorableError("the reference answer declares several different answers")
            text = next(iter(inside.values()), text)
        if not text:
            raise UnscorableError(
                f"the reference answer has to be one formula of at most {_LONGEST_ANSWER} characters"
            )
        if self._number(text, text) is not None:
            return _Expected(text, number=text)
        sides = _EQUALS.split(text)
        if len(sides) == 2 and _NAME.fullmatch(sides[0]) and self._number(sides[1], sides[1]) is not None:
            return _Expected(text, number=sides[1], name=_key(sides[0]))
        return _Expected(text, prose=_prose(text))

    def _formula(self, text: str) -> str | None:
        """Takes off what stands around a formula and only changes its looks; None for what cannot be one."""
        if len(text) > _LONGEST_ANSWER:
            return None
        text = _plain(text)
        before = None
        while text != before:
            before = text
            text = self._unit.sub("", text.strip(' \t\r\n*_`"').removeprefix("=")).strip()
            if text.endswith((".", ",", ";")) and not text.endswith(".."):
                text = text[:-1]
            for opening, closing in (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
                inner = text[len(opening) : -len(closing)]
                if inner and text == opening + inner + closing and opening not in inner:
                    text = inner
        text = re.sub(r"^\\frac\s*\{(\d+)\}\s*\{-(\d+)\}$", r"-\\frac{\1}{\2}", text)
        depth = deepest = 0
        for character in text:
            depth += (character in "{([") - (character in "})]")
            deepest = max(deepest, depth)
        return text if text and deepest <= _DEEPEST else None

    def _decided(self, expected: _Expected, key: str, text: str) -> bool | None:
        """Decides what reading alone can decide; None where it takes algebra."""
        if key == expected.key or expected.prose:
            return key == expected.key
        if expected.number:
            right = self._number(expected.number, text)
            if right is not None:
                return right
            if not self.unevaluated:
                return self._worth_number(expected, _EQUALS.split(text))
        if _BASE.search(expected.text) or _BASE.search(text):
            return False
        # Two numbers side by side are a slip or a list, but Math-Verify adds them.
        if _SIDE_BY_SIDE.search(text) and self._number("0", text) is None:
            return False
        if (
            not self.unevaluated
            and _UNDONE.search(_EQUALS.split(_INDEX.sub("_", text))[-1])
            and not _UNDONE.search(expected.text)
        ):
            return False
        one, two = _brackets(expected.text), _brackets(text)
        return False if one and two and one != two else None

    def _worth_number(self, expected: _Expected, sides: list[str]) -> bool | None:
        """Decides on ``x = 5``; None for ``2 + 3 = 5``, whose other sides have to be right as well."""
        names = [_key(side) for side in sides if _NAME.fullmatch(side)]
        values = [side for side in sides if not _NAME.fullmatch(side)]
        if not values or not self._number(expected.number, values[-1]):
            return False
        if expected.name and names and expected.name not in names:
            return False
        return True if len(values) == 1 else None

    def _number(self, expected: str, text: str) -> bool | None:
        """Compares two numbers; None when one of the texts is not one number."""
        try:
            reward = self._numbers.score(Sample("", (), text, reference_answer=expected))
        except UnscorableError:
            return None
        return bool(reward.score) if reward.metrics["answered"] else None


@dataclass(frozen=True)
class _Expected:
    """The reference: its formula and, where it is ``5`` or ``x = 5``, the number and the name."""

    text: str
    number: str = ""
    name: str = ""
    prose: bool = False

    @property
    def key(self) -> str:
        return _key(self.text)


@functools.cache
def _algebra() -> Algebra:
    # Imported here, so that rows which need no algebra start without what starts a process.
    from lambdas.algebra import Algebra

    return Algebra()


def _plain(text: str) -> str:
    """Writes what people type as LaTeX, and LaTeX that looks or is typed differently in one way."""
    text = _GROUPING.sub("", text)
    if not text.isascii():
        text = re.sub(
            "[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda power: f"^{{{power[0].translate(_SUPERSCRIPTS)}}}", text
        ).translate(_TYPED)
    text = _LOOKS.sub(" ", re.sub(r"\\boxed\s*\{([^{}]*)\}", r" \1 ", text))
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\varnothing(?![A-Za-z])", r"\\emptyset", text)
    text = re.sub(r"([_^])\{(\w)\}(?!\s*\w)", r"\1\2", text)
    text = re.sub(r"(?<=\d)_(?:\{\s*(\d+)\s*\}|(\d+))", r"_{\1\2}", text)
    return re.sub(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degrees?(?![A-Za-z])", r"^\\circ", text)


def _stands_in(messages: Sequence[Mapping[str, Any]], formulas: Sequence[str]) -> bool:
    """Tells whether one of the formulas is a whole formula of the task, written the same way."""
    if not formulas:
        return False
    task = "\n".join(message_text(message.get("content")) for message in messages)
    words = "\n".join(["", *_WORD.findall(_plain(task)), ""])
    for formula in formulas:
        wanted = "\n".join(["", *_WORD.findall(formula), ""])
        start = words.find(wanted)
        while start >= 0:
            end = start + len(wanted)
            before = words[words.rfind("\n", 0, start) + 1 : start]
            behind = words[end : words.find("\n", end)]
            if _ends(before, _BEFORE) and _ends(behind, _BEHIND):
                return True
            start = words.find(wanted, start + 1)
    return False


def _ends(word: str, marks: set[str]) -> bool:
    return word in marks or (len(word) > 1 and word.isalpha())


def _key(text: str) -> str:
    """Writes a formula in one way for all spacing; texts in any case."""
    plain = _TEXT.sub(r"\1", text)
    return " ".join(_PART.findall(plain.casefold() if _prose(text) else plain))


def _prose(text: str) -> bool:
    """Tells whether a text holds words, which computer algebra would take for products of letters."""
    inside = " ".join(_TEXT.findall(text))
    outside = re.sub(r"\\(?:begin|end)\s*\{[a-z*]+\}|\\[A-Za-z]+", " ", _TEXT.sub(" ", text))
    words = re.findall(r"[^\W\d_]{4,}", outside) + re.findall(r"[^\W\d_]{2,}", inside)
    return any(word.casefold() not in _FORMULA_WORDS for word in words)


def _brackets(text: str) -> tuple[str, str] | None:
    """Returns the brackets that enclose all of a list, an interval or a set; None when none do."""
    opening = next((opening for opening in _BRACKETS if text.startswith(opening)), None)
    closing = next((closing for closing in _BRACKETS.values() if text.endswith(closing)), None)
    if opening is None or closing is None or "," not in text:
        return None
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "{([") - (character in "})]")
        if depth == 0 and position < len(text) - 1 and character in "})]":
            return None
    return opening, closing
