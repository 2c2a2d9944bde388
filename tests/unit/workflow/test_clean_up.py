"""After a run that broke nothing is left running, the reason is kept, and the team hears of it once."""

import json
from typing import Any

import pytest

from lambdas.workflow import clean_up, lock, train
from tests.unit.workflow.conftest import ARTIFACTS, NAME, REWARD, RUN, STATE_MACHINE, TOPIC, Aws, RefusedError

FAILED = {"run": RUN, "error": {"Error": "RunError", "Cause": json.dumps({"errorMessage": "it broke"})}}


def start_job() -> None:
    train.handler(
        {
            "run": RUN,
            "base_model": "amazon.nova-2-lite-v1:0:256k",
            "reward_version": REWARD,
            "training": {"epochCount": 1},
            "train": "s3://datasets-bucket/datasets/abc/train.jsonl",
        },
        None,
    )


def test_what_runs_is_stopped_and_the_team_is_told(aws: Aws) -> None:
    start_job()
    aws.deploy("c", name=NAME)
    answer = clean_up.handler({**FAILED, "step": "Train"}, None)
    sentence = (
        f"Run {RUN} of rft-quotes-dev failed at Train: it broke. Cleaned up: customization job {NAME} was"
        f" stopped; deployment {NAME} was deleted. Evidence: s3://{ARTIFACTS}/runs/{RUN}/. Mend the cause and"
        " start again; the same content needs another attempt number."
    )
    assert answer == {"sentence": sentence}
    assert aws.jobs[NAME]["status"] == "Stopping"
    assert not aws.deployments
    assert aws.published == [
        {"TopicArn": TOPIC, "Subject": "rft-quotes-dev: a training run failed", "Message": sentence}
    ]
    assert aws.document("failure.json") == {
        "step": "Train",
        "error": "RunError",
        "cause": "it broke",
        "done": [f"customization job {NAME} was stopped", f"deployment {NAME} was deleted"],
        "left": [],
        "notified": True,
        "sentence": sentence,
    }


def test_the_lock_is_given_back_by_the_run_that_has_it_only(aws: Aws) -> None:
    execution = f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{RUN}"
    lock.take(RUN, execution, 60)
    assert "lock was given back" not in clean_up.handler({**FAILED, "run": "run-other"}, None)["sentence"]
    assert json.loads(aws.objects[ARTIFACTS, lock.KEY].body)["run"] == RUN
    assert "Cleaned up: the lock was given back." in clean_up.handler(FAILED, None)["sentence"]
    assert json.loads(aws.objects[ARTIFACTS, lock.KEY].body)["run"] is None


def test_a_closed_gate_stops_a_run_and_is_no_failure(aws: Aws) -> None:
    closed = {"Error": "GateClosed", "Cause": "Signal: stops the run. It needs no training."}
    sentence = clean_up.handler({"run": RUN, "step": "Check signal", "error": closed}, None)["sentence"]
    assert f"Run {RUN} of rft-quotes-dev was stopped at Check signal: Signal: stops the run." in sentence


def test_where_nothing_runs_there_is_nothing_to_stop(aws: Aws) -> None:
    sentence = clean_up.handler(FAILED, None)["sentence"]
    assert "Cleaned up: nothing of it was running." in sentence
    assert len(aws.published) == 1


@pytest.mark.parametrize("status", ["Completed", "Failed", "Stopping", "Stopped"])
def test_a_job_that_has_ended_is_left_alone(aws: Aws, status: str) -> None:
    start_job()
    aws.jobs[NAME]["status"] = status
    clean_up.handler(FAILED, None)
    assert not aws.called("StopModelCustomizationJob")


def test_a_job_that_ends_meanwhile_is_no_trouble(aws: Aws) -> None:
    start_job()
    aws.refusals["StopModelCustomizationJob"] = [RefusedError("ConflictException", "not running", 409)]
    assert "nothing of it was running" in clean_up.handler(FAILED, None)["sentence"]


def test_the_champion_is_never_deleted(aws: Aws) -> None:
    # The candidate has become the champion before the report broke.
    aws.parameters["/champion"] = aws.deploy("c", name=NAME)
    clean_up.handler(FAILED, None)
    assert len(aws.deployments) == 1


def test_what_is_about_to_become_the_champion_is_kept(aws: Aws) -> None:
    candidate = aws.deploy("c", name=NAME)
    aws.write("promotion.json", {"champion_arn": candidate, "adopted": True})
    said = f"deployment {NAME} was kept, because it was about to become the champion's"
    for _ in range(2):
        assert clean_up.handler(FAILED, None)["sentence"].count(said) == 1
    assert list(aws.deployments) == [candidate]
    # One that moves behind the champion's ARN is not needed itself.
    aws.write("promotion.json", {"champion_arn": aws.deploy("a", name="champion"), "adopted": False})
    clean_up.handler(FAILED, None)
    assert candidate not in aws.deployments


def test_nothing_is_deleted_while_nobody_knows_the_champion(aws: Aws) -> None:
    aws.deploy("c", name=NAME)
    aws.refusals["GetParameter"] = [RefusedError("InternalServerError", "ssm is down", 500)]
    with pytest.raises(clean_up.CleanUpError, match=rf"delete deployment {NAME} .*ssm is down"):
        clean_up.handler(FAILED, None)
    assert len(aws.deployments) == 1


def test_the_deployment_of_another_run_is_not_touched(aws: Aws) -> None:
    other = aws.deploy("d", name=NAME.replace("0123", "ffff"))
    clean_up.handler(FAILED, None)
    assert list(aws.deployments) == [other]


def test_one_trouble_does_not_keep_the_rest_from_being_done(aws: Aws) -> None:
    start_job()
    aws.deploy("c", name=NAME)
    aws.refusals["StopModelCustomizationJob"] = [RefusedError("AccessDeniedException", "not authorized", 403)]
    with pytest.raises(clean_up.CleanUpError) as caught:
        clean_up.handler(FAILED, None)
    assert f"Still to be done by hand: stop job {NAME} (" in str(caught.value)
    assert "not authorized" in str(caught.value)
    assert not aws.deployments
    assert len(aws.published) == 1
    assert len(aws.document("failure.json")["left"]) == 1


def test_a_second_attempt_does_the_rest_and_keeps_the_peace(aws: Aws) -> None:
    start_job()
    aws.deploy("c", name=NAME)
    aws.refusals["StopModelCustomizationJob"] = [RefusedError("InternalServerException", "oops", 500)]
    with pytest.raises(clean_up.CleanUpError):
        clean_up.handler(FAILED, None)
    clean_up.handler({**FAILED, "error": {"Error": "other", "Cause": "something later"}}, None)
    assert aws.jobs[NAME]["status"] == "Stopping"
    assert len(aws.published) == 1
    failure = aws.document("failure.json")
    assert failure["cause"] == "it broke"
    assert failure["left"] == []
    assert failure["done"] == [f"deployment {NAME} was deleted", f"customization job {NAME} was stopped"]


def test_the_event_of_a_run_that_cleaned_up_itself_changes_nothing(aws: Aws) -> None:
    start_job()
    clean_up.handler({**FAILED, "step": "Train"}, None)
    before = aws.objects.copy()
    writes = len(aws.called("PutObject"))
    clean_up.handler(stopped("FAILED", error="RunStopped", cause="what the Fail state said"), None)
    assert aws.objects == before
    assert len(aws.called("PutObject")) == writes
    assert len(aws.published) == 1


def test_a_topic_that_is_down_is_tried_again(aws: Aws) -> None:
    aws.refusals["Publish"] = [RefusedError("InternalError", "sns is down", 500)]
    with pytest.raises(clean_up.CleanUpError, match=r"notify the team .*sns is down"):
        clean_up.handler(FAILED, None)
    assert aws.document("failure.json")["notified"] is False
    clean_up.handler(FAILED, None)
    assert len(aws.published) == 1
    assert aws.document("failure.json")["notified"] is True


def test_evidence_that_cannot_be_written_is_said_but_the_team_is_told(aws: Aws) -> None:
    aws.refusals["PutObject"] = [RefusedError("AccessDenied", "no", 403)]
    with pytest.raises(clean_up.CleanUpError, match="write s3://artifacts-bucket/runs/"):
        clean_up.handler(FAILED, None)
    assert len(aws.published) == 1


def stopped(status: str, **more: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "detail": {
            "executionArn": f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{RUN}",
            "stateMachineArn": STATE_MACHINE,
            "name": RUN,
            "status": status,
            "input": "{}",
            **more,
        },
    }


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (stopped("ABORTED"), "was stopped: it was stopped by hand."),
        (stopped("ABORTED", error=None, cause="wrong data"), "was stopped: wrong data."),
        (stopped("FAILED", error="States.Runtime", cause="no such variable"), "failed: no such variable."),
        (stopped("TIMED_OUT"), "failed: it took longer than the time it is given."),
        ({"run": RUN, "error": {"Error": "States.Timeout", "Cause": ""}}, "failed: it took longer than"),
        (
            {"run": RUN, "error": {"Error": "TrainingFailed", "Cause": "no access to data"}},
            "no access to data.",
        ),
        ({"run": RUN, "error": {"Error": "Bedrock.Weird"}}, "failed: Bedrock.Weird."),
        ({"run": RUN, "error": {"Error": "X", "Cause": '["errorMessage"]'}}, 'failed: ["errorMessage"].'),
        ({"run": RUN}, "failed: error."),
    ],
)
def test_every_way_to_end_is_told_in_words(aws: Aws, event: dict[str, Any], said: str) -> None:
    start_job()
    assert said in clean_up.handler(event, None)["sentence"]
    assert aws.jobs[NAME]["status"] == "Stopping"


def test_a_prompt_that_could_not_be_measured_says_why(aws: Aws) -> None:
    for index in (1, 3, 4):
        aws.write(f"failed/base/{index:05}.json", {"error": "RunError", "cause": f"broken at {index}"})
    # Failed first and was measured at another attempt.
    aws.write("measured/base/00001.json", {"index": 1, "mean": 1.0})
    threshold = {"Error": "States.ExceedToleratedFailureThreshold", "Cause": "The specified tolerated ..."}
    sentence = clean_up.handler({"run": RUN, "error": threshold}, None)["sentence"]
    assert "failed: not every prompt could be measured: 2 failed, the first because broken at 3." in sentence


def test_a_very_long_cause_still_fits_the_state_machine(aws: Aws) -> None:
    cause = json.dumps({"errorMessage": "x" * 100_000})
    sentence = clean_up.handler({"run": RUN, "error": {"Error": "E", "Cause": cause}}, None)["sentence"]
    assert len(sentence) < 7_000
