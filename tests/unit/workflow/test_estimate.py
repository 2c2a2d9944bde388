"""A run's cost is estimated from its own measurement, held against the budget and written into the ledger."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lambdas.cost import Range
from lambdas.workflow import estimate
from tests.unit.workflow.conftest import ARTIFACTS, RUN, Aws

MODEL, JUDGE = "amazon.nova-2-lite-v1:0:256k", "amazon.nova-pro-v1:0"
COSTS: dict[str, Any] = {
    "prices": {
        "date": "2026-11-23",
        "currency": "USD",
        "lambda_gb_second": 0.00001,
        "models": {MODEL: {"training_per_hour": 40.0, "training_tokens_per_hour": 1_000_000.0}},
    },
    "reward": {"memory_mb": 512, "seconds_per_sample": 2.0, "judges": {}},
    "budget": {},
}
EVENT: dict[str, Any] = {
    "run": RUN,
    "base_model": MODEL,
    "training": {"epochCount": 2, "trainingSamplePerPrompt": 8, "inferenceMaxTokens": 1024},
    "measurement": {"samples_per_prompt": 4},
    "gates": {"cost": {"growth": 3.0}},
    "train_rows": 300,
    "prompts": 100,
}


def completion(tokens: int = 100, **metrics: float) -> dict[str, Any]:
    return {"output_tokens": tokens, "metrics": metrics}


def measured(samples: int = 4, more: int = 0, **changes: Any) -> dict[str, Any]:
    said = [completion() for _ in range(samples + more)]
    return {
        "completions": said[:samples],
        "more": said[samples:],
        "input_tokens": 200,
        "reward_seconds": 0.04,
        **changes,
    }


def usage(*rows: dict[str, Any], **changes: Any) -> Any:
    asked: dict[str, Any] = {
        "growth": 3.0,
        "max_tokens": 1024,
        "seconds_per_sample": 2.0,
        "judges": {},
        **changes,
    }
    return estimate.usage(rows, **asked)


@pytest.fixture(autouse=True)
def _measured(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTS", json.dumps(COSTS))
    for index in range(5):
        aws.write(f"measured/base/{index:05}.json", measured(more=4))


def budget(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    monkeypatch.setenv("COSTS", json.dumps({**COSTS, "budget": limits}))


def test_prompts_that_are_tried_before_training_are_counted(aws: Aws) -> None:
    def completions(**more: int) -> float:
        estimate.handler({**EVENT, **more}, None)
        parts = aws.document("gates/cost.json")["facts"]["estimate"]["parts"]
        measuring = next(part for part in parts if part["name"] == "measuring")
        # Every prompt has 200 tokens.
        return float(measuring["input_tokens"][0] / 200)

    # The base model's five prompts of eight completions, and two models on a hundred of four.
    assert completions() == completions(tried=0) == 5 * 8 + 2 * 100 * 4
    assert completions(tried=50) == completions() + 50 * 8


def entries(aws: Aws) -> dict[str, Any]:
    return {
        key: json.loads(stored.body)
        for (bucket, key), stored in aws.objects.items()
        if bucket == ARTIFACTS and key.startswith("ledger/")
    }


def test_a_completion_takes_what_those_of_the_base_model_took() -> None:
    found = usage(measured(), measured(samples=2, input_tokens=500, reward_seconds=0.08))
    assert found.input_tokens == pytest.approx((4 * 200 + 2 * 500) / 6)
    assert found.output_tokens == Range(100, 300)
    assert found.reward_seconds == Range(pytest.approx(0.02), pytest.approx(0.06))


def test_a_completion_grows_up_to_the_limits_and_never_shrinks() -> None:
    assert usage(measured(), max_tokens=250).output_tokens == Range(100, 250)
    assert usage(measured(), max_tokens=80).output_tokens == Range(100, 100)
    assert usage(measured(reward_seconds=4.0)).reward_seconds == Range(1, 2)
    assert usage(measured(reward_seconds=12.0)).reward_seconds == Range(3, 3)
    assert usage(measured(), growth=1.0).output_tokens == Range(100, 100)


def test_a_judge_takes_what_it_told_of_itself() -> None:
    told = completion(tone_input_tokens=600, tone_output_tokens=50)
    row = measured(completions=[told, completion(), told, told])
    found = usage(row, judges={"tone": JUDGE, "facts": JUDGE}).judges
    # One of four completions never reached the judge.
    assert found == {"tone": (Range(450, 1350), Range(37.5, 112.5)), "facts": None}


def test_all_completions_of_the_run_are_counted(aws: Aws) -> None:
    answer = estimate.handler(EVENT, None)
    assert answer == {"verdict": "pass", "sentence": "Cost: nothing to object to."}
    made = aws.document("gates/cost.json")["facts"]["estimate"]
    parts = {each["name"]: each for each in made["parts"]}
    # 300 rows, 2 epochs and 8 completions each; 5 prompts measured 8 times, then 100 prompts 4 times.
    assert parts["training"]["tokens"] == pytest.approx([4800 * 300, 4800 * 500])
    assert parts["training"]["cost"] == pytest.approx([4.8 * 0.3 * 40, 4.8 * 0.5 * 40])
    assert parts["measuring"]["output_tokens"] == pytest.approx([840 * 100, 40 * 100 + 800 * 300])
    assert parts["reward function"]["gigabyte_seconds"] == pytest.approx([5640 * 0.0025, 5640 * 0.0075])
    assert made["unpriced"] == ["measuring"]


def test_a_run_that_may_go_on_is_in_the_ledger_of_the_month(aws: Aws) -> None:
    estimate.handler(EVENT, None)
    estimate.handler(EVENT, None)
    ((key, entry),) = entries(aws).items()
    assert key == f"ledger/{datetime.now(UTC):%Y-%m}/{RUN}.json"
    assert (entry["run"], entry["currency"]) == (RUN, "USD")
    total = aws.document("gates/cost.json")["facts"]["estimate"]["total"]
    assert [entry["low"], entry["high"]] == total


def test_fails_when_a_run_is_over_its_cap_and_leaves_the_ledger_alone(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget(monkeypatch, per_run=50)
    answer = estimate.handler(EVENT, None)
    assert answer["verdict"] == "stop"
    assert "This run may cost up to 96.00 USD, and a run may cost 50.00 USD" in answer["sentence"]
    assert entries(aws) == {}


def test_fails_when_the_runs_of_the_month_leave_too_little(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    budget(monkeypatch, per_month=250)
    for number in range(2):
        other = f"run-{number:016}"
        for path in (f"measured/base/{index:05}.json" for index in range(5)):
            aws.write(path, measured(), run=other)
        assert estimate.handler({**EVENT, "run": other}, None)["verdict"] == "warn"
    answer = estimate.handler(EVENT, None)
    assert answer["verdict"] == "stop"
    assert "58.00 USD are left: the runs before it were estimated at up to 192.00 USD" in answer["sentence"]
    assert len(entries(aws)) == 2


def test_only_this_month_this_currency_and_other_runs_count(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget(monkeypatch, per_month=100)
    month = f"{datetime.now(UTC):%Y-%m}"
    for key, entry in {
        f"ledger/{month}/{RUN}.json": {"high": 90.0, "currency": "USD"},
        f"ledger/{month}/run-other.json": {"high": 90.0, "currency": "EUR"},
        "ledger/2020-01/run-old.json": {"high": 90.0, "currency": "USD"},
    }.items():
        aws.put(ARTIFACTS, key, json.dumps(entry).encode())
    assert estimate.handler(EVENT, None)["verdict"] == "warn"
    assert aws.document("gates/cost.json")["facts"]["budget"]["spent_this_month"] == 0


def test_without_a_price_list_nothing_is_priced_and_the_run_goes_on(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTS", json.dumps({**COSTS, "prices": {"models": {}}}))
    assert estimate.handler(EVENT, None)["verdict"] == "pass"
    written = aws.document("gates/cost.json")
    assert written["findings"][0]["sentence"].startswith("The cost of this run is not known: ")
    assert len(written["facts"]["estimate"]["unpriced"]) == 3
