"""How a mistake in a settings file is told: file and line, key, value, and what is allowed, in one line."""

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

Schema = dict[str, Any]


class SettingsError(Exception):
    """Every fault found in the settings; its text is one readable line per fault."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TomlFile:
    """A parsed TOML file: the name people know it by, its data, and the line of every table and key."""

    name: str
    document: dict[str, Any]
    lines: Mapping[tuple[str, ...], int]

    def place(self, path: tuple[Any, ...]) -> str:
        """The file and the line of a key."""
        # A key inside an inline table or an array has no line of its own: take the nearest one around it.
        around = (path[:end] for end in range(len(path), 0, -1))
        return next(
            (f"{self.name}:{self.lines[outer]}" for outer in around if outer in self.lines), self.name
        )

    def fault(self, path: tuple[Any, ...], problem: str, value: object = None) -> str:
        """One line about the key a path leads to; tables are too large to show their value."""
        given = "" if value is None or isinstance(value, dict) else f" = {shown(value)}"
        return f"{self.place(path)}: {_dotted(path)}{given}: {problem}"

    def faults(self, error: ValidationError, schema: Schema, *, under: tuple[str, ...] = ()) -> list[str]:
        """One line per error of a validation; `schema` describes the table that lies under the path."""
        lines = []
        for entry in error.errors(include_url=False):
            path, value = entry["loc"], entry["input"]
            if path[-1:] == ("[key]",):
                # The library's marker for an error in the name of a table; it is no key of the file.
                path, value = path[:-1], None
            elif entry["type"] == "missing" and isinstance(path[-1], int):
                # A list that is too short is told as such, not as the value it lacks.
                path = path[:-1]
                entry = {**entry, "loc": path, "type": "too_short"}
            lines.append(self.fault((*under, *path), _problem(entry, schema), value))
        return lines


def read_toml(root: Path, path: Path) -> tuple[TomlFile | None, list[str]]:
    """Reads a TOML file; the file, or None and the one fault that kept it from being read."""
    name = path.relative_to(root).as_posix()
    try:
        text = path.read_bytes().decode()
        return TomlFile(name=name, document=tomllib.loads(text), lines=_key_lines(text)), []
    except OSError:
        return None, [f"{name}: cannot be read: the file must be there and readable"]
    except UnicodeDecodeError as error:
        return None, [f"{name}: is not UTF-8 text (byte {error.start}): save the file as UTF-8"]
    except tomllib.TOMLDecodeError as error:
        place = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error))
        if place is None:
            return None, [f"{name}: is not valid TOML: {error}"]
        return None, [f"{name}:{place[2]}: is not valid TOML: {place[1]} (column {place[3]})"]


def plain(schema: Any) -> Any:
    """A JSON Schema without titles, without the nulls TOML does not have, and closed to unknown keys."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: plain(value) for key, value in schema.items() if key != "title" or isinstance(value, dict)}
    if kept.get("default", ...) is None:
        del kept["default"]
    if "properties" in kept:
        kept.setdefault("additionalProperties", False)
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
        kept["propertyNames"] = {"type": "string", **kept.get("propertyNames", {})}
    if "anyOf" in kept:
        choices = [each for each in kept.pop("anyOf") if each != {"type": "null"}]
        kept = {**choices[0], **kept} if len(choices) == 1 else {**kept, "anyOf": choices}
    return kept


def unknown_keys(
    schema: Schema, value: object, path: tuple[int | str, ...] = ()
) -> Iterator[tuple[tuple[int | str, ...], object, str]]:
    """Every key in a value, however deep, that its schema has no place for: path, value, what to say."""
    place = _place(schema, path)
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        if "properties" in place and not place["additionalProperties"] and step not in place["properties"]:
            yield (*path, step), inner, unknown_key(str(step), place["properties"])
        else:
            yield from unknown_keys(schema, inner, (*path, step))


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say about a key nobody reads."""
    return f"unknown key{did_you_mean(key, known)}; allowed: {listed(sorted(known))}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is nearest, or nothing when none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(words: Iterable[str], joint: str = ", ") -> str:
    """The words in a row, the last one after the joint."""
    *most, last = list(words) or ["none"]
    return joint.join([", ".join(most), last]) if most else last


def shown(value: object) -> str:
    """A value about as TOML spells it, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False, default=str).replace("Infinity", "inf").replace("NaN", "nan")
    return text if len(text) <= 80 else f"{text[:77]}..."


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The first line of every table and key of a TOML text."""
    key = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
    dotted = rf"{key}(?:\s*\.\s*{key})*"
    start = re.compile(rf"\s*(?:\[\[?\s*(?P<table>{dotted})\s*\]|(?P<key>{dotted})\s*=)")
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside_text = False
    for number, line in enumerate(text.splitlines(), start=1):
        found = None if inside_text else start.match(line)
        if found:
            keys = tuple(part.strip("\"'") for part in re.findall(key, found["table"] or found["key"]))
            path = keys if found["table"] else table + keys
            table = keys if found["table"] else table
            for end in range(1, len(path) + 1):
                lines.setdefault(path[:end], number)
        inside_text ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return lines


def _problem(entry: Any, schema: Schema) -> str:
    """What is wrong with one value and what is allowed, from the schema of its place."""
    path, kind = entry["loc"], entry["type"]
    if kind == "extra_forbidden":
        return unknown_key(str(path[-1]), _place(schema, path[:-1]).get("properties", {}))
    if kind == "value_error":
        return str(entry["ctx"]["error"])
    if path[-1:] == ("[key]",):
        names = _place(schema, path[:-2])["propertyNames"]
        return f"its name must be {_allowed(schema, names)}"
    place = _place(schema, path)
    if kind == "missing":
        what = place.get("description", "").rstrip(".")
        return f"is missing: it must be {_allowed(schema, place)}" + (f" ({what})" if what else "")
    if kind.startswith(("greater_than", "less_than")):
        return f"must be {_bounds(place)}"
    return f"must be {_allowed(schema, place)}"


def _allowed(root: Schema, schema: Schema) -> str:
    """What a schema allows, as a phrase: "a whole number from 16 to 512"."""
    schema = _resolved(root, schema)
    if "anyOf" in schema:
        return listed((_allowed(root, each) for each in schema["anyOf"]), " or ")
    if "enum" in schema or "const" in schema:
        return listed((shown(value) for value in schema.get("enum", [schema.get("const")])), " or ")
    if "$comment" in schema:
        return ", like ".join([schema["$comment"], *map(shown, schema.get("examples", []))])
    bounds = _bounds(schema)
    bounds = f"of {bounds}" if bounds.startswith("at ") else bounds
    fewest, most = schema.get("minItems", 0), schema.get("maxItems")
    phrases = {
        "integer": ("a whole number", bounds),
        "number": ("a number", bounds),
        "boolean": ("true or false",),
        "array": ("a list", f"of {fewest}" if fewest == most else f"of {fewest} to {most}" if most else ""),
        "object": ("a table", "with at least one entry" if schema.get("minProperties") else ""),
        "string": ("a text",),
    }
    return " ".join(filter(None, phrases.get(schema.get("type", ""), ("something else",))))


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"from {shown(low)} to {shown(high)}"
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    bounds = {"at least": low, "above": above, "at most": high, "below": below}
    return " and ".join(f"{word} {shown(value)}" for word, value in bounds.items() if value is not None)


def _place(schema: Schema, path: Iterable[int | str]) -> Schema:
    """The part of a schema that describes what a path leads to."""
    place = _resolved(schema, schema)
    for step in path:
        if isinstance(step, int):
            each = place.get("prefixItems", [])
            inner = each[step] if step < len(each) else place.get("items")
        else:
            named = [*place.get("patternProperties", {}).values(), place.get("additionalProperties")]
            inner = place.get("properties", {}).get(step, named[0])
        place = _resolved(schema, inner if isinstance(inner, dict) else {})
    return place


def _resolved(root: Schema, schema: Schema) -> Schema:
    """The schema behind a reference, under what the place itself says."""
    if "$ref" not in schema:
        return schema
    target = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _dotted(path: Iterable[object]) -> str:
    bare = re.compile(r"[A-Za-z0-9_-]+")
    return ".".join(key if bare.fullmatch(key) else f'"{key}"' for key in map(str, path))
