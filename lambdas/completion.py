"""What a completion declares: the text in a tag, in a code fence, in a LaTeX box, or as strict JSON.

Reward functions look for an answer where the team said it stands, and nowhere else. Everything here is
linear in the length of the text, whatever the text is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

# Deeper than any answer a person would ask for, and shallow enough to walk.
DEEPEST = 64


def boxed(text: str, longest: int, most: int) -> list[str]:
    r"""Returns what stands in each ``\boxed{}`` with balanced braces, in order.

    Args:
        text: The completion.
        longest: Characters a box may hold; a longer one is left out.
        most: Boxes to look at; one more is returned when there are more, so that the caller can tell.
    """
    opening = r"\boxed{"
    found: list[str] = []
    pieces = text.split(opening, most + 1)
    start = len(pieces[0])
    for piece in pieces[1:]:
        start += len(opening)
        depth = 1
        for end in range(start, min(len(text), start + longest + 1)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found.append(text[start:end])
                break
        start += len(piece)
    return found


def fenced(text: str) -> list[str]:
    """Returns the content of each fenced code block, without the line of its opening fence.

    A fence stands at the start of a line, where no JSON string can hold one. A fence that is never closed
    makes the text ambiguous, so there is no block at all then.
    """
    pieces = re.split(r"^[ \t]*```", text, flags=re.MULTILINE)
    if len(pieces) % 2 == 0:
        return []
    return [piece.partition("\n")[2] for piece in pieces[1::2]]


def json_text(text: str) -> str | None:
    """Returns the JSON document a completion is, bare or in its only fenced code block; None for neither."""
    if text.lstrip()[:1] in {"{", "["}:
        return text
    blocks = fenced(text)
    return blocks[0] if len(blocks) == 1 else None


def tagged(text: str, tag: str) -> list[str]:
    """Returns the content of each ``<tag></tag>``, in any case; of nested ones, what the innermost holds."""
    found: list[str] = []
    for piece in re.split(f"<{re.escape(tag)}>", text, flags=re.IGNORECASE)[1:]:
        content, closing, _ = _partition(piece, f"</{tag}>")
        if closing:
            found.append(content)
    return found


def strict_json(text: str, number: Callable[[str], Any] | None = None) -> Any:
    """Reads JSON that says one thing: no duplicate key, no NaN or Infinity, no number beyond a float.

    Args:
        text: The whole text is the JSON.
        number: Reads a number's text; None makes the usual int or float.

    Raises:
        ValueError: The text is anything else, or is nested more than ``DEEPEST`` levels deep.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=number,
            parse_float=number or _float,
            parse_constant=_constant,
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    if is_deep(value):
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    return value


def message_text(content: Any) -> str:
    """Returns the text of a message: a string, or the texts of its parts; empty for anything else."""
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))


def is_deep(value: Any) -> bool:
    """Tells whether JSON data is nested more than ``DEEPEST`` levels deep."""
    # Level by level, because a recursive walk would be the very thing it guards against.
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)


def _partition(text: str, closing: str) -> tuple[str, str, str]:
    match = re.search(re.escape(closing), text, re.IGNORECASE)
    return (text[: match.start()], match[0], text[match.end() :]) if match else (text, "", "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
