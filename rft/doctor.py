"""`rft doctor`: why a run's reward is flat, falling, spiking or suspiciously perfect, and what to try.

It reads what the run has left below `runs/<run>/` and holds it against a few rules. Most of them are those of
the signal gate and of the tripwires, whatever the run's own settings let pass; the others need both the
training and the measurement. docs/operations.md has them in one table.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Literal

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.config import SignalGate
from lambdas import tripwires
from lambdas.gate import Finding
from lambdas.tripwires import Batch, Settings, Window
from lambdas.workflow import signal
from lambdas.workflow.report import read_steps
from lambdas.workflow.signal import SignalSettings
from rft.cloud import Deployed, Run
from rft.scoring import visible
from rft.watching import sparkline

Sign = Literal["flat", "falling", "spiking", "perfect"]

_READERS: Final = 8
# Of its range, a reward that moved less has not moved.
_MOVED: Final = 0.05
# A policy whose entropy fell by less than this share is as undecided as before.
_UNDECIDED: Final = 0.2
# Of its range, a reward that rises by more from one window to the next has found something.
_JUMP: Final = 0.35
_PERFECT: Final = 0.8
# Of its range, how much better training may be than the held-out prompts. Some is usual, since training has
# seen its rows several times; the guides' bound of 0.10 is for prompts that are validated on meanwhile.
_HELD_OUT: Final = 0.2
_ONE_ANSWER: Final = 0.5
_SHOWN: Final = 120

# What the verdicts' rules are a sign of, and what to try; what was seen is in the sentences they come with.
_KNOWN: Final[Mapping[str, tuple[Sign, tuple[str, ...]]]] = {
    "needless": ("flat", ("harder prompts", "a stricter reward", "no training at all")),
    "unsolved": ("flat", ("examples of good answers first (supervised fine-tuning)", "partial credit")),
    "sparse": ("flat", ("partial credit", "easier prompts", "supervised fine-tuning first")),
    "flat": (
        "flat",
        ("prompts that are answered right sometimes", "a reward that tells better from worse answers"),
    ),
    "cut": ("flat", ("a higher inference_max_tokens", "a prompt that asks for shorter answers")),
    "spread-collapse": (
        "flat",
        ("taking away the credit that all completions get", "a gate on it"),
    ),
    "reward-collapse": ("falling", ("half the learning rate", "scoring the same completions twice")),
    "error-share": ("falling", ("the completions from the log in `rft score`", "a reward that is total")),
    "unscorable-share": ("falling", ("mending the rows that the log names", "leaving them out")),
    "length-explosion": ("spiking", ("a `length` or `repetition` component", "a limit in the prompt")),
    "shadow-gap": (
        "perfect",
        ("reading what scores high in one and low in the other", "a weight for the shadow"),
    ),
    "reward-saturation": ("perfect", ("reading ten completions", "fewer epochs", "harder prompts")),
}
# Where one of these holds, so do the others behind it, and say less.
_INSTEAD: Final = {"spread-collapse": ("flat",), "reward-collapse": ("hardly-moved",)}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run has left.

    measured: the measured files of "base" and of "candidate". steps: the rows of the service's metrics file.
    batches: what the reward function said while the job trained.
    """

    run: str
    status: str
    document: Mapping[str, Any] = field(default_factory=dict)
    gates: Sequence[Mapping[str, Any]] = ()
    failure: Mapping[str, Any] | None = None
    measured: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    steps: Sequence[Mapping[str, float | None]] = ()
    batches: Sequence[Batch] = ()

    @property
    def settings(self) -> Settings:
        """The run's tripwires, every one of them on: what a team let pass may still be the reason."""
        given = self.document.get("gates", {}).get("tripwires", {"range": [0.0, 1.0]})
        wires = ("unscorable", "errors", "collapse", "saturation", "spread", "length", "gap")
        return Settings.of({**given, **dict.fromkeys(wires, "stop")})

    @property
    def step(self) -> int:
        """How many completions make up a training step."""
        training = self.document.get("training", {})
        return int(training.get("batchSize", 32) * training.get("trainingSamplePerPrompt", 8))

    @property
    def windows(self) -> list[Window]:
        """The training, window by window."""
        return tripwires.windows(self.batches, self.settings, step=self.step)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One reason: `rule` found it, `sees` says what there is to see, `tries` what to do about it."""

    rule: str
    sign: Sign
    sees: str
    tries: tuple[str, ...]


def read(deployed: Deployed, run: Run) -> Evidence:
    """Collects what a run has left in the artifact bucket."""
    paths = [path for path in deployed.paths(run) if path.endswith((".json", "training_metrics.csv"))]
    with ThreadPoolExecutor(_READERS) as readers:
        bodies = readers.map(lambda path: deployed.artifact(f"runs/{run.name}/{path}"), paths)
        found = {path: body for path, body in zip(paths, bodies, strict=True) if body is not None}
    loaded: dict[str, Any] = {
        path: json.loads(body) for path, body in found.items() if path.endswith(".json")
    }

    def below(folder: str) -> list[Any]:
        return [content for path, content in sorted(loaded.items()) if path.startswith(f"{folder}/")]

    tables = [body for path, body in found.items() if path.endswith(".csv")]
    return Evidence(
        run=run.name,
        status=run.status,
        document=loaded.get("run.json", {}),
        gates=below("gates"),
        failure=loaded.get("failure.json"),
        measured={
            # Regression prompts say nothing of what was trained.
            subject: [each for each in below(f"measured/{subject}") if each.get("part") != "regression"]
            for subject in ("base", "candidate")
        },
        steps=read_steps(tables[-1].decode()) if tables else (),
        batches=[Batch.read(each) for each in loaded.get("rewards.json", {}).get("batches", [])],
    )


def examine(evidence: Evidence) -> list[Diagnosis]:
    """Returns the reasons that hold for a run, those of a flat reward first."""
    found = [*_of_base(evidence), *_of_training(evidence)]
    found += [each for rule in _RULES if (each := rule(evidence))]
    behind = {rule for each in found for rule in _INSTEAD.get(each.rule, ())}
    order = ("flat", "falling", "spiking", "perfect")
    return sorted(
        (each for each in found if each.rule not in behind), key=lambda each: order.index(each.sign)
    )


def document(evidence: Evidence, found: Sequence[Diagnosis]) -> dict[str, Any]:
    """Returns the diagnoses as JSON values."""
    windows = evidence.windows
    return {
        "run": evidence.run,
        "status": evidence.status,
        "stopped_by": [each["gate"] for each in evidence.gates if each["verdict"] == "stop"],
        "reward": [each.whole.mean for each in windows],
        "diagnoses": [
            {"rule": each.rule, "sign": each.sign, "sees": each.sees, "try": list(each.tries)}
            for each in found
        ],
    }


def shown(evidence: Evidence, found: Sequence[Diagnosis]) -> RenderableType:
    """Returns the diagnoses for a terminal."""
    parts: list[RenderableType] = [_heading(evidence)]
    if evidence.failure:
        parts.append(Text(visible(str(evidence.failure.get("sentence", ""))), "red"))
    for each in found:
        body = Table.grid(padding=(0, 1))
        body.add_column(style="dim")
        body.add_column()
        body.add_row("sees", visible(each.sees))
        for number, attempt in enumerate(each.tries):
            body.add_row("" if number else "try", attempt)
        title = Text.assemble((each.sign, "bold yellow"), f"  {each.rule}")
        parts.append(Panel(body, title=title, title_align="left", border_style="yellow"))
    if not found:
        parts.append(Text(_nothing(evidence), "green"))
    return Group(*parts)


def _heading(evidence: Evidence) -> Text:
    means = [each.whole.mean for each in evidence.windows]
    curve = [f"  reward {means[0]:.2f} → {means[-1]:.2f} ", (sparkline(means), "cyan")] if means else [""]
    return Text.assemble((evidence.run, "bold"), f"  {evidence.status.lower()}", *curve)


def _nothing(evidence: Evidence) -> str:
    if len(evidence.windows) < 2 and not evidence.measured.get("base"):
        return "The run has not measured or trained enough yet for any rule to see something."
    return "No rule finds anything wrong with this reward."


# --- the rules ---


def _of_base(evidence: Evidence) -> Iterator[Diagnosis]:
    """Looks at the base model's measurement as the signal gate does, with its usual thresholds."""
    measured = evidence.measured.get("base", ())
    training, low_high = evidence.document.get("training", {}), evidence.settings.range
    counts = [len(each["completions"]) + len(each.get("more", ())) for each in measured]
    samples = min(training.get("trainingSamplePerPrompt", 8), max(counts, default=0))
    if samples < 2:
        return
    verdict = signal.judge(
        measured,
        settings=SignalSettings(**{**SignalGate().model_dump(), "range": low_high}),
        samples=samples,
        max_tokens=training.get("inferenceMaxTokens", 0),
        temperature=evidence.document.get("measurement", {}).get("temperature", 0.7),
    )
    yield from _known(verdict.findings)


def _of_training(evidence: Evidence) -> Iterator[Diagnosis]:
    """Looks at the training as the tripwires do."""
    verdict = tripwires.look(evidence.batches, evidence.settings, step=evidence.step)
    yield from _known(verdict.findings)


def _known(findings: Sequence[Finding]) -> Iterator[Diagnosis]:
    for finding in findings:
        if finding.rule in _KNOWN:
            sign, tries = _KNOWN[finding.rule]
            yield Diagnosis(finding.rule, sign, finding.sentence, tries)


def _hardly_moved(evidence: Evidence) -> Diagnosis | None:
    """The reward stands still although completions differ, and the policy is as undecided as before."""
    windows, (low, high) = evidence.windows, evidence.settings.range
    entropies = [
        value
        for row in evidence.steps
        for name, value in row.items()
        if value is not None and "entropy" in name
    ]
    if len(windows) < 3 or len(entropies) < 2:
        return None
    start, now = windows[0].whole, windows[-1].whole
    if (
        abs(now.mean - start.mean) > _MOVED * (high - low)
        or now.std < _MOVED * (high - low)
        or entropies[-1] < (1 - _UNDECIDED) * entropies[0]
    ):
        return None
    training = evidence.document.get("training", {})
    return Diagnosis(
        "hardly-moved",
        "flat",
        f"The reward went from {start.mean:.2f} to {now.mean:.2f} in {len(evidence.steps)} steps and the "
        f"policy's entropy from {entropies[0]:.2f} to {entropies[-1]:.2f}, although completions earn "
        f"different rewards (standard deviation {now.std:.2f}): the steps are too small, or too few.",
        (
            f"a higher learning_rate (it is {training.get('learningRate', 'unknown')}; AWS's examples have "
            "1e-5 to 1e-4)",
            f"more epochs (there are {training.get('epochCount', 'unknown')})",
        ),
    )


def _jump(evidence: Evidence) -> Diagnosis | None:
    """The reward rises all at once: skills come by and by, shortcuts are found."""
    windows, (low, high) = evidence.windows, evidence.settings.range
    pairs = list(zip(windows, windows[2:], strict=False))
    if not pairs:
        return None
    before, after = max(pairs, key=lambda pair: pair[1].whole.mean - pair[0].whole.mean)
    risen = after.whole.mean - before.whole.mean
    if risen < _JUMP * (high - low):
        return None
    return Diagnosis(
        "jump",
        "spiking",
        f"The reward rose from {before.whole.mean:.2f} to {after.whole.mean:.2f} within two windows of "
        f"{evidence.settings.window_steps} steps, after {before.after:,} completions: a skill comes by and "
        "by, a shortcut is found at once.",
        (
            "reading completions from before and after",
            "a component with weight 0 that judges otherwise, as gates.tripwires.shadow",
        ),
    )


def _worse_held_out(evidence: Evidence) -> Diagnosis | None:
    """Training earns what the same model does not earn on prompts that it has not seen."""
    windows, candidate = evidence.windows, evidence.measured.get("candidate", ())
    if not windows or not candidate:
        return None
    low, high = evidence.settings.range
    trained, held_out = windows[-1].whole.mean, fmean(each["mean"] for each in candidate)
    if trained - held_out <= _HELD_OUT * (high - low):
        return None
    return Diagnosis(
        "worse-held-out",
        "perfect",
        f"The reward is {trained:.2f} at the end of training and {held_out:.2f} on {len(candidate)} held-out "
        "prompts: the model knows the rows and not the task, or the two files ask for different things.",
        (
            "fewer epochs",
            "more rows, and more different ones",
            "both files drawn from one",
        ),
    )


def _one_answer(evidence: Evidence) -> Diagnosis | None:
    """The tuned model says the same to most prompts and is paid for it."""
    candidate, (low, high) = evidence.measured.get("candidate", ()), evidence.settings.range
    if len(candidate) < 2:
        return None
    said = Counter(text for each in candidate for text in {one["text"] for one in each["completions"]})
    text, prompts = said.most_common(1)[0]
    mean = fmean(each["mean"] for each in candidate)
    if prompts < _ONE_ANSWER * len(candidate) or mean < low + _PERFECT * (high - low):
        return None
    return Diagnosis(
        "one-answer",
        "perfect",
        f"To {prompts} of {len(candidate)} held-out prompts the tuned model says the same and earns "
        f"{mean:.2f} on average: {json.dumps(text[:_SHOWN], ensure_ascii=False)}",
        ("rows whose answers differ more", "a reward that wants what only this prompt asks for"),
    )


_RULES: Final[tuple[Callable[[Evidence], Diagnosis | None], ...]] = (
    _hardly_moved,
    _jump,
    _worse_held_out,
    _one_answer,
)
