"""A run is started once for the same content, whoever asks for it."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lambdas.dataset import identity
from lambdas.workflow import promote, start
from lambdas.workflow.runs import RunError
from tests.unit.workflow.conftest import DATASETS, STATE_MACHINE, Aws, RefusedError, model_arn

SETTINGS: dict[str, Any] = {
    "source": {
        "train": f"s3://{DATASETS}/a/train.jsonl",
        "evaluation": f"s3://{DATASETS}/a/evaluation.jsonl",
    },
    "base_model": "amazon.nova-2-lite-v1:0:256k",
    "reward_version": "arn:aws:lambda:us-east-1:111122223333:function:Reward:3",
    "training": {"epochCount": 2, "learningRate": 1e-4, "reasoningEffort": "low"},
    "measurement": {"prompts": 100, "samples_per_prompt": 4, "temperature": 0.7, "concurrency": 10},
    "promotion": {"minimum_gain": 0.0, "confidence": 0.95},
}
LIMITS = {"epochCount": 12}
GATES = {"signal": {"prompts": 50}}
SHA256 = identity(hashlib.sha256(b"train").hexdigest(), hashlib.sha256(b"evaluation").hexdigest())


class Context:
    def __init__(self, milliseconds: int = 300_000) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture(autouse=True)
def _settings(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTINGS", json.dumps({**SETTINGS, "gates": GATES, "limits": LIMITS}))
    aws.put(DATASETS, "a/train.jsonl", b"train")
    aws.put(DATASETS, "a/evaluation.jsonl", b"evaluation")


def ask(**request: Any) -> dict[str, Any]:
    return start.handler(request, Context())


def document(aws: Aws, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(aws.executions[run])
    return found


def test_the_execution_gets_the_run_document(aws: Aws) -> None:
    answer = ask()
    run = answer["run"]
    execution = f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{run}"
    assert answer == {"run": run, "execution": execution, "started": True}
    found = document(aws, run)
    assert found.pop("requested") > "2026"
    assert found == {
        **SETTINGS,
        "gates": GATES,
        "source": {**SETTINGS["source"], "sha256": SHA256},
        "run": run,
        "trigger": "manual",
        "attempt": 1,
    }


def test_a_champion_that_a_deploy_forgot_is_remembered(aws: Aws) -> None:
    champion = aws.crown("a")
    aws.statuses["arn:aws:states:::execution"] = "RUNNING"
    promote.handler(
        {
            "run": "run-1",
            "execution": "arn:aws:states:::execution",
            "model_arn": aws.train("b"),
            "deployment_arn": champion,
            "decision": {"sentence": "Better.", "champion": {"model_arn": model_arn("a")}},
        },
        None,
    )
    aws.parameters["/champion"] = "none"
    ask(dry_run=True)
    assert aws.parameters["/champion"] == champion


def test_where_nothing_was_promoted_there_is_no_champion_to_remember(aws: Aws) -> None:
    ask(dry_run=True)
    assert aws.parameters["/champion"] == "none"


def test_the_same_content_is_started_once(aws: Aws) -> None:
    first, second = ask(), ask(training={}, source=None, attempt=1)
    assert (first["started"], second["started"]) == (True, False)
    assert {**second, "started": True} == first
    assert len(aws.executions) == 1


def test_the_same_bytes_elsewhere_are_the_same_content(aws: Aws) -> None:
    again = aws.put(DATASETS, "incoming/monday/train.jsonl", b"train")
    assert ask()["run"] == ask(source={"train": again})["run"]


@pytest.mark.parametrize("attempt", [True, 0, "2", 1.0])
def test_an_attempt_is_a_whole_number_from_one(attempt: Any) -> None:
    with pytest.raises(RunError, match=r"`attempt` is .* whole number from 1"):
        ask(attempt=attempt)


def changed(name: str, value: Any) -> Callable[[Aws, pytest.MonkeyPatch], None]:
    return lambda _aws, patch: patch.setenv("SETTINGS", json.dumps({**SETTINGS, name: value}))


@pytest.mark.parametrize(
    "change",
    [
        lambda aws, _patch: aws.put(DATASETS, "a/train.jsonl", b"train."),
        lambda aws, _patch: aws.put(DATASETS, "a/evaluation.jsonl", b"evaluation."),
        lambda _aws, patch: patch.setenv("STATE_MACHINE", f"{STATE_MACHINE}2"),
        changed("reward_version", SETTINGS["reward_version"].replace(":3", ":4")),
        changed("base_model", "amazon.nova-lite-v1:0:300k"),
        changed("training", {**SETTINGS["training"], "epochCount": 3}),
        changed("measurement", {**SETTINGS["measurement"], "prompts": 99}),
        changed("promotion", {**SETTINGS["promotion"], "confidence": 0.9}),
    ],
)
def test_another_content_is_another_run(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, change: Callable[[Aws, pytest.MonkeyPatch], None]
) -> None:
    before = ask()
    change(aws, monkeypatch)
    after = ask()
    assert after["started"]
    assert after["run"] != before["run"]


def test_another_attempt_or_other_training_settings_are_another_run(aws: Aws) -> None:
    runs = {ask()["run"], ask(attempt=2)["run"], ask(training={"epochCount": 3})["run"]}
    assert len(runs) == 3
    assert ask(training={"epochCount": 2})["run"] in runs


def test_limits_and_gates_are_no_content(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask()
    monkeypatch.setenv("SETTINGS", json.dumps(SETTINGS))
    assert ask()["run"] == before["run"]


def test_what_may_be_left_out_of_the_rows_is_content(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {ask()["run"]}
    for drop in ("solved", "flat"):
        filtered = {**SETTINGS, "filter": {"drop": drop, "prompts": 200}, "gates": GATES, "limits": LIMITS}
        monkeypatch.setenv("SETTINGS", json.dumps(filtered))
        run = ask()["run"]
        assert document(aws, run)["filter"] == {"drop": drop, "prompts": 200}
        runs.add(run)
    assert len(runs) == 3


def test_regression_prompts_are_content_as_the_other_held_out_rows_are(aws: Aws) -> None:
    aws.put(DATASETS, "a/regression.jsonl", b"regression")
    regression = f"s3://{DATASETS}/a/regression.jsonl"
    run = ask(source={"regression": regression})["run"]
    assert run != ask()["run"]
    hashes = (hashlib.sha256(file).hexdigest() for file in (b"train", b"evaluation", b"regression"))
    assert document(aws, run)["source"] == {
        **SETTINGS["source"],
        "regression": regression,
        "sha256": identity(*hashes),
    }
    aws.put(DATASETS, "a/regression.jsonl", b"others")
    assert ask(source={"regression": regression})["run"] != run


def test_regression_prompts_beside_an_upload_are_used(aws: Aws) -> None:
    for file in ("train", "regression"):
        aws.put(DATASETS, f"incoming/x/{file}.jsonl", file.encode())
    event = {
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": DATASETS}, "object": {"key": "incoming/x/train.jsonl"}},
    }
    source = document(aws, start.handler(event, Context())["run"])["source"]
    assert source["regression"] == f"s3://{DATASETS}/incoming/x/regression.jsonl"
    assert source["evaluation"] == SETTINGS["source"]["evaluation"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            {"training": {"epoch_count": 2}},
            "`training.epoch_count` is no training setting: did you mean `epochCount`?",
        ),
        (
            {"training": {"zeal": 2}},
            "`training.zeal` is no training setting: there are epochCount, batchSize,",
        ),
        (
            {"training": {"epochCount": 51}},
            "`training.epochCount` is 51: it must be a whole number from 1 to 50",
        ),
        ({"training": {"epochCount": 13}}, "`training.epochCount` is 13: the platform allows at most 12"),
        ({"training": {"epochCount": 0}}, "is 0: it must be a whole number from 1 to 50"),
        ({"training": {"epochCount": 2.0}}, "is 2.0: it must be a whole number from 1 to 50"),
        ({"training": {"epochCount": True}}, "is True: it must be a whole number from 1 to 50"),
        ({"training": {"epochCount": "2"}}, "is '2': it must be a whole number from 1 to 50"),
        (
            {"training": {"batchSize": 8}},
            "`training.batchSize` is 8: it must be a whole number from 16 to 512",
        ),
        ({"training": {"learningRate": 1}}, "is 1: it must be a number from 1e-07 to 0.001"),
        ({"training": {"learningRate": float("nan")}}, "is nan: it must be a number from 1e-07 to 0.001"),
        ({"training": {"maxPromptLength": 0}}, "is 0: it must be a whole number of at least 1"),
        ({"training": {"reasoningEffort": "max"}}, "is 'max': it must be one of low, medium, high"),
        ({"training": {"reasoningEffort": []}}, "is []: it must be one of low, medium, high"),
        ({"training": [1]}, "`training` is no object"),
        ({"trainings": {}}, "unknown key `trainings`: did you mean `training`?"),
        ({"source": {"train": "data/train.jsonl"}}, "is 'data/train.jsonl': it must be s3://bucket/key"),
        (
            {"source": {"test": "s3://b/k"}},
            "unknown key `source.test`: the files are `train`, `evaluation`, `regression`",
        ),
        ({"source": "s3://bucket/key"}, "`source` is no object"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(
    aws: Aws, request_: dict[str, Any], said: str
) -> None:
    with pytest.raises(RunError) as caught:
        ask(**request_)
    assert said in str(caught.value)
    assert not aws.executions


def test_all_that_is_wrong_with_a_request_is_said_at_once() -> None:
    with pytest.raises(RunError) as caught:
        ask(training={"epochCount": 0, "zeal": 1}, source={"train": "x"}, now=True)
    assert len(str(caught.value).splitlines()) == 5


def test_good_overrides_reach_the_execution(aws: Aws) -> None:
    overrides = {"epochCount": 12, "learningRate": 0.001, "reasoningEffort": "high", "maxPromptLength": 9000}
    found = document(aws, ask(training=overrides)["run"])
    assert found["training"] == overrides


def test_a_missing_file_is_told_to_who_asks_by_hand(aws: Aws) -> None:
    with pytest.raises(RunError, match=r"s3://datasets-bucket/b\.jsonl cannot be read: .*NoSuchKey"):
        ask(source={"train": f"s3://{DATASETS}/b.jsonl"})
    assert not aws.executions


def test_a_file_too_large_for_the_time_there_is_is_told() -> None:
    with pytest.raises(RunError, match="too large to be hashed"):
        start.handler({}, Context(milliseconds=20_000))


def upload(key: str) -> dict[str, Any]:
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": DATASETS}, "object": {"key": key, "size": 5, "etag": "x"}},
    }


def test_an_upload_trains_on_the_uploaded_files(aws: Aws) -> None:
    train = aws.put(DATASETS, "incoming/may 1/train.jsonl", b"new")
    held = aws.put(DATASETS, "incoming/may 1/evaluation.jsonl", b"new too")
    found = document(aws, start.handler(upload("incoming/may 1/train.jsonl"), Context())["run"])
    assert found["trigger"] == "upload"
    assert (found["source"]["train"], found["source"]["evaluation"]) == (train, held)


def test_an_upload_without_evaluation_is_measured_on_the_settings_one(aws: Aws) -> None:
    aws.put(DATASETS, "incoming/x/train.jsonl", b"new")
    found = document(aws, start.handler(upload("incoming/x/train.jsonl"), Context())["run"])
    assert found["source"]["evaluation"] == SETTINGS["source"]["evaluation"]


def test_an_upload_that_cannot_be_looked_at_is_no_missing_evaluation(aws: Aws) -> None:
    aws.put(DATASETS, "incoming/x/train.jsonl", b"new")
    aws.refusals["HeadObject"] = [RefusedError("403", "Forbidden", 403)]
    with pytest.raises(Exception, match="Forbidden"):
        start.handler(upload("incoming/x/train.jsonl"), Context())


class CloudFormation:
    """The other end of a custom resource: an address that takes the answer, but not the first `refusals`."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.types: list[str | None] = []
        self.refusals = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.refusals:
                    outer.refusals -= 1
                    self.send_error(503)
                    return
                outer.answers.append(json.loads(body))
                outer.types.append(self.headers["Content-Type"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Stays quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def request(self, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "RequestType": kind,
            "ResponseURL": f"http://127.0.0.1:{self.server.server_port}/answer?signed",
            "StackId": "arn:aws:cloudformation:us-east-1:111122223333:stack/s/1",
            "RequestId": "r-1",
            "LogicalResourceId": "TrainOnDeploy",
            "ResourceType": "Custom::Run",
            "ResourceProperties": {"Content": "hash"},
            **more,
        }

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def formation() -> Iterator[CloudFormation]:
    formation = CloudFormation()
    yield formation
    formation.stop()


def test_a_deploy_starts_a_run_and_is_answered(aws: Aws, formation: CloudFormation) -> None:
    start.handler(formation.request("Create"), Context())
    (run,) = aws.executions
    assert document(aws, run)["trigger"] == "deploy"
    assert formation.answers == [
        {
            "Status": "SUCCESS",
            "Reason": "see Data",
            "PhysicalResourceId": "training-run",
            "StackId": "arn:aws:cloudformation:us-east-1:111122223333:stack/s/1",
            "RequestId": "r-1",
            "LogicalResourceId": "TrainOnDeploy",
            "Data": {
                "run": run,
                "execution": f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{run}",
                "started": "True",
            },
        }
    ]
    # The address was signed for an empty content type.
    assert formation.types == [""]


def test_a_deploy_of_what_is_trained_already_succeeds_under_its_old_id(
    aws: Aws, formation: CloudFormation
) -> None:
    ask()
    start.handler(formation.request("Update", PhysicalResourceId="old"), Context())
    assert len(aws.executions) == 1
    (answer,) = formation.answers
    assert (answer["Status"], answer["PhysicalResourceId"], answer["Data"]["started"]) == (
        "SUCCESS",
        "old",
        "False",
    )


def test_removing_the_stack_starts_nothing(aws: Aws, formation: CloudFormation) -> None:
    start.handler(formation.request("Delete", PhysicalResourceId="training-run"), Context())
    assert not aws.calls
    assert formation.answers[0]["Status"] == "SUCCESS"


def test_a_deploy_does_not_fail_for_a_file_it_cannot_read_the_run_does(
    aws: Aws, formation: CloudFormation
) -> None:
    del aws.objects[DATASETS, "a/train.jsonl"]
    start.handler(formation.request("Create"), Context())
    assert formation.answers[0]["Status"] == "SUCCESS"
    (run,) = aws.executions
    assert "sha256" not in document(aws, run)["source"]
    # When the file is there, it is another content, and a run of its own.
    aws.put(DATASETS, "a/train.jsonl", b"train")
    start.handler(formation.request("Update"), Context())
    assert len(aws.executions) == 2


def test_a_deploy_fails_loudly_when_the_run_cannot_be_started(aws: Aws, formation: CloudFormation) -> None:
    aws.refusals["StartExecution"] = [
        RefusedError("AccessDeniedException", "is not authorized to perform: states:StartExecution")
    ]
    start.handler(formation.request("Create"), Context())
    (answer,) = formation.answers
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith("the training run could not be started: ")
    assert "(AccessDeniedException)" in answer["Reason"]
    assert "states:StartExecution" in answer["Reason"]


def test_a_broken_configuration_is_answered_too(
    monkeypatch: pytest.MonkeyPatch, formation: CloudFormation
) -> None:
    monkeypatch.delenv("SETTINGS")
    start.handler(formation.request("Create"), Context())
    assert formation.answers[0]["Status"] == "FAILED"
    assert "SETTINGS" in formation.answers[0]["Reason"]


def test_the_answer_is_repeated_until_it_is_heard(
    monkeypatch: pytest.MonkeyPatch, formation: CloudFormation
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    formation.refusals = 2
    start.handler(formation.request("Delete"), Context())
    assert len(formation.answers) == 1
    assert waits == [1, 2]


def test_an_address_that_is_no_web_address_is_not_written_to(aws: Aws) -> None:
    event = {"RequestType": "Delete", "StackId": "s", "RequestId": "r", "LogicalResourceId": "l"}
    with pytest.raises(RunError, match="ResponseURL"):
        start.handler({**event, "ResponseURL": "file:///etc/hosts"}, Context())
