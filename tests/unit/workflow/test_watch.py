"""A job is watched by the log of its reward function: read once, kept, and judged again at every look."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lambdas.tripwires import Batch
from lambdas.workflow import watch
from tests.unit.workflow.conftest import REWARD, RUN, Aws, RefusedError

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = "rft-quotes-dev-RewardFunctionLogGroup"
START = int(CREATED.timestamp() * 1000)


class Context:
    def __init__(self, milliseconds: int = 120_000) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture(autouse=True)
def _log_group(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_LOG_GROUP", GROUP)


def event(status: str = "InProgress", **tripwires: Any) -> dict[str, Any]:
    return {
        "run": RUN,
        "reward_version": REWARD,
        "training": {"batchSize": 16, "trainingSamplePerPrompt": 4},
        "tripwires": {"range": [0.0, 1.0], **tripwires},
        "job": {"status": status, "reason": "", "created": "2026-01-01T00:00:00Z"},
    }


def log(aws: Aws, second: float, *, mean: float = 0.5, length: float = 100, stream: str = "[3]a1") -> None:
    """Logs a batch of 64 samples, as the reward function prints it."""
    line = {
        "_aws": {"Timestamp": 0},
        "samples": 64,
        "reward_mean": mean,
        "reward_std": 0.5,
        "zero_share": 1 - mean,
        "unscorable_share": 0.0,
        "error_share": 0.0,
        "over_time_share": 0.0,
        "completion_length": length,
        "component_answer": mean,
        "metrics": {"shadow": mean},
    }
    say(aws, second, json.dumps(line), stream)


def say(aws: Aws, second: float, message: str, stream: str = "[3]a1") -> None:
    aws.logged.append((START + int(second * 1000), f"2026/01/01/{stream}", message))


def look(aws: Aws, **more: Any) -> dict[str, str]:
    return watch.handler(event(**more), Context())


def samples(aws: Aws) -> int:
    return sum(each["samples"] for each in aws.document("rewards.json")["batches"])


def since(aws: Aws) -> list[int]:
    """From when on each look read the log."""
    return [asked["startTime"] for asked in aws.called("FilterLogEvents") if "nextToken" not in asked]


def test_a_look_writes_what_it_saw_and_what_that_means(aws: Aws) -> None:
    for second in range(20):
        log(aws, second)
    assert look(aws) == {"verdict": "pass", "sentence": "Tripwires: nothing to object to."}
    verdict = aws.document("gates/tripwires.json")
    assert verdict["facts"]["samples"] == samples(aws) == 20 * 64
    first = Batch.read(aws.document("rewards.json")["batches"][0])
    assert (first.time, first.mean, first.components, first.metrics) == (
        START,
        0.5,
        {"answer": 0.5},
        {"shadow": 0.5},
    )
    assert aws.called("FilterLogEvents")[0]["logGroupName"] == GROUP
    assert since(aws) == [START]


def test_fails_a_run_whose_completions_grow_with_the_reward(aws: Aws) -> None:
    for second in range(40):
        log(aws, second, mean=0.3 if second < 20 else 0.9, length=100 if second < 20 else 400)
    told = look(aws)
    assert told["verdict"] == "stop"
    assert "Completions are 4.0 times as long as at the start (100 characters, now 400)" in told["sentence"]
    assert look(aws, length="warn")["verdict"] == "warn"
    assert look(aws, length="off")["verdict"] == "pass"


def test_later_looks_read_on_where_the_first_one_stopped(aws: Aws) -> None:
    for second in range(10):
        log(aws, second)
    look(aws)
    for second in range(300, 310):
        log(aws, second)
    look(aws)
    look(aws)
    assert samples(aws) == 20 * 64
    # Two minutes before the last line, for those that come late, but never before the job.
    assert since(aws) == [START, START, START + 309_000 - 120_000]


def test_a_line_that_comes_late_is_read_and_none_twice(aws: Aws) -> None:
    log(aws, 0)
    log(aws, 100)
    look(aws)
    log(aws, 50)
    log(aws, 110)
    look(aws)
    assert samples(aws) == 4 * 64
    assert [each["time"] - START for each in aws.document("rewards.json")["batches"][:2]] == [0, 100_000]


def test_other_versions_of_the_function_and_what_it_did_before_do_not_count(aws: Aws) -> None:
    log(aws, -60)
    log(aws, 1)
    log(aws, 2, stream="[4]b2")
    log(aws, 3, stream="[$LATEST]c3")
    log(aws, 4, stream="Reward[3][d4]")
    look(aws)
    look(aws)
    assert samples(aws) == 2 * 64


def test_what_is_no_metric_line_is_passed_over(aws: Aws) -> None:
    say(aws, 1, "START RequestId: 1 Version: 3")
    say(aws, 2, '{"message": "scored", "completion": "{\\"reward_mean\\": 1}"}')
    say(aws, 3, '{"reward_mean": 1')
    say(aws, 4, '{"reward_mean": "much", "samples": 3}')
    assert look(aws)["verdict"] == "pass"
    with pytest.raises(KeyError):
        aws.document("rewards.json")


def test_a_long_log_is_read_page_by_page_and_only_as_long_as_there_is_time(aws: Aws) -> None:
    for second in range(10):
        log(aws, second)
    watch.handler(event(), Context(milliseconds=5_000))
    assert samples(aws) == 3 * 64
    look(aws)
    assert samples(aws) == 10 * 64


def test_a_log_that_cannot_be_read_is_told_and_stops_nothing(aws: Aws) -> None:
    log(aws, 1)
    look(aws)
    aws.refusals["FilterLogEvents"] = [RefusedError("ThrottlingException", "Rate exceeded")]
    told = look(aws)
    assert told["verdict"] == "warn"
    assert "The log could not be read" in told["sentence"]
    assert "Rate exceeded" in told["sentence"]
    assert aws.document("gates/tripwires.json")["facts"]["samples"] == 64
    assert look(aws)["verdict"] == "pass"


def test_a_job_that_ended_without_a_line_was_not_watched(aws: Aws) -> None:
    assert look(aws)["verdict"] == "pass"
    told = look(aws, status="Completed")
    assert told["verdict"] == "warn"
    assert GROUP in told["sentence"]


def test_what_is_kept_of_a_long_job_stays_small(aws: Aws) -> None:
    for second in range(600):
        log(aws, second)
    look(aws)
    kept = aws.document("rewards.json")
    assert len(kept["batches"]) == 300
    assert len(kept["seen"]) == 121
    assert samples(aws) == 600 * 64


def test_a_page_may_be_empty_before_the_last_one(aws: Aws) -> None:
    start = CREATED + timedelta(hours=1)
    for number in range(5):
        say(aws, (start - CREATED).total_seconds() + number, "nothing to read")
    log(aws, 3700)
    look(aws)
    assert samples(aws) == 64
