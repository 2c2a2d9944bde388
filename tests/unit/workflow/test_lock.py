"""One run at a time: whoever has the lock keeps it while it is at work, and nobody after that."""

import json
import time
from typing import Any

import pytest

from lambdas.workflow import lock
from lambdas.workflow.lock import KEY, LockContestedError
from tests.unit.workflow.conftest import ARTIFACTS, RUN, STATE_MACHINE, Aws, RefusedError

EXECUTIONS = STATE_MACHINE.replace(":stateMachine:", ":execution:")
OWN, OTHER = f"{EXECUTIONS}:{RUN}", f"{EXECUTIONS}:run-ffffffffffffffff"
HOUR = 3600


def ask(take: bool = True, **changes: Any) -> dict[str, str]:
    return lock.handler({"run": RUN, "execution": OWN, "take": take, "seconds": HOUR, **changes}, None)


def held_by(aws: Aws, execution: str | None, status: str = "RUNNING", until: float | None = None) -> None:
    content = {
        "run": execution and execution.rpartition(":")[2],
        "execution": execution,
        "until": until or time.time() + HOUR,
    }
    aws.put(ARTIFACTS, KEY, json.dumps(content).encode())
    if execution and status:
        aws.statuses[execution] = status


def holder(aws: Aws) -> Any:
    return json.loads(aws.objects[ARTIFACTS, KEY].body)


def test_a_lock_that_nobody_ever_had_is_taken(aws: Aws) -> None:
    assert ask() == {"verdict": "pass", "sentence": "Lock: nothing to object to."}
    found = holder(aws)
    assert (found["run"], found["execution"]) == (RUN, OWN)
    assert found["until"] == pytest.approx(time.time() + HOUR, abs=5)
    assert aws.document("gates/lock.json")["facts"]["taken"] is True


def test_a_lock_that_was_given_back_is_taken_again(aws: Aws) -> None:
    ask()
    assert ask(take=False)["verdict"] == "pass"
    assert holder(aws) == {"run": None, "execution": None, "until": None}
    assert ask(run="run-ffffffffffffffff", execution=OTHER)["verdict"] == "pass"
    assert holder(aws)["execution"] == OTHER


def test_taking_what_one_has_changes_nothing_for_others(aws: Aws) -> None:
    ask()
    assert ask()["verdict"] == "pass"
    assert holder(aws)["execution"] == OWN
    # Nobody asks whether one is at work oneself.
    assert not aws.called("DescribeExecution")


def test_a_lock_of_a_run_at_work_stops_the_next_one_and_names_it(aws: Aws) -> None:
    held_by(aws, OTHER, until=1_900_000_000)
    answer = ask()
    assert answer["verdict"] == "stop"
    assert answer["sentence"] == (
        "Lock: stops the run. run-ffffffffffffffff of rft-quotes-dev is still at work, and an environment"
        f" trains one model at a time. Wait until it has ended, or stop it ({OTHER}); then start this run"
        " again. The lock is free by 2030-03-17 17:46 UTC at the latest."
    )
    assert holder(aws)["execution"] == OTHER
    assert aws.document("gates/lock.json")["facts"]["holder"]["run"] == "run-ffffffffffffffff"


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", ""])
def test_a_lock_of_a_dead_holder_is_taken_and_told(aws: Aws, status: str) -> None:
    held_by(aws, OTHER, status)
    assert ask()["verdict"] == "pass"
    assert holder(aws)["execution"] == OWN
    (finding,) = aws.document("gates/lock.json")["findings"]
    assert (finding["rule"], finding["level"]) == ("left-behind", "info")
    assert finding["sentence"].startswith("run-ffffffffffffffff had not given the lock back")


@pytest.mark.parametrize(
    ("before", "taken"), [(HOUR, False), (2, False), (-1, True)], ids=["long", "a moment left", "over"]
)
def test_a_lock_expires(aws: Aws, before: float, taken: bool) -> None:
    held_by(aws, OTHER, until=time.time() + before)
    assert (ask()["verdict"] == "pass") is taken


def test_a_lock_of_a_state_machine_that_is_gone_is_taken(aws: Aws) -> None:
    held_by(aws, "arn:aws:states:us-east-1:111122223333:execution:Before:run-ffffffffffffffff")
    assert ask()["verdict"] == "pass"


def test_of_two_runs_that_reach_for_the_lock_one_gets_it(aws: Aws) -> None:
    reached = []

    def faster(place: tuple[str, str]) -> None:
        if place == (ARTIFACTS, KEY) and not reached:
            reached.append(place)
            held_by(aws, OTHER)

    aws.before_write = faster
    assert ask()["verdict"] == "stop"
    assert holder(aws)["execution"] == OTHER


def test_of_two_runs_that_take_over_from_a_dead_one_one_gets_it(aws: Aws) -> None:
    held_by(aws, f"{EXECUTIONS}:run-dead", "ABORTED")
    reached = []

    def faster(place: tuple[str, str]) -> None:
        if place == (ARTIFACTS, KEY) and not reached:
            reached.append(place)
            held_by(aws, OTHER)

    aws.before_write = faster
    assert ask()["verdict"] == "stop"
    assert holder(aws)["execution"] == OTHER


@pytest.mark.parametrize(
    ("code", "status"), [("ConditionalRequestConflict", 409), ("PreconditionFailed", 412)]
)
def test_a_write_at_the_same_moment_is_tried_again(aws: Aws, code: str, status: int) -> None:
    aws.refusals["PutObject"] = [RefusedError(code, status=status)]
    assert ask()["verdict"] == "pass"


def test_a_lock_that_is_never_left_alone_is_worth_a_retry(aws: Aws) -> None:
    aws.refusals["PutObject"] = [RefusedError("PreconditionFailed", status=412) for _ in range(5)]
    with pytest.raises(LockContestedError, match=r"s3://artifacts-bucket/lock\.json at each of 5 attempts"):
        ask()


def test_trouble_with_the_service_is_no_lock_that_is_held(aws: Aws) -> None:
    aws.refusals["PutObject"] = [RefusedError("AccessDenied", "not authorized", 403)]
    with pytest.raises(Exception, match="not authorized"):
        ask()
    held_by(aws, OTHER)
    aws.refusals["DescribeExecution"] = [RefusedError("ThrottlingException", "slow down")]
    with pytest.raises(Exception, match="slow down"):
        ask()


def test_only_its_holder_gives_it_back(aws: Aws) -> None:
    held_by(aws, OTHER)
    ask(take=False)
    assert holder(aws)["execution"] == OTHER
    assert lock.release("run-ffffffffffffffff") is True
    assert lock.release("run-ffffffffffffffff") is False


def test_a_lock_that_was_taken_over_is_not_given_back(aws: Aws) -> None:
    ask()

    def faster(place: tuple[str, str]) -> None:
        held_by(aws, OTHER)

    aws.before_write = faster
    assert lock.release(RUN) is False
    assert holder(aws)["execution"] == OTHER
