"""An estimate is arithmetic on what was measured and on prices that are known, and guesses nothing."""

from dataclasses import replace
from typing import Any

import pytest

from lambdas.cost import Estimate, Part, Prices, Range, Usage, Work, estimate, judge_cost
from lambdas.gate import Verdict

MODEL, JUDGE = "amazon.nova-2-lite-v1:0:256k", "us.amazon.nova-2-lite-v1:0"
# 1000 completions to train on, and 100 each to measure base and candidate.
WORK = Work(training=1000, base=100, candidate=100)
USAGE = Usage(input_tokens=200, output_tokens=Range(100, 300), reward_seconds=Range(0.01, 0.03), judges={})
PRICES = Prices(
    date="2026-11-23",
    currency="USD",
    lambda_gb_second=0.00001,
    models={
        MODEL: {
            "input_per_million_tokens": 1.0,
            "output_per_million_tokens": 10.0,
            "training_per_hour": 40.0,
            "training_tokens_per_hour": 1_000_000,
        }
    },
)


def made(**changes: Any) -> Estimate:
    asked: dict[str, Any] = {"base_model": MODEL, "memory_mb": 512, "judges": {}, "prices": PRICES, **changes}
    return estimate(asked.pop("work", WORK), asked.pop("usage", USAGE), **asked)


def part(of: Estimate, name: str) -> Part:
    (found,) = (each for each in of.parts if each.name == name)
    return found


def without(*keys: str) -> Prices:
    models = {MODEL: {key: value for key, value in PRICES.models[MODEL].items() if key not in keys}}
    return replace(PRICES, models=models)


def cost(of: Part) -> tuple[float, float]:
    assert of.cost is not None
    return of.cost.low, of.cost.high


def test_training_costs_the_hours_that_its_tokens_take() -> None:
    found = part(made(), "training")
    # 1000 x (200 + 100 to 300) tokens at a million an hour, at 40 an hour.
    assert found.quantities["tokens"] == Range(300_000, 500_000)
    assert found.quantities["hours"] == Range(0.3, 0.5)
    assert cost(found) == pytest.approx((12, 20))


def test_measuring_costs_the_tokens_of_both_models() -> None:
    found = part(made(), "measuring")
    # 200 prompts of 200 tokens at 1 a million; the base model's 100 x 100 tokens are known, the candidate's
    # are 100 x 100 to 300, at 10 a million.
    assert found.quantities["input_tokens"] == Range(40_000, 40_000)
    assert found.quantities["output_tokens"] == Range(20_000, 40_000)
    assert cost(found) == pytest.approx((0.04 + 0.2, 0.04 + 0.4))


def test_the_reward_function_costs_gigabytes_and_seconds_for_every_completion() -> None:
    found = part(made(), "reward function")
    # 1200 x 0.01 to 0.03 s at half a gigabyte.
    assert found.quantities["gigabyte_seconds"] == Range(6, 18)
    assert cost(found) == pytest.approx((0.00006, 0.00018))


def test_a_judge_costs_what_it_reads_and_writes_for_every_completion() -> None:
    usage = replace(USAGE, judges={"tone": (Range(500, 1500), Range(50, 150))})
    models = {**PRICES.models, JUDGE: {"input_per_million_tokens": 2.0, "output_per_million_tokens": 20.0}}
    priced = made(usage=usage, judges={"tone": JUDGE}, prices=replace(PRICES, models=models))
    # 1200 x (500 x 2 + 50 x 20) to 1200 x (1500 x 2 + 150 x 20), by the million.
    assert cost(part(priced, "judge of tone")) == pytest.approx((2.4, 7.2))
    unpriced = part(made(usage=usage, judges={"tone": JUDGE}), "judge of tone")
    assert unpriced.cost is None
    assert unpriced.missing == f"input_per_million_tokens and output_per_million_tokens of {JUDGE}"
    unmeasured = part(made(judges={"tone": JUDGE}), "judge of tone")
    assert (unmeasured.cost, unmeasured.missing) == (None, f"a measurement of what {JUDGE} reads")


@pytest.mark.parametrize(
    ("prices", "name", "missing"),
    [
        (without("training_per_hour"), "training", f"training_per_hour of {MODEL}"),
        (without("training_tokens_per_hour"), "training", f"training_tokens_per_hour of {MODEL}"),
        (without("output_per_million_tokens"), "measuring", f"output_per_million_tokens of {MODEL}"),
        (replace(PRICES, lambda_gb_second=None), "reward function", "lambda_gb_second"),
    ],
)
def test_what_has_no_price_is_unpriced_and_said(prices: Prices, name: str, missing: str) -> None:
    found = made(prices=prices)
    assert [each.name for each in found.unpriced] == [name]
    assert part(found, name).missing == missing
    assert found.sentence.endswith(f"; without {name} (needs {missing}).")
    full, rest = made().total, found.total
    assert rest.high < full.high


def test_tokens_are_told_where_their_price_is_not_known() -> None:
    found = part(made(prices=Prices()), "training")
    assert found.quantities == {"tokens": Range(300_000, 500_000)}
    assert "hours" in part(made(prices=without("training_per_hour")), "training").quantities


def test_the_estimate_is_a_range_with_the_date_of_its_prices() -> None:
    assert made().sentence == "Estimated at 12.24 to 20.44 USD, at prices of 2026-11-23."
    document = made().document()
    assert document["prices_of"] == "2026-11-23"
    assert document["total"] == pytest.approx([12.24006, 20.44018])
    assert document["parts"][0] == {
        "name": "training",
        "cost": pytest.approx([12.0, 20.0]),
        "missing": "",
        "tokens": [300_000, 500_000],
        "hours": [0.3, 0.5],
    }


def test_nothing_is_claimed_without_any_price() -> None:
    sentence = made(prices=Prices()).sentence
    assert sentence.startswith("The cost of this run is not known: training (needs training_per_hour and ")
    assert "0" not in sentence.replace(MODEL, "")


def test_small_amounts_are_not_rounded_to_nothing() -> None:
    found = made(prices=Prices(date="2026-11-23", currency="USD", lambda_gb_second=0.00001))
    assert "Estimated at 0.000060 to 0.00018 USD" in found.sentence


# The budget


def judged(
    per_run: float | None = None, per_month: float | None = None, spent: float = 0.0, **more: Any
) -> Verdict:
    return judge_cost(made(**more), per_run=per_run, per_month=per_month, spent=spent)


def rules(verdict: Verdict) -> dict[str, str]:
    return {finding.rule: finding.level for finding in verdict.findings}


def test_without_a_budget_a_run_may_cost_anything() -> None:
    assert rules(judged()) == {"estimate": "info"}
    assert rules(judged(prices=Prices())) == {"estimate": "info"}


@pytest.mark.parametrize(("cap", "stopped"), [(20.4, True), (20.45, False), (100.0, False)])
def test_fails_when_the_upper_end_is_over_the_cap_of_a_run(cap: float, stopped: bool) -> None:
    verdict = judged(per_run=cap)
    assert (verdict.verdict == "stop") is stopped
    assert ("over-run-cap" in rules(verdict)) is stopped
    if stopped:
        assert verdict.sentence.startswith(
            "Cost: stops the run. This run may cost up to 20.44 USD, and a run may cost 20.40 USD"
            " (budget.per_run). Train on fewer rows,"
        )


@pytest.mark.parametrize(("spent", "stopped"), [(0.0, False), (29.55, False), (29.6, True), (60.0, True)])
def test_fails_when_the_upper_end_is_over_what_is_left_of_the_month(spent: float, stopped: bool) -> None:
    verdict = judged(per_month=50, spent=spent)
    assert (verdict.verdict == "stop") is stopped
    if stopped:
        left = "20.40" if spent < 50 else "0.00"
        assert f"of the 50.00 USD of this month (budget.per_month) {left} USD are left" in verdict.sentence
        assert verdict.facts["budget"]["spent_this_month"] == spent


def test_a_cap_of_exactly_the_upper_end_is_enough() -> None:
    assert judged(per_run=made().total.high).verdict == "pass"
    assert judged(per_month=made().total.high + 1, spent=1).verdict == "pass"


def test_a_budget_warns_that_it_cannot_hold_for_what_has_no_price() -> None:
    verdict = judged(per_run=100, prices=without("training_per_hour"))
    assert rules(verdict) == {"unpriced": "warn", "estimate": "info"}
    assert (
        "The budget cannot hold for what has no price: training (needs training_per_hour of"
        f" {MODEL}). Look the prices up and add them to [prices] of teams/platform.toml."
    ) in verdict.sentence
    # What is known may be too much all the same.
    assert judged(per_run=0.1, prices=without("training_per_hour")).verdict == "stop"
