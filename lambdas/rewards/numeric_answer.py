r"""Rewards a number: the answer the completion *declares*, against the reference, within a stated tolerance.

Where the answer stands is declared by the team (``form``), and only there is it looked for: a number
somewhere in the reasoning earns nothing. The text found has to be one number and nothing else; what may
stand around the digits (currency, percent, units, grouping) is stated as well. A completion that declares
several answers earns the reward only if every one of them is right, so listing guesses never pays.

Arithmetic is exact: decimals and fractions are compared as fractions, and 0.1 + 0.2 is 0.3.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

from lambdas.completion import boxed, json_text, strict_json, tagged
from lambdas.contract import Reward, Sample, UnscorableError

Form = Literal["hashes", "boxed", "tag", "label", "json", "last_line", "any"]
Percent = Literal["fraction", "points"]

# Bounds that make the cost of a sample independent of what the model wrote.
_LONGEST_ANSWER = 200
_MOST_ANSWERS = 64
_MOST_BITS = 1_600
_ANY_TAIL = 2_000

# Other ways to write a number's signs; U+2009, the thin space, stands for every space that groups digits.
_SIGNS = {
    **{0xFF01 + offset: chr(0x21 + offset) for offset in range(94)},
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2007\u202f"), "\u2009"),
    **dict.fromkeys(map(ord, "\u00d7\u00b7\u22c5"), "*"),
    **dict.fromkeys(map(ord, "\u2044\u2215"), "/"),
    ord("\u066b"): ".",
    ord("\u066c"): ",",
    ord("\u2019"): "'",
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_DECORATION = " \t\r\n*_`\"'\u201c\u201d"


@dataclass(frozen=True, kw_only=True)
class NumericAnswer:
    r"""Scores 1.0 for the right number, in the right place, and 0.0 for everything else.

    Attributes:
        form: Where the answer stands. ``hashes``: after ``####``, to the end of the line. ``boxed``: in
            ``\boxed{}``. ``tag``: in ``<answer></answer>`` (see ``tag``). ``label``: after ``Answer:`` at the
            start of a line (see ``label``). ``json``: in a field of a JSON object, bare or in the only fenced
            code block (see ``json_field``). ``last_line``: the last line is the number. ``any``: the last
            number of the text, which also pays lucky ones.
        tag: Name of the tag of the form ``tag``.
        label: Text before the colon of the form ``label``, in any case.
        json_field: Field of the form ``json``.
        absolute_tolerance: How far off an answer may be.
        relative_tolerance: How far off an answer may be, as a share of the reference. The wider one counts.
        decimal_mark: ``.`` reads 1,234.5 and ``,`` reads 1.234,5.
        percent: What ``12%`` is: the ``fraction`` 0.12, or 12 percentage ``points``.
        currencies: Marks that may stand beside a number. Where reference and answer have one, it is the same.
        units: Words that may stand after a number, with what one is worth: ``{ kg = 1, g = 0.001 }``.
        accounting_negatives: Whether (5.2) is -5.2.
        words: Answers that may stand in a number's place, such as yes and no; case does not matter.
        reference_field: Field that holds the number, where the reference answer is an object; empty looks for
            ``answer``, then ``value``.
    """

    form: Form = "hashes"
    tag: str = "answer"
    label: str = "Answer"
    json_field: str = "answer"
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 0.0
    decimal_mark: Literal[".", ","] = "."
    percent: Percent = "fraction"
    currencies: tuple[str, ...] = ("$", "€", "£", "¥")
    units: Mapping[str, float] = field(default_factory=dict)
    accounting_negatives: bool = True
    words: tuple[str, ...] = ()
    reference_field: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "currencies", tuple(self.currencies))
        object.__setattr__(self, "words", tuple(self.words))
        for name, allowed in (
            ("form", get_args(Form)),
            ("percent", get_args(Percent)),
            ("decimal_mark", (".", ",")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        for name in ("absolute_tolerance", "relative_tolerance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ValueError(f"{name} is a number of at least 0, not {value!r}")
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as answer, not {self.tag!r}")
        if not self.label.strip(" :"):
            raise ValueError("label is the text before the colon, and cannot be empty")
        for unit, worth in self.units.items():
            if not unit.strip() or any(character.isdigit() for character in unit):
                raise ValueError(f"units: a unit is a word without digits, not {unit!r}")
            if isinstance(worth, bool) or not isinstance(worth, (int, float)) or not 0 < worth < math.inf:
                raise ValueError(f"units: one {unit!r} is worth a number above 0, not {worth!r}")

    def score(self, sample: Sample) -> Reward:
        """Compares every answer the completion declares with the reference.

        Raises:
            UnscorableError: The reference answer is missing, or is not one number.
        """
        expected, shown = self._reference(sample.reference_answer)
        found = self._declared(sample.completion)
        read = [answer for answer in map(self._read, found[:_MOST_ANSWERS]) if answer is not None]
        answers = read if len(found) <= _MOST_ANSWERS else []
        several = len({answer.value for answer in answers}) > 1
        right = bool(answers) and all(self._equal(expected, answer) for answer in answers)
        if not answers:
            reason = self._unanswered(found)
        elif right:
            reason = f"{_quoted(found)} is {shown}"
        elif several:
            reason = f"several different answers, {_quoted(found)}, and not every one is {shown}"
        else:
            reason = f"{_quoted(found)} is not {shown}"
        return Reward(
            float(right),
            metrics={"answered": float(bool(answers)), "several_answers": float(several)},
            extracted=_quoted(found) if found else None,
            reason=reason,
        )

    def _reference(self, reference: Any) -> tuple[_Answer, str]:
        value = reference
        if isinstance(value, Mapping):
            keys = (self.reference_field,) if self.reference_field else ("answer", "value")
            value = next((value[key] for key in keys if value.get(key) is not None), None)
            if value is None:
                raise UnscorableError(f"the reference answer is an object without {' or '.join(keys)}")
        if value is None:
            raise UnscorableError("the row has no reference answer")
        if isinstance(value, float) and math.isfinite(value):
            return _Answer(Fraction(repr(value))), repr(value)
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= _MOST_BITS:
            return _Answer(Fraction(value)), str(value)
        if isinstance(value, str):
            answer = self._read(value)
            if answer is not None:
                return answer, _quoted([value])
            # A worked solution that ends in the declared form, as in GSM8K, carries its number the same way.
            texts = [] if self.form == "any" else self._declared(value)
            read = [(answer, text) for text in texts if (answer := self._read(text)) is not None]
            if read and len({answer for answer, _ in read}) == 1:
                return read[0][0], _quoted([read[0][1]])
            raise UnscorableError(f"the reference answer {_quoted([value])} is not one number")
        raise UnscorableError(f"the reference answer is {type(value).__name__}, not one finite number")

    def _declared(self, text: str) -> list[str]:
        """Finds the texts that stand where an answer is declared, in order."""
        match self.form:
            case "hashes":
                found = re.findall(r"####([^\n]*)", text)
            case "boxed":
                found = boxed(text, _LONGEST_ANSWER, _MOST_ANSWERS)
            case "tag":
                found = tagged(text, self.tag)
            case "label":
                label = re.escape(self.label.strip(" :"))
                found = re.findall(rf"(?im)^[ \t*_#>-]*{label}[ \t*_]*:([^\n]*)", text)
            case "json":
                found = self._json(text)
            case "last_line":
                found = [text.rstrip().rpartition("\n")[2]]
            case "any":
                tail = _plain(text[-_ANY_TAIL:])
                numbers = [match[0] for match in self._notation.finditer(tail)]
                found = numbers[-1:]
        return [piece for piece in found if piece.strip(_DECORATION)]

    def _json(self, text: str) -> list[str]:
        """Reads the field of the JSON object that the completion is, bare or in its only code block."""
        document = json_text(text)
        try:
            # Numbers stay text: a float would lose digits, and an integer may have too many of them.
            parsed = None if document is None else strict_json(document, number=str)
        except ValueError:
            return []
        value = parsed.get(self.json_field) if isinstance(parsed, dict) else None
        return [value] if isinstance(value, str) else []

    @property
    def _notation(self) -> re.Pattern[str]:
        return _number_pattern(self.currencies, tuple(self.units), self.decimal_mark)

    def _read(self, text: str) -> _Answer | None:
        """Reads a text that is one number, or one of the words, and nothing else."""
        if len(text) > _LONGEST_ANSWER:
            return None
        text = _bare(_plain(text))
        for word in self.words:
            if text.casefold() == word.casefold():
                return _Answer(word.casefold())
        negative = False
        opening = text.find("(")
        if opening >= 0 and self.accounting_negatives and text[:opening].strip() in {"", *self.currencies}:
            head, body, tail = text[:opening], *text[opening + 1 :].partition(")")[::2]
            if ")" not in text or "-" in body or "+" in body or "(" in body:
                return None
            text, negative = f"{head}{body}{tail}".strip(), True
        match = self._notation.fullmatch(text)
        if match is None or (match["sign"] and match["inner_sign"]) or (match["before"] and match["after"]):
            return None
        value = self._value(match)
        if value is None:
            return None
        if negative or "-" in (match["sign"], match["inner_sign"]):
            value = -value
        return _Answer(value, match["before"] or match["after"] or "")

    def _value(self, match: re.Match[str]) -> Fraction | None:
        if match["divisor"]:
            divisor = int(match["divisor"])
            if divisor == 0:
                return None
            value = int(match["whole"] or 0) + Fraction(int(match["dividend"]), divisor)
        else:
            exponent = int(match["exponent"] or match["power"] or match["ten"] or 0)
            digits = match["digits"] or "1"
            grouping = "." if self.decimal_mark == "," else ","
            plain = (
                digits.replace(grouping, "")
                .replace("'", "")
                .replace("\u2009", "")
                .replace(self.decimal_mark, ".")
            )
            value = Fraction(plain)
            # Most numbers have none, and arithmetic of fractions is what a sample's time goes into.
            if exponent:
                value *= Fraction(10) ** exponent
        if match["percent"]:
            return value / 100 if self.percent == "fraction" else value
        if match["unit"]:
            unit = match["unit"].casefold()
            return value * next(
                Fraction(str(worth)) for name, worth in self.units.items() if name.casefold() == unit
            )
        return value

    def _equal(self, expected: _Answer, answer: _Answer) -> bool:
        if expected.currency and answer.currency and expected.currency != answer.currency:
            return False
        if isinstance(expected.value, str) or isinstance(answer.value, str):
            return expected.value == answer.value
        same = expected.value == answer.value
        if same or not (self.absolute_tolerance or self.relative_tolerance):
            return same
        allowed = max(
            Fraction(str(self.absolute_tolerance)),
            Fraction(str(self.relative_tolerance)) * abs(expected.value),
        )
        return abs(answer.value - expected.value) <= allowed

    def _unanswered(self, found: list[str]) -> str:
        if len(found) > _MOST_ANSWERS:
            return f"{len(found)} answers are declared; {_MOST_ANSWERS} are read at most"
        if found:
            return f"{_quoted(found)} is not one number in the accepted notation"
        place = {
            "hashes": "no answer after ####",
            "boxed": r"no answer in \boxed{}",
            "tag": f"no answer in <{self.tag}></{self.tag}>",
            "label": f"no line that starts with {self.label.strip(' :')}:",
            "json": f"no JSON object with the field {self.json_field!r}",
            "last_line": "the completion is empty",
            "any": "no number",
        }
        return place[self.form]


@dataclass(frozen=True)
class _Answer:
    """What a text says: a number in base units, or a word; and its currency, if it names one."""

    value: Fraction | str
    currency: str = ""


@functools.cache
def _number_pattern(
    currencies: tuple[str, ...], units: tuple[str, ...], decimal_mark: str
) -> re.Pattern[str]:
    """Compiles the notation of one number; its input has single spaces, which keeps matching linear."""

    def either(words: tuple[str, ...]) -> str:
        return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or r"(?!)"

    mark, grouping = re.escape(decimal_mark), re.escape("." if decimal_mark == "," else ",")
    whole = rf"(?:\d{{1,3}}(?:{grouping}\d{{3}})+|\d{{1,3}}(?:'\d{{3}})+|\d{{1,3}}(?:\u2009\d{{3}})+|\d+)"
    return re.compile(
        rf"""
        (?<![\w.,/^])
        (?P<sign>[+-])?\ ?
        (?:(?P<before>{either(currencies)})\ ?)?
        (?P<inner_sign>[+-])?\ ?
        (?:
            (?:(?P<whole>\d+)\ )?(?P<dividend>\d+)\ ?/\ ?(?P<divisor>\d+)
          | 10\ ?\^\ ?(?P<ten>[+-]?\d{{1,3}})
          | (?P<digits>{whole}(?:{mark}\d*)?|{mark}\d+)
            (?:e(?P<exponent>[+-]?\d{{1,3}})|\ ?[x*]\ ?10\ ?\^\ ?(?P<power>[+-]?\d{{1,3}}))?
        )
        (?:\ ?(?P<after>{either(currencies)}))?
        (?:\ ?(?:(?P<percent>%|percent\b|per\ cent\b|pct\b)|(?P<unit>{either(units)})(?!\w)))?
        (?![\w/^])
        """,
        re.VERBOSE | re.IGNORECASE | re.ASCII,
    )


def _plain(text: str) -> str:
    """Writes a number's notations one way: ASCII digits, signs and fractions, no LaTeX, single spaces."""
    if not text.isascii():
        text = text.translate(_SIGNS)
        text = re.sub("10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)", lambda power: "10^" + power[1].translate(_SUPERSCRIPTS), text)
        text = "".join(map(_ascii, text))
    if "\\" in text:
        text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r" \1/\2", text)
        text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\{([^{}]*)\}", r" \1", text)
        text = re.sub(r"\\(?:times|cdot)(?![A-Za-z])", "*", text)
        text = re.sub(r"\\(?:left|right)(?=[()])|\\[()\[\],!;: ]", "", text)
        text = re.sub(r"\\([%$])", r"\1", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"^\1", text.replace("{,}", ","))
    # A thin space groups digits, or it is a space; str.split would take both for a space.
    text = re.sub(r"(?<!\d)\u2009|\u2009(?!\d{3}(?!\d))", " ", text)
    return " ".join(re.split(r"[ \t\r\n]+", text.strip()))


def _ascii(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "No" and "/" in (
        spelled := unicodedata.normalize("NFKD", character).replace("\u2044", "/")
    ):
        return f" {spelled}"
    return character


def _bare(text: str) -> str:
    """Takes off what people put around an answer: emphasis, quotes, `$` pairs, a full stop, a leading `=`."""
    before = None
    while text != before:
        before = text
        text = text.strip(_DECORATION).removeprefix("=")
        if text.endswith((".", ";", ",")) and not text.endswith(".."):
            text = text[:-1]
        if len(text) > 2 and text[0] == text[-1] == "$":
            text = text[1:-1]
    return text


def _quoted(texts: list[str]) -> str:
    """Shows texts to a person, in one short line."""
    shown = ", ".join(repr(text.strip()[:60]) for text in texts[:3])
    return shown if len(texts) <= 3 else f"{shown} and {len(texts) - 3} more"
