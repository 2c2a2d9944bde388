"""Rehearses the deployed reward function on rows of the team, before a run pays for it.

Event: {"run", "reward_version", "train": uri of the accepted rows,
    "rehearsal": {"rows", "max_hackability", "min_reference_share", "max_latency_share", "range",
    "timeout_seconds", "functions", "names", "sections", "cases"?: uri of the team's own cases}}.
Returns: {"verdict", "sentence"}.
Writes: runs/<run>/gates/rehearsal.json (see `gate`; what is measured is in lambdas/rehearsal.py).
Errors: `CasesError` when the team's cases cannot be used. `RewardUnavailableError` when what the reward
    function depends on is down (worth a retry). botocore's own errors by their own names.
Environment: STACK, ARTIFACTS.
IAM:
    - lambda:InvokeFunction on the reward function's version;
    - s3:GetObject on DATASETS/datasets/*, and on the object with the cases;
    - s3:PutObject on ARTIFACTS/runs/*/gates/rehearsal.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of DATASETS and ARTIFACTS.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lambdas import rehearsal
from lambdas.contract import BrokenRewardError
from lambdas.rehearsal import Settings, TooSlowError
from lambdas.workflow import measure, runs
from lambdas.workflow.measure import RewardUnavailableError
from lambdas.workflow.runs import RunError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

# What Lambda, and the contract of a reward function, say of a batch that takes too long.
_TOO_SLOW = ("Task timed out", "does not fit into the function's time")
# Kept back to write the verdict, and because what a slow reward will take is an estimate.
_USED_SHARE = 0.7


def handler(event: Mapping[str, Any], context: Any) -> dict[str, str]:
    """Rehearses the reward function of a run (see the module)."""
    given, version = event["rehearsal"], event["reward_version"]
    remaining = getattr(context, "get_remaining_time_in_millis", None)

    def score(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return measure.score(version, batch)
        except RunError as error:
            raise BrokenRewardError(str(error)) from error
        except RewardUnavailableError as error:
            if any(sign in str(error) for sign in _TOO_SLOW):
                raise TooSlowError(f"a batch of {len(batch)} was too much for it ({error})") from error
            raise

    cases = []
    if uri := given.get("cases"):
        cases = rehearsal.read_cases(b"".join(_lines(uri)), "rehearsal.jsonl")
    named = frozenset(case.row for case in cases if not case.form)
    rows, found, count = rehearsal.sample(_lines(event["train"]), given["rows"], named)
    verdict = rehearsal.rehearse(
        rows,
        score,
        Settings.of(given),
        of=count,
        cases=cases,
        named=found,
        budget_seconds=math.inf if remaining is None else remaining() / 1000 * _USED_SHARE,
    )
    runs.write(event["run"], "gates/rehearsal.json", verdict.document())
    return {"verdict": verdict.verdict, "sentence": verdict.sentence}


def _lines(uri: str) -> Iterator[bytes]:
    """Reads an object line by line."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3: S3Client = runs.client("s3")
    yield from s3.get_object(Bucket=bucket, Key=key)["Body"].iter_lines(keepends=True)
