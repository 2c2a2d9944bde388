"""Decides whether the tuned model is better than its base by more than chance and than the team's bar.

Event: {"run", "promotion": {"minimum_gain", "confidence"}}.
Returns: {"promote", "base_mean", "candidate_mean", "gain", "lower", "upper", "confidence", "minimum_gain",
    "prompts", "resamples", "method", "sentence"}.
Writes: the same as runs/<run>/decision.json.
Errors: `RunError` when the two measurements do not cover the same prompts.
Environment: STACK, ARTIFACTS.
IAM:
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/measured/*;
    - s3:PutObject on ARTIFACTS/runs/*/decision.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean
from typing import Any, Final

from lambdas.workflow import runs
from lambdas.workflow.runs import RunError

RESAMPLES: Final = 10_000
# A percentile interval is too narrow for few prompts. With a normal spread, a model that is no better passes
# at 95 % confidence in 2.5 % of cases with many prompts, 3.6 % with 20, 4.8 % with 10 and 7.8 % with 5.
MINIMUM_PROMPTS: Final = 10
_READERS = 10


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Compares the two measurements of a run and writes the decision (see the module)."""
    run = event["run"]
    base, candidate = (_measured(run, subject) for subject in ("base", "candidate"))
    decision = decide(
        base,
        candidate,
        minimum_gain=event["promotion"]["minimum_gain"],
        confidence=event["promotion"]["confidence"],
        seed=run,
    )
    runs.write(run, "decision.json", decision)
    return decision


def decide(
    base: Mapping[int, float],
    candidate: Mapping[int, float],
    *,
    minimum_gain: float,
    confidence: float,
    seed: str,
) -> dict[str, Any]:
    """Compares the mean scores of the same prompts, by their index; the same arguments decide the same.

    Raises:
        RunError: The two do not cover the same prompts, or no prompts at all.
    """
    if not base or base.keys() != candidate.keys():
        alone = sorted(base.keys() ^ candidate.keys())[:5]
        raise RunError(
            f"the models cannot be compared: the base was measured on {len(base)} prompts, the tuned model on"
            f" {len(candidate)}"
            + (f", and only one of them on {', '.join(map(str, alone))}" if alone else "")
            + "; start the run with another `attempt`"
        )
    gains = [candidate[index] - base[index] for index in sorted(base)]
    lower, upper = interval(gains, confidence, seed)
    enough = len(gains) >= MINIMUM_PROMPTS
    decision = {
        "promote": enough and lower > minimum_gain,
        "base_mean": fmean(base.values()),
        "candidate_mean": fmean(candidate.values()),
        "gain": fmean(gains),
        "lower": lower,
        "upper": upper,
        "confidence": confidence,
        "minimum_gain": minimum_gain,
        "prompts": len(gains),
        "resamples": RESAMPLES,
        "method": "paired bootstrap over prompts, percentile interval",
    }
    return {**decision, "sentence": _sentence(decision, enough=enough)}


def interval(gains: Sequence[float], confidence: float, seed: str) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean of paired differences.

    Prompts are drawn with replacement, because chance had a hand in their choice; pairing takes out how hard
    each of them is (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The samples of
    one prompt are one observation, their mean: they are not independent.
    """
    # A string seeds the same everywhere and in every version of Python; hash() would not.
    chance = random.Random(seed)  # noqa: S311 - chance of statistics, not of secrets
    count = len(gains)
    means = sorted(math.fsum(chance.choices(gains, k=count)) / count for _ in range(RESAMPLES))
    tail = round(RESAMPLES * (1 - confidence) / 2)
    return means[tail], means[RESAMPLES - 1 - tail]


def _sentence(decision: Mapping[str, Any], *, enough: bool) -> str:
    bar = decision["minimum_gain"]
    found = (
        f"on {decision['prompts']} held-out prompts the tuned model scores {decision['candidate_mean']:.3f}"
        f" and its base {decision['base_mean']:.3f}, a gain of {decision['gain']:+.3f}"
        f" ({decision['confidence'] * 100:g} % interval {decision['lower']:+.3f} to {decision['upper']:+.3f})"
    )
    if not enough:
        return f"Not promoted: {found}; fewer than {MINIMUM_PROMPTS} prompts prove nothing."
    if decision["promote"]:
        return f"Promoted: {found}; even the lower end is above the bar of {bar:+.3f}."
    if decision["gain"] > bar:
        return f"Not promoted: {found}; the lower end is not above the bar of {bar:+.3f}, it may be chance."
    return f"Not promoted: {found}; that is not above the bar of {bar:+.3f}."


def _measured(run: str, subject: str) -> dict[int, float]:
    """Returns the mean score of each prompt the subject was measured on, by the prompt's index."""
    paths = runs.paths(run, f"measured/{subject}")
    # The client is made here: making it in several threads at once is not safe, using it is.
    runs.client("s3")
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(lambda path: runs.read(run, path), paths))
    return {measured["index"]: measured["mean"] for measured in found}
