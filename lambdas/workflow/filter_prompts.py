"""Leaves training prompts out that show training nothing, where a team asks for it.

Reinforcement fine-tuning compares the completions of one prompt with each other: a prompt whose completions
all earn the same costs its share of every epoch and moves nothing. DAPO drops such prompts from each batch
while it trains ("dynamic sampling"); a customization job gives no such choice, so here the base model has
answered some training prompts as often as training would have it (see `measure`), and the job gets a file
without the rows of those that were flat. Rows that were not tried stay.

A flat prompt is either solved or failed by the base model. What it fails today it may learn from later, when
others have moved it; what it has solved has little left to teach. So a team says which it leaves out.

Event: {"run", "filter": {"drop": "solved" | "flat", "passing"?, "max_dropped", "range"}, "train": uri of the
    run's training file}. Settings are those of [gates.filter] in team.toml; "passing" is that of
    [gates.signal], where only what is solved goes.
Returns: {"verdict", "sentence"} of the gate and {"train": uri of the file to train on}: the filtered one, or
    the event's own where nothing is left out.
Writes: runs/<run>/gates/filter.json (see lambdas/gate.py), whose facts name every line that was left out:
    {"drop", "tried", "flat", "rows", "left_out", "kept", "lines", "sha256", "uri"}; the last two are those of
    the filtered file, null where there is none. Unless the run is stopped, the filtered file:
    runs/<run>/filtered/<sha256>.jsonl, the kept rows byte by byte as they are.
Errors: `RunError` when no training prompt was tried. botocore's own errors by their own names.
Environment: STACK, ARTIFACTS.
IAM:
    - s3:GetObject on DATASETS/datasets/*;
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/training-prompts.jsonl and
      measured/training/*;
    - s3:PutObject on ARTIFACTS/runs/*/gates/filter.json and filtered/*;
    - kms:Decrypt, kms:GenerateDataKey on the key of DATASETS and ARTIFACTS.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from lambdas import dataset
from lambdas.gate import Finding, Verdict
from lambdas.workflow import runs
from lambdas.workflow.runs import RunError
from lambdas.workflow.signal import SAME, flat

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_READERS: Final = 10
_EXAMPLES: Final = 3


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """The settings of the gate: see FilterGate in infra/config.py; `range` is the reward's."""

    drop: Literal["solved", "flat"]
    max_dropped: float
    range: tuple[float, float]
    prompts: int = 0
    passing: float = 0.0


@dataclass(frozen=True, slots=True)
class Tried:
    """A training prompt and what the base model's completions of it earned."""

    line: int
    id: str
    scores: Sequence[float]


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Writes the verdict and the filtered file (see the module)."""
    run, train = event["run"], event["train"]
    settings = FilterSettings(**event["filter"])
    tried = _tried(run)
    lines = left_out(tried, settings)
    digest, rows = hashlib.sha256(), 0
    for row in _kept(train, lines):
        digest.update(row)
        rows += 1
    verdict = judge(tried, lines, rows=rows + len(lines), settings=settings)
    facts = {**verdict.facts, "sha256": None, "uri": None}
    if lines and verdict.verdict != "stop":
        sha256 = digest.hexdigest()
        path = f"filtered/{sha256}.jsonl"
        s3: S3Client = runs.client("s3")
        s3.upload_fileobj(
            io.BufferedReader(_Joined(_kept(train, lines))),
            os.environ["ARTIFACTS"],
            runs.key(run, path),
            ExtraArgs={"ContentType": "application/x-ndjson"},
        )
        train = runs.uri(run, path)
        facts |= {"sha256": sha256, "uri": train}
    return {**runs.write_verdict(run, Verdict(verdict.gate, verdict.findings, facts)), "train": train}


def left_out(tried: Iterable[Tried], settings: FilterSettings) -> frozenset[int]:
    """Returns the lines of the rows that may not stay."""
    low, high = settings.range
    bar = low + settings.passing * (high - low) - SAME
    return frozenset(
        each.line
        for each in tried
        if flat(each.scores) and (settings.drop == "flat" or min(each.scores) >= bar)
    )


def judge(tried: Sequence[Tried], lines: Set[int], *, rows: int, settings: FilterSettings) -> Verdict:
    """Says whether the rows that stay are enough to train on; `lines` are those that do not, of `rows`."""
    kept, least = rows - len(lines), dataset.TRAINING_ROWS[0]
    alike = [each for each in tried if flat(each.scores)]
    what = "all earn the same" if settings.drop == "flat" else "all earn the same and pass"
    found = (
        f"of {len(tried):,} training prompts that the base model was tried on, the completions of"
        f" {len(lines):,} {what}"
    )
    advice = (
        "Choose prompts that the model answers right sometimes, let the reward tell better from worse"
        ' answers, try fewer (prompts of [gates.filter]), or leave nothing out (drop = "none").'
    )
    findings = []
    if kept < least:
        findings.append(
            Finding(
                "too-few-left",
                "stop",
                f"O{found[1:]}: without them {kept:,} rows are left, and the service trains on no fewer than"
                f" {least}. {advice}",
                count=len(lines),
            )
        )
    elif len(lines) > settings.max_dropped * rows:
        findings.append(
            Finding(
                "too-many-dropped",
                "stop",
                f"O{found[1:]}: that is {len(lines) / rows:.1%} of the {rows:,} rows, more than"
                f" {settings.max_dropped:.0%}, and what is left would be another dataset than the one given."
                f" {advice}",
                count=len(lines),
            )
        )
    else:
        then = f"the job trains on the other {kept:,} rows" if lines else "the job trains on all rows"
        findings.append(
            Finding(
                "left-out",
                "info",
                f"O{found[1:]}: {then}.",
                count=len(lines),
                examples=tuple([each.id for each in tried if each.line in lines][:_EXAMPLES]),
            )
        )
    facts = {
        "drop": settings.drop,
        "tried": len(tried),
        "flat": len(alike),
        "rows": rows,
        "left_out": len(lines),
        "kept": kept,
        "lines": sorted(lines),
    }
    return Verdict("filter", tuple(findings), facts)


def _tried(run: str) -> list[Tried]:
    """Returns the training prompts that were measured.

    Raises:
        RunError: There are none.
    """
    s3: S3Client = runs.client("s3")
    key = runs.key(run, "training-prompts.jsonl")
    items = [
        json.loads(line)
        for line in s3.get_object(Bucket=os.environ["ARTIFACTS"], Key=key)["Body"].read().splitlines()
    ]
    rows = {item["index"]: (item["line"], item["id"]) for item in items}

    def read(path: str) -> Tried:
        measured = runs.read(run, path)
        scores = [completion["score"] for completion in measured["completions"]]
        return Tried(*rows[measured["index"]], scores)

    with ThreadPoolExecutor(_READERS) as readers:
        tried = list(readers.map(read, runs.paths(run, "measured/training")))
    if not tried:
        raise RunError(
            "no training prompt was answered by the base model: start the run with another `attempt`"
        )
    return tried


def _kept(uri: str, lines: Set[int]) -> Iterator[bytes]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3: S3Client = runs.client("s3")
    return dataset.without(s3.get_object(Bucket=bucket, Key=key)["Body"], lines)


class _Joined(io.RawIOBase):
    """Pieces of bytes as one file to read, so that an upload holds no more of them than it sends."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
