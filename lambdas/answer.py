"""Where the texts stand that a reward compares: in a declared place, or at a path of a JSON document.

A team says where an answer stands, and nothing is looked for anywhere else. All of it is linear in the
length of the completion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lambdas.completion import boxed, json_text, strict_json, tagged
from lambdas.contract import UnscorableError

Form = Literal["boxed", "hashes", "tag", "label", "json", "last_line", "whole"]

# Places looked at in one completion; who declares more answers than that is listing them.
MOST_ANSWERS = 64

# An integer longer than this cannot be turned into text.
_LARGEST_BITS = 8_192


@dataclass(frozen=True, kw_only=True)
class Place:
    r"""A place of a completion that holds an answer, and nothing but the answer.

    Attributes:
        form: ``boxed``: in ``\boxed{}``. ``hashes``: after ``####``, to the end of the line. ``tag``: in
            ``<answer></answer>`` (see ``tag``). ``label``: after ``Answer:`` at the start of a line (see
            ``label``). ``json``: in a field of a JSON object, bare or in the only fenced code block (see
            ``json_field``). ``last_line``: the last line. ``whole``: the whole completion.
        tag: Name of the tag of the form ``tag``.
        label: Text before the colon of the form ``label``, in any case.
        json_field: Field of the form ``json``; ``answer.name`` is a field of a nested object.
        longest: Characters a box may hold; a longer one holds no answer.
    """

    form: Form
    tag: str = "answer"
    label: str = "Answer"
    json_field: str = "answer"
    longest: int = 1_000

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form is one of {', '.join(get_args(Form))}, not {self.form!r}")
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as answer, not {self.tag!r}")
        if not self.label.strip(" :"):
            raise ValueError("label is the text before the colon, and cannot be empty")
        if not self.json_field:
            raise ValueError("json_field is the name of a field, and cannot be empty")

    def find(self, text: str) -> list[str]:
        """Returns the texts that stand in this place, in order; at most ``MOST_ANSWERS`` and one more."""
        match self.form:
            case "boxed":
                found = boxed(text, self.longest, MOST_ANSWERS)
            case "hashes":
                found = re.findall(r"(?<!#)####(?!#)([^\n]*)", text)
            case "tag":
                found = tagged(text, self.tag)
            case "label":
                label = re.escape(self.label.strip(" :"))
                found = re.findall(rf"(?im)^[ \t*_#>-]*{label}[ \t*_]*:([^\n]*)", text)
            case "json":
                value = json_field(text, self.json_field)
                found = [] if value is None else [value]
            case "last_line":
                found = [text.rstrip().rpartition("\n")[2]]
            case "whole":
                found = [text]
        return [piece for piece in found if piece.strip(" \t\r\n*_`$")][: MOST_ANSWERS + 1]

    @property
    def absent(self) -> str:
        """Says, in words, that the place is empty."""
        return {
            "boxed": r"no answer in \boxed{}",
            "hashes": "no answer after ####",
            "tag": f"no answer in <{self.tag}></{self.tag}>",
            "label": f"no line that starts with {self.label.strip(' :')}:",
            "json": f"no JSON object with the field {self.json_field!r}",
            "last_line": "the completion is empty",
            "whole": "the completion is empty",
        }[self.form]


def json_field(text: str, path: str) -> str | None:
    """Returns one value of the JSON that a completion is, as text; None when there is no such value.

    Args:
        text: The completion: JSON, bare or in its only fenced code block.
        path: Field names, and positions in arrays, joined by dots: ``customer.emails.0``.
    """
    document = json_text(text)
    try:
        # Numbers stay as they are written: a float would lose digits, an integer may have too many of them.
        parsed = None if document is None else strict_json(document, number=str)
    except ValueError:
        return None
    return plain(at(parsed, path))


def reference_text(reference: Any, path: str = "") -> str:
    """Returns a row's reference answer, or the part of it at a path, as text.

    Raises:
        UnscorableError: There is none, or it is no text, number or truth value.
    """
    value = at(reference, path) if path else reference
    if value is None:
        where = f"the reference answer has no field {path!r}" if path else "the row has no reference answer"
        raise UnscorableError(where)
    text = plain(value)
    if text is None:
        where = f"the reference answer's {path}" if path else "the reference answer"
        raise UnscorableError(f"{where} is {type(value).__name__}, not one text or number")
    if not text.strip():
        raise UnscorableError("the reference answer is empty")
    return text


def at(document: Any, path: str) -> Any:
    """Returns what stands at a dotted path of JSON data; None where there is nothing."""
    for step in path.split("."):
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, list) and re.fullmatch(r"[0-9]{1,6}", step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def plain(value: Any) -> str | None:
    """Writes one JSON value as text; None for null, an array, an object or a monstrous number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() <= _LARGEST_BITS:
        return str(value)
    return repr(value) if isinstance(value, float) and math.isfinite(value) else None


def quoted(texts: list[str]) -> str:
    """Shows texts to a person, in one short line."""
    shown = ", ".join(repr(text.strip()[:60]) for text in texts[:3])
    return shown if len(texts) <= 3 else f"{shown} and {len(texts) - 3} more"
