"""Turns a grader of OpenAI's reinforcement fine-tuning into a [reward] table, and says where the two differ.

What is written is a reward that works: it is composed once before it is shown. What cannot mean the same
here is refused, all of it at once, with its place in the JSON and a way out.
"""

import json
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lambdas.composition import CompositionError, Formula, compose

# The judge that stands in for OpenAI's models; `teams/platform.toml` says which ones a team may choose.
JUDGE = "us.amazon.nova-2-lite-v1:0"

_METRICS = {
    "fuzzy_match": "fuzzy",
    **{
        name: name
        for name in ("bleu", "gleu", "meteor", "cosine", *(f"rouge_{n}" for n in range(1, 6)), "rouge_l")
    },
}
# Of the two texts these get it does not matter which is which.
_SYMMETRIC = frozenset({"eq", "ne", "fuzzy", "cosine"})
_OPERATIONS = {"eq": "eq", "ne": "ne", "neq": "ne", "like": "like", "ilike": "ilike"}
_FUNCTIONS = ("min", "max", "abs", "floor", "ceil", "exp", "sqrt", "log")
_REFERENCE = "reference_answer"
_CALLS = "tool_calls"

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_VARIABLE = re.compile(r"\s*(item|sample)((?:\.[\w-]+|\[[0-9]+\]|\[\"[^\"\]]+\"\]|\['[^'\]]+'\])+)\s*")
_TABLE = re.compile(r"""\s*\[\[?\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*[.\]]""")
_STEP = re.compile(r"\.([\w-]+)|\[([0-9]+)\]|\[\"([^\"]+)\"\]|\['([^']+)'\]")
_WORD = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<sign>[-+*/^(),]))"
)


class GraderError(Exception):
    """The grader cannot be imported; the text says where, why, and what to do instead, a line for each."""


@dataclass(frozen=True, kw_only=True)
class ImportedReward:
    """A grader as a reward.

    Attributes:
        table: The [reward] table.
        notes: What a person has to do or to know before it is used.
    """

    table: Mapping[str, Any]
    notes: Sequence[str]

    @property
    def toml(self) -> str:
        """The table as the text of a team.toml, with the notes as comments above it."""
        notes = (
            textwrap.fill(note, 100, initial_indent="# - ", subsequent_indent="#   ") for note in self.notes
        )
        # Right above the table, so that they go when it goes.
        comments = ["# Imported from an OpenAI grader. Before you train:", *notes] if self.notes else []
        return "\n".join([*comments, *_toml(self.table, ("reward",))]) + "\n"


def main_text(path: Path | str, *, judge: str = JUDGE) -> str:
    """Reads a file with a grader, or with a job that has one, and returns the [reward] table as TOML.

    Raises:
        GraderError: The file holds no grader, or one that cannot be imported.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise GraderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise GraderError(f"{path} is not JSON: {error}") from error
    return convert(document, judge=judge).toml


def placed(settings: bytes, reward: str, *, name: str, force: bool = False) -> bytes:
    """Puts a [reward] table into a team.toml, and keeps every other byte of it.

    Args:
        settings: The file.
        reward: The table, as ``main_text`` writes it.
        name: What to call the file in messages.
        force: Whether a [reward] table that is there, with the comment right above it, is replaced.

    Raises:
        GraderError: There is a [reward] already, the file is not TOML, or its reward is no table of its own.
    """
    try:
        text = settings.decode()
        before = tomllib.loads(text)
    except ValueError as error:
        raise GraderError(f"{name} is not valid TOML: {error}") from error
    if "reward" in before and not force:
        raise GraderError(f"{name} has a [reward] already: --force replaces it, and nothing else of the file")
    if "\r\n" in text:
        reward = reward.replace("\n", "\r\n")
    end = "\r\n" if "\r\n" in text else "\n"
    sections = _sections(text)
    first = next((place for place, (table, _) in enumerate(sections) if table == "reward"), len(sections))
    head = "".join(section for _, section in sections[:first])
    tail = "".join(section for table, section in sections[first:] if table != "reward")
    head += "" if head.endswith("\n") or not head else end
    head += "" if head.endswith(end * 2) or not head else end
    written = head + reward + (end + tail if tail else "")
    try:
        after = tomllib.loads(written)
    # The reward was there in another form, and now it is there twice.
    except ValueError:
        after = {}
    others = [{key: value for key, value in each.items() if key != "reward"} for each in (before, after)]
    if after.get("reward") != tomllib.loads(reward)["reward"] or others[0] != others[1]:
        raise GraderError(f"{name} has its reward in another form than [reward] tables: take it out by hand")
    return written.encode()


def _sections(text: str) -> list[tuple[str, str]]:
    """Splits a TOML file at its tables: the first part of each one's name, and its text.

    A comment right above a table is the table's; what stands before the first one has no name.
    """
    sections: list[tuple[str, list[str]]] = [("", [])]
    inside_text = False
    for line in text.splitlines(keepends=True):
        found = None if inside_text else _TABLE.match(line)
        if found:
            above = sections[-1][1]
            start = len(above)
            while start and above[start - 1].startswith("#"):
                start -= 1
            sections.append((found[1].strip("\"'"), above[start:]))
            del above[start:]
        sections[-1][1].append(line)
        inside_text ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return [(table, "".join(lines)) for table, lines in sections]


def convert(grader: object, *, judge: str = JUDGE) -> ImportedReward:
    """Turns a grader into a reward.

    Args:
        grader: The grader; or a fine-tuning job or method that has one.
        judge: Id or ARN of the model on Bedrock that takes the place of every model grader's.

    Raises:
        GraderError: It cannot be imported.
    """
    path, found = _grader(grader)
    work = _Import(judge=judge, items=_items(found))
    name, expression = work.grader(path, found, "")
    if work.faults:
        raise GraderError("\n".join(work.faults))
    table: dict[str, Any] = {"range": [0.0, 1.0]}
    if expression != name:
        table |= work.formula(path, expression)
    table["components"] = work.components
    try:
        compose(table)
    except CompositionError as error:
        raise GraderError(f"{path or 'the grader'}: as a reward it does not work: {error}") from error
    return ImportedReward(table=table, notes=[*work.rows(), *dict.fromkeys(work.notes)])


def _grader(document: object) -> tuple[str, Mapping[str, Any]]:
    """Finds the grader in what people keep graders in, and where it is."""
    path, found = "", document
    while isinstance(found, Mapping) and "calculate_output" not in found:
        inner = next((key for key in ("method", "reinforcement", "grader") if key in found), None)
        if inner is None:
            break
        path, found = f"{path}.{inner}".lstrip("."), found[inner]
    if not isinstance(found, Mapping) or "type" not in found:
        raise GraderError(
            f'{path or "the file"}: is not a grader: an object with a "type" is needed, such as '
            '{"type": "string_check", "input": "{{sample.output_text}}", ...}'
        )
    return path, found


@dataclass(frozen=True)
class _Variable:
    """What a template names: a value of the row, or of the completion."""

    space: str
    steps: tuple[str, ...]

    @property
    def path(self) -> str:
        return ".".join(self.steps)

    def __str__(self) -> str:
        return f"{self.space}.{self.path}"


def _variable(text: str) -> _Variable | None:
    match = _VARIABLE.fullmatch(text)
    if match is None:
        return None
    steps = tuple(next(filter(None, found)) for found in _STEP.findall(match[2]))
    # The same thing under the name that the chat completions API has for it.
    for long, short in ((("message", "content"), "output_text"), (("message", "tool_calls"), "output_tools")):
        if match[1] == "sample" and steps[:4] == ("choices", "0", *long):
            steps = (short, *steps[4:])
    return _Variable(match[1], steps)


def _items(grader: object) -> frozenset[tuple[str, ...]]:
    """Returns the paths of all values of the row that a grader needs."""
    texts, pending, found = [], [grader], set()
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            texts.append(each)
        elif isinstance(each, list):
            pending += each
        elif isinstance(each, Mapping) and _called(each):
            # Calls are compared as calls, so the row has them as such and not in pieces.
            found.add((_CALLS,))
        elif isinstance(each, Mapping):
            pending += each.values()
    variables = [_variable(found) for text in texts for found in _TEMPLATE.findall(text)]
    return frozenset(each.steps for each in variables if each is not None and each.space == "item") | found


def _called(grader: Mapping[str, Any]) -> tuple[_Variable, str] | None:
    """Returns the part of a tool call that a grader compares, and the text it compares it with."""
    if grader.get("type") not in ("string_check", "text_similarity"):
        return None
    for side, other in (("input", "reference"), ("reference", "input")):
        whole = _TEMPLATE.fullmatch(str(grader.get(side)).strip())
        variable = _variable(whole[1]) if whole else None
        if variable is not None and variable.space == "sample" and variable.steps[0] == "output_tools":
            return variable, str(grader.get(other))
    return None


@dataclass(kw_only=True)
class _Import:
    """One import under way: what it has made, what it has to say, and what it cannot do."""

    judge: str
    items: frozenset[tuple[str, ...]]
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def grader(self, path: str, grader: Any, wanted: str) -> tuple[str, str]:
        """Makes components of a grader; returns its name and an expression of its score."""
        kinds: dict[str, Callable[[str, Mapping[str, Any]], tuple[dict[str, Any], tuple[float, float]]]] = {
            "string_check": self._string_check,
            "text_similarity": self._text_similarity,
            "score_model": self._score_model,
            "label_model": self._label_model,
        }
        kind = grader.get("type") if isinstance(grader, Mapping) else None
        if kind == "multi":
            return "", self._multi(path, grader, wanted)
        if kind == "python":
            self._fault(
                path,
                "type",
                "a python grader is code, and code that ran elsewhere is not run here unread",
                "write it as `def score(sample: Sample) -> Reward` in teams/<team>/reward.py and name it by "
                '`function = "reward.py"`: sample["output_text"] is sample.completion there, item[...] is '
                "sample.reference_answer and sample.metadata; then import the rest of the grader without it",
            )
            return "", ""
        if not isinstance(kind, str) or kind not in kinds:
            known = ", ".join([*kinds, "multi"])
            self._fault(path, "type", f"{kind!r} is no type of grader that can be imported", f"use {known}")
            return "", ""
        name = self._name(wanted or str(grader.get("name") or kind))
        before = len(self.faults)
        self.components[name] = {}
        component, (low, high) = kinds[kind](path, grader)
        if len(self.faults) > before:
            return name, name
        self.components[name] = component
        if (low, high) == (0.0, 1.0):
            return name, name
        start = f"{_number(low)} + " if low else ""
        return name, f"({start}{_number(high - low)} * {name})"

    def formula(self, path: str, expression: str) -> dict[str, Any]:
        """Returns the formula of a reward and the range that it fills."""
        where = f"{path}.calculate_output".lstrip(".")
        names = tuple(self.components)
        try:
            # Scores of components are within 0 and 1.
            formula = Formula(expression, names, (0.0, 1.0))
        except CompositionError as error:
            raise GraderError(f"{where}: {error}") from error
        unused = [name for name in names if name not in formula.names]
        if unused:
            self.notes.append(f"The formula does not use {', '.join(unused)}: watched, not optimized.")
        low, high = float(f"{formula.low:.6g}"), float(f"{formula.high:.6g}")
        if low >= 0 and high <= 1:
            return {"formula": expression}
        if low == high:
            raise GraderError(f"{where}: its value is {low:g} whatever the model writes; use its graders.")
        self.notes.append(f"The formula gives scores from {low:g} to {high:g}, and so does `range`.")
        table = {"range": [low, high], "formula": expression}
        try:
            Formula(expression, names, (min(low, 0.0), max(high, 1.0)))
        # With a wider range a component might have a wider one, too, as far as the formula is to know.
        except CompositionError:
            table["formula"] = re.sub(rf"\b({'|'.join(names)})\b(?!\s*\()", r"clip(\1, 0, 1)", expression)
        return table

    def rows(self) -> list[str]:
        """Says what the team has to do with its rows."""
        moved = sorted({self._place(steps) for steps in self.items if steps[0] != "messages"} - {""})
        if not moved:
            return []
        return [
            "Rows: rewards read the right answer from `reference_answer`, so it has to be an object in every "
            f"row that holds {', '.join(moved)}. OpenAI's items have such values beside the messages."
        ]

    def _place(self, steps: tuple[str, ...]) -> str:
        """Returns the path in a row's reference answer at which a value of OpenAI's item is."""
        if steps[0] != _REFERENCE:
            return ".".join(steps)
        if len(steps) > 1:
            return ".".join(steps[1:])
        # A text cannot have fields; next to other values it becomes one of them.
        has_fields = any(each[0] == _REFERENCE and len(each) > 1 for each in self.items)
        others = any(each[0] not in (_REFERENCE, "messages") for each in self.items)
        return _REFERENCE if others and not has_fields else ""

    # --- graders without a model

    def _string_check(
        self, path: str, grader: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[float, float]]:
        operation = _OPERATIONS.get(str(grader.get("operation")), "")
        if not operation:
            known = ", ".join(dict.fromkeys(_OPERATIONS.values()))
            self._fault(path, "operation", f"{grader.get('operation')!r} is none", f"use {known}")
        if operation == "ne":
            self.notes.append("string_check `ne`: an empty completion scores 0 here, though it differs.")
        if _called(grader):
            if operation != "eq":
                self._fault(path, "operation", "tool calls can only be compared by eq", "use eq")
            return self._tool_call(path, grader, partial_credit=False), (0.0, 1.0)
        sides = self._sides(path, grader, symmetric=operation in _SYMMETRIC)
        return {"function": "string_check", "operation": operation, **sides, "strip": False}, (0.0, 1.0)

    def _text_similarity(
        self, path: str, grader: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[float, float]]:
        metric = _METRICS.get(str(grader.get("evaluation_metric")), "")
        if not metric:
            known = ", ".join(_METRICS)
            self._fault(
                path, "evaluation_metric", f"{grader.get('evaluation_metric')!r} is none", f"use {known}"
            )
        self._threshold(grader)
        if _called(grader):
            return self._tool_call(path, grader, partial_credit=True), (0.0, 1.0)
        self.notes.append(
            "text_similarity is computed from the published definitions, without stemming, synonyms or "
            "embeddings, so scores can differ from OpenAI's. Look at some with `rft score`."
        )
        if metric == "cosine":
            self.notes.append("text_similarity `cosine` compares counts of words here, not embeddings.")
        sides = self._sides(path, grader, symmetric=metric in _SYMMETRIC)
        return {"function": "text_similarity", "metric": metric, **sides}, (0.0, 1.0)

    def _tool_call(self, path: str, grader: Mapping[str, Any], *, partial_credit: bool) -> dict[str, Any]:
        """Compares the names of calls, or their arguments, with the calls that the row expects."""
        variable, expected = _called(grader) or (_Variable("sample", ()), "")
        part = variable.steps[-1] if len(variable.steps) == 4 and variable.steps[2] == "function" else ""
        if part not in ("name", "arguments"):
            self._fault(
                path,
                "input",
                f"{{{{{variable}}}}} is neither the name of a call nor its arguments",
                "use {{sample.output_tools[0].function.name}} or .arguments",
            )
        self.notes.append(
            f"Tool calls are compared as calls, all of a completion at once: the grader wants the {part} "
            f"{_short(expected)}, so put the calls that are right into every row, as "
            f'{_REFERENCE}.{_CALLS} = [{{"name": "...", "arguments": {{...}}}}].'
        )
        return {
            "function": "tool_call",
            "reference_field": _CALLS,
            "name_weight": float(part == "name"),
            "partial_credit": partial_credit,
        }

    def _sides(self, path: str, grader: Mapping[str, Any], *, symmetric: bool) -> dict[str, Any]:
        """Returns which part of the completion is compared with what."""
        found: dict[str, str | _Variable] = {}
        for side in ("input", "reference"):
            text = grader.get(side)
            if not isinstance(text, str):
                self._fault(path, side, "is missing, or is no text", 'write a text, such as "{{item.x}}"')
                return {}
            whole = _TEMPLATE.fullmatch(text.strip())
            variable = _variable(whole[1]) if whole else None
            if variable is None and _TEMPLATE.search(text):
                self._fault(
                    path,
                    side,
                    f"{_short(text)} is more than one {{{{item...}}}} or {{{{sample...}}}} and nothing else",
                    "put the whole expected text into the rows, under one name, and refer to that",
                )
                return {}
            found[side] = text if variable is None else variable
        given, expected = found["input"], found["reference"]
        if _is(given, "sample") == _is(expected, "sample"):
            fault = "both are" if _is(given, "sample") else "neither is"
            self._fault(
                path,
                "input",
                f"of input and reference, one is what the model wrote; here {fault}",
                "refer to {{sample.output_text}} in one of them",
            )
            return {}
        if _is(expected, "sample"):
            if not symmetric:
                self._fault(
                    path,
                    "reference",
                    "looks in the expected text for what the model wrote, which pays for writing little",
                    "put {{sample...}} into input and the expected text into reference",
                )
                return {}
            given, expected = expected, given
        sides = self._completion(path, given)
        if isinstance(expected, _Variable):
            place = self._place(expected.steps)
            return sides | ({"reference_field": place} if place else {})
        if not expected.strip():
            self._fault(path, "reference", "is empty", "compare with a text")
        return sides | {"value": expected}

    def _completion(self, path: str, given: str | _Variable) -> dict[str, Any]:
        """Returns the parameter that says which part of a completion is compared."""
        match given:
            case _Variable("sample", ("output_text",)):
                return {}
            case _Variable("sample", ("output_json", first, *rest)):
                return {"field": ".".join([first, *rest])}
            case _Variable("sample", ("output_json",)):
                self._fault(
                    path,
                    "input",
                    "{{sample.output_json}} is a whole object, and texts of equal objects can differ",
                    'compare it by `function = "json_match"`, which needs no grader, or name one field of it',
                )
            case _:
                self._fault(
                    path,
                    "input",
                    f"{{{{{given}}}}} is nothing that a completion has here",
                    "use {{sample.output_text}} or {{sample.output_json.<field>}}",
                )
        return {}

    # --- graders with a model

    def _score_model(
        self, path: str, grader: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[float, float]]:
        limits = grader.get("range") or [0, 1]
        numbers = [each for each in limits if isinstance(each, (int, float)) and not isinstance(each, bool)]
        if len(numbers) != 2 or len(limits) != 2 or not numbers[0] < numbers[1]:
            self._fault(path, "range", f"{limits!r} is not two numbers in rising order", "write [0, 1]")
            return {}, (0.0, 1.0)
        low, high = map(float, numbers)
        self._threshold(grader)
        if (low, high) != (0.0, 1.0):
            self.notes.append(
                f"The judge still gives scores from {low:g} to {high:g}; the component's own metric says "
                "where between the two one is, from 0 to 1."
            )
        self.notes.append(
            "score_model: OpenAI's judge gives 0 where it gives no number; here such a completion gets the "
            "lowest score and counts as no_verdict, and a judge that is down fails the batch."
        )
        component = self._judge(path, grader)
        return {**component, "scale": [low, high], "whole_numbers": False}, (low, high)

    def _label_model(
        self, path: str, grader: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[float, float]]:
        labels, passing = grader.get("labels"), grader.get("passing_labels")
        for key, value in (("labels", labels), ("passing_labels", passing)):
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                self._fault(path, key, "is not a list of texts", 'write ["good", "bad"]')
                return {}, (0.0, 1.0)
        unknown = [each for each in passing or [] if each not in (labels or [])]
        if unknown:
            self._fault(path, "passing_labels", f"{unknown[0]!r} is none of labels", "use labels only")
        worth = {label: float(label in (passing or [])) for label in labels or []}
        if len(set(worth.values())) < 2:
            self._fault(
                path,
                "passing_labels",
                "every answer gets the same score, because all of labels pass or none does",
                "name some of labels, not all",
            )
        return {**self._judge(path, grader), "labels": worth}, (0.0, 1.0)

    def _judge(self, path: str, grader: Mapping[str, Any]) -> dict[str, Any]:
        self.notes.append(
            f"{grader.get('model') or 'The grader model'} becomes {self.judge}: choose one of the judges in "
            "teams/platform.toml, and compare its scores with those you trust before you train."
        )
        if "sampling_params" in grader:
            self.notes.append(
                "sampling_params are not taken over: a judge is asked at temperature 0, for a short verdict."
            )
        messages = grader.get("input")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, list) or not messages:
            self._fault(
                path, "input", "is not a list of messages", 'write [{"role": "user", "content": "..."}]'
            )
            return {}
        texts = [
            self._message(f"{path}.input[{place}]".lstrip("."), each) for place, each in enumerate(messages)
        ]
        rubric = "\n\n".join(text for text in texts if text)
        self.notes.append(
            "The rubric is the grader's prompt, with the names of the documents a judge gets (PROMPT, "
            "REFERENCE, ANSWER) where the templates were. Take out what it says about the form of the "
            "verdict, such as `result` and `steps`: that is settled without it."
        )
        if "sample." not in _text(grader.get("input")):
            self.notes.append("The grader's prompt shows nothing that the model wrote; a judge here sees it.")
        return {"function": "judge", "model": self.judge, "rubric": rubric}

    def _message(self, path: str, message: Any) -> str:
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = content if isinstance(content, list) else [content]
        texts = []
        for part in parts:
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                self._fault(path, "content", f"{kind} is no text", "judges here read text only")
                return ""
            texts.append(text)

        def name(match: re.Match[str]) -> str:
            variable = _variable(match[1])
            shown = self._document(variable) if variable else ""
            if not shown:
                self._fault(
                    path,
                    "content",
                    f"{match[0]} is nothing that a judge gets to see",
                    "use {{item...}}, {{sample.output_text}}, output_json or output_tools",
                )
            return shown

        text = _TEMPLATE.sub(name, "\n".join(texts)).strip()
        return (
            f"An answer of the judge, as an example:\n{text}" if message.get("role") == "assistant" else text
        )

    def _document(self, variable: _Variable) -> str:
        """Names the document, and the place in it, that a judge finds a template's value in."""
        match variable:
            case _Variable("item", ("messages", *_)):
                return "(see PROMPT)"
            case _Variable("item", steps):
                place = self._place(steps)
                return f"(see {place} in REFERENCE)" if place else "(see REFERENCE)"
            case _Variable("sample", ("output_text",) | ("output_json",)):
                return "(see ANSWER)"
            case _Variable("sample", ("output_json", first, *rest)):
                return f"(see {'.'.join([first, *rest])} in ANSWER)"
            case _Variable("sample", ("output_tools", *_)):
                return "(see TOOL CALLS OF THE ANSWER)"
        return ""

    # --- several graders

    def _multi(self, path: str, grader: Mapping[str, Any], wanted: str) -> str:
        graders = grader.get("graders")
        if isinstance(graders, Mapping) and isinstance(graders.get("type"), str):
            graders = {str(graders.get("name") or graders["type"]): graders}
        if not isinstance(graders, Mapping) or not graders:
            self._fault(path, "graders", "is no object of graders by name", 'write {"name": {"type": ...}}')
            return ""
        expressions = {}
        for key, each in graders.items():
            inner = f"{path}.graders.{key}".lstrip(".")
            expressions[key] = self.grader(inner, each, f"{wanted}_{key}" if wanted else key)[1]
        formula = grader.get("calculate_output")
        if not isinstance(formula, str) or not formula.strip():
            self._fault(path, "calculate_output", "is missing, or is no text", 'write "(a + b) / 2"')
            return ""
        return (
            f"({self._expression(path, formula, expressions)})"
            if wanted
            else self._expression(path, formula, expressions)
        )

    def _expression(self, path: str, formula: str, expressions: Mapping[str, str]) -> str:
        """Rewrites a formula for the names and the power sign that there are here."""
        words, place = [], 0
        while place < len(formula.rstrip()):
            match = _WORD.match(formula, place)
            if match is None:
                self._fault(
                    path,
                    "calculate_output",
                    f"{formula[place:].strip()[:20]!r} is no part of a formula",
                    f"use names of graders, numbers, + - * / ^, brackets, {', '.join(_FUNCTIONS)}",
                )
                return ""
            place = match.end()
            name = match["name"]
            if name is None:
                words.append("**" if match["sign"] == "^" else match[0].strip())
            elif name in _FUNCTIONS and formula[place:].lstrip().startswith("("):
                words.append(name)
            elif name in expressions:
                words.append(expressions[name])
            else:
                self._fault(
                    path,
                    "calculate_output",
                    f"{name!r} is none of graders",
                    f"use {', '.join(expressions)}, or a function: {', '.join(_FUNCTIONS)}",
                )
        return _spaced(words)

    def _name(self, wanted: str) -> str:
        """Makes a name of a component that is free and allowed."""
        name = re.sub(r"[^a-z0-9_]+", "_", wanted.lower()).strip("_")[:30] or "grader"
        if not name[0].isalpha() or name in _RESERVED:
            name = f"grader_{name}"
        number, free = 2, name
        while free in self.components:
            number, free = number + 1, f"{name}_{number}"
        return free

    def _threshold(self, grader: Mapping[str, Any]) -> None:
        if "pass_threshold" in grader:
            self.notes.append(
                "pass_threshold is not taken over: in training a grader gives its score, whether that passes "
                "or not."
            )

    def _fault(self, path: str, key: str, fault: str, remedy: str) -> None:
        self.faults.append(f"{f'{path}.{key}'.lstrip('.')}: {fault}; {remedy}.")


# Names that mean something else in a formula or in the metrics.
_RESERVED = frozenset({*_FUNCTIONS, "clip", "gated", "unscorable", "error", "over_time", "over_length"})


def _is(value: str | _Variable, space: str) -> bool:
    return isinstance(value, _Variable) and value.space == space


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(float(f"{value:.12g}"))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _spaced(words: Iterable[str]) -> str:
    """Writes a formula the way a person would."""
    text, former = "", "("
    for word in words:
        tight = (
            word in (")", ",") or former == "(" or (word == "(" and former in _FUNCTIONS) or former == "-u"
        )
        unary = word in ("-", "+") and former in ("(", ",", "+", "-", "*", "/", "**", "-u")
        text += word if tight or not text else f" {word}"
        former = "-u" if unary else word
    return text


def _toml(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Writes a table and those in it, as lines."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"[{'.'.join(map(_key, path))}]"] if values else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", *_toml(value, (*path, key))] if lines else _toml(value, (*path, key))
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{_escaped(name)}"'


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if "\n" in value:
        lines = "\n".join(_escaped(line) for line in value.split("\n"))
        # Quotes need no escape between three of them, unless they could be taken for those.
        if '""' not in value and not value.endswith('"'):
            lines = lines.replace('\\"', '"')
        return f'"""\n{lines}"""'
    return f'"{_escaped(value)}"'


def _escaped(text: str) -> str:
    # TOML's escapes are JSON's, but for one character that JSON leaves as it is.
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)[1:-1].replace(
        "\x7f", "\\u007f"
    )
