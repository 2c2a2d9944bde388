"""Reads a team's dataset as the service will, and says all that is wrong with it before it costs anything.

A dataset is JSONL: one row per line, UTF-8, in OpenAI's chat shape:

    {"messages": [{"role": "system", "content": "…"}, {"role": "user", "content": "…"}],
     "reference_answer": "42", "id": "q-1", "anything": "else"}

`messages` and `reference_answer` are the service's own words. Every other key travels to the reward function
as metadata. `tools` are accepted in OpenAI's shape, with a warning: no page of Bedrock's mentions them.
The same code runs on a laptop (`rft check`) and in the workflow.

What no run can use raises `DatasetError`; what only makes a run worse becomes a warning of `judge`.

A file is read once, line by line.
"""

import hashlib
import heapq
import io
import re
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, Final, Literal, Protocol

import msgspec

from lambdas import personal_data
from lambdas.gate import Finding, Level, Verdict
from lambdas.near_duplicates import NearDuplicates

# In the order by which a dataset is named; the last one is optional.
FILES: Final = ("train", "evaluation", "regression")
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

_BUFFER = 1 << 18
_SHOWN_PROBLEMS = 20
_SHOWN_LINES = 5
_KEPT_LINES = 20
_SHOWN_CHARACTERS = 60
_BYTES_PER_TOKEN = 4
# What a careful person reckons with: digits, code and most scripts other than Latin take more tokens.
_BYTES_PER_TOKEN_AT_WORST = 3
# Keys of an object whose values are counted, and different values of each.
_COUNTED_KEYS = 50
_COUNTED_VALUES = 1000

# So many pieces of so many characters stand for a longer text that is not ASCII.
_SAMPLES, _SAMPLE = 16, 64

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
_HALF_PAIR = re.compile(rb"\\u[dD][89a-bA-B]..\"")


class DatasetError(Exception):
    """A dataset that cannot be used; the message is the whole readable list of what is wrong and where.

    `findings` are the same, kind by kind, as the verdict of the gate shows them.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings) or (Finding("file", "stop", f"{message}."),)


class Stream(Protocol):
    """Anything bytes can be read from piece by piece: an open file, the body of an S3 object."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the gate looks at beyond the format, and from where on it warns.

    Shares are in 0..1, of the rows of a file. A few near duplicates are in any file: up to
    `near_duplicate_share` of them are told for information only. Near duplicates and personal data take far
    longer to find than all the rest.
    """

    near_duplicates: bool = True
    near_duplicate_similarity: float = 0.8
    near_duplicate_share: float = 0.02
    most_common_answer: float = 0.5
    personal_data: bool = True


@dataclass(frozen=True, slots=True)
class Places:
    """Where something is the case: in how many rows, the first of their lines, and a few cases."""

    count: int = 0
    lines: tuple[int, ...] = ()
    examples: tuple[str, ...] = ()

    def and_(self, line: int, example: str | None = None) -> "Places":
        """Returns these places and one more."""
        lines, examples = self.lines, self.examples
        if len(lines) < _KEPT_LINES:
            lines = (*lines, line)
        if example is not None and len(examples) < _SHOWN_LINES and example not in examples:
            examples = (*examples, example)
        return Places(self.count + 1, lines, examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the reference answers of a file are like.

    `kinds` counts strings and objects. `most_common` is the beginning of the most frequent answer (empty
    where no answer comes twice), `share`
    its share of the rows. `constant` is about what always giving one and the same answer would score:
    `share`, or for objects, if that is more, the mean over keys of the share of each one's commonest value.
    """

    kinds: Mapping[str, int]
    different: int
    most_common: str
    share: float
    constant: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What one file turned out to hold; made by `check`, so it is valid.

    Sizes are of the prompt, all messages together: bytes of UTF-8 as counted, tokens estimated as a quarter
    of them (Nova's tokenizer is not public). `too_long` rows are those whose estimate exceeds
    maxPromptLength, which the service drops without a word; `perhaps_too_long` those that exceed it at a
    third, with the former among them. Both are None where no such limit was given. `prompts` has the line
    of each different prompt by a hash that means something in this process only.
    """

    name: str
    sha256: str
    rows: int
    sizes: Mapping[str, int]
    max_prompt_length: int | None
    too_long: int | None
    perhaps_too_long: int | None
    duplicates: Places
    contradictions: Places
    near_duplicates: Places | None
    near_variants: int | None
    references: References
    tools: Places
    personal_data: Mapping[str, Places] | None
    prompts: Mapping[int, int] = field(repr=False)

    def profile(self) -> dict[str, Any]:
        """Returns the facts as JSON: what `dataset.json` of a run shows of one file."""
        near, personal = self.near_duplicates, self.personal_data
        return {
            "sha256": self.sha256,
            "rows": self.rows,
            "prompt_bytes": dict(self.sizes),
            "prompt_tokens_estimate": {key: _tokens(value) for key, value in self.sizes.items()},
            "prompt_tokens_at_worst": {key: _tokens_at_worst(value) for key, value in self.sizes.items()},
            "rows_over_max_prompt_length": self.too_long,
            "rows_perhaps_over_max_prompt_length": self.perhaps_too_long,
            "duplicate_prompts": self.duplicates.count + self.contradictions.count,
            "contradicting_prompts": self.contradictions.count,
            "near_duplicate_prompts": near.count if near else None,
            "near_variants_with_another_answer": self.near_variants,
            "reference_kinds": dict(self.references.kinds),
            "reference_coverage": 1.0,
            "different_references": self.references.different,
            "most_common_reference": self.references.most_common,
            "most_common_reference_share": round(self.references.share, 4),
            "constant_answer_share": round(self.references.constant, 4),
            "rows_with_tools": self.tools.count,
            "personal_data": None if personal is None else {kind: at.count for kind, at in personal.items()},
        }


class _Part(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _Parameters(msgspec.Struct, gc=False):
    type: Literal["object"]
    properties: dict[str, msgspec.Raw]
    required: list[str] | msgspec.UnsetType = msgspec.UNSET


class _Function(msgspec.Struct, gc=False):
    name: str
    description: str
    parameters: _Parameters


class _Tool(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["function"]
    function: _Function


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str | list[_Part]


class _Row(msgspec.Struct, gc=False):
    messages: list[_Message]
    reference_answer: str | dict[str, msgspec.Raw]
    id: str | msgspec.UnsetType = msgspec.UNSET
    tools: list[_Tool] | msgspec.UnsetType = msgspec.UNSET


_rows = msgspec.json.Decoder(_Row)


class _Problems:
    """Collects what is wrong and folds the same trouble on many lines into one entry."""

    def __init__(self) -> None:
        self._lines: dict[str, array[int]] = {}
        self._details: dict[str, str] = {}
        self.total = 0

    def add(self, line: int, what: str, detail: str = "") -> None:
        """Notes `what` of a line (0: of the file); `detail` is shown for the first such line only."""
        self.total += 1
        self._lines.setdefault(what, array("L")).append(line)
        self._details.setdefault(what, detail)

    def error(self, name: str) -> DatasetError:
        """Returns the readable list, and the same as findings."""
        entries = list(self._lines.items())[:_SHOWN_PROBLEMS]
        shown = [self._entry(what, lines) for what, lines in entries]
        if (more := len(self._lines) - len(shown)) > 0:
            shown.append(f"and {more} more kinds of trouble: mend these first")
        counted = "1 problem" if self.total == 1 else f"{self.total} problems"
        findings = [
            Finding(
                "file" if lines[0] == 0 else "row",
                "stop",
                f"{name}: {self._entry(what, lines)}.",
                count=len(lines),
                lines=tuple(line for line in lines[:_KEPT_LINES] if line),
            )
            for what, lines in entries
        ]
        return DatasetError("\n  - ".join([f"{name} cannot be used ({counted}):", *shown]), findings)

    def _entry(self, what: str, lines: Sequence[int]) -> str:
        detail = self._details[what]
        if lines[0] == 0:
            return what
        where = _at(lines, len(lines))
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
    near: NearDuplicates | None = None,
    look_for_personal_data: bool = False,
) -> Dataset:
    """Reads a whole file once, in memory bounded by the number of rows, never by their size.

    Args:
        stream: The file, from its first byte.
        name: What to call it in messages: a path or an s3:// URI.
        rows: The least and the most rows it may hold.
        row_bytes: The longest line it may hold.
        max_prompt_length: The training setting of that name, in tokens.
        near: What finds near duplicates; they are not looked for without it.
        look_for_personal_data: Whether to look for what may be personal data or secrets.

    Raises:
        DatasetError: Something is wrong with it; all of it is said, folded and capped.
    """
    found = _Examination(near, look_for_personal_data=look_for_personal_data)
    line = 0
    with _Sha256() as digest:
        for line, raw in enumerate(_lines(stream, digest, row_bytes), 1):
            if line == 1 and (foreign := _foreign(raw or b"")):
                raise DatasetError(f"{name} {foreign}")
            # Only counted from there on: more rows than fit are one problem, not one per row.
            if line <= rows[1] and (whole := _whole(line, raw, row_bytes, found.problems)) is not None:
                found.row(line, whole)
    _check_rows(line, rows, found.problems)
    if found.problems.total:
        raise found.problems.error(name)
    return found.dataset(name, digest.hexdigest(), max_prompt_length)


def near_duplicates(rules: Rules, held_out: int = 1) -> list[NearDuplicates | None]:
    """Returns what finds near duplicates in the training file, and then in each file of held-out rows."""
    if not rules.near_duplicates:
        return [None] * (1 + held_out)
    within = NearDuplicates(rules.near_duplicate_similarity)
    across = (NearDuplicates(rules.near_duplicate_similarity, against=within) for _ in range(held_out))
    return [within, *across]


def leaked(train: Dataset, held_out: Dataset) -> list[int]:
    """Returns the lines of a file of held-out rows whose prompt is in the training file as well."""
    return [line for prompt, line in held_out.prompts.items() if prompt in train.prompts]


def judge(train: Dataset, evaluation: Dataset, rules: Rules, *, regression: Dataset | None = None) -> Verdict:
    """Returns the gate's verdict on files that can be used: what makes the run worse, and the facts."""
    held_out = [evaluation] if regression is None else [evaluation, regression]
    findings = [
        finding
        for file in (train, *held_out)
        for finding in (*_repetition(file), *_answers(file, rules), *_tools(file), *_personal_data(file))
    ]
    leaks = [leaked(train, file) for file in held_out]
    counts = [
        {
            "leaked": len(lines),
            "nearly_leaked": file.near_duplicates.count if file.near_duplicates else None,
        }
        for file, lines in zip(held_out, leaks, strict=True)
    ]
    facts = {"train": train.profile(), "evaluation": evaluation.profile(), **counts[0]}
    if regression is not None:
        facts["regression"] = {**regression.profile(), **counts[1]}
    return Verdict(
        "dataset",
        (
            *_prompt_length(train),
            *(
                finding
                for file, lines in zip(held_out, leaks, strict=True)
                for finding in _leaks(train, file, lines, rules)
            ),
            *_near_repetition(train, rules),
            *findings,
        ),
        facts,
    )


def refusal(error: DatasetError) -> Verdict:
    """Returns the gate's verdict on files that cannot be used."""
    return Verdict("dataset", error.findings)


def identity(*files: str) -> str:
    """Returns the name of a dataset, by the SHA-256 of each of its files in hexadecimal, in their order."""
    return hashlib.sha256("".join(f"{each}\n" for each in files).encode()).hexdigest()


def held_out(stream: Stream, count: int, *, training: Set[int]) -> list[dict[str, Any]]:
    """Picks up to `count` rows of a checked evaluation file to measure models on, as items of a Map state.

    Picks distinct prompts that are not in `training` (the keys of `prompts` of the training file), because a
    prompt a model was trained on measures its memory; by the smallest hash, which is as good as by chance and
    picks the same prompts in the next run.

    Returns:
        In file order: {"index", "id" ("line-<n>" where the row has none), "messages", "reference_answer",
        "metadata"}.
    """
    picked = _picked(stream, count, leave_out=training)
    return [_item(index, line, raw) for index, (line, raw) in enumerate(picked)]


def to_try(stream: Stream, count: int) -> list[dict[str, Any]]:
    """Picks up to `count` different prompts of a checked training file for the base model to be tried on.

    Picked like those of `held_out`; a row that no state of Step Functions can carry is never among them.

    Returns:
        What `held_out` returns, each with the "line" of its row.
    """
    picked = _picked(stream, count, leave_out=frozenset())
    return [{**_item(index, line, raw), "line": line} for index, (line, raw) in enumerate(picked)]


def without(stream: Stream, lines: Set[int]) -> Iterator[bytes]:
    """Yields the rows of a checked training file, byte by byte as they are, except those on these lines."""
    for number, raw in enumerate(_lines(stream, None, TRAINING_ROW_BYTES), 1):
        if raw is not None and number not in lines:
            yield raw + b"\n"


def _picked(stream: Stream, count: int, *, leave_out: Set[int]) -> list[tuple[int, bytes]]:
    """Returns the lines, with their numbers, of the different prompts with the smallest hashes."""
    # A heap of the smallest, kept with its largest on top: hence the negated hash.
    picked: list[tuple[int, int, bytes]] = []
    taken: set[int] = set()
    for number, raw in enumerate(_lines(stream, None, EVALUATION_ROW_BYTES), 1):
        if raw is None:
            continue
        roles, texts = _prompt(_rows.decode(raw))
        prompt = hash((roles, texts))
        if prompt in leave_out or prompt in taken:
            continue
        taken.add(prompt)
        entry = (-_lasting_hash(roles, texts), number, raw)
        if len(picked) < count:
            heapq.heappush(picked, entry)
        else:
            heapq.heappushpop(picked, entry)
    return sorted((line, raw) for _, line, raw in picked)


def _item(index: int, line: int, raw: bytes) -> dict[str, Any]:
    row = msgspec.json.decode(raw, type=dict[str, Any])
    return {
        "index": index,
        "messages": row.pop("messages"),
        "reference_answer": row.pop("reference_answer"),
        "id": row.pop("id", f"line-{line}"),
        "metadata": row,
    }


def require_held_out(count: int, *, train: str, evaluation: str) -> None:
    """Makes sure that the items `held_out` has picked are enough to measure a model on.

    Raises:
        DatasetError: They are too few.
    """
    if count < EVALUATION_ROWS[0]:
        raise DatasetError(
            f"{evaluation} holds {count} different prompts that are not in {train} as well, and at least"
            f" {EVALUATION_ROWS[0]} are needed to measure a model: hold out more"
        )


# --- reading ---


class _Sha256:
    """A running SHA-256 in a thread of its own: hashing leaves the interpreter to the rest of the work."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        # Two pieces wait at most, or a slow hash would gather the file in memory.
        self._free = threading.BoundedSemaphore(2)
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "_Sha256":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pieces.put(None)
        self._thread.join()

    def update(self, piece: bytes) -> None:
        """Takes in a piece, in the order of the file."""
        self._free.acquire()
        self._pieces.put(piece)

    def hexdigest(self) -> str:
        """Returns the digest; only to be asked for at the end."""
        return self._digest.hexdigest()

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._digest.update(piece)
            self._free.release()


class _Raw(io.RawIOBase):
    """A stream as a raw file, hashed piece by piece as it is read where anybody asks for a hash."""

    def __init__(self, stream: Stream, digest: _Sha256 | None) -> None:
        self._stream = stream
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece = self._stream.read(len(buffer))
        if self._digest is not None:
            self._digest.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _lines(stream: Stream, digest: _Sha256 | None, longest: int) -> Iterator[bytes | None]:
    """Yields the lines of a file without newline, None for those that are too long."""
    file = io.BufferedReader(_Raw(stream, digest), _BUFFER)
    while line := file.readline(longest + 1):
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) <= longest:
            yield line
        else:
            # What is known to be too long is not kept: an endless line must not fill the memory.
            while line and not line.endswith(b"\n"):
                line = file.readline(_BUFFER)
            yield None


def _foreign(start: bytes) -> str | None:
    """Returns what to say of a file that is no UTF-8 text, by its first line."""
    for signature, what in _FOREIGN.items():
        if start.startswith(signature):
            return what
    if start.strip() in (b"[", b"{") or start.lstrip().startswith(b"[{"):
        return "is one JSON document: write it as JSONL, one object per line, without brackets around them"
    return None


class _Examination:
    """Everything that is found out about a file, row by row."""

    def __init__(self, near: NearDuplicates | None, *, look_for_personal_data: bool) -> None:
        self.problems = _Problems()
        self._near = near
        self._sizes = array("Q")
        # By hashes of this process: enough for some ten thousand rows, and several times as fast as others.
        self._prompts: dict[int, tuple[int, int]] = {}
        self._ids: dict[int, int] = {}
        self._duplicates = self._contradictions = self._tools = Places()
        self._strings = 0
        self._answers: dict[int, int] = {}
        self._shown: dict[int, str] = {}
        self._values: dict[str, dict[int, int]] = {}
        self._personal: dict[str, Places] | None = {} if look_for_personal_data else None

    def row(self, line: int, raw: bytes) -> None:
        """Examines one row, on a line of that number."""
        try:
            row = _rows.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            self.problems.add(line, *_explain(error, raw))
            return
        roles, texts = _prompt(row)
        if what := _order(roles):
            self.problems.add(line, what)
        size = 0
        for index, text in enumerate(texts):
            size += len(text) if text.isascii() else _utf8_size(text)
            if not text or text.isspace():
                what = f"messages[{index}].content is blank: write the text or remove the message"
                self.problems.add(line, what)
        self._sizes.append(size)
        answer = self._answer(line, row.reference_answer)
        if row.id is not msgspec.UNSET:
            self._id(line, row.id)
        if row.tools is not msgspec.UNSET:
            self._check_tools(line, row.tools)
        prompt = hash((roles, texts))
        first = self._prompts.setdefault(prompt, (line, answer))
        if first[0] != line:
            if first[1] == answer:
                self._duplicates = self._duplicates.and_(line)
            else:
                self._contradictions = self._contradictions.and_(line)
        elif self._near is not None:
            # What every row is told in front would make all of them alike.
            said = [text for role, text in zip(roles, texts, strict=True) if role != "system"]
            self._near.read(line, "\n".join(said), prompt, answer)
        if self._personal is not None:
            for kind, masked in dict(personal_data.find(_all_text(raw))).items():
                self._personal[kind] = self._personal.get(kind, Places()).and_(line, masked)

    def _answer(self, line: int, reference: str | dict[str, msgspec.Raw]) -> int:
        """Counts a reference answer; returns a hash of it, the same for any order of an object's keys."""
        if isinstance(reference, str):
            self._strings += 1
            filled = bool(reference) and not reference.isspace()
            answer = hash(reference.strip())
        else:
            filled = bool(reference)
            values = {key: bytes(value) for key, value in reference.items()}
            answer = hash(frozenset(values.items()))
            self._count_values(values)
        if not filled:
            self.problems.add(line, f"`reference_answer` is empty: {_EXPECTED['reference_answer']}")
        count = self._answers[answer] = self._answers.get(answer, 0) + 1
        if count == 2:
            shown = reference if isinstance(reference, str) else msgspec.json.encode(reference).decode()
            self._shown[answer] = shown[:_SHOWN_CHARACTERS] + "…" * (len(shown) > _SHOWN_CHARACTERS)
        return answer

    def _count_values(self, values: Mapping[str, bytes]) -> None:
        for key, value in values.items():
            counts = self._values.get(key)
            if counts is None:
                if len(self._values) == _COUNTED_KEYS:
                    continue
                counts = self._values[key] = {}
            spelt = hash(value)
            if spelt in counts or len(counts) < _COUNTED_VALUES:
                counts[spelt] = counts.get(spelt, 0) + 1

    def _id(self, line: int, value: str) -> None:
        if not value or value.isspace():
            self.problems.add(line, "`id` is blank: give the row a name of its own, or no id at all")
            return
        first = self._ids.setdefault(hash(value), line)
        if first != line:
            detail = f"{value!r} is also on line {first}"
            self.problems.add(line, "`id` was used before: every row needs its own", detail)

    def _check_tools(self, line: int, tools: list[_Tool]) -> None:
        names = [tool.function.name for tool in tools]
        if not names:
            self.problems.add(line, "`tools` is empty: name one tool at least, or leave the key out")
        elif not all(name.strip() for name in names) or len(set(names)) < len(names):
            self.problems.add(line, "`tools` has a blank name or one name twice: give each tool its own")
        self._tools = self._tools.and_(line)

    def dataset(self, name: str, sha256: str, limit: int | None) -> Dataset:
        """Returns all of it, of a file that is in order."""
        ordered = sorted(self._sizes)
        rows = len(ordered)
        near = None if self._near is None else self._near.pairs()
        return Dataset(
            name=name,
            sha256=sha256,
            rows=rows,
            sizes={
                "mean": sum(ordered) // rows,
                "p50": ordered[(rows - 1) // 2],
                "p95": ordered[-(-rows * 95 // 100) - 1],
                "p99": ordered[-(-rows * 99 // 100) - 1],
                "max": ordered[-1],
            },
            max_prompt_length=limit,
            too_long=None if limit is None else sum(_tokens(size) > limit for size in ordered),
            perhaps_too_long=None
            if limit is None
            else sum(_tokens_at_worst(size) > limit for size in ordered),
            duplicates=self._duplicates,
            contradictions=self._contradictions,
            near_duplicates=None if near is None else _places(near),
            near_variants=None if near is None else sum(not pair.same_answer for pair in near),
            references=self._references(rows),
            tools=self._tools,
            personal_data=self._personal,
            prompts={prompt: line for prompt, (line, _) in self._prompts.items()},
        )

    def _references(self, rows: int) -> References:
        answer = max(self._answers, key=self._answers.__getitem__)
        share = self._answers[answer] / rows
        by_key = [max(counts.values()) / rows for counts in self._values.values()]
        kinds = {"string": self._strings, "object": rows - self._strings}
        return References(
            kinds={kind: count for kind, count in kinds.items() if count},
            different=len(self._answers),
            most_common=self._shown.get(answer, ""),
            share=share,
            constant=max(share, sum(by_key) / len(by_key)) if by_key else share,
        )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole(line: int, raw: bytes | None, longest: int, problems: _Problems) -> bytes | None:
    """Returns a line that may be a row, in UTF-8 and without its end."""
    if raw is None:
        what = f"is longer than {longest:,} bytes, which cannot travel to the reward function: shorten it"
        problems.add(line, what)
        return None
    if raw.endswith(b"\r"):
        problems.add(line, "ends in CR LF, a Windows line end: convert the file to LF (`dos2unix`)")
        raw = raw[:-1]
    if not raw.strip():
        problems.add(line, "is empty: remove it")
        return None
    # Nobody decodes the keys that are not ours.
    if not (raw.isascii() or _is_utf8(raw)):
        problems.add(line, "is not UTF-8: save the file as UTF-8")
        return None
    return raw


def _prompt(row: _Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the roles and the texts of a prompt.

    A text in several parts is the same as in one; a text with a blank part comes back empty.
    """
    roles, texts = [], []
    for message in row.messages:
        content = message.content
        roles.append(message.role)
        texts.append(content if type(content) is str else _joined(content))
    return tuple(roles), tuple(texts)


def _joined(parts: str | list[_Part]) -> str:
    texts = [part.text for part in parts if isinstance(part, _Part)]
    return "".join(texts) if all(text.strip() for text in texts) else ""


def _utf8_size(text: str) -> int:
    """Returns how many bytes a text is, estimated by pieces from all over a long one."""
    if len(text) > _SAMPLES * _SAMPLE:
        starts = range(0, len(text) - _SAMPLE, len(text) // _SAMPLES)
        sample = "".join(text[start : start + _SAMPLE] for start in starts)
    else:
        sample = text
    return len(text) * len(sample.encode()) // len(sample)


def _lasting_hash(roles: Sequence[str], texts: Sequence[str]) -> int:
    """Returns a hash of a prompt that is the same in every process."""
    digest = hashlib.blake2b(digest_size=16)
    for role, text in zip(roles, texts, strict=True):
        # The length in front keeps the end of one message from passing for the start of the next.
        digest.update(f"{role} {len(text)} ".encode())
        digest.update(text.encode())
    return int.from_bytes(digest.digest())


def _all_text(raw: bytes) -> str:
    """Returns every text of a row, keys and its id aside, in one."""
    row = msgspec.json.decode(raw, type=dict[str, Any])
    row.pop("id", None)
    texts: list[str] = []
    waiting: list[Any] = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
    return "\n".join(texts)


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
    if "surrogate" in message or (message == "Input data was truncated" and _HALF_PAIR.search(raw)):
        return "holds half a surrogate pair, which is no character: mend or remove it", ""
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
            return f"{path} has no `{key}`: {_expected_within(path)}", ""
        similar = next((near for near in _NEAR_MISSES[key] if near in values), None)
        return f"`{key}` is missing: {_EXPECTED[key]}", f"it has `{similar}`" if similar else ""
    if message.startswith("Object contains unknown field"):
        return f"{path} has the key `{quoted[0]}`: {_expected_within(path)}", ""
    if path.endswith(".role"):
        got = message.removeprefix("Invalid enum value ").replace("`", "")
        return f"{path} must be 'system', 'user' or 'assistant'", got
    if path.startswith("tools[") and path.endswith("].type"):
        return f"{path} must be 'function'", message.replace("`", "")
    if path.endswith(".type"):
        return f"{path} must be 'text': the service trains on text only", message.replace("`", "")
    if path in _EXPECTED:
        return f"`{path}` has the wrong type: {_EXPECTED[path]}", message.replace("`", "")
    return f"{path or 'the row'} has the wrong type: {message.replace('`', '')}", ""


def _expected_within(path: str) -> str:
    return _EXPECTED_TOOL if path.startswith("tools") else _EXPECTED_MESSAGE


_EXPECTED_MESSAGE = "a message has `role` and `content`, a text part `type` and `text`, and nothing else"
_EXPECTED_TOOL = (
    "a tool is a `function` with `name`, `description` and `parameters`, a JSON Schema of type object with"
    " `properties`"
)
_EXPECTED = {
    "messages": "it is the prompt, a list of messages",
    "reference_answer": "it is what the reward function compares with, a string or an object",
    "id": "where there is one, it is a string",
    "tools": "where there are any, they are a list of functions",
}


@lru_cache(maxsize=256)
def _order(roles: tuple[str, ...]) -> str:
    """Returns what is wrong with the order of a prompt's messages, nothing where it is right."""
    if not roles:
        return "`messages` is empty: a prompt has at least one user message"
    if "system" in roles[1:]:
        return "a system message comes after another message: there may be one, as the first"
    conversation = roles[1:] if roles[0] == "system" else roles
    if "user" not in conversation:
        return "no message is the user's: a prompt has at least one user message"
    if conversation[0] == "assistant":
        return "the conversation starts with the assistant: its first message must be the user's"
    if conversation[-1] == "assistant":
        return (
            "the last message is the assistant's: end with the user's, the model writes the answer"
            " (what it should be belongs in `reference_answer`)"
        )
    return ""


def _check_rows(count: int, rows: tuple[int, int], problems: _Problems) -> None:
    least, most = rows
    if count == 0:
        problems.add(0, "the file is empty")
    elif count < least:
        problems.add(0, f"it has {count} rows, and at least {least} are needed: add {least - count} more")
    elif count > most:
        problems.add(0, f"it has {count:,} rows, and at most {most:,} are accepted: take a sample of them")


def _places(pairs: Sequence[Any]) -> Places:
    """Returns where a row repeats another, answer and all."""
    places = Places()
    for pair in pairs:
        if pair.same_answer:
            places = places.and_(pair.line, f"line {pair.line} is like line {pair.other}")
    return places


def _tokens(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)


def _tokens_at_worst(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN_AT_WORST)


# --- judging ---


def _prompt_length(train: Dataset) -> Iterator[Finding]:
    limit, perhaps = train.max_prompt_length, train.perhaps_too_long
    if limit is None or not perhaps:
        return
    # Multiples of 64 look like what they are: round numbers on the safe side.
    keep_most, keep_all = (-(-_tokens_at_worst(train.sizes[key]) // 64) * 64 for key in ("p99", "max"))
    sure = f"{_rows_of(train.too_long or 0, train)} look longer than max_prompt_length ({limit} tokens)"
    more = perhaps - (train.too_long or 0)
    worst = f", and {more} more may be, as tokens can only be estimated" if more else ""
    raised = f"set it to {keep_all} to keep every row"
    if limit < keep_most < keep_all:
        raised = f"set it to {keep_most} to keep 99 of 100 rows, or to {keep_all} to keep every row"
    yield Finding(
        "prompt-length",
        "warn",
        f"{train.name}: {sure}{worst}: the service drops such rows without a word, so {raised}.",
        count=perhaps,
    )


def _leaks(train: Dataset, evaluation: Dataset, lines: Sequence[int], rules: Rules) -> Iterator[Finding]:
    if lines:
        yield Finding(
            "leak",
            "warn",
            f"{evaluation.name}: {_rows_of(len(lines), evaluation)} have a prompt of {train.name}"
            f" ({_at(lines, len(lines))}): they are left out of measuring, so hold out others.",
            count=len(lines),
            lines=tuple(lines[:_KEPT_LINES]),
        )
    if (near := evaluation.near_duplicates) and near.count:
        yield Finding(
            "near-leak",
            _near_level(evaluation, rules),
            f"{evaluation.name}: {_rows_of(near.count, evaluation)} are almost a row of {train.name}, with"
            f" the same answer ({_at(near.lines, near.count)}): a model can know them by heart, so"
            " measuring them flatters it.",
            count=near.count,
            lines=near.lines,
            examples=near.examples,
        )


def _repetition(file: Dataset) -> Iterator[Finding]:
    if file.contradictions.count:
        yield _finding(
            file,
            "contradiction",
            file.contradictions,
            "have the prompt of an earlier row and another reference answer",
            "no completion can please both, so keep one",
        )
    if file.duplicates.count:
        yield _finding(
            file,
            "duplicate",
            file.duplicates,
            "are an earlier row once more, prompt and answer",
            "each weighs that prompt more, so remove what is not meant",
        )


def _near_repetition(train: Dataset, rules: Rules) -> Iterator[Finding]:
    if (near := train.near_duplicates) and near.count:
        yield _finding(
            train,
            "near-duplicate",
            near,
            "are almost an earlier row, with the same answer",
            "they add little that is new, so vary them or remove them",
            level=_near_level(train, rules),
        )


def _near_level(file: Dataset, rules: Rules) -> Level:
    near = file.near_duplicates
    return "warn" if near and near.count > rules.near_duplicate_share * file.rows else "info"


def _answers(file: Dataset, rules: Rules) -> Iterator[Finding]:
    references = file.references
    if references.constant <= rules.most_common_answer:
        return
    share = f"{references.constant:.0%}"
    if references.constant > references.share:
        what = f"always giving each key its most frequent value would be right in {share} of all values"
    else:
        what = f"{share} of the rows have one and the same reference answer ({references.most_common})"
    yield Finding(
        "answer-skew",
        "warn",
        f"{file.name}: {what}: a model that learns this alone scores high, so balance the answers.",
        count=round(references.constant * file.rows),
    )


def _tools(file: Dataset) -> Iterator[Finding]:
    if file.tools.count:
        yield _finding(
            file,
            "tools",
            file.tools,
            "have `tools`",
            "Bedrock's pages do not mention them, so try a short run before you rely on them",
        )


def _personal_data(file: Dataset) -> Iterator[Finding]:
    for kind, places in (file.personal_data or {}).items():
        yield _finding(
            file,
            f"personal-{kind}",
            places,
            f"seem to hold {personal_data.KINDS[kind]} ({', '.join(places.examples)})",
            "prompts and completions are kept in the artifacts of every run, so remove or replace them",
        )


def _finding(
    file: Dataset, rule: str, at: Places, what: str, advice: str, *, level: Level = "warn"
) -> Finding:
    sentence = f"{file.name}: {_rows_of(at.count, file)} {what} ({_at(at.lines, at.count)}): {advice}."
    return Finding(rule, level, sentence, count=at.count, lines=at.lines, examples=at.examples)


def _rows_of(count: int, file: Dataset) -> str:
    return f"{count:,} of the {file.rows:,} rows"


def _at(lines: Sequence[int], count: int) -> str:
    """Returns the first of `count` lines in words."""
    numbers = ", ".join(str(line) for line in lines[:_SHOWN_LINES])
    if (more := count - min(len(lines), _SHOWN_LINES)) > 0:
        numbers += f" and {more} more"
    return f"line {numbers}" if count == 1 else f"lines {numbers}"
