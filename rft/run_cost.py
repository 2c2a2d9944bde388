"""What a run may cost, told before anything has been measured: a wide range, by today's prices.

The workflow's own gate knows how long the base model's completions are. Here a completion is at least as long
as a reference answer and at most as long as the team lets it be, and the reward function takes at least what
it takes on this machine and at most what the team allows. So only a lower end that does not fit stops; an
upper end that does not fit warns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from lambdas import rehearsal
from lambdas.cost import Estimate, Prices, Range, Usage, estimate, judge_cost, planned
from lambdas.forms import text_of
from lambdas.gate import Verdict

# So many rows, picked as the rehearsal picks them, stand for the lengths of all.
_ROWS: Final = 200
_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a run's rows are like.

    Attributes:
        train: How many there are to train on.
        held_out: How many there are to measure on, in each file of them.
        prompt_tokens: Of a prompt, on average; an estimate.
        reference_tokens: Of a reference answer, likewise.
    """

    train: int
    held_out: Sequence[int]
    prompt_tokens: float
    reference_tokens: float


def rows_of(train: Path, *held_out: Path) -> Rows:
    """Reads how many rows there are, and how long they are.

    Raises:
        ValueError, KeyError, TypeError: A file holds no rows.
    """
    with train.open("rb") as lines:
        picked, _, count = rehearsal.sample(lines, _ROWS)
    measured = []
    for file in held_out:
        with file.open("rb") as lines:
            measured.append(sum(1 for line in lines if line.strip()))
    if not picked:
        raise ValueError(f"{train.name} holds no rows")
    prompts = [sum(len(text_of(each["content"]).encode()) for each in row["messages"]) for row in picked]
    references = [len(text_of(row["reference_answer"]).encode()) for row in picked]
    return Rows(
        train=count,
        held_out=measured,
        prompt_tokens=fmean(prompts) / _BYTES_PER_TOKEN,
        reference_tokens=max(fmean(references) / _BYTES_PER_TOKEN, 1.0),
    )


def run_cost(
    rows: Rows, run: Mapping[str, Any], basis: Mapping[str, Any], signal: int, seconds: float
) -> Estimate:
    """Estimates a run.

    Args:
        rows: Its rows.
        run: Its settings, as a run carries them.
        basis: What `cost_basis` says of its team.
        signal: How many prompts the signal gate wants as many completions of as training makes.
        seconds: What the reward function took for a completion on this machine; 0 where nobody knows.
    """
    training, measurement = run["training"], run["measurement"]
    compared, sampled = measurement["samples_per_prompt"], training["trainingSamplePerPrompt"]
    measured = [min(measurement["prompts"], count) for count in rows.held_out]
    prompts = sum(measured)
    work = planned(
        rows=rows.train,
        # The signal gate looks at the evaluation file, which is the first one.
        base=prompts * compared + min(signal, *measured[:1]) * max(sampled - compared, 0),
        prompts=prompts,
        tried=tried(rows, run),
        training=training,
        measurement=measurement,
    )
    longest, reward = training["inferenceMaxTokens"], basis["reward"]
    return estimate(
        work,
        Usage(
            input_tokens=rows.prompt_tokens,
            output_tokens=Range(min(rows.reference_tokens, longest), longest),
            reward_seconds=Range(
                min(seconds, reward["seconds_per_sample"]), max(seconds, reward["seconds_per_sample"])
            ),
        ),
        base_model=run["base_model"],
        memory_mb=reward["memory_mb"],
        judges=reward["judges"],
        prices=Prices(**basis["prices"]),
    )


def tried(rows: Rows, run: Mapping[str, Any]) -> int:
    """Returns how many training prompts the base model is tried on before any may be left out."""
    return min(run["filter"]["prompts"], rows.train) if "filter" in run else 0


def cost_verdict(made: Estimate, basis: Mapping[str, Any]) -> Verdict:
    """Judges an estimate as the workflow does, as far as that can be known before anything is measured."""
    caps = {name: basis["budget"].get(name) for name in ("per_run", "per_month")}
    # What has been spent this month only the account knows.
    verdict = judge_cost(made, **caps, spent=0.0)
    least = dataclasses.replace(
        made,
        parts=[
            dataclasses.replace(part, cost=part.cost and Range(part.cost.low, part.cost.low))
            for part in made.parts
        ],
    )
    sure = {finding.rule for finding in judge_cost(least, **caps, spent=0.0).findings}
    findings = tuple(
        dataclasses.replace(finding, level="warn")
        if finding.level == "stop" and finding.rule not in sure
        else finding
        for finding in verdict.findings
    )
    return Verdict("cost", findings, verdict.facts)
