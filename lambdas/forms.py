r"""How an answer becomes a completion: the forms that rewards ask for, of which one earns the maximum.

Bare, ``####``, ``\boxed{}``, tags, labels, JSON, tool calls, and each with reasoning in front. Which of them
a reward wants only the reward knows; names of tags, labels and fields come from its settings and the prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambdas.completion import boxed

Row = Mapping[str, Any]
Message = dict[str, Any]
Writer = Callable[[Row], str | None]

# Prompts that are looked through for names.
_PROMPTS = 3


@dataclass(frozen=True)
class Form:
    """One way to write an answer; `write(row, answer)` returns the message, None where it does not fit."""

    name: str
    write: Callable[[Row, Any], Message | None]


def said(text: str) -> Message:
    """Returns the message of a completion that is text."""
    return {"role": "assistant", "content": text}


def plain_forms(names: Sequence[str]) -> list[Form]:
    """Returns the forms that hold the answer and nothing else, the bare one first."""
    tags = [name for name in dict.fromkeys((*names, "answer", "solution", "final_answer")) if _is_tag(name)]
    labels = dict.fromkeys((*names, "Answer", "ANSWER", "Final answer"))
    fields = dict.fromkeys((*names, "answer"))
    hashes, box = _around("####", "#### ", ""), _around(r"\boxed{}", r"\boxed{", "}")
    return [
        Form("bare", lambda _row, answer: said(text_of(answer))),
        hashes,
        box,
        *(_tagged(tag) for tag in tags),
        *(_around(f"{label}:", f"{label}: ", "") for label in labels),
        *(_field(name) for name in fields),
        *(_number_field(name) for name in fields),
        _around("fenced JSON", "```json\n", "\n```", structured=True),
        Form("<tool_call>", lambda _row, answer: _tool_calls_text(answer)),
        Form("tool calls", lambda _row, answer: _tool_calls_message(answer)),
        *(_inside(tag, form) for tag in tags[:2] for form in (box, hashes)),
        Form("the reference as it is", _as_it_is),
    ]


def core(reference: Any) -> Any:
    r"""Returns the answer of a reference: all of it, but for a worked solution.

    Of that, the answer is what stands after the last ``####``, or in the last ``\boxed{}``.
    """
    if not isinstance(reference, str):
        return reference
    declared = reference.rpartition("####")[2].strip() if "####" in reference else ""
    boxes = boxed(reference, len(reference), len(reference))
    return declared or (boxes[-1].strip() if boxes else "") or reference


def _as_it_is(row: Row, answer: Any) -> Message:
    reference = row["reference_answer"]
    return said(text_of(reference if answer == core(reference) else answer))


def _around(name: str, before: str, after: str, *, structured: bool = False) -> Form:
    """The answer between two texts: one that is JSON, with `structured`, and one that is none without."""

    def write(_row: Row, answer: Any) -> Message | None:
        return said(f"{before}{text_of(answer)}{after}") if is_structured(answer) == structured else None

    return Form(name, write)


def _tagged(tag: str) -> Form:
    return Form(f"<{tag}>", lambda _row, answer: said(f"<{tag}>{text_of(answer)}</{tag}>"))


def _inside(tag: str, form: Form) -> Form:
    def write(row: Row, answer: Any) -> Message | None:
        message = form.write(row, answer)
        # On a line of its own, which some forms ask for.
        return None if message is None else said(f"<{tag}>\n{message['content']}\n</{tag}>")

    return Form(f"{form.name} in <{tag}>", write)


def _field(path: str) -> Form:
    return Form(f"JSON {path}", lambda _row, answer: said(json.dumps(_nested(path, answer))))


def _number_field(path: str) -> Form:
    """The answer as a number in JSON, digit by digit as the reference has it."""

    def write(_row: Row, answer: Any) -> Message | None:
        digits = answer.replace(",", "") if isinstance(answer, str) else ""
        if not re.fullmatch(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", digits):
            return None
        return said(json.dumps(_nested(path, "\0")).replace(json.dumps("\0"), digits))

    return Form(f"JSON number {path}", write)


def reasoned_forms(plain: Sequence[Form], sections: Sequence[Sequence[str]]) -> list[Form]:
    """Returns the forms with reasoning in front: in sections of tags, or as it is.

    A sequence of several tags has the answer in the last one, or after all of them.
    """
    found: list[Form] = []
    for spelled, reasoning in (("steps", lambda _row: STEPS), ("the prompt's words", _words_of)):
        for tags in sections:
            for form in plain:
                front, last = (tags[:-1], tags[-1]) if len(tags) > 1 else (tags, None)
                if last is not None:
                    found.append(_after(form, front, last, reasoning, f"{spelled} in {_shown(tags)}"))
                found.append(_after(form, tags, None, reasoning, f"{spelled} in {_shown(tags)} before"))
        found += [_after(form, (), None, reasoning, f"{spelled} before") for form in plain]
    return found


def _after(
    form: Form, front: Sequence[str], last: str | None, reasoning: Callable[[Row], str], name: str
) -> Form:
    def write(row: Row, answer: Any) -> Message | None:
        message = form.write(row, answer)
        if message is None or "tool_calls" in message:
            return None
        text = message["content"]
        thought = reasoning(row)
        lead = "".join(f"<{tag}>\n{thought}\n</{tag}>\n" for tag in front) or f"{thought}\n\n"
        return said(lead + (text if last is None else f"<{last}>{text}</{last}>"))

    return Form(f"{name} {form.name}", write)


def field_form(form: Form, key: str) -> Form:
    """Returns the form of one field of the reference, where that is an object."""

    def write(row: Row, answer: Any) -> Message | None:
        # An answer made of the reference's field is that field already.
        inner = answer.get(key) if isinstance(answer, Mapping) else answer
        return None if inner is None else form.write(row, inner)

    return Form(f"{form.name} of {key}", write)


def template_form(text: str) -> Form:
    """Returns the form that a team writes down itself, as a text with ``{reference}`` in it."""
    return Form("the team's form", lambda _row, answer: said(text.replace("{reference}", text_of(answer))))


def own_form(write: Writer) -> Form:
    """Returns the form that a reward writes its own reference completions in."""

    def written(row: Row, answer: Any) -> Message | None:
        text = write({**row, "reference_answer": answer})
        return None if text is None else said(text)

    return Form("the reward's own", written)


STEPS = """\
1. First, read the question carefully and note every number, name and condition that it mentions.
2. Then decide which rule, formula or fact connects those known quantities with whatever was asked.
3. Next, work through each intermediate calculation slowly, keeping units beside their values.
4. After that, compare several alternatives and discard options contradicting some given evidence.
5. Finally, verify the outcome by estimating its size independently before writing anything down."""


def _words_of(row: Row) -> str:
    """Reasoning in the language of the prompt: its own sentences, as steps."""
    sentences = [
        piece.strip()
        for piece in re.split(r"(?<=[.!?\u3002\uff01\uff1f])\s*|\n+", asked(row))
        if piece.strip()
    ]
    return "\n".join(f"{at}. {sentence}" for at, sentence in enumerate(sentences[:20], 1)) or "1."


def prompt_names(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of tags in the prompts, in order, and all names that an answer could stand by."""
    text = "\n".join(_content(message) for row in rows[:_PROMPTS] for message in row["messages"])
    tags = tuple(dict.fromkeys(re.findall(r"<([A-Za-z][\w-]{0,30})>(?!\w)", text)))[:6]
    fields = tuple(dict.fromkeys(re.findall(r'["\'`]([A-Za-z][\w.]{0,30})["\'`]\s*:', text)))[:4]
    found = re.findall(r"\b([A-Z][A-Za-z]{2,20}(?: [a-z]{2,12})?):\s*[<\[{_.]", text)
    return tags, (*tags, *fields, *tuple(dict.fromkeys(found))[:4])


def is_structured(answer: Any) -> bool:
    """Tells whether an answer is JSON with something inside, and not one text, number or truth value."""
    return isinstance(answer, (Mapping, list, tuple))


def text_of(answer: Any) -> str:
    """Writes an answer as text: what is no text as JSON."""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _nested(path: str, value: Any) -> Any:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def _calls(answer: Any) -> list[Mapping[str, Any]]:
    """Returns the tool calls that a reference is, in any of its usual shapes."""
    if isinstance(answer, str) and answer.lstrip()[:1] in ("{", "["):
        try:
            answer = json.loads(answer)
        except ValueError:
            return []
    if isinstance(answer, Mapping) and isinstance(answer.get("tool_calls"), list):
        answer = answer["tool_calls"]
    calls = answer if isinstance(answer, list) else [answer]
    found = [call.get("function", call) if isinstance(call, Mapping) else {} for call in calls]
    return found if found and all(isinstance(call, Mapping) and "name" in call for call in found) else []


def _tool_calls_text(answer: Any) -> Message | None:
    calls = _calls(answer)
    return said("\n".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)) if calls else None


def _tool_calls_message(answer: Any) -> Message | None:
    calls = _calls(answer)
    if not calls:
        return None
    listed = [
        {
            "id": f"call-{at}",
            "type": "function",
            "function": {**call, "arguments": text_of(call.get("arguments", {}))},
        }
        for at, call in enumerate(calls)
    ]
    return {"role": "assistant", "content": "", "tool_calls": listed}


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    return "\n".join(part["text"] if isinstance(part, Mapping) else str(part or "") for part in parts)


def asked(row: Row) -> str:
    """Returns the last thing the user said."""
    users = [message for message in row["messages"] if message.get("role") == "user"]
    return _content((users or [*row["messages"]])[-1])


def _is_tag(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z][\w-]*", name) is not None


def _shown(tags: Sequence[str]) -> str:
    return "".join(f"<{tag}>" for tag in tags)


def spelled(message: Message) -> str:
    """Returns a completion as people read it: its text, or its tool calls as JSON."""
    calls = message.get("tool_calls")
    return json.dumps(calls) if calls else str(message["content"])
