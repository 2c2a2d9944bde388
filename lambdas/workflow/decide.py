"""Decides whether the tuned model is better than its base and no worse than the champion, beyond chance.

Event: {"run", "promotion": {"minimum_gain", "confidence", "guards", "tolerated_drop"},
    "compared": {"deployment_arn", "model_arn"} of the champion that was measured too, or null}.
Returns: {"promote", "base_mean", "candidate_mean", "gain", "lower", "upper", "confidence", "minimum_gain",
    "tolerated_drop", "prompts", "resamples", "method", "parts": [{"name", "prompts", "base", "candidate",
    "change", "lower", "upper"}], "guards": [{"name", "against": "base" | "champion", "prompts", "before",
    "candidate", "change", "lower", "upper", "held"}], "regression": [{"against": "base" | "champion",
    "prompts", "before", "candidate", "change", "lower", "upper", "held"}], "champion": {"deployment_arn",
    "model_arn", "mean", "gain", "lower", "upper", "held"} | null, "approval_seconds", "sentence"}. A part is
    a component or a metric of the reward. `regression` is the score on the regression prompts, which count
    in nothing else; it is empty where a run has none. `approval_seconds`: how long a person has to approve
    what `promote` says, 0 where nobody is asked.
Writes: the same as runs/<run>/decision.json.
Errors: `RunError` when the measurements do not cover the same prompts.
Environment: STACK, ARTIFACTS, APPROVAL_SECONDS.
IAM:
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/measured/*;
    - s3:PutObject on ARTIFACTS/runs/*/decision.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import math
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from lambdas.workflow import runs
from lambdas.workflow.runs import RunError

RESAMPLES: Final = 10_000
# For each component and metric: there may be dozens. It moves an end of an interval by some 3 % of its half.
RESAMPLES_OF_PARTS: Final = 2_000
# A percentile interval is too narrow for few prompts. With a normal spread, a model that is no better passes
# at 95 % confidence in 2.5 % of cases with many prompts, 3.6 % with 20, 4.8 % with 10 and 7.8 % with 5.
MINIMUM_PROMPTS: Final = 10
_READERS = 10

_REGRESSION: Final = "the score on the regression prompts"

# A number of each prompt, by the prompt's index.
Scores = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model scored on each prompt: its mean score, and the means of the reward's parts by name.

    A part counts the completions that have it; a prompt none of whose completions has it is not in it.
    """

    scores: Scores
    parts: Mapping[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a candidate has to clear: see `[promotion]` of a team's settings."""

    minimum_gain: float = 0.0
    confidence: float = 0.95
    guards: Sequence[str] = ()
    tolerated_drop: float = 0.0


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Compares the measurements of a run and writes the decision (see the module)."""
    run, compared = event["run"], event["compared"]
    found = {
        subject: _measured(run, subject)
        for subject in ("base", "candidate", *(("champion",) if compared else ()))
    }
    held_out = {subject: parts["evaluation"] for subject, parts in found.items()}
    decision = decide(
        held_out["base"],
        held_out["candidate"],
        held_out.get("champion"),
        bar=Bar(**event["promotion"]),
        seed=run,
        regression={subject: parts["regression"] for subject, parts in found.items()},
    )
    if compared:
        decision["champion"] = {**compared, **decision["champion"]}
    decision["approval_seconds"] = int(os.environ["APPROVAL_SECONDS"])
    if decision["promote"] and decision["approval_seconds"]:
        decision["sentence"] = decision["sentence"].replace("Promoted:", "Cleared for promotion:", 1)
    runs.write(run, "decision.json", decision)
    return decision


def decide(
    base: Measured,
    candidate: Measured,
    champion: Measured | None = None,
    *,
    bar: Bar,
    seed: str,
    regression: Mapping[str, Measured] | None = None,
) -> dict[str, Any]:
    """Compares what the models scored on the same prompts; the same arguments decide the same.

    The candidate has to be better than its base by more than the bar. Against the champion, and in every
    guard and on the regression prompts against either, it must not be worse by more than the tolerated drop.
    `regression` is what each model scored on those, by its name. Each of these has to hold at the lower end
    of its own interval, so that a candidate which fails any one of them passes all of them no more often than
    it passes that one: asking for more needs no wider intervals.

    Raises:
        RunError: The models were not measured on the same prompts, or on no prompts at all.
    """
    _check_prompts("base", base, candidate)
    gains = _gains(base.scores, candidate.scores)
    lower, upper = interval(gains, bar.confidence, seed)
    enough = len(gains) >= MINIMUM_PROMPTS
    better = enough and lower > bar.minimum_gain
    against = {"base": base}
    rival = None
    if champion is not None:
        _check_prompts("champion", champion, candidate)
        against["champion"] = champion
        lead = _gains(champion.scores, candidate.scores)
        low, high = interval(lead, bar.confidence, seed)
        rival = {
            "mean": fmean(champion.scores.values()),
            "gain": fmean(lead),
            "lower": low,
            "upper": high,
            "held": low >= -bar.tolerated_drop,
        }
    guards = [
        _guard(name, other, against[other], candidate, bar, seed) for name in bar.guards for other in against
    ]
    parts = [
        {"name": name, **found}
        for name in dict.fromkeys([*base.parts, *candidate.parts])
        if (found := _change(name, base, candidate, "base", bar, seed))
    ]
    kept = _regressions(regression or {}, against, bar, seed)
    decision = {
        "promote": better
        and (rival is None or rival["held"])
        and all(each["held"] for each in (*guards, *kept)),
        "base_mean": fmean(base.scores.values()),
        "candidate_mean": fmean(candidate.scores.values()),
        "gain": fmean(gains),
        "lower": lower,
        "upper": upper,
        "confidence": bar.confidence,
        "minimum_gain": bar.minimum_gain,
        "tolerated_drop": bar.tolerated_drop,
        "prompts": len(gains),
        "resamples": RESAMPLES,
        "method": "paired bootstrap over prompts, percentile interval",
        "parts": parts,
        "guards": guards,
        "regression": kept,
        "champion": rival,
    }
    return {**decision, "sentence": _sentence(decision, enough=enough, better=better)}


def _check_prompts(name: str, other: Measured, candidate: Measured) -> None:
    """Raises RunError unless the other model and the candidate were measured on the same prompts."""
    if other.scores and other.scores.keys() == candidate.scores.keys():
        return
    alone = sorted(other.scores.keys() ^ candidate.scores.keys())[:5]
    raise RunError(
        f"the models cannot be compared: the {name} was measured on {len(other.scores)} prompts, the tuned"
        f" model on {len(candidate.scores)}"
        + (f", and only one of them on {', '.join(map(str, alone))}" if alone else "")
        + "; start the run with another `attempt`"
    )


def _gains(before: Scores, after: Scores) -> list[float]:
    return [after[index] - before[index] for index in sorted(before.keys() & after.keys())]


def _change(
    name: str, other: Measured, candidate: Measured, before: str, bar: Bar, seed: str
) -> dict[str, Any] | None:
    """Returns how a part changed on the prompts where both models have it, None where there is none.

    before: what the mean of the other model is called.
    """
    old, new = other.parts.get(name, {}), candidate.parts.get(name, {})
    both = sorted(old.keys() & new.keys())
    if not both:
        return None
    gains = _gains(old, new)
    lower, upper = interval(gains, bar.confidence, f"{seed} {name}", RESAMPLES_OF_PARTS)
    return {
        "prompts": len(both),
        before: fmean(old[index] for index in both),
        "candidate": fmean(new[index] for index in both),
        "change": fmean(gains),
        "lower": lower,
        "upper": upper,
    }


def _guard(
    name: str, against: str, other: Measured, candidate: Measured, bar: Bar, seed: str
) -> dict[str, Any]:
    """Returns whether a guard held against another model; one that was not measured did not."""
    found = _change(name, other, candidate, "before", bar, seed)
    if found is None:
        nothing = dict.fromkeys(("before", "candidate", "change", "lower", "upper"))
        return {"name": name, "against": against, "prompts": 0, **nothing, "held": False}
    held = found["prompts"] >= MINIMUM_PROMPTS and found["lower"] >= -bar.tolerated_drop
    return {"name": name, "against": against, **found, "held": held}


def _regressions(
    regression: Mapping[str, Measured], against: Mapping[str, Measured], bar: Bar, seed: str
) -> list[dict[str, Any]]:
    """Returns whether the score on the regression prompts held against each of the other models."""
    if not any(each.scores for each in regression.values()):
        return []
    candidate = regression["candidate"]
    found = []
    for name in against:
        other = regression[name]
        _check_prompts(name, other, candidate)
        gains = _gains(other.scores, candidate.scores)
        lower, upper = interval(gains, bar.confidence, f"{seed} regression")
        found.append(
            {
                "against": name,
                "prompts": len(gains),
                "before": fmean(other.scores.values()),
                "candidate": fmean(candidate.scores.values()),
                "change": fmean(gains),
                "lower": lower,
                "upper": upper,
                "held": len(gains) >= MINIMUM_PROMPTS and lower >= -bar.tolerated_drop,
            }
        )
    return found


def interval(
    gains: Sequence[float], confidence: float, seed: str, resamples: int | None = None
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean of paired differences.

    Prompts are drawn with replacement, because chance had a hand in their choice; pairing takes out how hard
    each of them is (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The samples of
    one prompt are one observation, their mean: they are not independent.
    """
    if min(gains) == max(gains):
        # Every resample has this mean; summing it up could only lose its last digit.
        return gains[0], gains[0]
    resamples = resamples or RESAMPLES
    # A string seeds the same everywhere and in every version of Python; hash() would not.
    chance = random.Random(seed)  # noqa: S311 - chance of statistics, not of secrets
    count = len(gains)
    means = sorted(math.fsum(chance.choices(gains, k=count)) / count for _ in range(resamples))
    tail = round(resamples * (1 - confidence) / 2)
    return means[tail], means[resamples - 1 - tail]


def _sentence(decision: Mapping[str, Any], *, enough: bool, better: bool) -> str:
    bar, rival = decision["minimum_gain"], decision["champion"]
    found = (
        f"on {decision['prompts']} held-out prompts the tuned model scores {decision['candidate_mean']:.3f}"
        f" and its base {decision['base_mean']:.3f}, a gain of {decision['gain']:+.3f}"
        f" ({decision['confidence'] * 100:g} % interval {decision['lower']:+.3f} to {decision['upper']:+.3f})"
    )
    if not enough:
        return f"Not promoted: {found}; fewer than {MINIMUM_PROMPTS} prompts prove nothing."
    if not better and decision["gain"] > bar:
        return f"Not promoted: {found}; the lower end is not above the bar of {bar:+.3f}, it may be chance."
    if not better:
        return f"Not promoted: {found}; that is not above the bar of {bar:+.3f}."
    versus = (
        f"against the champion, which scores {rival['mean']:.3f}, the gain is {rival['gain']:+.3f}"
        f" ({rival['lower']:+.3f} to {rival['upper']:+.3f})"
        if rival
        else ""
    )
    tolerated = f"the lower end may not be below {-decision['tolerated_drop'] or 0.0:+.3f}"
    faults = [f"{versus}, and {tolerated}"] if rival and not rival["held"] else []
    faults += [
        _broken(f"the guard {guard['name']}", guard, tolerated)
        for guard in decision["guards"]
        if not guard["held"]
    ]
    kept = decision["regression"]
    faults += [_broken(_REGRESSION, each, tolerated) for each in kept if not each["held"]]
    if faults:
        told = "; ".join(dict.fromkeys(faults))
        return f"Not promoted: {found}, which is above the bar of {bar:+.3f}; but {told}."
    held = f"; {versus}" if rival else ""
    held += f"; every guard held: {', '.join(_names(decision['guards']))}" if decision["guards"] else ""
    held += f"; {_REGRESSION} held on all {kept[0]['prompts']}" if kept else ""
    return f"Promoted: {found}; even the lower end is above the bar of {bar:+.3f}{held}."


def _broken(what: str, test: Mapping[str, Any], tolerated: str) -> str:
    """Returns why a guard, or the score on the regression prompts, did not hold."""
    if not test["prompts"]:
        return f"{what} was not measured"
    found = (
        f"{what} goes from {test['before']:.3f} of the {test['against']} to {test['candidate']:.3f}, a"
        f" change of {test['change']:+.3f} ({test['lower']:+.3f} to {test['upper']:+.3f})"
    )
    if test["prompts"] < MINIMUM_PROMPTS:
        return f"{found} on {test['prompts']} prompts, and fewer than {MINIMUM_PROMPTS} prove nothing"
    return f"{found}, and {tolerated}"


def _names(guards: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(guard["name"] for guard in guards))


def _measured(run: str, subject: str) -> dict[str, Measured]:
    """Returns what was measured of a subject, by the file that the prompts are from."""
    paths = runs.paths(run, f"measured/{subject}")
    # The client is made here: making it in several threads at once is not safe, using it is.
    runs.client("s3")
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(lambda path: runs.read(run, path), paths))
    return {
        part: collect([each for each in found if each.get("part", "evaluation") == part])
        for part in ("evaluation", "regression")
    }


def collect(found: Sequence[Mapping[str, Any]]) -> Measured:
    """Returns what the measured files of a model say (see `measure`)."""
    parts: dict[str, dict[int, float]] = defaultdict(dict)
    for prompt in found:
        values: dict[str, list[float]] = defaultdict(list)
        for completion in prompt["completions"]:
            for name, value in {**completion["components"], **completion["metrics"]}.items():
                values[name].append(value)
        for name, each in values.items():
            parts[name][prompt["index"]] = fmean(each)
    return Measured(scores={prompt["index"]: prompt["mean"] for prompt in found}, parts=parts)
