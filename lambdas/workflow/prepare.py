"""Checks the datasets of a run and puts them where the run and the customization job read them.

Event: the run document (see `start`); "gates"."dataset" holds the `Rules` of `lambdas.dataset`.
Returns: {"train": uri, "evaluation": uri, "regression"?: uri, "dataset": {"sha256", "train_rows",
    "evaluation_rows"}, "prompts": {"bucket", "key", "count"}, "training_prompts": the same}.
Writes: DATASETS/datasets/<sha256>/{train,evaluation,regression}.jsonl; runs/<run>/{run,dataset}.json,
    prompts.jsonl and gates/dataset.json, the verdict of the dataset gate (see `lambdas.gate`), also where it
    stops the run. A line of prompts.jsonl is one item to measure:
    {"index", "part": "evaluation" | "regression", "id", "messages", "reference_answer", "metadata"}.
    Where prompts may be left out of training, a line of training-prompts.jsonl is one to try for that:
    {"index", "line": of the training file, "id", "messages", "reference_answer", "metadata"}.
    dataset.json: {"sha256", "source", "train": profile, "evaluation": profile, "leaked", "nearly_leaked",
    "regression"?: profile with "leaked" and "nearly_leaked" of its own, "measured", "measured_regression",
    "findings"}; `leaked` counts the held-out prompts that are in the training file as well, which are never
    measured, `nearly_leaked` those that are almost; `findings` are those of the gate.
Errors: `DatasetError` with all that is wrong with all files, line by line, also when a file cannot be read
    or has changed since the run was started. botocore's own errors by their own names.
Environment: STACK, DATASETS, ARTIFACTS.
IAM:
    - s3:GetObject on the source objects of SETTINGS, on DATASETS/incoming/* and DATASETS/datasets/*;
    - s3:ListBucket on DATASETS (so that a missing object reads as missing, not as forbidden);
    - s3:PutObject on DATASETS/datasets/*;
    - s3:PutObject on ARTIFACTS/runs/*/{run,dataset}.json, prompts.jsonl, training-prompts.jsonl and
      gates/dataset.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of DATASETS and ARTIFACTS.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from lambdas import dataset
from lambdas.dataset import Dataset, DatasetError, Rules
from lambdas.gate import Finding
from lambdas.workflow import runs

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

# What a person mends; everything else is the service's trouble and worth a retry.
_UNREADABLE = frozenset(
    {
        "403",
        "404",
        "AccessDenied",
        "AccessDeniedException",
        "InvalidBucketName",
        "InvalidObjectState",
        "KMS.DisabledException",
        "KMS.NotFoundException",
        "NoSuchBucket",
        "NoSuchKey",
        "PermanentRedirect",
        "PreconditionFailed",
    }
)


@dataclass(frozen=True, slots=True)
class _Source:
    """A checked file: where it is, which version of it was read, and what it holds."""

    uri: str
    etag: str
    facts: Dataset


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Checks, copies and profiles the files of a run, and picks the prompts to measure (see the module)."""
    run = event["run"]
    # First of all, so that a run that fails here has its document among the evidence.
    runs.write(run, "run.json", dict(event))
    try:
        return _prepare(event)
    except DatasetError as error:
        runs.write(run, "gates/dataset.json", dataset.refusal(error).document())
        raise


def _prepare(event: Mapping[str, Any]) -> dict[str, Any]:
    run, source = event["run"], event["source"]
    rules = Rules(**event.get("gates", {}).get("dataset", {}))
    files = _check(source, event["training"].get("maxPromptLength"), rules)
    content = dataset.identity(*(each.facts.sha256 for each in files.values()))
    if source.get("sha256", content) != content:
        changed = " or ".join(each.uri for each in files.values())
        raise DatasetError(f"{changed} has changed since the run was started: start another run")
    target = {file: _copy(each, f"datasets/{content}/{file}.jsonl") for file, each in files.items()}
    train, regression = files["train"], files.get("regression")
    items: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for part in (file for file in files if file != "train"):
        picked = dataset.held_out(
            _get(target[part])["Body"],
            event["measurement"]["prompts"],
            training=train.facts.prompts.keys(),
        )
        dataset.require_held_out(len(picked), train=train.uri, evaluation=files[part].uri)
        counts[part] = len(picked)
        # One after the other, so that an index stands for one prompt of either file.
        items += [{**item, "index": len(items) + item["index"], "part": part} for item in picked]
    verdict = dataset.judge(
        train.facts, files["evaluation"].facts, rules, regression=regression.facts if regression else None
    ).document()
    runs.write(run, "gates/dataset.json", verdict)
    count = event.get("filter", {}).get("prompts", 0)
    tried = dataset.to_try(_get(target["train"])["Body"], count) if count else []
    runs.write(
        run,
        "dataset.json",
        {
            "sha256": content,
            "source": {file: each.uri for file, each in files.items()},
            **verdict["facts"],
            "measured": counts["evaluation"],
            "measured_regression": counts.get("regression", 0),
            "findings": verdict["findings"],
        },
    )
    return {
        **target,
        "dataset": {
            "sha256": content,
            "train_rows": train.facts.rows,
            "evaluation_rows": files["evaluation"].facts.rows,
        },
        "prompts": _write_items(run, "prompts.jsonl", items),
        "training_prompts": _write_items(run, "training-prompts.jsonl", tried),
    }


def _write_items(run: str, path: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Writes the items of a Map state, if there are any; returns where they are."""
    if items:
        runs.write(run, path, b"".join(msgspec.json.encode(item) + b"\n" for item in items))
    return {"bucket": os.environ["ARTIFACTS"], "key": runs.key(run, path), "count": len(items)}


def _check(source: Mapping[str, str], max_prompt_length: int | None, rules: Rules) -> dict[str, _Source]:
    """Returns the files by their names.

    Raises:
        DatasetError: With what is wrong with all of them.
    """
    names = [file for file in dataset.FILES if file in source]
    found: dict[str, _Source] = {}
    problems: list[str] = []
    findings: list[Finding] = []
    for file, near in zip(names, dataset.near_duplicates(rules, len(names) - 1), strict=True):
        uri = source[file]
        limit: dict[str, Any] = (
            {}
            if file == "train"
            else {"rows": dataset.EVALUATION_ROWS, "row_bytes": dataset.EVALUATION_ROW_BYTES}
        )
        try:
            answer = _get(uri)
            facts = dataset.check(
                answer["Body"],
                uri,
                max_prompt_length=max_prompt_length,
                look_for_personal_data=rules.personal_data,
                near=near,
                **limit,
            )
            found[file] = _Source(uri, answer["ETag"], facts)
        except DatasetError as error:
            problems.append(str(error))
            findings.extend(error.findings)
    if problems:
        raise DatasetError("\n".join(problems), findings)
    return found


def _get(uri: str) -> "GetObjectOutputTypeDef":
    """Returns S3's answer for an object; its body is still to be read, piece by piece."""
    from botocore.exceptions import ClientError

    bucket, key = _place(uri)
    s3: S3Client = runs.client("s3")
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        raise _unreadable(uri, error) from error
    if answer["ContentLength"] > dataset.FILE_BYTES:
        raise DatasetError(f"{uri} is larger than {dataset.FILE_BYTES:,} bytes: take a sample of it")
    return answer


def _copy(source: _Source, key: str) -> str:
    """Copies a checked object to `key` of DATASETS, unless it is there already; returns its new URI."""
    from botocore.exceptions import ClientError

    bucket = os.environ["DATASETS"]
    s3: S3Client = runs.client("s3")
    try:
        held = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
            raise
    else:
        if held["Metadata"].get("sha256") == source.facts.sha256:
            return f"s3://{bucket}/{key}"
    from_bucket, from_key = _place(source.uri)
    try:
        s3.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": from_bucket, "Key": from_key},
            # The bytes that were checked and no others.
            CopySourceIfMatch=source.etag,
            MetadataDirective="REPLACE",
            Metadata={"sha256": source.facts.sha256},
            # Without it the tags would have to be read, for which there is neither need nor permission.
            TaggingDirective="REPLACE",
            ContentType="application/x-ndjson",
        )
    except ClientError as error:
        raise _unreadable(source.uri, error) from error
    return f"s3://{bucket}/{key}"


def _place(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _unreadable(uri: str, error: "ClientError") -> Exception:
    """Returns a readable error for what a person mends, and else the error itself."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code not in _UNREADABLE:
        return error
    if code == "PreconditionFailed":
        return DatasetError(f"{uri} has changed while it was being checked: start another run")
    return DatasetError(
        f"{uri} cannot be read ({code}: {message}): check that it exists, that it lies in this region, and"
        " that the stack's Prepare function may read and decrypt it"
    )
