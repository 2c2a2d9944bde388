"""What a run may cost, before it is spent: from what was measured and from prices that somebody looked up.

An estimate is a range. Its lower end is the run as the base model answers now; its upper end has completions
grow `growth` times as long, up to the token limit, and all that hangs on them with them. A price that is not
known makes its part of the estimate "unpriced": it is said, never guessed, and never counted as nothing.

Not counted, for want of a measure: storage, requests, logs, keys, Step Functions, the functions of the
workflow itself, and what serving the model costs later. Candidates are priced like their base model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from lambdas.gate import Finding, Verdict

_MILLION: Final = 1_000_000
_FILE: Final = "teams/platform.toml"


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known better than from `low` to `high`."""

    low: float
    high: float

    def __add__(self, other: Self) -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)


NOTHING: Final = Range(0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """The `[prices]` of platform.toml; None stands for a price that nobody has looked up.

    models: by model, any of "input_per_million_tokens", "output_per_million_tokens", "training_per_hour" and
    "training_tokens_per_hour".
    """

    date: str | None = None
    currency: str = ""
    lambda_gb_second: float | None = None
    models: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one completion takes, on average.

    input_tokens: of its prompt. output_tokens: of its own. reward_seconds: of the reward function. judges: by
    component of the reward, the tokens its judge reads and writes; None where nobody has measured them.
    """

    input_tokens: float
    output_tokens: Range
    reward_seconds: Range
    judges: Mapping[str, tuple[Range, Range] | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """How many completions a run makes: in training, and for measuring the base model and the candidate."""

    training: int
    base: int
    candidate: int

    @property
    def completions(self) -> int:
        """Returns all of them; the reward function scores each."""
        return self.training + self.base + self.candidate


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an estimate; `missing` says which price it would take where `cost` is None."""

    name: str
    cost: Range | None
    quantities: Mapping[str, Range]
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run may cost; the date is that of the prices."""

    parts: Sequence[Part]
    currency: str
    date: str | None

    @property
    def total(self) -> Range:
        """Returns the sum of what has a price."""
        return sum((part.cost for part in self.parts if part.cost), start=NOTHING)

    @property
    def unpriced(self) -> list[Part]:
        """Returns the parts without a price."""
        return [part for part in self.parts if part.cost is None]

    @property
    def sentence(self) -> str:
        """Returns the estimate in words."""
        if len(self.unpriced) == len(self.parts):
            return f"The cost of this run is not known: {_missing(self.unpriced)}."
        known = f"Estimated at {self.money(self.total)}, at prices of {self.date}"
        return known + (f"; without {_missing(self.unpriced)}." if self.unpriced else ".")

    def money(self, amount: Range | float) -> str:
        """Writes an amount or a range of amounts, with the currency."""
        if not isinstance(amount, Range):
            return f"{_amount(amount)} {self.currency}"
        low, high = _amount(amount.low), _amount(amount.high)
        return f"{low} {self.currency}" if low == high else f"{low} to {high} {self.currency}"

    def document(self) -> dict[str, Any]:
        """Returns the estimate as JSON values."""
        return {
            "currency": self.currency,
            "prices_of": self.date,
            "total": _ends(self.total),
            "unpriced": [part.name for part in self.unpriced],
            "parts": [
                {
                    "name": part.name,
                    "cost": _ends(part.cost) if part.cost else None,
                    "missing": part.missing,
                    **{name: _ends(quantity) for name, quantity in part.quantities.items()},
                }
                for part in self.parts
            ],
        }


def planned(
    *,
    rows: int,
    base: int,
    prompts: int,
    training: Mapping[str, Any],
    measurement: Mapping[str, Any],
    tried: int = 0,
) -> Work:
    """Returns the work of a run; settings as a run carries them.

    base: completions of the base model on held-out prompts. tried: training prompts that it answers as well,
    to find out which of them show training nothing; how many those are is not known yet, so all rows count.
    """
    return Work(
        training=rows * training["epochCount"] * training["trainingSamplePerPrompt"],
        base=base + tried * training["trainingSamplePerPrompt"],
        # The champion answers as often as the candidate; a run without one costs that much less.
        candidate=2 * prompts * measurement["samples_per_prompt"],
    )


def estimate(
    work: Work,
    usage: Usage,
    *,
    base_model: str,
    memory_mb: int,
    judges: Mapping[str, str],
    prices: Prices,
) -> Estimate:
    """Estimates a run of so much work; `judges` names the model of each component that asks one."""
    model = prices.models.get(base_model, {})
    return Estimate(
        parts=[
            _training(work, usage, base_model, model),
            _measuring(work, usage, base_model, model),
            _reward(work, usage, memory_mb, prices),
            *(_judge(work, usage, name, judge, prices) for name, judge in judges.items()),
        ],
        currency=prices.currency,
        date=prices.date,
    )


def _training(work: Work, usage: Usage, base_model: str, price: Mapping[str, float]) -> Part:
    """The hours of the job: of its tokens, those of every completion and of its prompt before it."""
    tokens = (Range(usage.input_tokens, usage.input_tokens) + usage.output_tokens) * work.training
    quantities = {"tokens": tokens}
    per_hour, pace = price.get("training_per_hour"), price.get("training_tokens_per_hour")
    if pace is not None:
        quantities["hours"] = tokens * (1 / pace)
    if per_hour is None or pace is None:
        keys = [key for key in ("training_per_hour", "training_tokens_per_hour") if key not in price]
        missing = f"{' and '.join(keys)} of {base_model}"
        return Part(name="training", cost=None, quantities=quantities, missing=missing)
    return Part(name="training", cost=quantities["hours"] * per_hour, quantities=quantities)


def _measuring(work: Work, usage: Usage, base_model: str, price: Mapping[str, float]) -> Part:
    """The tokens of both models; how long the base model's completions are is known by now."""
    read = usage.input_tokens * (work.base + work.candidate)
    as_now = usage.output_tokens.low * work.base
    written = Range(as_now, as_now) + usage.output_tokens * work.candidate
    cost, missing = _tokens(Range(read, read), written, base_model, price)
    quantities = {"input_tokens": Range(read, read), "output_tokens": written}
    return Part(name="measuring", cost=cost, quantities=quantities, missing=missing)


def _reward(work: Work, usage: Usage, memory_mb: int, prices: Prices) -> Part:
    gigabyte_seconds = usage.reward_seconds * (work.completions * memory_mb / 1024)
    price = prices.lambda_gb_second
    return Part(
        name="reward function",
        cost=None if price is None else gigabyte_seconds * price,
        quantities={"gigabyte_seconds": gigabyte_seconds},
        missing="lambda_gb_second" if price is None else "",
    )


def _judge(work: Work, usage: Usage, component: str, judge: str, prices: Prices) -> Part:
    name = f"judge of {component}"
    measured = usage.judges.get(component)
    if measured is None:
        return Part(name=name, cost=None, quantities={}, missing=f"a measurement of what {judge} reads")
    read, written = (tokens * work.completions for tokens in measured)
    cost, missing = _tokens(read, written, judge, prices.models.get(judge, {}))
    quantities = {"input_tokens": read, "output_tokens": written}
    return Part(name=name, cost=cost, quantities=quantities, missing=missing)


def _tokens(read: Range, written: Range, model: str, price: Mapping[str, float]) -> tuple[Range | None, str]:
    """Returns what tokens cost, or None and the prices that would say so."""
    keys = ("input_per_million_tokens", "output_per_million_tokens")
    if lacking := [key for key in keys if key not in price]:
        return None, f"{' and '.join(lacking)} of {model}"
    into, out = (price[key] / _MILLION for key in keys)
    return read * into + written * out, ""


def judge_cost(made: Estimate, *, per_run: float | None, per_month: float | None, spent: float) -> Verdict:
    """Says whether a run may start: its upper end must fit its own cap and what is left of the month.

    spent: the upper ends of the estimates of the runs that were let through this month.
    """
    high = made.total.high
    findings = []
    if per_run is not None and high > per_run:
        findings.append(
            Finding(
                "over-run-cap",
                "stop",
                f"This run may cost up to {made.money(high)}, and a run may cost"
                f" {made.money(per_run)} (budget.per_run). Train on fewer rows, for fewer epochs or with"
                " fewer or shorter completions, or raise the cap.",
            )
        )
    if per_month is not None and high > per_month - spent:
        left = max(0.0, per_month - spent)
        findings.append(
            Finding(
                "over-month",
                "stop",
                f"This run may cost up to {made.money(high)}, and of the {made.money(per_month)} of"
                f" this month (budget.per_month) {made.money(left)} are left: the runs before it were"
                f" estimated at up to {made.money(spent)}. Make the run smaller, wait for the next month or"
                " raise the budget.",
            )
        )
    if made.unpriced and (per_run is not None or per_month is not None):
        findings.append(
            Finding(
                "unpriced",
                "warn",
                f"The budget cannot hold for what has no price: {_missing(made.unpriced)}. Look the prices"
                f" up and add them to [prices] of {_FILE}.",
                count=len(made.unpriced),
            )
        )
    findings.append(Finding("estimate", "info", made.sentence))
    facts = {
        "estimate": made.document(),
        "budget": {"per_run": per_run, "per_month": per_month, "spent_this_month": spent},
    }
    return Verdict("cost", tuple(findings), facts)


def _missing(parts: Sequence[Part]) -> str:
    return "; ".join(f"{part.name} (needs {part.missing})" for part in parts)


def _amount(value: float) -> str:
    """Writes money to the cent, and what is less to two digits."""
    digits = 2 if value == 0 or value >= 0.01 else 1 - math.floor(math.log10(value))
    return f"{value:,.{digits}f}"


def _ends(value: Range) -> list[float]:
    return [value.low, value.high]
