"""Starts a run of the training workflow, or finds the one that already trains on the same content.

Event: one of
    - a CloudFormation custom resource request (training "on-deploy"): Create and Update start a run, Delete
      does nothing;
    - EventBridge "Object Created" of `incoming/<any>/train.jsonl` in DATASETS (training "on-upload"); the
      `evaluation.jsonl` and `regression.jsonl` beside it are used when they are there by then (upload them
      first), else those of SETTINGS;
    - {"training"?: {camelCase overrides}, "source"?: {"train"?: uri, "evaluation"?: uri, "regression"?: uri},
      "attempt"?: n, "dry_run"?: true}.
Returns: {"run", "execution", "started"}; `started` is false where the same content has its run already, and
    after a dry run, which does everything but start.
Errors: `RunError` for a request that makes no sense. A deploy never fails for its content, which the run
    reports; it fails when the run cannot be started.
Before anything else it writes the record of the champion again, where a deploy has set it back.
Environment: STACK, DATASETS, ARTIFACTS, CHAMPION, STATE_MACHINE, SETTINGS (the run document without "run"
    and "trigger", and with an optional "limits": {camelCase training key: upper bound}, which overrides
    must respect). Its "gates" go with the run, but do not name it: what a gate lets pass changes no model,
    and the same content must not be trained on twice for it. What may be left out of the rows does change
    it: "filter" of SETTINGS, where there is one, is a part of the name.
Input of the execution, the run document: SETTINGS with overrides, and "run", "trigger", "attempt",
    "requested" (time, UTC) and, unless a file could not be read yet, "source"."sha256".
IAM:
    - states:StartExecution on the state machine;
    - s3:GetObject on DATASETS/incoming/* and on the source objects of SETTINGS (it hashes them);
    - s3:ListBucket on DATASETS (so that a missing object reads as missing, not as forbidden);
    - ssm:GetParameter, ssm:PutParameter on CHAMPION;
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/history/*;
    - kms:Decrypt on the key of DATASETS and ARTIFACTS.
"""

import difflib
import hashlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lambdas import dataset
from lambdas.workflow import promote
from lambdas.workflow.runs import RunError, client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_stepfunctions import SFNClient

_CHUNK = 1 << 20
# Enough left to start the execution and to answer CloudFormation, which otherwise waits for an hour.
_SPARE_MILLISECONDS = 30_000
_S3_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)")
_REQUEST_KEYS: Final = ("training", "source", "attempt", "dry_run")
_RUN_ID: Final = "training-run"


class _UnreadableError(RunError):
    """A source object that cannot be hashed now."""


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Starts a run for any of the three kinds of event (see the module)."""
    if "ResponseURL" in event:
        return _answer(event, context)
    if event.get("detail-type") == "Object Created":
        return _start("upload", _uploaded(event["detail"]), context)
    return _start("manual", event, context)


def _answer(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Handles a custom resource request: whatever happens, CloudFormation hears of it."""
    started: dict[str, Any] = {}
    reason = ""
    try:
        if event["RequestType"] != "Delete":
            started = _start("deploy", {}, context)
    except Exception as error:
        # Any: an unanswered request blocks the deploy for an hour.
        reason = f"the training run could not be started: {type(error).__name__}: {error}"
    body = json.dumps(
        {
            "Status": "FAILED" if reason else "SUCCESS",
            # CloudFormation shows 1024 characters or fewer, depending on where.
            "Reason": reason[:1000] or "see Data",
            # Stable, because a new id would make CloudFormation delete "the old resource" afterwards.
            "PhysicalResourceId": event.get("PhysicalResourceId", _RUN_ID),
            "StackId": event["StackId"],
            "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"],
            "Data": {key: str(value) for key, value in started.items()},
        }
    ).encode()
    _put(event["ResponseURL"], body)
    return started


def _put(url: str, body: bytes) -> None:
    if not url.startswith(("https://", "http://")):
        raise RunError("ResponseURL is not an address CloudFormation would give: the request is not its")
    # The address is signed without a content type; urllib would add one of its own.
    request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310 - the scheme is checked above
    for attempt in range(4):
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - the scheme is checked above
                return
        except urllib.error.URLError:
            if attempt == 3:
                # Raised, so that Lambda repeats the asynchronous invocation; starting again is harmless.
                raise
            time.sleep(2**attempt)


def _uploaded(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the request an uploaded training file stands for."""
    from botocore.exceptions import ClientError

    bucket, key = detail["bucket"]["name"], detail["object"]["key"]
    source = {"train": f"s3://{bucket}/{key}"}
    s3: S3Client = client("s3")
    for file in dataset.FILES[1:]:
        beside = f"{key.rpartition('/')[0]}/{file}.jsonl"
        try:
            s3.head_object(Bucket=bucket, Key=beside)
            source[file] = f"s3://{bucket}/{beside}"
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                raise
    return {"source": source}


def _start(trigger: str, request: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Names the run by its content and starts its execution."""
    promote.restore_champion()
    document = _document(request)
    try:
        document["source"]["sha256"] = _hash(document["source"], context)
    except _UnreadableError:
        # The person at a terminal is told at once. A deploy goes on: its run will fail and notify.
        if trigger == "manual":
            raise
    machine = os.environ["STATE_MACHINE"]
    attempt = _attempt(request)
    content = {**document, "source": document["source"].get("sha256", document["source"])}
    content.pop("gates", None)
    identity = json.dumps([machine, content, attempt], sort_keys=True, separators=(",", ":"))
    run = f"run-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    # The time makes every input different, without which Step Functions answers the second start of a running
    # execution like the first, and nobody knows which of the two it was.
    requested = datetime.now(UTC).isoformat(timespec="microseconds")
    execution = f"{machine.replace(':stateMachine:', ':execution:')}:{run}"
    started = not request.get("dry_run")
    if started:
        states: SFNClient = client("stepfunctions")
        try:
            states.start_execution(
                stateMachineArn=machine,
                name=run,
                input=json.dumps(
                    {"run": run, "trigger": trigger, "attempt": attempt, "requested": requested, **document}
                ),
            )
        except states.exceptions.ExecutionAlreadyExists:
            started = False
    return {"run": run, "execution": execution, "started": started}


def _document(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the run document of a request, without its name and trigger."""
    settings: dict[str, Any] = json.loads(os.environ["SETTINGS"])
    limits = settings.pop("limits", {})
    problems = [
        f"unknown key `{key}`{_similar(key, _REQUEST_KEYS)}" for key in request if key not in _REQUEST_KEYS
    ]
    training, source = request.get("training") or {}, request.get("source") or {}
    problems += (
        _check_training(training, limits) if isinstance(training, Mapping) else ["`training` is no object"]
    )
    problems += _check_source(source) if isinstance(source, Mapping) else ["`source` is no object"]
    if problems:
        raise RunError("the run was not started:" + "".join(f"\n  - {problem}" for problem in problems))
    settings["training"] = {**settings["training"], **training}
    settings["source"] = {**settings["source"], **source}
    return settings


def _attempt(request: Mapping[str, Any]) -> int:
    attempt = request.get("attempt", 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
        raise RunError(f"the run was not started: `attempt` is {attempt!r}, it must be a whole number from 1")
    return attempt


def _check_training(training: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with training overrides, by the service model that boto3 itself carries."""
    if not training:
        return []
    import botocore.session

    model = botocore.session.get_session().get_service_model("bedrock")
    shape: Any = model.shape_for("RFTHyperParameters")
    shapes = shape.members
    problems = []
    for key, value in training.items():
        if key not in shapes:
            problems.append(f"`training.{key}` is no training setting{_similar(key, shapes)}")
            continue
        problem = _check_value(value, shapes[key])
        if not problem and key in limits and value > limits[key]:
            problem = f"the platform allows at most {limits[key]}"
        if problem:
            problems.append(f"`training.{key}` is {value!r}: {problem}")
    return problems


def _check_value(value: Any, shape: Any) -> str:
    """Returns what a value of the service's `shape` should have been, nothing if it is that."""
    if shape.type_name == "string":
        return "" if value in shape.enum else f"it must be one of {', '.join(shape.enum)}"
    number, what = (int, "a whole number") if shape.type_name == "integer" else (int | float, "a number")
    # The service gives no least value for lengths in tokens; nothing below one makes sense.
    least, most = shape.metadata.get("min", 1), shape.metadata.get("max")
    if (
        not isinstance(value, number)
        or isinstance(value, bool)
        or not least <= value <= (value if most is None else most)
    ):
        return f"it must be {what} " + (f"of at least {least}" if most is None else f"from {least} to {most}")
    return ""


def _check_source(source: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, value in source.items():
        if key not in dataset.FILES:
            files = "`, `".join(dataset.FILES)
            problems.append(f"unknown key `source.{key}`: the files are `{files}`")
        elif not isinstance(value, str) or not _S3_URI.fullmatch(value):
            problems.append(f"`source.{key}` is {value!r}: it must be s3://bucket/key")
    return problems


def _similar(word: str, known: Any) -> str:
    """Returns a hint at the key that was meant: `epoch_count` means `epochCount`."""
    plain = {name.lower(): name for name in known}
    if found := difflib.get_close_matches(word.replace("_", "").lower(), plain, n=1):
        return f": did you mean `{plain[found[0]]}`?"
    return f": there are {', '.join(known)}"


def _hash(source: Mapping[str, str], context: Any) -> str:
    """Returns the identity of the files' bytes, which is what `prepare` files them under.

    The bytes themselves, because nothing S3 knows of an object will do: under KMS encryption its ETag is
    another one after every upload, and its checksums depend on the tool that uploaded it.
    """
    return dataset.identity(
        *(_hash_object(source[file], context) for file in dataset.FILES if file in source)
    )


def _hash_object(uri: str, context: Any) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    found = _S3_URI.fullmatch(uri)
    if not found:
        raise _UnreadableError(f"{uri!r} is no s3://bucket/key")
    s3: S3Client = client("s3")
    digest = hashlib.sha256()
    try:
        body = s3.get_object(Bucket=found[1], Key=found[2])["Body"]
        while chunk := body.read(_CHUNK):
            digest.update(chunk)
            if context.get_remaining_time_in_millis() < _SPARE_MILLISECONDS:
                raise _UnreadableError(
                    f"{uri} is too large to be hashed in the time there is: take a sample of it"
                )
    except (ClientError, BotoCoreError) as error:
        raise _UnreadableError(f"{uri} cannot be read: {error}") from error
    return digest.hexdigest()
