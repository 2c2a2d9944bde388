"""Makes rows of a dataset from Bedrock's model invocation logs: filters, converts, samples.

A log object holds JSON lines, mostly packed with gzip. One record, as far as it is read here:

    {"schemaType": "ModelInvocationLog", "requestId": "…", "modelId": "…",
     "operation": "Converse" | "InvokeModel" | …, "errorCode"?: "…", "requestMetadata"?: {"key": "value"},
     "input": {"inputBodyJson": {…} or "inputBodyS3Path": "s3://…"},
     "output": {"outputBodyJson": {…} or a list of stream events, or "outputBodyS3Path": "s3://…"}}

Converse bodies and the chat bodies of InvokeModel (Nova, Anthropic, OpenAI) are understood; a ready-made
prompt in one text is not, because its roles are lost in a template. The shapes are those of published logs,
as the user guide names no schema; none of it was held against a log of our own.
The filter has the grammar of the service's own `requestMetadataFilters`. Nothing here talks to AWS.
"""

import hashlib
import heapq
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from lambdas.dataset import Stream

_CHUNK: Final = 1 << 18
# The service splits off bodies of more than 100 KB; so a longer line is no record.
_LONGEST: Final = 4_000_000
_ENTRIES: Final = 16
_KEY: Final = re.compile(r"[a-zA-Z0-9\s._:/=+$@-]{1,256}")
_VALUE: Final = re.compile(r"[a-zA-Z0-9\s._:/=+$@-]{0,256}")
_GRAMMAR: Final = (
    "one of equals and notEquals with one pair of texts, or one of andAll and orAll with 1 to 16 of those"
)
# Parts of a message that are no part of what was said.
_SILENT: Final = frozenset({"cachePoint", "reasoningContent", "thinking", "redacted_thinking"})


class FilterError(Exception):
    """A filter the service would refuse; the message says where it is wrong and what is expected."""


class LogError(Exception):
    """A log object that cannot be read."""


class _UnusableError(Exception):
    """A record that makes no row; the message is the reason, the same for all such records."""


@dataclass(frozen=True, slots=True)
class MetadataFilter:
    """Which records count, by the metadata their callers sent along.

    `tests` are (key, value, whether it must be equal); `every` says whether all must hold or any. A record
    without the key is not equal to any value of it (the service does not document this case).
    """

    tests: tuple[tuple[str, str, bool], ...] = ()
    every: bool = True

    @classmethod
    def parse(cls, document: Mapping[str, Any] | None) -> "MetadataFilter":
        """Reads `requestMetadataFilters`; None lets every record through.

        Raises:
            FilterError: The service would refuse it.
        """
        if document is None:
            return cls()
        name, value = _single(document, ("equals", "notEquals", "andAll", "orAll"), "the filter")
        if name in ("equals", "notEquals"):
            return cls((_test(name, value, name),))
        if not isinstance(value, list) or not 1 <= len(value) <= _ENTRIES:
            raise FilterError(f"{name} must be a list of 1 to {_ENTRIES} filters: a filter is {_GRAMMAR}")
        tests = []
        for index, entry in enumerate(value):
            where = f"{name}[{index}]"
            inner, pair = _single(entry, ("equals", "notEquals"), where)
            tests.append(_test(inner, pair, f"{where}.{inner}"))
        return cls(tuple(tests), name == "andAll")

    def accepts(self, metadata: Mapping[str, str]) -> bool:
        """Says whether a record with this metadata counts."""
        held = ((metadata.get(key) == value) is equal for key, value, equal in self.tests)
        return all(held) if self.every else any(held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What some logs gave: rows in the order of the logs, and how many records gave none, by reason."""

    rows: tuple[dict[str, Any], ...]
    records: int
    usable: int
    skipped: Mapping[str, int] = field(default_factory=dict)


def records(stream: Stream, name: str) -> Iterator[dict[str, Any]]:
    """Yields the records of one log object, packed or not, in memory bounded by its longest line.

    Raises:
        LogError: It is no log; the message names the object and the line.
    """
    rest, number = b"", 0
    for piece in _unpacked(stream, name):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST:
            raise LogError(
                f"{name}: line {number + len(lines) + 1} is longer than {_LONGEST:,} bytes: no log"
            )
        for line in lines:
            number += 1
            if line.strip():
                yield _record(line, f"{name}: line {number}")
    if rest.strip():
        yield _record(rest, f"{name}: line {number + 1}")


def row(record: Mapping[str, Any], *, reference: bool = False) -> dict[str, Any] | str:
    """Makes a row of a dataset from one record, or returns in words why it makes none.

    Args:
        record: A record of the log.
        reference: Whether what the model answered becomes the reference answer. Without it the row has none,
            and only rewards that need none can use it.

    Returns:
        {"id", "messages" up to the last one of the user's, "reference_answer"?, "model", "request_metadata"}.
    """
    try:
        return _row(record, reference=reference)
    except _UnusableError as error:
        return str(error)


def harvest(
    logs: Iterable[Mapping[str, Any]],
    count: int,
    *,
    only: MetadataFilter | None = None,
    reference: bool = False,
) -> Harvest:
    """Makes up to `count` rows of different prompts.

    Of more prompts those with the smallest hash are taken: as good as by chance, and the same ones whatever
    the order of the logs. Of the same prompt the first record counts. Memory is bounded by `count` rows and a
    hash for every prompt.
    """
    only = only or MetadataFilter()
    picked: list[tuple[int, int, dict[str, Any]]] = []
    taken: set[int] = set()
    skipped: Counter[str] = Counter()
    number = 0
    for number, record in enumerate(logs, 1):
        if not only.accepts(_metadata(record)):
            skipped["does not pass the filter"] += 1
            continue
        made = row(record, reference=reference)
        if isinstance(made, str):
            skipped[made] += 1
            continue
        prompt = _hash(made["messages"])
        if prompt in taken:
            skipped["has the prompt of an earlier record"] += 1
            continue
        taken.add(prompt)
        entry = (-prompt, number, made)
        if len(picked) < count:
            heapq.heappush(picked, entry)
        else:
            heapq.heappushpop(picked, entry)
    rows = tuple(made for _, _, made in sorted(picked, key=lambda entry: entry[1]))
    return Harvest(rows=rows, records=number, usable=len(taken), skipped=dict(skipped))


def _single(document: Any, names: tuple[str, ...], where: str) -> tuple[str, Any]:
    if not isinstance(document, Mapping) or len(document) != 1 or next(iter(document)) not in names:
        raise FilterError(f"{where} must have exactly one of {', '.join(names)}: a filter is {_GRAMMAR}")
    ((name, value),) = document.items()
    return name, value


def _test(name: str, pair: Any, where: str) -> tuple[str, str, bool]:
    if not isinstance(pair, Mapping) or len(pair) != 1:
        raise FilterError(f"{where} must hold exactly one pair: a filter is {_GRAMMAR}")
    ((key, value),) = pair.items()
    for text, pattern, what in ((key, _KEY, "key"), (value, _VALUE, "value")):
        if not isinstance(text, str) or not pattern.fullmatch(text):
            raise FilterError(
                f"{where}: the {what} {text!r} must be a text of at most 256 letters, digits, spaces and"
                " . _ : / = + $ @ -"
            )
    return key, value, name == "equals"


def _unpacked(stream: Stream, name: str) -> Iterator[bytes]:
    """Yields the bytes of an object; of one packed with gzip, in pieces of bounded size."""
    piece = stream.read(_CHUNK)
    if not piece.startswith(b"\x1f\x8b"):
        while piece:
            yield piece
            piece = stream.read(_CHUNK)
        return
    # 16 asks for the format of gzip.
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        while piece:
            yield unpack.decompress(piece, _CHUNK)
            piece = unpack.unconsumed_tail
            if unpack.eof and (piece := unpack.unused_data):
                # The service appends whole gzip files to each other.
                unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
            piece = piece or stream.read(_CHUNK)
            if unpack.eof and piece:
                unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    except zlib.error as error:
        raise LogError(f"{name} is a broken gzip file ({error}): fetch it again") from None
    if not unpack.eof:
        raise LogError(f"{name} is a gzip file without its end: fetch it again")


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogError(f"{where} is no JSON object ({error}): this is no invocation log") from None


def _row(record: Mapping[str, Any], *, reference: bool) -> dict[str, Any]:
    if record.get("errorCode"):
        raise _UnusableError("records a call that failed")
    body = _body(record, "input")
    if not isinstance(body, Mapping) or not isinstance(body.get("messages"), list):
        raise _UnusableError("has no messages but one text, or another shape")
    messages = [{"role": "system", "content": text} for text in [_said(body.get("system"))] if text]
    for message in body["messages"]:
        if not isinstance(message, Mapping) or message.get("role") not in ("system", "user", "assistant"):
            raise _UnusableError("has a message of another role than system, user and assistant")
        if text := _said(message.get("content")):
            messages.append({"role": message["role"], "content": text})
    while messages and messages[-1]["role"] == "assistant":
        # The beginning of the answer, put into the model's mouth.
        messages.pop()
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if not roles or roles[0] != "user" or roles[-1] != "user":
        raise _UnusableError("has no message of the user's first and last")
    if any(message["role"] == "system" for message in messages[1:]):
        raise _UnusableError("has a system message after another message")
    made: dict[str, Any] = {"id": str(record.get("requestId") or ""), "messages": messages}
    if reference:
        made["reference_answer"] = _answer(_body(record, "output"))
    made["model"] = str(record.get("modelId") or "")
    made["request_metadata"] = _metadata(record)
    if not made["id"]:
        del made["id"]
    return made


def _body(record: Mapping[str, Any], side: Literal["input", "output"]) -> Any:
    part = record.get(side)
    part = part if isinstance(part, Mapping) else {}
    body = part.get(f"{side}BodyJson")
    if body is None and part.get(f"{side}BodyS3Path"):
        raise _UnusableError("keeps a body in an object of its own, because it is larger than 100 KB")
    if isinstance(body, str):
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return body
    return body


def _said(content: Any) -> str:
    """Returns the text of a content in any of the shapes; thoughts and cache marks are not said."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        raise _UnusableError("has a content of another shape")
    texts = []
    for part in content:
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif not isinstance(part, Mapping) or not ({str(part.get("type")), *part} & _SILENT):
            raise _UnusableError("holds more than text: an image, a document or the use of a tool")
    return "".join(texts).strip()


def _answer(body: Any) -> str:
    """Returns what the model said, in any of the shapes; of a stream, put together."""
    if isinstance(body, list):
        text = "".join(_delta(event) for event in body if isinstance(event, Mapping)).strip()
        stops = [stop for event in body if isinstance(event, Mapping) for stop in _stops(event)]
    elif isinstance(body, Mapping):
        output, choices = body.get("output"), body.get("choices")
        if isinstance(output, Mapping):
            message = output.get("message")
            text = _said(message.get("content") if isinstance(message, Mapping) else None)
        elif isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            message = choices[0].get("message")
            text = _said(message.get("content") if isinstance(message, Mapping) else None)
        else:
            text = _said(body.get("content"))
        stops = list(_stops(body))
    else:
        text, stops = "", []
    if not text:
        raise _UnusableError("has no answer in text")
    if any(stop in ("max_tokens", "length") for stop in stops):
        raise _UnusableError("has an answer that was cut off at the token limit")
    return text


def _delta(event: Mapping[str, Any]) -> str:
    """Returns the text one event of a stream brings: of Converse and Nova, of Anthropic, or of OpenAI."""
    inner = event.get("contentBlockDelta", event)
    delta = inner.get("delta") if isinstance(inner, Mapping) else None
    if delta is None and isinstance(choices := event.get("choices"), list) and choices:
        delta = choices[0].get("delta") if isinstance(choices[0], Mapping) else None
    if not isinstance(delta, Mapping):
        return ""
    text = delta.get("text", delta.get("content"))
    return text if isinstance(text, str) else ""


def _stops(value: Mapping[str, Any]) -> Iterator[Any]:
    """Yields why a model stopped, wherever the shapes say it."""
    places = [value, value.get("delta"), value.get("messageStop")]
    if isinstance(choices := value.get("choices"), list):
        places += choices
    for place in places:
        if isinstance(place, Mapping):
            for key in ("stopReason", "stop_reason", "finish_reason"):
                yield place.get(key)


def _metadata(record: Mapping[str, Any]) -> dict[str, str]:
    found = record.get("requestMetadata")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, Mapping) else {}


def _hash(messages: list[dict[str, str]]) -> int:
    return int.from_bytes(hashlib.blake2b(msgspec.json.encode(messages), digest_size=16).digest())
