"""Rewards a JSON answer field by field, against the reference.

Types are JSON's and strict: "1" is not 1, and true is not 1. Partial credit is the weighted share of right
fields, and nothing but right fields adds to it: an unknown key costs as much as a wrong field, an array is
measured against the longer of the two, a nested object counts as the one field it is. So dumping keys,
listing every label or nesting deeper can only lower a score.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any, Literal, get_args

from lambdas.completion import DEEPEST, fenced, is_deep, json_text, strict_json, tagged
from lambdas.contract import Reward, Sample, UnscorableError

Form = Literal["either", "whole", "fenced", "tag"]
Strings = Literal["exact", "casefold"]
Arrays = Literal["sequence", "set"]
Type = Literal["string", "number", "boolean", "array", "object"]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


@dataclass(frozen=True, kw_only=True)
class JsonField:
    """How one field is compared; what is left out is as for the whole answer.

    Attributes:
        weight: How much the field counts among its neighbours; 0 allows it and ignores its value.
        type: The type the reference must have here; a row that differs (null aside) cannot be scored.
        strings: As in ``JsonMatch``.
        arrays: As in ``JsonMatch``.
        absolute_tolerance: As in ``JsonMatch``.
        relative_tolerance: As in ``JsonMatch``.
    """

    weight: float = 1.0
    type: Type | None = None
    strings: Strings | None = None
    arrays: Arrays | None = None
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def __post_init__(self) -> None:
        _check(self)
        if self.type is not None and self.type not in _TYPES:
            raise ValueError(f"type is one of {', '.join(_TYPES)}, not {self.type!r}")


@dataclass(frozen=True, kw_only=True)
class JsonMatch:
    """Scores the weighted share of right fields, from 0.0 (no JSON, or nothing right) to 1.0.

    Attributes:
        form: Where the JSON stands. ``whole``: the completion is JSON and nothing else. ``fenced``: in the
            only fenced code block. ``either``: one of the two. ``tag``: in the only ``<answer></answer>``
            (see ``tag``).
        tag: Name of the tag of the form ``tag``.
        fields: Settings of single fields, by name; ``customer.tier`` is a field of a nested object, or of the
            objects in an array. A field of the reference that is not named here counts with weight 1.
        strings: ``exact``, or ``casefold``: neither case nor the amount of white space matters.
        arrays: ``sequence``: item by item, in order. ``set``: in any order, each item as often as expected.
        absolute_tolerance: How far off a number may be; not for the items of a set.
        relative_tolerance: How far off a number may be, as a share of the reference. The wider one counts.
        extra_key_penalty: What an unknown key costs, as the weight of a wrong field.
        partial_credit: Whether some right fields earn something; otherwise it is all or nothing.
        reference_field: Field of the reference answer that holds the expected JSON; empty takes all of it.
    """

    form: Form = "either"
    tag: str = "answer"
    fields: Mapping[str, JsonField] = field(default_factory=dict)
    strings: Strings = "exact"
    arrays: Arrays = "sequence"
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 0.0
    extra_key_penalty: float = 1.0
    partial_credit: bool = True
    reference_field: str = ""

    def __post_init__(self) -> None:
        _check(self)
        if self.form not in get_args(Form):
            raise ValueError(f"form is one of {', '.join(get_args(Form))}, not {self.form!r}")
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as answer, not {self.tag!r}")
        if self.partial_credit not in (True, False):
            raise ValueError(f"partial_credit is true or false, not {self.partial_credit!r}")
        settings = {path: _field(path, value) for path, value in self.fields.items()}
        object.__setattr__(self, "fields", settings)

    def score(self, sample: Sample) -> Reward:
        """Compares the completion's JSON with the reference.

        Raises:
            UnscorableError: The reference answer is missing, is no JSON object or array with something in
                it, or breaks a declared type.
        """
        expected = self._reference(sample.reference_answer)
        text = self._declared(sample.completion)
        metrics = {"valid_json": 0.0, "exact_match": 0.0, "missing_keys": 0.0, "extra_keys": 0.0}
        if text is None:
            return Reward(0.0, metrics=metrics, reason=self._absent())
        extracted = text.strip()[:200]
        try:
            actual = strict_json(text)
        except ValueError as error:
            return Reward(0.0, metrics=metrics, extracted=extracted, reason=f"not valid JSON: {error}")
        comparison = _Comparison(self)
        share = comparison.compare(expected, actual, "")
        score = share if self.partial_credit or share == 1.0 else 0.0
        metrics = {
            "valid_json": 1.0,
            "exact_match": float(share == 1.0),
            "missing_keys": float(comparison.missing),
            "extra_keys": float(comparison.extra),
        }
        return Reward(score, metrics=metrics, extracted=extracted, reason=comparison.reason())

    def _reference(self, reference: Any) -> Any:
        expected = reference
        if self.reference_field:
            expected = reference.get(self.reference_field) if isinstance(reference, Mapping) else None
            if expected is None:
                raise UnscorableError(f"the reference answer has no field {self.reference_field!r}")
        if expected is None:
            raise UnscorableError("the row has no reference answer")
        if isinstance(expected, str):
            try:
                expected = strict_json(expected)
            except ValueError as error:
                raise UnscorableError(f"the reference answer is not valid JSON: {error}") from None
        elif is_deep(expected):
            raise UnscorableError(f"the reference answer is nested more than {DEEPEST} levels deep")
        if not isinstance(expected, (dict, list)) or not expected:
            raise UnscorableError("the reference answer is not a JSON object or array with something in it")
        self._check_types(expected, "")
        return expected

    def _check_types(self, expected: Any, path: str) -> None:
        if isinstance(expected, list):
            for item in expected:
                self._check_types(item, path)
        if not isinstance(expected, dict):
            return
        for key, value in expected.items():
            inner = f"{path}.{key}" if path else key
            wanted = self.setting(inner).type
            if wanted is not None and value is not None and _type(value) != wanted:
                raise UnscorableError(f"the reference answer's {inner} is {_type(value)}, not {wanted}")
            self._check_types(value, inner)

    def setting(self, path: str) -> JsonField:
        """Finds how the field at a path is compared."""
        return self.fields.get(path, _UNNAMED)

    def _declared(self, text: str) -> str | None:
        """Finds the one text that is meant as the JSON; None when there is none, or more than one."""
        if self.form == "either":
            return json_text(text)
        if self.form == "whole":
            return text
        found = tagged(text, self.tag) if self.form == "tag" else fenced(text)
        return found[0] if len(found) == 1 else None

    def _absent(self) -> str:
        block = "exactly one fenced code block"
        return {
            "either": f"the completion is neither JSON nor a text with {block}",
            "fenced": f"the completion has not {block}",
            "tag": f"the completion has not exactly one <{self.tag}></{self.tag}>",
        }[self.form]


class _Comparison:
    """One walk over a reference and an answer; its depth is the reference's, its cost the size of the two."""

    def __init__(self, settings: JsonMatch) -> None:
        self.settings = settings
        self.missing = 0
        self.extra = 0
        self.faults: list[str] = []

    def compare(self, expected: Any, actual: Any, path: str) -> float:
        """Returns the share, 0 to 1, of the expected value that the actual one has."""
        if isinstance(expected, dict):
            return self._objects(expected, actual, path) if isinstance(actual, dict) else self._fault(path)
        if isinstance(expected, list):
            return self._arrays(expected, actual, path) if isinstance(actual, list) else self._fault(path)
        if _type(expected) != _type(actual):
            return self._fault(path)
        if isinstance(expected, str):
            equal = self._string(expected, path) == self._string(actual, path)
        elif isinstance(expected, (int, float)) and not isinstance(expected, bool):
            equal = self._close(expected, actual, path)
        else:
            equal = expected == actual
        return 1.0 if equal else self._fault(path)

    def reason(self) -> str:
        """Says what was wrong, in one short line."""
        if not self.faults:
            return "every field is right"
        more = f" and {len(self.faults) - 5} more" if len(self.faults) > 5 else ""
        return f"wrong: {', '.join(self.faults[:5])}{more}"

    def _fault(self, path: str) -> float:
        self.faults.append(path or "the whole answer")
        return 0.0

    def _objects(self, expected: dict[str, Any], actual: dict[str, Any], path: str) -> float:
        possible = earned = 0.0
        for key, value in expected.items():
            inner = f"{path}.{key}" if path else key
            weight = self.settings.setting(inner).weight
            if weight == 0:
                continue
            possible += weight
            if key in actual:
                earned += weight * self.compare(value, actual[key], inner)
            else:
                self.missing += 1
                self.faults.append(f"{inner} (missing)")
        unknown = [key for key in actual if key not in expected]
        if unknown:
            self.extra += len(unknown)
            self.faults.append(f"{len(unknown)} unknown in {path or 'the answer'}")
        possible += self.settings.extra_key_penalty * len(unknown)
        # Nothing was asked for and nothing that costs was added.
        if possible == 0:
            return 1.0
        return earned / possible

    def _arrays(self, expected: list[Any], actual: list[Any], path: str) -> float:
        longest = max(len(expected), len(actual))
        if longest == 0:
            return 1.0
        arrays = self.settings.setting(path).arrays or self.settings.arrays
        if arrays == "sequence":
            if len(expected) != len(actual):
                self.faults.append(f"{path or 'the array'} ({len(actual)} items, not {len(expected)})")
            pairs = zip(expected, actual, strict=False)
            return math.fsum(self.compare(item, other, path) for item, other in pairs) / longest
        # Only the reference's items are stored, so that no choice of items by the model makes looking them
        # up slow.
        wanted = Counter(self._key(item, path) for item in expected)
        matched = 0
        for item in actual:
            key = self._key(item, path)
            if wanted[key] > 0:
                wanted[key] -= 1
                matched += 1
        share = matched / (len(expected) + len(actual) - matched)
        if share < 1.0:
            self.faults.append(
                f"{path or 'the array'} ({matched} of {len(expected)} items, {len(actual)} given)"
            )
        return share

    def _key(self, value: Any, path: str) -> Hashable:
        """Makes a value comparable as a whole, with the types and the string settings of its path."""
        if isinstance(value, dict):
            return frozenset(
                (key, self._key(inner, f"{path}.{key}" if path else key)) for key, inner in value.items()
            )
        if isinstance(value, list):
            return tuple(self._key(inner, path) for inner in value)
        return _type(value), self._string(value, path) if isinstance(value, str) else value

    def _string(self, value: str, path: str) -> str:
        if (self.settings.setting(path).strings or self.settings.strings) == "exact":
            return value
        return " ".join(unicodedata.normalize("NFC", value).casefold().split())

    def _close(self, expected: float, actual: float, path: str) -> bool:
        if expected == actual:
            return True
        setting = self.settings.setting(path)
        absolute, relative = (
            getattr(self.settings, name) if getattr(setting, name) is None else getattr(setting, name)
            for name in ("absolute_tolerance", "relative_tolerance")
        )
        if absolute == relative == 0:
            return False
        # As fractions of what was written, so that 1.1 is within 0.01 of 1.11.
        wanted, given = (
            Fraction(value if isinstance(value, int) else repr(value)) for value in (expected, actual)
        )
        allowed = max(Fraction(repr(absolute)), Fraction(repr(relative)) * abs(wanted))
        return abs(given - wanted) <= allowed


def _field(path: str, value: Any) -> JsonField:
    if isinstance(value, JsonField):
        return value
    known = [setting.name for setting in fields(JsonField)]
    unknown = [key for key in value if key not in known] if isinstance(value, Mapping) else [value]
    if unknown:
        raise ValueError(f"fields.{path} is a table of {', '.join(known)}; {unknown[0]!r} is none of them")
    try:
        return JsonField(**value)
    except ValueError as error:
        raise ValueError(f"fields.{path}: {error}") from None


def _check(settings: JsonField | JsonMatch) -> None:
    for name, allowed in (("strings", get_args(Strings)), ("arrays", get_args(Arrays))):
        value = getattr(settings, name)
        if value not in allowed and not (value is None and isinstance(settings, JsonField)):
            raise ValueError(f"{name} is one of {', '.join(allowed)}, not {value!r}")
    for name in ("weight", "absolute_tolerance", "relative_tolerance", "extra_key_penalty"):
        value = getattr(settings, name, None)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
        if value is not None and not number:
            raise ValueError(f"{name} is a number of at least 0, not {value!r}")


def _type(value: Any) -> str:
    for name, types in _TYPES.items():
        if isinstance(value, types) and isinstance(value, bool) == (name == "boolean"):
            return name
    return "null"


# What holds for a field the settings do not name.
_UNNAMED = JsonField()
