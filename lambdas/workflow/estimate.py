"""Estimates what a run costs and lets it go on only within the budget.

What a completion takes is not guessed: the base model's measurement has the tokens of prompts and
completions, the seconds of the reward function and the tokens of its judges. What was spent this month is
what this gate wrote down itself, the upper end of each run's estimate: it is no bill, counts in full the runs
that cost less, and knows nothing of what else the account does. AWS's own bill comes a day late; the alerts
of [budget] watch it.

Event: {"run", "base_model", "training": {camelCase}, "measurement": {"samples_per_prompt", ...},
    "gates": {"cost": {"growth"}, ...}, "train_rows", "prompts": how many are measured, "tried"?: how many
    training prompts the base model is tried on before it trains}.
Returns: {"verdict", "sentence"} of the gate.
Writes: runs/<run>/gates/cost.json (see lambdas/gate.py); and, unless the run is stopped,
    ledger/<year>-<month>/<run>.json = {"run", "time", "low", "high", "currency"}, in UTC.
Errors: botocore's own errors by their own names.
Environment: STACK, ARTIFACTS, COSTS (JSON: {"prices": [prices] of platform.toml with the models that are
    asked, "reward": {"memory_mb", "seconds_per_sample", "judges": {component: model}},
    "budget": {"per_run"?, "per_month"?}}).
IAM:
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/measured/*;
    - s3:GetObject, s3:PutObject on ARTIFACTS/ledger/*;
    - s3:PutObject on ARTIFACTS/runs/*/gates/cost.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lambdas.cost import Estimate, Prices, Range, Usage, estimate, judge_cost, planned
from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Writes the verdict on a run's cost, and the run into the ledger if it may go on (see the module)."""
    run, costs = event["run"], json.loads(os.environ["COSTS"])
    training, budget = event["training"], costs["budget"]
    measured = runs.read_all(run, "measured/base")
    made = estimate(
        planned(
            rows=event["train_rows"],
            base=sum(len(_completions(each)) for each in measured),
            prompts=event["prompts"],
            tried=event.get("tried", 0),
            training=training,
            measurement=event["measurement"],
        ),
        usage(
            measured,
            growth=event["gates"]["cost"]["growth"],
            max_tokens=training["inferenceMaxTokens"],
            seconds_per_sample=costs["reward"]["seconds_per_sample"],
            judges=costs["reward"]["judges"],
        ),
        base_model=event["base_model"],
        memory_mb=costs["reward"]["memory_mb"],
        judges=costs["reward"]["judges"],
        prices=Prices(**costs["prices"]),
    )
    now = datetime.now(UTC)
    verdict = judge_cost(
        made,
        per_run=budget.get("per_run"),
        per_month=budget.get("per_month"),
        spent=_spent(run, now, made.currency),
    )
    if verdict.verdict != "stop":
        _enter(run, now, made)
    return runs.write_verdict(run, verdict)


def usage(
    measured: Sequence[Mapping[str, Any]],
    *,
    growth: float,
    max_tokens: int,
    seconds_per_sample: float,
    judges: Mapping[str, str],
) -> Usage:
    """Returns what a completion of the base model took on average, and what it may take after training."""
    completions = [completion for each in measured for completion in _completions(each)]
    written = fmean(completion["output_tokens"] for completion in completions)
    seconds = sum(each["reward_seconds"] for each in measured) / len(completions)
    return Usage(
        input_tokens=fmean(each["input_tokens"] for each in measured for _ in _completions(each)),
        # What was measured may be beyond the limit: at high effort the service takes no limit from us.
        output_tokens=Range(written, max(written, min(written * growth, max_tokens))),
        reward_seconds=Range(seconds, max(seconds, min(seconds * growth, seconds_per_sample))),
        judges={name: _judge(completions, name, growth) for name in judges},
    )


def _completions(measured: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*measured["completions"], *measured["more"]]


def _judge(
    completions: Sequence[Mapping[str, Any]], component: str, growth: float
) -> tuple[Range, Range] | None:
    """Returns the tokens that a judge reads and writes for a completion, None where it did not say."""
    means = []
    for metric in ("input_tokens", "output_tokens"):
        name = f"{component}_{metric}"
        said = [completion["metrics"][name] for completion in completions if name in completion["metrics"]]
        if not said:
            return None
        # A completion that its judge never saw cost nothing: the mean is over all of them.
        mean = sum(said) / len(completions)
        means.append(Range(mean, mean * growth))
    return means[0], means[1]


def _month(now: datetime) -> str:
    return f"ledger/{now:%Y-%m}/"


def _spent(run: str, now: datetime, currency: str) -> float:
    """Returns the upper ends of what the other runs of this month were estimated at."""
    s3: S3Client = runs.client("s3")
    bucket, own = os.environ["ARTIFACTS"], f"{_month(now)}{run}.json"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_month(now))
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", []) if entry["Key"] != own]
    entries = [json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
    # Amounts in a currency that the platform has left cannot be compared with its prices.
    return sum((entry["high"] for entry in entries if entry["currency"] == currency), start=0.0)


def _enter(run: str, now: datetime, made: Estimate) -> None:
    s3: S3Client = runs.client("s3")
    entry = {
        "run": run,
        "time": now.isoformat(timespec="seconds"),
        "low": made.total.low,
        "high": made.total.high,
        "currency": made.currency,
    }
    s3.put_object(
        Bucket=os.environ["ARTIFACTS"],
        Key=f"{_month(now)}{run}.json",
        Body=json.dumps(entry).encode(),
        ContentType="application/json",
    )
