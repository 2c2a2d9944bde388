"""Makes rows of a dataset from what teams have: CSV, chats of OpenAI and Hugging Face, Bedrock's logs.

A row that cannot be one is dropped and counted, with the reason and the lines: nothing is guessed into it.
Nothing here knows of rewards; what a reference answer has to look like is for the caller to say.
"""

import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lambdas import invocation_logs
from lambdas.completion import strict_json
from lambdas.dataset import EVALUATION_ROW_BYTES, EVALUATION_ROWS, TRAINING_ROW_BYTES, TRAINING_ROWS
from lambdas.invocation_logs import LogError

_PROMPTS: Final = ("prompt", "question", "input", "query", "instruction", "problem", "text", "request")
ANSWERS: Final = (
    *(
        "reference_answer",
        "answer",
        "reference",
        "ground_truth",
        "expected",
        "target",
        "output",
        "completion",
    ),
    *("response", "label", "solution", "gold", "final_answer"),
)
_SYSTEMS: Final = ("system", "system_prompt")
_CHATS: Final = ("messages", "conversations", "conversation")
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
_GZIP: Final = b"\x1f\x8b"
_LONGEST_CELL: Final = TRAINING_ROW_BYTES

# The most prompts that are held out: more make a measurement dearer and hardly surer.
_MOST_HELD_OUT: Final = 500


class RowsError(Exception):
    """No dataset can be made of a file; the message says why and what to do."""


class _DropError(Exception):
    """A row that cannot be one; the message is the reason, the same for all such rows."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of a CSV or keys of flat JSON are called; None guesses, an answer by `answers`."""

    prompt: str | None = None
    answer: str | None = None
    answers: tuple[str, ...] = ANSWERS


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a file gave: its shape in words, rows with their lines, and the lines dropped, by reason."""

    shape: str
    rows: tuple[tuple[int, dict[str, Any]], ...]
    read: int
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def keep(self, judge: Callable[[dict[str, Any]], dict[str, Any] | str]) -> "Rows":
        """Returns what is left where `judge` answers with a row, changed or not, and not with a reason."""
        kept: list[tuple[int, dict[str, Any]]] = []
        dropped = {reason: list(lines) for reason, lines in self.dropped.items()}
        for line, row in self.rows:
            judged = judge(row)
            if isinstance(judged, str):
                dropped.setdefault(judged, []).append(line)
            else:
                kept.append((line, judged))
        return replace(
            self, rows=tuple(kept), dropped={reason: tuple(lines) for reason, lines in dropped.items()}
        )

    def jsonl(self) -> bytes:
        """Returns the rows as a dataset's file."""
        return b"".join(_line(row) for _, row in self.rows)


def read_rows(path: Path, columns: Columns) -> Rows:
    """Reads a file, or a folder of logs, in whichever of the known shapes it is.

    Raises:
        RowsError: It cannot be read, or has no shape that is known.
    """
    try:
        if path.is_dir():
            return _logs(_log_files(path), f"invocation logs in {path}")
        body = path.read_bytes()
    except OSError as error:
        raise RowsError(f"{path} cannot be read: {error.strerror or error}") from None
    if not body.strip():
        raise RowsError(f"{path} is empty")
    if body.startswith(_GZIP):
        try:
            text = gzip.decompress(body)
        except (OSError, EOFError) as error:
            raise RowsError(f"{path} is a broken gzip file ({error}): fetch it again") from None
    else:
        text = body
    if _is_log(text):
        return _logs([path], "Bedrock invocation logs")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowsError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    if decoded.lstrip()[:1] in ("{", "["):
        found = _read(str(path), "JSON", list(_json_rows(str(path), decoded)), columns)
    else:
        found = _read(str(path), "CSV", list(_csv_rows(str(path), decoded)), columns)
    return _without_repetition(found)


def prompt_key(row: Mapping[str, Any]) -> str:
    """Returns what is the same for prompts that differ in nothing but case and white space."""
    words = [
        f"{each['role']} {' '.join(each['content'].casefold().split())}"
        for each in row["messages"]
        if each["role"] != "system"
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def split(found: Rows, share: float) -> tuple[Rows, Rows]:
    """Holds out a share of the prompts, always the same ones: training and held-out rows.

    Prompts go by the order of their hash, which is as good as by chance, and rows of one prompt go together,
    so no held-out prompt is trained on.

    Raises:
        RowsError: There are too few rows for both.
    """
    keys = {line: prompt_key(row) for line, row in found.rows}
    large = {keys[line] for line, row in found.rows if len(_line(row)) > EVALUATION_ROW_BYTES}
    wanted = min(max(round(len(set(keys.values())) * share), EVALUATION_ROWS[0]), _MOST_HELD_OUT)
    chosen = set(sorted(set(keys.values()) - large)[:wanted])
    train = replace(found, rows=tuple(each for each in found.rows if keys[each[0]] not in chosen))
    held = replace(found, rows=tuple(each for each in found.rows if keys[each[0]] in chosen), dropped={})
    least = TRAINING_ROWS[0] + EVALUATION_ROWS[0]
    if len(train.rows) < TRAINING_ROWS[0] or len(chosen) < EVALUATION_ROWS[0]:
        raise RowsError(
            f"{len(found.rows)} usable rows with {len(set(keys.values()))} different prompts are too few: "
            f"{TRAINING_ROWS[0]} rows to train on and {EVALUATION_ROWS[0]} held-out prompts are needed, "
            f"{least} at least"
        )
    return at_most(train), held


def apart(train: Rows, held: Rows) -> Rows:
    """Returns the training rows without those whose prompt is held out."""
    keys = {prompt_key(row) for _, row in held.rows}
    return at_most(
        train.keep(lambda row: "has a prompt that is held out" if prompt_key(row) in keys else row)
    )


def at_most(found: Rows, count: int = TRAINING_ROWS[1]) -> Rows:
    """Returns at most as many rows as the service takes; those with the smallest hash of their prompt."""
    if len(found.rows) <= count:
        return found
    chosen = {line for _, line in sorted((prompt_key(row), line) for line, row in found.rows)[:count]}
    dropped = tuple(line for line, _ in found.rows if line not in chosen)
    return replace(
        found,
        rows=tuple(each for each in found.rows if each[0] in chosen),
        dropped={**found.dropped, f"is beyond the {count:,} rows that the service takes": dropped},
    )


def _line(row: Mapping[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON can escape and UTF-8 cannot write, stays escaped.
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()


# --- Files


def _is_log(text: bytes) -> bool:
    first = text.lstrip().split(b"\n", 1)[0]
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and (
        record.get("schemaType") == "ModelInvocationLog" or {"modelId", "operation", "input"} <= record.keys()
    )


def _log_files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.name.endswith((".json", ".jsonl", ".gz")))
    if not found:
        raise RowsError(f"{folder} has no logs: files that end in .json, .jsonl or .gz are expected")
    return found


def _logs(paths: Sequence[Path], shape: str) -> Rows:
    """Rows of invocation logs; what the model answered is the reference. Lines count on over all files."""
    rows: list[tuple[int, dict[str, Any]]] = []
    dropped: dict[str, list[int]] = {}
    number = 0
    for path in paths:
        try:
            with path.open("rb") as stream:
                for record in invocation_logs.records(stream, str(path)):
                    number += 1
                    made = invocation_logs.row(record, reference=True)
                    if isinstance(made, str):
                        dropped.setdefault(made, []).append(number)
                    else:
                        rows.append((number, made))
        except LogError as error:
            raise RowsError(str(error)) from None
        except OSError as error:
            raise RowsError(f"{path} cannot be read: {error.strerror or error}") from None
    reasons = {reason: tuple(lines) for reason, lines in dropped.items()}
    return _without_repetition(Rows(shape=shape, rows=tuple(rows), read=number, dropped=reasons))


def _csv_rows(name: str, text: str) -> Iterator[tuple[int, Any]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t|", key=header.count)
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [each.strip() for each in next(reader)]
        if len(set(names)) < len(names) or not all(names):
            raise RowsError(f"{name}:1: every column of a CSV needs a name of its own, got {names}")
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if any(cell.strip() for cell in cells):
                yield line, dict(zip(names, cells, strict=True)) if len(cells) == len(names) else cells
    except csv.Error as error:
        raise RowsError(f"{name}:{reader.line_num}: is no valid CSV: {error}") from None


def _json_rows(name: str, text: str) -> Iterator[tuple[int, Any]]:
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RowsError(f"{name} is no valid JSON: {error}") from None
        yield from enumerate(whole, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


# --- Rows


def _read(name: str, kind: str, found: Sequence[tuple[int, Any]], columns: Columns) -> Rows:
    first = next((data for _, data in found if isinstance(data, dict)), None)
    if first is None:
        raise RowsError(
            f"{name} has no rows: a CSV with a header, or a JSON object on each line, is expected"
        )
    chat = next((key for key in _CHATS if isinstance(first.get(key), list)), None)
    pair = isinstance(first.get("prompt"), list)
    if chat is None and not pair:
        keys = tuple(dict.fromkeys(key for _, data in found if isinstance(data, dict) for key in data))
        columns = _named(name, keys, columns)
    shape = f"{kind} with {'messages in ' + chat if chat else 'prompt and completion' if pair else 'columns'}"
    if chat is None and not pair:
        shape = f"{kind} with prompts in {columns.prompt!r} and answers in {columns.answer!r}"
    rows: list[tuple[int, dict[str, Any]]] = []
    dropped: dict[str, list[int]] = {}
    taken: set[str] = set()
    for line, data in found:
        try:
            row = _row(data, chat, columns, pair=pair)
        except _DropError as reason:
            dropped.setdefault(str(reason), []).append(line)
            continue
        # Every row needs an id of its own, or none.
        if "id" in row and (row["id"] in taken or not row["id"].strip()):
            del row["id"]
        taken.add(row.get("id", ""))
        rows.append((line, row))
    reasons = {reason: tuple(lines) for reason, lines in dropped.items()}
    return Rows(shape=shape, rows=tuple(rows), read=len(found), dropped=reasons)


def _named(name: str, keys: Sequence[str], columns: Columns) -> Columns:
    """The columns a person named, or else those that are called as prompts and answers mostly are."""
    for flag, named in (("--prompt-column", columns.prompt), ("--answer-column", columns.answer)):
        if named is not None and named not in keys:
            raise RowsError(f"{name} has no column {named!r} ({flag}): it has {', '.join(keys)}")
    answer = columns.answer or _guess(keys, columns.answers, {columns.prompt})
    prompt = columns.prompt or _guess(keys, _PROMPTS, {answer})
    missing = [
        f"{what} ({flag} NAME)"
        for what, flag, found in (
            ("the prompt", "--prompt-column", prompt),
            ("the reference answer", "--answer-column", answer),
        )
        if found is None
    ]
    if missing:
        raise RowsError(f"{name}: say which column is {' and which is '.join(missing)}: {', '.join(keys)}")
    return replace(columns, prompt=prompt, answer=answer)


def _guess(keys: Sequence[str], names: Iterable[str], taken: set[str | None]) -> str | None:
    by_name = {
        re.sub(r"[ -]+", "_", key.strip().casefold()): key for key in reversed(keys) if key not in taken
    }
    return next((by_name[name] for name in names if name in by_name), None)


def _row(data: Any, chat: str | None, columns: Columns, *, pair: bool) -> dict[str, Any]:
    if data is None:
        raise _DropError("is no JSON")
    if isinstance(data, list):
        raise _DropError("has more or fewer cells than the header")
    if not isinstance(data, dict):
        raise _DropError("is JSON and no object")
    reference: Any
    if chat:
        used = {chat}
        messages = _messages(data.get(chat))
        named = columns.answer or "reference_answer"
        if data.get(named) not in (None, ""):
            reference = data[named]
            used.add(named)
            messages = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
        else:
            reference = _last_turn(messages)
            messages = messages[:-1]
    elif pair:
        used = {"prompt", "completion"}
        messages = _messages(data.get("prompt"))
        said = data.get("completion")
        reference = _last_turn(_messages(said)) if isinstance(said, list) else said
    else:
        prompt, answer = str(columns.prompt), str(columns.answer)
        system = next((key for key in _SYSTEMS if isinstance(data.get(key), str)), None)
        used = {prompt, answer, *([system] if system else [])}
        text = data.get(prompt)
        if not isinstance(text, str) or not text.strip():
            raise _DropError("has no prompt")
        messages = [{"role": "user", "content": text.strip()}]
        if system and data[system].strip():
            messages.insert(0, {"role": "system", "content": data[system].strip()})
        reference = data.get(answer)
    _check_roles(messages)
    row: dict[str, Any] = {
        "messages": [{"role": each["role"], "content": each["content"]} for each in messages],
        "reference_answer": _reference(reference),
    }
    rest = {key: value for key, value in data.items() if key not in used and value not in (None, "")}
    if "id" in rest:
        row = {"id": str(rest.pop("id")), **row}
    return {**row, **{key: value for key, value in rest.items() if key not in row}}


def _messages(turns: Any) -> list[dict[str, Any]]:
    """The turns of a chat in OpenAI's words: role and text, and the last one's tool calls."""
    if not isinstance(turns, list):
        raise _DropError("has no list of messages")
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise _DropError("has a message that is no object")
        role = _ROLES.get(str(turn.get("role", turn.get("from"))).casefold())
        if role is None:
            raise _DropError("has a message of another role than system, user and assistant")
        message = {"role": role, "content": _text(turn.get("content", turn.get("value")))}
        if turn.get("tool_calls"):
            message["tool_calls"] = turn["tool_calls"]
        messages.append(message)
    return messages


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content).strip()
    raise _DropError("holds more than text: an image, a sound or a file")


def _last_turn(messages: Sequence[Mapping[str, Any]]) -> Any:
    """What the assistant said last, which is the reference; tool calls where it made some."""
    if not messages or messages[-1]["role"] != "assistant":
        raise _DropError("does not end with an answer of the assistant, and has no reference_answer")
    if calls := messages[-1].get("tool_calls"):
        return {"tool_calls": calls}
    return messages[-1]["content"]


def _check_roles(messages: Sequence[Mapping[str, Any]]) -> None:
    roles = [each["role"] for each in messages]
    if any("tool_calls" in each for each in messages):
        raise _DropError("has tool calls before its last turn, which no prompt can hold")
    if not all(each["content"] for each in messages):
        raise _DropError("has a message without text")
    if "system" in roles[1:]:
        raise _DropError("has a system message after another message")
    spoken = [role for role in roles if role != "system"]
    if not spoken or spoken[0] != "user" or spoken[-1] != "user":
        raise _DropError("has no message of the user's first and last")


def _reference(value: Any) -> str | dict[str, Any]:
    """A reference as a row may have it: a text or an object. A list has to wait for who knows what it is."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int | float):
        return json.dumps(value)
    if isinstance(value, dict) and value:
        return value
    if isinstance(value, list) and value:
        return json.dumps(value, ensure_ascii=False)
    raise _DropError("has no reference answer")


def parsed(reference: str | dict[str, Any]) -> Any:
    """Returns what a reference that is JSON as text says; the reference itself where it is none."""
    if isinstance(reference, str) and reference[:1] in ("{", "["):
        try:
            return strict_json(reference)
        except ValueError:
            return reference
    return reference


def _without_repetition(found: Rows) -> Rows:
    seen: set[str] = set()

    def judge(row: dict[str, Any]) -> dict[str, Any] | str:
        text = json.dumps([row["messages"], row["reference_answer"]], sort_keys=True)
        if text in seen:
            return "is the same as an earlier row"
        seen.add(text)
        return row if len(text) <= TRAINING_ROW_BYTES else "is longer than the service takes"

    return found.keep(judge)
