"""Looks at what the reward function has said since the job began, and whether a tripwire has tripped.

The workflow calls it whenever it looks at the job. Each call reads on in the reward function's log where the
one before it stopped, and keeps what it read, since logs are deleted in time.

The log and not the metrics made of it: a role can be held to one log group, but cloudwatch:GetMetricData
knows no resources; watched components are in the log only; and a line says how many samples it speaks for.

Event: {"run", "reward_version", "training": {camelCase}, "tripwires": `Settings` of lambdas/tripwires.py,
    "job": {"status", "created": when it was, as Bedrock writes it}}.
Returns: {"verdict", "sentence"}.
Writes: runs/<run>/gates/tripwires.json (see lambdas/gate.py), and runs/<run>/rewards.json = {"until": time
    of the last line, "seen": [[time, id]] of the last lines, "batches": [`Batch` of lambdas/tripwires.py]},
    times in milliseconds since 1970; of a long job neighbouring batches are put together.
Errors: botocore's own errors by their own names, but for those of the log: what one look could not read, the
    next one reads, and the verdict says so until then.
Environment: STACK, ARTIFACTS, REWARD_LOG_GROUP.
IAM:
    - logs:FilterLogEvents on the reward function's log group;
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/rewards.json;
    - s3:PutObject on ARTIFACTS/runs/*/rewards.json and ARTIFACTS/runs/*/gates/tripwires.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from lambdas import tripwires
from lambdas.gate import Finding
from lambdas.tripwires import Batch, Settings
from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_logs import CloudWatchLogsClient

# Lambda hands log lines on with a delay, and each of its instances with one of its own: what is this much
# older than the last line that was read may still come.
_LATE_MILLISECONDS: Final = 120_000
# Enough left to look and to write.
_SPARE_MILLISECONDS: Final = 20_000
# The version that wrote a log stream stands in its name, in brackets.
_VERSION: Final = re.compile(r"\[(\$LATEST|\d+)\]")


def handler(event: Mapping[str, Any], context: Any) -> dict[str, str]:
    """Looks at the job of a run (see the module)."""
    from botocore.exceptions import BotoCoreError, ClientError

    run, job, training = event["run"], event["job"], event["training"]
    created = int(datetime.fromisoformat(job["created"]).timestamp() * 1000)
    known = runs.read(run, "rewards.json") or {"until": created, "seen": [], "batches": []}
    batches = [Batch.read(each) for each in known["batches"]]
    fresh: list[tuple[str, Batch]] = []
    unread = ""
    try:
        # Before the job the same function has scored what the base model said.
        since = max(created, known["until"] - _LATE_MILLISECONDS)
        fresh.extend(_lines(event["reward_version"], since, {name for _, name in known["seen"]}, context))
    except (ClientError, BotoCoreError) as error:
        unread = str(error)
    if fresh:
        batches += [batch for _, batch in sorted(fresh, key=lambda each: each[1].time)]
        until = int(max(known["until"], batches[-1].time))
        # A time stands before each id, so that what is too old to come again is forgotten.
        seen = [*known["seen"], *([int(batch.time), name] for name, batch in fresh)]
        kept = [each for each in seen if each[0] >= until - _LATE_MILLISECONDS]
        batches = tripwires.folded(batches)
        stored = {"until": until, "seen": kept, "batches": [batch.document() for batch in batches]}
        runs.write(run, "rewards.json", stored)
    step = training["batchSize"] * training["trainingSamplePerPrompt"]
    verdict = tripwires.look(batches, Settings.of(event["tripwires"]), step=step)
    if unread:
        blind = f"The log could not be read: {unread.rstrip('.')}. The next look tries again."
        verdict = replace(verdict, findings=(*verdict.findings, Finding("log-unread", "warn", blind)))
    elif not batches and job["status"] == "Completed":
        blind = (
            f"The job has ended, and the log group {os.environ['REWARD_LOG_GROUP']} has no metric line of "
            "its reward function: nothing was watched. Look whether the function may write its log."
        )
        verdict = replace(verdict, findings=(*verdict.findings, Finding("nothing-seen", "warn", blind)))
    return runs.write_verdict(run, verdict)


def _lines(version: str, since: int, seen: set[str], context: Any) -> Iterator[tuple[str, Batch]]:
    """Yields the metric lines of a reward function's version that were not seen before, each with its id."""
    logs: CloudWatchLogsClient = runs.client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=os.environ["REWARD_LOG_GROUP"], startTime=since, filterPattern='"reward_mean"'
    )
    number = version.rpartition(":")[2]
    for page in pages:
        for found in page["events"]:
            stream = found["logStreamName"]
            name = found.get("eventId") or f"{stream} {found['timestamp']}"
            wrote = _VERSION.search(stream)
            if name in seen or (wrote and wrote[1] != number):
                continue
            if batch := Batch.of(_json(found["message"]), found["timestamp"]):
                yield name, batch
        # The next look reads on from here; a first look at a busy job may be long.
        if context.get_remaining_time_in_millis() < _SPARE_MILLISECONDS:
            return


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
