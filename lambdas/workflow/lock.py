"""Keeps an environment to one run at a time, by a lock that outlives whoever holds it.

The lock is one object, which S3 writes only while it is what the writer has read (If-Match, If-None-Match):
of two runs that reach for it, one gets it. A run that has it gives it back in every ending (here, or by
`clean_up`). Should that fail, the lock is free all the same: nobody holds it whose execution no longer runs,
or whose time is up, and the workflow's own time limit ends every execution before that.

Event: {"run", "execution": ARN of the execution, "take": true | false, "seconds": the longest an execution
    may last}.
Returns: {"verdict", "sentence"}: "stop" where another run has the lock, and the sentence names it.
Writes: ARTIFACTS/lock.json = {"run", "execution", "until": epoch seconds}, all null while nobody has it; and,
    when it was to be taken, runs/<run>/gates/lock.json (see lambdas/gate.py).
Errors: `LockContestedError` when other runs were faster again and again; it is worth a retry. botocore's own
    errors by their own names.
Environment: STACK, ARTIFACTS.
IAM:
    - s3:ListBucket on ARTIFACTS (so that a missing object reads as missing, not as forbidden);
    - s3:GetObject, s3:PutObject on ARTIFACTS/lock.json, s3:PutObject on ARTIFACTS/runs/*/gates/lock.json;
    - states:DescribeExecution on the executions of the state machine;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lambdas.gate import Finding, Verdict
from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

KEY: Final = "lock.json"
_FREE: Final[Mapping[str, Any]] = {"run": None, "execution": None, "until": None}
_TRIES: Final = 5
# What S3 says to a conditional write that somebody else was faster than: in time, and at the same time.
_OVERTAKEN: Final = frozenset(
    {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404"}
)


class LockContestedError(Exception):
    """Other runs changed the lock at every attempt to take it."""


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Takes the lock or gives it back (see the module)."""
    run = event["run"]
    if not event["take"]:
        release(run)
        return {"verdict": "pass", "sentence": "Lock: given back."}
    return runs.write_verdict(run, take(run, event["execution"], event["seconds"]))


def take(run: str, execution: str, seconds: int) -> Verdict:
    """Takes the lock for an execution, unless another one that still runs has it.

    Raises:
        LockContestedError: Other runs changed the lock at every attempt.
    """
    own = {"run": run, "execution": execution, "until": int(time.time()) + seconds}
    for _ in range(_TRIES):
        found, etag = _read()
        if found["execution"] not in (None, execution) and _alive(found, execution):
            return Verdict("lock", (_held(found),), {"taken": False, "holder": found})
        if _write(own, etag):
            stolen = found if found["execution"] not in (None, execution) else None
            return Verdict(
                "lock", (_left_behind(stolen),) if stolen else (), {"taken": True, "before": stolen}
            )
    raise LockContestedError(
        f"other runs changed s3://{os.environ['ARTIFACTS']}/{KEY} at each of {_TRIES} attempts to take it"
    )


def release(run: str) -> bool:
    """Gives the lock back if the run has it; says whether it had."""
    for _ in range(_TRIES):
        found, etag = _read()
        if found["run"] != run:
            return False
        if _write(_FREE, etag):
            return True
    # Whoever changes it has taken it, so this run no longer has it.
    return False


def _alive(holder: Mapping[str, Any], execution: str) -> bool:
    """Says whether the holder of the lock may still be at work."""
    # Of another state machine there is no execution left: an environment has one.
    if holder["execution"].rpartition(":")[0] != execution.rpartition(":")[0]:
        return False
    if time.time() >= holder["until"]:
        return False
    return runs.at_work(holder["execution"])


def _held(holder: Mapping[str, Any]) -> Finding:
    until = datetime.fromtimestamp(holder["until"], UTC)
    return Finding(
        "held",
        "stop",
        f"{holder['run']} of {os.environ['STACK']} is still at work, and an environment trains one model at a"
        f" time. Wait until it has ended, or stop it ({holder['execution']}); then start this run again. The"
        f" lock is free by {until:%Y-%m-%d %H:%M} UTC at the latest.",
        examples=(holder["execution"],),
    )


def _left_behind(holder: Mapping[str, Any]) -> Finding:
    return Finding(
        "left-behind",
        "info",
        f"{holder['run']} had not given the lock back and is no longer at work, so this run has taken it.",
        examples=(holder["execution"],),
    )


def _read() -> tuple[Mapping[str, Any], str | None]:
    """Returns what the lock says and the version that says it, None where it was never taken."""
    s3: S3Client = runs.client("s3")
    try:
        answer = s3.get_object(Bucket=os.environ["ARTIFACTS"], Key=KEY)
    except s3.exceptions.NoSuchKey:
        return _FREE, None
    return json.loads(answer["Body"].read()), answer["ETag"]


def _write(lock: Mapping[str, Any], etag: str | None) -> bool:
    """Writes the lock if it still is the version that was read; says whether it was."""
    from botocore.exceptions import ClientError

    s3: S3Client = runs.client("s3")
    condition: Any = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    try:
        s3.put_object(
            Bucket=os.environ["ARTIFACTS"],
            Key=KEY,
            Body=json.dumps(lock).encode(),
            ContentType="application/json",
            **condition,
        )
    except ClientError as error:
        if error.response["Error"]["Code"] not in _OVERTAKEN:
            raise
        return False
    return True
