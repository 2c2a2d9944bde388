"""Reads a team's dataset as the service will, and says all that is wrong with it before it costs anything.

A dataset is JSONL: one row per line, UTF-8, in OpenAI's chat shape:

    {"messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "…"}],
     "reference_answer": "42", "id": "q-1", "anything": "else"}

`messages` and `reference_answer` are the service's own words. Every other key travels to the reward function
as metadata. The same code runs on a laptop (`rft check`) and in the workflow.
"""

import hashlib
import heapq
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import msgspec

# The service's documented bounds for one training dataset of Amazon Nova.
TRAINING_ROWS: Final = (100, 20_000)
# Ours: from fewer than ten prompts an interval of the gain says nothing (see workflow/decide.py).
EVALUATION_ROWS: Final = (10, 20_000)
# A row travels to the reward function in one Lambda request, which is limited to 6 MB.
TRAINING_ROW_BYTES: Final = 6_000_000
# An evaluation row also travels through one state of Step Functions, which is limited to 256 KiB.
EVALUATION_ROW_BYTES: Final = 200_000
# S3 copies an object of at most 5 GB in one request.
FILE_BYTES: Final = 5_000_000_000

_CHUNK = 1 << 20
_SHOWN_PROBLEMS = 20
_SHOWN_LINES = 5
_CHARACTERS_PER_TOKEN = 4

_FOREIGN = {
    b"\x1f\x8b": "is compressed with gzip: the service reads plain text, so unpack it first (`gunzip`)",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: the service reads plain text, so unpack it first",
    b"BZh": "is compressed with bzip2: the service reads plain text, so unpack it first",
    b"PK\x03\x04": "is a ZIP archive: the service reads plain text, so unpack it first",
    b"PAR1": "is a Parquet file: write its rows as JSON, one object per line",
    b"\xef\xbb\xbf": "starts with a byte order mark: save it as UTF-8 without BOM",
    b"\xff\xfe": "is UTF-16: save it as UTF-8 without BOM",
    b"\xfe\xff": "is UTF-16: save it as UTF-8 without BOM",
}
_NEAR_MISSES = {
    "messages": ("prompt", "message", "conversations", "conversation", "input", "question"),
    "reference_answer": (
        "referenceAnswer",
        "reference",
        "reference_answers",
        "answer",
        "ground_truth",
        "completion",
        "response",
    ),
}
_AT = re.compile(r" - at `\$\.?(.*)`$")
_BYTE = re.compile(r"^JSON is malformed: (.*) \(byte (\d+)\)$")


class DatasetError(Exception):
    """A dataset that cannot be used; the message is the whole readable list of what is wrong and where."""


class Stream(Protocol):
    """Anything bytes can be read from piece by piece: an open file, the body of an S3 object."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What one file turned out to hold; made by `check`, so it is valid.

    Lengths are of the prompt, all messages together: characters as counted, tokens estimated as a quarter of
    them (Nova's tokenizer is not public). `too_long` rows are those whose estimate exceeds maxPromptLength,
    which the service drops without a word; None where no such limit was given. `prompts` are hashes.
    """

    name: str
    sha256: str
    rows: int
    characters: Mapping[str, int]
    too_long: int | None
    duplicates: int
    references: Mapping[str, int]
    prompts: Set[bytes] = field(repr=False)

    def profile(self) -> dict[str, Any]:
        """Returns the facts as JSON: what `dataset.json` of a run shows of one file."""
        return {
            "sha256": self.sha256,
            "rows": self.rows,
            "prompt_characters": dict(self.characters),
            "prompt_tokens_estimate": {key: _tokens(value) for key, value in self.characters.items()},
            "rows_over_max_prompt_length": self.too_long,
            "duplicate_prompts": self.duplicates,
            "reference_kinds": dict(self.references),
        }


class _Part(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str | list[_Part]


class _Row(msgspec.Struct, gc=False):
    messages: list[_Message]
    reference_answer: str | dict[str, Any]
    id: str | msgspec.UnsetType = msgspec.UNSET


class _Problems:
    """Collects what is wrong and folds the same trouble on many lines into one entry."""

    def __init__(self) -> None:
        self._lines: dict[str, list[int]] = {}
        self._details: dict[str, str] = {}
        self.total = 0

    def add(self, line: int, what: str, detail: str = "") -> None:
        """Notes `what` of a line (0: of the file); `detail` is shown for the first such line only."""
        self.total += 1
        self._lines.setdefault(what, []).append(line)
        self._details.setdefault(what, detail)

    def text(self, name: str) -> str:
        """Returns the readable list."""
        shown = [self._entry(what, lines) for what, lines in list(self._lines.items())[:_SHOWN_PROBLEMS]]
        if (more := len(self._lines) - len(shown)) > 0:
            shown.append(f"and {more} more kinds of trouble: mend these first")
        counted = "1 problem" if self.total == 1 else f"{self.total} problems"
        return "\n  - ".join([f"{name} cannot be used ({counted}):", *shown])

    def _entry(self, what: str, lines: list[int]) -> str:
        detail = self._details[what]
        if lines[0] == 0:
            return what
        numbers = ", ".join(str(line) for line in lines[:_SHOWN_LINES])
        if (more := len(lines) - _SHOWN_LINES) > 0:
            numbers += f" and {more} more"
        where = f"line {numbers}" if len(lines) == 1 else f"lines {numbers}"
        if detail and len(lines) > 1:
            detail = f"line {lines[0]}: {detail}"
        return f"{where}: {what}" + (f" ({detail})" if detail else "")


def check(
    stream: Stream,
    name: str,
    *,
    rows: tuple[int, int] = TRAINING_ROWS,
    row_bytes: int = TRAINING_ROW_BYTES,
    max_prompt_length: int | None = None,
) -> Dataset:
    """Reads a whole file once, in memory bounded by the number of rows, never by their size.

    Args:
        stream: The file, from its first byte.
        name: What to call it in messages: a path or an s3:// URI.
        rows: The least and the most rows it may hold.
        row_bytes: The longest line it may hold.
        max_prompt_length: The training setting of that name, in tokens.

    Raises:
        DatasetError: Something is wrong with it; all of it is said, folded and capped.
    """
    problems = _Problems()
    digest = hashlib.sha256()
    characters = array("Q")
    prompts: set[bytes] = set()
    ids: dict[bytes, int] = {}
    references: Counter[str] = Counter()
    duplicates = count = 0
    for line, raw in _lines(stream, digest, row_bytes):
        if line == 1 and raw is not None and (foreign := _foreign(raw)):
            raise DatasetError(f"{name} {foreign}")
        count += 1
        if count > rows[1]:
            # Only counted from here on: more rows than fit are one problem, not one per row.
            continue
        row = _row(line, raw, row_bytes, problems)
        if row is None:
            continue
        _check_messages(line, row, problems)
        _check_reference(line, row, problems)
        if row.id is not msgspec.UNSET:
            _check_id(line, row.id, ids, problems)
        prompt, length = _prompt(row)
        characters.append(length)
        duplicates += prompt in prompts
        prompts.add(prompt)
        references["string" if isinstance(row.reference_answer, str) else "object"] += 1
    _check_rows(count, rows, problems)
    if problems.total:
        raise DatasetError(problems.text(name))
    ordered = sorted(characters)
    return Dataset(
        name=name,
        sha256=digest.hexdigest(),
        rows=count,
        characters={
            "p50": ordered[(len(ordered) - 1) // 2],
            "p95": ordered[(len(ordered) * 95 + 99) // 100 - 1],
            "max": ordered[-1],
        },
        too_long=None if max_prompt_length is None else sum(_tokens(c) > max_prompt_length for c in ordered),
        duplicates=duplicates,
        references=dict(references),
        prompts=frozenset(prompts),
    )


def identity(train: str, evaluation: str) -> str:
    """Returns the name of a pair of files, by the SHA-256 of each in hexadecimal."""
    return hashlib.sha256(f"{train}\n{evaluation}\n".encode()).hexdigest()


def held_out(stream: Stream, count: int, *, training: Set[bytes]) -> list[dict[str, Any]]:
    """Picks up to `count` rows of a checked evaluation file to measure models on, as items of a Map state.

    Picks distinct prompts that are not in `training`, because a prompt a model was trained on measures its
    memory; by the smallest hash, which is as good as by chance and picks the same prompts in the next run.

    Returns:
        In file order: {"index", "id" ("line-<n>" where the row has none), "messages", "reference_answer",
        "metadata"}.
    """
    # A heap of the smallest, kept with its largest on top: hence the negated hash.
    picked: list[tuple[int, int, bytes]] = []
    taken: set[bytes] = set()
    for line, raw in _lines(stream, hashlib.sha256(), EVALUATION_ROW_BYTES):
        if raw is None:
            continue
        prompt, _ = _prompt(_decoder.decode(raw))
        if prompt in training or prompt in taken:
            continue
        taken.add(prompt)
        entry = (-int.from_bytes(prompt), line, raw)
        if len(picked) < count:
            heapq.heappush(picked, entry)
        else:
            heapq.heappushpop(picked, entry)
    items = []
    for index, (_, line, raw) in enumerate(sorted(picked, key=lambda entry: entry[1])):
        row = msgspec.json.decode(raw, type=dict[str, Any])
        items.append(
            {
                "index": index,
                "messages": row.pop("messages"),
                "reference_answer": row.pop("reference_answer"),
                "id": row.pop("id", f"line-{line}"),
                "metadata": row,
            }
        )
    return items


_decoder = msgspec.json.Decoder(_Row)


def _lines(stream: Stream, digest: Any, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Yields numbered lines without newline, None for those over `longest` bytes; hashes all it reads."""
    number = 0
    rest = b""
    overlong = False
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        *whole, rest = (rest + chunk).split(b"\n")
        for raw in whole:
            number += 1
            yield number, None if overlong or len(raw) > longest else raw
            overlong = False
        if len(rest) > longest:
            # What is known to be too long is not kept: a file of one endless line must not fill the memory.
            overlong, rest = True, b""
    if rest or overlong:
        yield number + 1, None if overlong else rest


def _foreign(start: bytes) -> str | None:
    """Returns what to say of a file that is no UTF-8 text, by its first line."""
    for signature, what in _FOREIGN.items():
        if start.startswith(signature):
            return what
    if start.strip() in (b"[", b"{") or start.lstrip().startswith(b"[{"):
        return "is one JSON document: write it as JSONL, one object per line, without brackets around them"
    return None


def _row(line: int, raw: bytes | None, longest: int, problems: _Problems) -> _Row | None:
    if raw is None:
        problems.add(
            line, f"is longer than {longest:,} bytes, which cannot travel to the reward function: shorten it"
        )
        return None
    if raw.endswith(b"\r"):
        problems.add(line, "ends in CR LF, a Windows line end: convert the file to LF (`dos2unix`)")
        raw = raw[:-1]
    if not raw.strip():
        problems.add(line, "is empty: remove it")
        return None
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problems.add(line, *_explain(error, raw))
    return None


def _explain(error: Exception, raw: bytes) -> tuple[str, str]:
    """Returns what is wrong with a line that cannot be read, and a detail."""
    if isinstance(error, msgspec.ValidationError):
        try:
            values = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as deeper:
            # A wrong type came before the broken end of the line, which is the greater trouble.
            return _explain(deeper, raw)
        return _explain_shape(str(error), values)
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read: flatten it", ""
    if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error).lower():
        return "is not UTF-8: save the file as UTF-8", ""
    return _explain_syntax(str(error), raw)


def _explain_syntax(message: str, raw: bytes) -> tuple[str, str]:
    """Returns what is wrong with a line that is no JSON, and the detail: why and where."""
    what = "is not valid JSON: put one complete object on each line"
    if message == "Input data was truncated":
        return what, "it ends in the middle of the object"
    if not (found := _BYTE.match(message)):
        return what, message
    # The reader counts from nought, but is one further on when it finds that an object ended too early.
    at = int(found[2]) - (found[1] == "trailing characters")
    near = raw[max(0, at - 20) : at + 20].decode("utf-8", "replace")
    return what, f"{found[1]} at byte {at + 1}, near `{near}`"


def _explain_shape(message: str, values: Any) -> tuple[str, str]:
    """Returns what is wrong with a line that is JSON but no row, and a detail."""
    path = found[1] if (found := _AT.search(message)) else ""
    message = _AT.sub("", message)
    quoted = re.findall(r"`([^`]*)`", message)
    if not path and message.startswith("Expected `object`"):
        return f"is a JSON {quoted[-1]}: a row is an object with `messages` and `reference_answer`", ""
    if message.startswith("Object missing required field"):
        key = quoted[0]
        if path:
            return f"{path} has no `{key}`: {_EXPECTED_MESSAGE}", ""
        similar = next((near for near in _NEAR_MISSES[key] if near in values), None)
        return f"`{key}` is missing: {_EXPECTED[key]}", f"it has `{similar}`" if similar else ""
    if message.startswith("Object contains unknown field"):
        return f"{path} has the key `{quoted[0]}`: {_EXPECTED_MESSAGE}", ""
    if path.endswith(".role"):
        got = message.removeprefix("Invalid enum value ").replace("`", "")
        return f"{path} must be 'system', 'user' or 'assistant'", got
    if path.endswith(".type"):
        return f"{path} must be 'text': the service trains on text only", message.replace("`", "")
    if path in _EXPECTED:
        return f"`{path}` has the wrong type: {_EXPECTED[path]}", message.replace("`", "")
    return f"{path or 'the row'} has the wrong type: {message.replace('`', '')}", ""


_EXPECTED_MESSAGE = "a message has `role` and `content`, a text part `type` and `text`, and nothing else"
_EXPECTED = {
    "messages": "it is the prompt, a list of messages",
    "reference_answer": "it is what the reward function compares with, a string or an object",
    "id": "where there is one, it is a string",
}


def _check_messages(line: int, row: _Row, problems: _Problems) -> None:
    roles = [message.role for message in row.messages]
    if not roles:
        problems.add(line, "`messages` is empty: a prompt has at least one user message")
        return
    for index, message in enumerate(row.messages):
        texts = (
            [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
        )
        if not texts or not all(text.strip() for text in texts):
            problems.add(line, f"messages[{index}].content is blank: write the text or remove the message")
    if "system" in roles[1:]:
        problems.add(line, "a system message comes after another message: there may be one, as the first")
    conversation = roles[1:] if roles[0] == "system" else roles
    if "user" not in conversation:
        problems.add(line, "no message is the user's: a prompt has at least one user message")
        return
    if conversation[0] == "assistant":
        problems.add(line, "the conversation starts with the assistant: its first message must be the user's")
    if conversation[-1] == "assistant":
        problems.add(
            line,
            "the last message is the assistant's: end with the user's, the model writes the answer"
            " (what it should be belongs in `reference_answer`)",
        )


def _check_reference(line: int, row: _Row, problems: _Problems) -> None:
    reference = row.reference_answer
    if not (reference.strip() if isinstance(reference, str) else reference):
        problems.add(line, f"`reference_answer` is empty: {_EXPECTED['reference_answer']}")


def _check_id(line: int, value: str, ids: dict[bytes, int], problems: _Problems) -> None:
    if not value.strip():
        problems.add(line, "`id` is blank: give the row a name of its own, or no id at all")
        return
    key = hashlib.blake2b(value.encode(), digest_size=16).digest()
    first = ids.setdefault(key, line)
    if first != line:
        problems.add(
            line, "`id` was used before: every row needs its own", f"{value!r} is also on line {first}"
        )


def _check_rows(count: int, rows: tuple[int, int], problems: _Problems) -> None:
    least, most = rows
    if count == 0:
        problems.add(0, "the file is empty")
    elif count < least:
        problems.add(0, f"it has {count} rows, and at least {least} are needed: add {least - count} more")
    elif count > most:
        problems.add(0, f"it has {count:,} rows, and at most {most:,} are accepted: take a sample of them")


def _prompt(row: _Row) -> tuple[bytes, int]:
    """Returns a hash of the prompt, the same for a text and for its parts, and its length in characters."""
    digest = hashlib.blake2b(digest_size=16)
    length = 0
    for message in row.messages:
        content = message.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        length += len(text)
        # The length in front keeps the end of one message from passing for the start of the next.
        digest.update(f"{message.role} {len(text)} ".encode())
        digest.update(text.encode())
    return digest.digest(), length


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)
