"""Says whether there is something to learn from, before anything is spent on learning it.

Reinforcement fine-tuning compares the completions of one prompt with each other: where all of them score the
same, nothing is learned from the prompt. So the base model answers some held-out prompts as often as training
will have it answer each of its own (see `measure`), and this gate counts. What it counts is measured at the
temperature of [measurement]; at which one the service samples while training is not documented.

Event: {"run", "gates": {"signal": settings, ...}, "training": {"trainingSamplePerPrompt",
    "inferenceMaxTokens", ...}, "measurement": {"temperature", ...}}. Settings are those of [gates.signal] in
    team.toml, and "range", the lowest and the highest score.
Returns: {"verdict", "sentence"} of the gate.
Writes: runs/<run>/gates/signal.json (see lambdas/gate.py).
Errors: `RunError` when no prompt was measured. botocore's own errors by their own names.
Environment: STACK, ARTIFACTS.
IAM:
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/measured/*;
    - s3:PutObject on ARTIFACTS/runs/*/gates/signal.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles
from typing import Any, Final

from lambdas.gate import Finding, Verdict
from lambdas.workflow import runs
from lambdas.workflow.runs import RunError

# With fewer completions nobody can tell a share of 5 % from none (rule of three: 3 / 60): no run is stopped.
ENOUGH_COMPLETIONS: Final = 60
# Rewards that are this close are the same: what is left is the rounding of a sum.
SAME: Final = 1e-9
_MANY_CUT: Final = 0.1
_EXAMPLES: Final = 3


@dataclass(frozen=True, kw_only=True)
class SignalSettings:
    """The settings of the gate: see SignalGate in infra/config.py; `range` is the reward's."""

    prompts: int
    passing: float
    failing: tuple[float, float]
    needless: float
    sparse: float
    flat: float
    range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Group:
    """What the base model said to one prompt, as many completions as training would compare."""

    id: str
    scores: tuple[float, ...]
    tokens: tuple[int, ...]
    cut: int

    @property
    def flat(self) -> bool:
        """Says whether there is nothing to compare."""
        return flat(self.scores)


def flat(scores: Sequence[float]) -> bool:
    """Says whether completions of a prompt that earn this show training nothing: all earn the same."""
    return max(scores) - min(scores) < SAME


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Judges the base model's measurement and writes the verdict (see the module)."""
    run, training = event["run"], event["training"]
    verdict = judge(
        # From regression prompts nothing is to be learned.
        [each for each in runs.read_all(run, "measured/base") if each.get("part") != "regression"],
        settings=SignalSettings(**event["gates"]["signal"]),
        samples=training["trainingSamplePerPrompt"],
        max_tokens=training["inferenceMaxTokens"],
        temperature=event["measurement"]["temperature"],
    )
    return runs.write_verdict(run, verdict)


def judge(
    measured: Iterable[Mapping[str, Any]],
    *,
    settings: SignalSettings,
    samples: int,
    max_tokens: int,
    temperature: float,
) -> Verdict:
    """Judges what the base model said to the prompts that it answered at least `samples` times.

    Raises:
        RunError: There is no such prompt.
    """
    groups = [group for each in measured if (group := _group(each, samples)) is not None]
    if not groups:
        raise RunError(
            f"no prompt was answered {samples} times by the base model: start the run with another `attempt`"
        )
    facts = _facts(groups, settings)
    findings = [*_faults(groups, facts, settings), *_remarks(facts, settings, max_tokens)]
    advice = next((rule for rule in _ADVICE if rule in {each.rule for each in findings}), "train")
    if advice == "train":
        findings.append(Finding("train", "info", _trainable(facts)))
    return Verdict(
        "signal",
        tuple(findings),
        {"advice": advice, "samples_per_prompt": samples, "temperature": temperature, **facts},
    )


def _group(measured: Mapping[str, Any], samples: int) -> _Group | None:
    completions = [*measured["completions"], *measured.get("more", ())][:samples]
    if len(completions) < samples:
        return None
    return _Group(
        id=measured["id"],
        scores=tuple(each["score"] for each in completions),
        tokens=tuple(each["output_tokens"] for each in completions),
        cut=sum(each["stop_reason"] == "max_tokens" for each in completions),
    )


def _facts(groups: Sequence[_Group], settings: SignalSettings) -> dict[str, Any]:
    """Returns what the verdict goes by: shares in 0..1, scores up from the lowest in shares of the range."""
    low, high = settings.range
    scores = [(score - low) / (high - low) for group in groups for score in group.scores]
    tokens = sorted(count for group in groups for count in group.tokens)
    size = len(groups[0].scores)
    passes = [
        sum((score - low) / (high - low) >= settings.passing - SAME for score in group.scores)
        for group in groups
    ]
    return {
        "prompts": len(groups),
        "completions": len(scores),
        "mean": fmean(score for group in groups for score in group.scores),
        "level": fmean(scores),
        "earning_share": fmean(score > SAME for score in scores),
        "pass_rate": sum(passes) / len(scores),
        "fail_rate": (len(scores) - sum(passes)) / len(scores),
        "flat_share": fmean(group.flat for group in groups),
        "all_pass": passes.count(size),
        "all_fail": passes.count(0),
        # By how many of a prompt's completions pass: how many prompts there are of the kind.
        "prompts_by_passes": [passes.count(number) for number in range(size + 1)],
        "output_tokens": {
            "mean": fmean(tokens),
            "median": median(tokens),
            "p95": quantiles(tokens, n=20, method="inclusive")[-1],
            "longest": tokens[-1],
        },
        "cut_share": sum(group.cut for group in groups) / len(scores),
    }


# What to do, by the rule that says so; the first that was broken counts.
_ADVICE: Final = ("needless", "unsolved", "sparse", "flat")


def _faults(
    groups: Sequence[_Group], facts: Mapping[str, Any], settings: SignalSettings
) -> Iterable[Finding]:
    """Yields what makes training a waste, at most one of the first three: they exclude each other."""
    count, few = facts["completions"], facts["completions"] < ENOUGH_COMPLETIONS
    level = "warn" if few else "stop"
    doubt = f" On {count} completions that is no more than a suspicion." if few else ""

    def fault(rule: str, sentence: str, **more: Any) -> Finding:
        return Finding(rule, level, f"{sentence}{doubt}", **more)  # type: ignore[arg-type]  # one of two literals

    earning = facts["earning_share"]
    if facts["level"] > settings.needless:
        yield fault(
            "needless",
            f"The base model already earns {facts['level']:.1%} of the highest reward, more than"
            f" {settings.needless:.0%}: it needs no training. Ask harder questions, or ask more of the"
            " answers.",
        )
    elif earning == 0:
        yield fault(
            "unsolved",
            f"Not one of {count} completions earns more than the lowest reward, so there is nothing to"
            " reinforce: fine-tune the model with examples of good answers first (supervised fine-tuning),"
            " check that the prompt says which form of answer the reward function looks for, or give part of"
            " the reward for part of the answer.",
        )
    elif earning < settings.sparse:
        yield fault(
            "sparse",
            f"Only {earning:.1%} of the completions earn more than the lowest reward, less than"
            f" {settings.sparse:.0%}: too sparse a reward to learn from. Give part of the reward for part of"
            " the answer, add easier prompts, or fine-tune the model with examples of good answers first.",
        )
    if facts["flat_share"] > settings.flat:
        alike = [group.id for group in groups if group.flat]
        yield fault(
            "flat",
            f"For {facts['flat_share']:.1%} of the prompts all completions score the same, which is more than"
            f" {settings.flat:.0%}: they show training no direction. Choose prompts that the model answers"
            " right sometimes, let the reward tell better from worse answers, or raise"
            " training_sample_per_prompt.",
            count=len(alike),
            examples=tuple(alike[:_EXAMPLES]),
        )


def _remarks(facts: Mapping[str, Any], settings: SignalSettings, max_tokens: int) -> Iterable[Finding]:
    failing = facts["fail_rate"]
    least, most = settings.failing
    if facts["earning_share"] and failing > most:
        yield Finding(
            "too-hard",
            "info",
            f"{failing:.1%} of the completions fail, more than {most:.0%}: training sees little of what is"
            " right. Lower the difficulty to learn faster: add easier prompts, or show in the prompt what is"
            " asked for.",
        )
    if facts["level"] <= settings.needless and failing < least:
        yield Finding(
            "too-easy",
            "info",
            f"{failing:.1%} of the completions fail, less than {least:.0%}: there is little left to learn."
            " Raise the difficulty to learn more: add harder prompts, or let fewer answers pass.",
        )
    if facts["cut_share"] > _MANY_CUT:
        yield Finding(
            "cut",
            "warn",
            f"{facts['cut_share']:.0%} of the completions were cut at {max_tokens:,} tokens and could not"
            " end: raise inference_max_tokens, or ask for shorter answers.",
        )


def _trainable(facts: Mapping[str, Any]) -> str:
    return (
        f"Train with reinforcement fine-tuning: {facts['pass_rate']:.0%} of {facts['completions']}"
        f" completions pass, and the completions of {1 - facts['flat_share']:.0%} of {facts['prompts']}"
        " prompts differ in their reward."
    )
