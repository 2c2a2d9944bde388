"""Tripwires: what the reward function's own metrics say about a job while it trains.

The job's API shows the loss only, so all there is are the lines that the reward function prints, one for each
batch it scores (see `reward_handler` in lambdas/contract.py). They are put together into windows of some
training steps, and every window is held against the first one, the run's own start. A wire trips on a window
as a whole, by more than chance, and never before there are two windows to compare. The same lines give the
same verdict whenever they are looked at.

What these lines cannot show, no wire can see: which completions belong to one prompt, the policy's entropy
and its distance from the base model. A batch is whatever the service sends together, its own evaluations
among it. The thresholds are those of AWS's and Azure's guides to reinforcement fine-tuning.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from lambdas.gate import Finding, Verdict

Action = Literal["warn", "stop", "off"]
Level = Literal["warn", "stop"]

# The least that a window is made of, and the fewest completions in trouble that make a share of them.
_FEWEST_SAMPLES: Final = 256
_FEWEST_TROUBLED: Final = 8
# By so many standard errors two windows have to differ.
_BEYOND_CHANCE: Final = 4.0
# A difference of means is too small to speak of below this share of the reward's range.
_NOTABLE: Final = 0.02
# A reward that has gained less than this share of its range has nothing to lose; with less left to gain it
# is about to be done, and alike completions are the aim.
_GAINED: Final = 0.1
# From this share of completions with the lowest score on, nothing is earned.
_NOTHING_EARNED: Final = 0.99
# Characters an average completion has to grow by: an answer of one digit may well get three.
_LEAST_GROWTH: Final = 40
# The most completions of one prompt that the service samples; those are alike.
_MOST_ALIKE: Final = 16
# Fewer batches than these say nothing about chance.
_FEWEST_BATCHES: Final = 4

_SHARES: Final = ("zero_share", "unscorable_share", "error_share", "over_time_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What trips a wire, and what that does: the `[gates.tripwires]` table and the reward's `range`.

    `shadow` names the watched component that the reward is compared with; without it there is no gap.
    """

    unscorable: Action = "stop"
    unscorable_share: float = 0.05
    errors: Action = "stop"
    error_share: float = 0.05
    collapse: Action = "stop"
    collapse_share: float = 0.5
    saturation: Action = "warn"
    saturation_share: float = 0.995
    spread: Action = "stop"
    spread_share: float = 0.2
    length: Action = "stop"
    length_warn: float = 2.0
    length_stop: float = 3.0
    gap: Action = "stop"
    gap_warn: float = 0.05
    gap_stop: float = 0.1
    shadow: str | None = None
    window_steps: int = 4
    range: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Reads the settings from a run's document."""
        low, high = given["range"]
        return cls(**{**given, "range": (low, high)})


@dataclass(frozen=True, slots=True)
class Batch:
    """What the reward function said of one batch, or of several put together.

    time: milliseconds since 1970. std: of all scores in it. length: characters of a completion. components
    and metrics: means by name, of the samples that have them.
    """

    time: float
    samples: int
    mean: float
    std: float
    zero_share: float
    unscorable_share: float
    error_share: float
    over_time_share: float
    length: float
    components: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, line: object, time: float) -> Self | None:
        """Reads a metric line of the reward function's log; None for a line that is none."""
        if not isinstance(line, Mapping):
            return None
        names = ("samples", "reward_mean", "reward_std", *_SHARES, "completion_length")
        values: list[Any] = [line.get(name) for name in names]
        if not all(_is_finite(value) for value in values) or values[0] < 1:
            return None
        samples, mean, std, zero, unscorable, error, over_time, length = values
        components = {
            name.removeprefix("component_"): value
            for name, value in line.items()
            if name.startswith("component_") and _is_finite(value)
        }
        watched = line.get("metrics")
        metrics = {
            name: value
            for name, value in (watched.items() if isinstance(watched, Mapping) else ())
            if _is_finite(value)
        }
        return cls(
            time, int(samples), mean, std, zero, unscorable, error, over_time, length, components, metrics
        )

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Reads what `document` wrote."""
        return cls(**document)

    def document(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def together(batches: Sequence[Batch]) -> Batch:
    """Puts batches together as if all of their samples had been scored at once."""
    samples = sum(batch.samples for batch in batches)

    def mean(of: Callable[[Batch], float]) -> float:
        return math.fsum(of(batch) * batch.samples for batch in batches) / samples

    def means(of: Callable[[Batch], Mapping[str, float]]) -> dict[str, float]:
        names = dict.fromkeys(name for batch in batches for name in of(batch))
        found = {}
        for name in names:
            having = [batch for batch in batches if name in of(batch)]
            found[name] = math.fsum(of(batch)[name] * batch.samples for batch in having) / sum(
                batch.samples for batch in having
            )
        return found

    centre = mean(lambda batch: batch.mean)
    return Batch(
        time=max(batch.time for batch in batches),
        samples=samples,
        mean=centre,
        std=math.sqrt(mean(lambda batch: batch.std**2 + (batch.mean - centre) ** 2)),
        zero_share=mean(lambda batch: batch.zero_share),
        unscorable_share=mean(lambda batch: batch.unscorable_share),
        error_share=mean(lambda batch: batch.error_share),
        over_time_share=mean(lambda batch: batch.over_time_share),
        length=mean(lambda batch: batch.length),
        components=means(lambda batch: batch.components),
        metrics=means(lambda batch: batch.metrics),
    )


def folded(batches: Sequence[Batch], at_most: int = 512) -> list[Batch]:
    """Puts neighbours together, two by two, until there are few enough of them."""
    kept = list(batches)
    while len(kept) > at_most:
        kept = [together(kept[start : start + 2]) for start in range(0, len(kept), 2)]
    return kept


@dataclass(frozen=True, slots=True)
class Window:
    """Some training steps on end: `whole` is all of it at once, `after` how many samples came before its end.

    error: standard error of the mean reward; gap_error: of its distance from the shadow, 0 without one.
    """

    whole: Batch
    after: int
    error: float
    gap_error: float
    shadow: float | None

    @classmethod
    def of(cls, batches: Sequence[Batch], after: int, shadow: str | None) -> Self:
        """Looks at consecutive batches."""
        whole = together(batches)
        seen = whole.metrics.get(shadow) if shadow else None
        having = [batch for batch in batches if shadow in batch.metrics] if shadow else []
        return cls(
            whole=whole,
            after=after,
            error=_error(batches, lambda batch: batch.mean, whole.std),
            gap_error=_error(having, lambda batch: batch.mean - batch.metrics[str(shadow)], whole.std)
            if having
            else 0.0,
            shadow=seen,
        )

    def facts(self) -> dict[str, Any]:
        """Returns its numbers as JSON values."""
        return {
            "samples": self.whole.samples,
            "reward": self.whole.mean,
            "std": self.whole.std,
            "zero_share": self.whole.zero_share,
            "length": self.whole.length,
            "shadow": self.shadow,
        }


@dataclass(frozen=True, slots=True)
class Position:
    """One window as a wire looks at it: beside the first one, the best one before it, and the last one."""

    start: Window
    best: Window
    before: Window
    now: Window


# What a wire says of a position: how grave it is, and the sentence; None where it does not trip.
_Said = tuple[Level, str] | None


def windows(batches: Sequence[Batch], settings: Settings, *, step: int) -> list[Window]:
    """Cuts a run into windows of `window_steps` steps, each half of which is the first half of the next one.

    step: completions of one training step. What comes after the last full window is not in any.
    """
    half = max(_FEWEST_SAMPLES, step * settings.window_steps) / 2
    blocks: list[list[Batch]] = [[]]
    for batch in batches:
        blocks[-1].append(batch)
        if sum(each.samples for each in blocks[-1]) >= half:
            blocks.append([])
    found, after = [], 0
    for number, block in enumerate(blocks[:-1]):
        after += sum(each.samples for each in block)
        if number:
            found.append(Window.of([*blocks[number - 1], *block], after, settings.shadow))
    return found


def look(batches: Sequence[Batch], settings: Settings, *, step: int) -> Verdict:
    """Holds a run so far against every wire that is not off.

    batches: in the order in which they were scored. step: completions of one training step.
    """
    cut = windows(batches, settings, step=step)
    findings = [
        found
        for wire in _WIRES
        if (action := getattr(settings, wire.setting)) != "off"
        and (found := _tripped(wire, action, cut, settings))
    ]
    if settings.shadow and settings.gap != "off" and cut and all(each.shadow is None for each in cut):
        findings.append(
            Finding(
                "shadow-missing",
                "warn",
                f"The reward function's log has no `{settings.shadow}`, so the reward is compared with "
                "nothing: gates.tripwires.shadow has to name a component with weight 0.",
            )
        )
    facts: dict[str, Any] = {
        "batches": len(batches),
        "samples": sum(batch.samples for batch in batches),
        "windows": len(cut),
    }
    if cut:
        facts |= {"start": cut[0].facts(), "latest": cut[-1].facts()}
    return Verdict("tripwires", tuple(findings), facts)


# --- the wires ---


@dataclass(frozen=True, slots=True)
class _Wire:
    rule: str
    setting: str
    says: Callable[[Position, Settings], _Said]
    # Whether it needs a second window to compare with.
    compares: bool = True


def _tripped(
    wire: _Wire, action: Literal["warn", "stop"], cut: Sequence[Window], settings: Settings
) -> Finding | None:
    """Returns what a wire found anywhere in the run, in the words of the first of the gravest places."""
    said = [found for position in _positions(cut, wire.compares) if (found := wire.says(position, settings))]
    if not said:
        return None
    levels: list[Level] = [level if action == "stop" else "warn" for level, _ in said]
    level: Level = "stop" if "stop" in levels else "warn"
    gravest = "stop" if any(each == "stop" for each, _ in said) else "warn"
    sentence = next(sentence for each, sentence in said if each == gravest)
    return Finding(wire.rule, level, sentence, count=len(said))


def _positions(cut: Sequence[Window], compares: bool) -> Iterator[Position]:
    for number, now in enumerate(cut):
        # The window before shares a half with this one.
        before = cut[: max(number - 1, 0)]
        if before:
            yield Position(cut[0], max(before, key=lambda each: each.whole.mean), before[-1], now)
        elif not compares:
            yield Position(now, now, now, now)


def _unscorable(position: Position, settings: Settings) -> _Said:
    now = position.now.whole
    if not _many(now.unscorable_share, settings.unscorable_share, now.samples):
        return None
    return "stop", (
        f"{_percent(now.unscorable_share)} of the samples cannot be scored, whatever the model writes: their "
        "rows teach it nothing. Mend the rows that the reward function's log names as "
        f"unscorable{_at(position)}."
    )


def _errors(position: Position, settings: Settings) -> _Said:
    now = position.now.whole
    share = now.error_share + now.over_time_share
    if not _many(share, settings.error_share, now.samples):
        return None
    return "stop", (
        f"The reward function failed on {_percent(share)} of the samples ({_percent(now.error_share)} "
        f"raised, {_percent(now.over_time_share)} took too long), and the model learns to avoid or to seek "
        "what breaks it. Its log says where; mend it and try such completions with "
        f"`rft score`{_at(position)}."
    )


def _collapse(position: Position, settings: Settings) -> _Said:
    low, high = settings.range
    best, now = position.best, position.now
    gained, lost = best.whole.mean - low, best.whole.mean - now.whole.mean
    if gained >= _GAINED * (high - low) and lost >= max(
        settings.collapse_share * gained, _chance(best.error, now.error)
    ):
        return "stop", (
            f"The reward fell from {best.whole.mean:.2f} to {now.whole.mean:.2f}: training undoes itself, or "
            "the reward function scores otherwise than before. Lower the learning rate, and see whether old "
            f"completions still earn what they did{_at(position)}."
        )
    if min(position.before.whole.zero_share, now.whole.zero_share) >= _NOTHING_EARNED:
        return "stop", (
            f"{_percent(now.whole.zero_share)} of the completions earn the lowest score, so there is "
            "nothing to learn from. Give partial credit, take easier prompts, or fine-tune with examples "
            f"first{_at(position)}."
        )
    return None


def _saturation(position: Position, settings: Settings) -> _Said:
    low, high = settings.range
    now = position.now.whole
    if now.mean < low + settings.saturation_share * (high - low):
        return None
    return "stop", (
        f"The reward is {now.mean:.3f} of at most {high:g}: nothing is left to learn, and a reward that "
        "perfect may be one that can be fooled. Read some completions; if they are good, train for fewer "
        f"epochs{_at(position)}."
    )


def _spread(position: Position, settings: Settings) -> _Said:
    low, high = settings.range
    start, now = position.start.whole, position.now.whole
    if (
        start.std < _NOTABLE * (high - low)
        or now.std > settings.spread_share * start.std
        or now.mean > high - _GAINED * (high - low)
        or now.zero_share >= _NOTHING_EARNED
    ):
        return None
    return "stop", (
        f"All completions earn nearly the same, {now.mean:.2f}: their standard deviation fell from "
        f"{start.std:.3f} to {now.std:.3f}, so none is better than its group and training moves nothing. "
        "The model may have settled on what always earns some credit: take that credit "
        f"away{_at(position)}."
    )


def _length(position: Position, settings: Settings) -> _Said:
    low, high = settings.range
    start, now = position.start, position.now
    grown = now.whole.length / max(start.whole.length, 1.0)
    risen = now.whole.mean - start.whole.mean
    if (
        grown < settings.length_warn
        or now.whole.length - start.whole.length < _LEAST_GROWTH
        or risen < max(_NOTABLE * (high - low), _chance(start.error, now.error))
    ):
        return None
    return "stop" if grown >= settings.length_stop else "warn", (
        f"Completions are {grown:.1f} times as long as at the start ({start.whole.length:.0f} characters, "
        f"now {now.whole.length:.0f}) while the reward rose from {start.whole.mean:.2f} to "
        f"{now.whole.mean:.2f}: the reward may pay for length. Read some of them, and add a `length` or "
        f"`repetition` component or a limit{_at(position)}."
    )


def _gap(position: Position, settings: Settings) -> _Said:
    start, now = position.start, position.now
    if start.shadow is None or now.shadow is None:
        return None
    low, high = settings.range
    # How far they have moved apart: a shadow that is stricter from the start is no sign of anything.
    gap = (now.whole.mean - start.whole.mean) - (now.shadow - start.shadow)
    if gap < _chance(start.gap_error, now.gap_error):
        return None
    share = gap / (high - low)
    if share <= settings.gap_warn:
        return None
    return "stop" if share > settings.gap_stop else "warn", (
        f"The reward moved {share:.2f} of its range away from `{settings.shadow}`, which is not optimized "
        f"(reward {start.whole.mean:.2f} to {now.whole.mean:.2f}, {settings.shadow} {start.shadow:.2f} to "
        f"{now.shadow:.2f}): the model earns what it does not deserve. Read completions that score high in "
        f"one and low in the other, and close that way{_at(position)}."
    )


_WIRES: Final = (
    _Wire("unscorable-share", "unscorable", _unscorable, compares=False),
    _Wire("error-share", "errors", _errors, compares=False),
    _Wire("reward-collapse", "collapse", _collapse),
    _Wire("reward-saturation", "saturation", _saturation),
    _Wire("spread-collapse", "spread", _spread),
    _Wire("length-explosion", "length", _length),
    _Wire("shadow-gap", "gap", _gap),
)


def _many(share: float, limit: float, samples: int) -> bool:
    return share >= limit and share * samples >= _FEWEST_TROUBLED


def _chance(first: float, second: float) -> float:
    """Returns how far two means may lie apart by chance; of two errors the smaller one is the luckier."""
    return _BEYOND_CHANCE * math.sqrt(2) * max(first, second)


def _at(position: Position) -> str:
    return f" (found after {position.now.after:,} completions)"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 or not share else f"{share:.1%}"


def _error(batches: Sequence[Batch], value: Callable[[Batch], float], std: float) -> float:
    """Returns the standard error of a window's mean, from how its batches differ where there are enough."""
    samples = sum(batch.samples for batch in batches)
    if len(batches) < _FEWEST_BATCHES:
        return std / math.sqrt(max(samples / _MOST_ALIKE, 1.0))
    mean = math.fsum(value(batch) * batch.samples for batch in batches) / samples
    variance = math.fsum(batch.samples * (value(batch) - mean) ** 2 for batch in batches) / samples
    return math.sqrt(variance / (len(batches) - 1))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
