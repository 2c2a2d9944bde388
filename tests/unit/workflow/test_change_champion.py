"""A person approves, rejects, promotes and rolls back under a name that STS vouches for."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest

from lambdas.workflow import change_champion, history
from lambdas.workflow.runs import RunError
from rft.cloud import Cloud
from tests.unit.workflow.conftest import RUN, STACK, Aws, RefusedError, model_arn

EVE = "arn:aws:sts::111122223333:assumed-role/Developer/eve"
OTHER = "run-ffffffffffffffff"


class Sts(BaseHTTPRequestHandler):
    """STS as far as it answers GetCallerIdentity: to requests whose signed headers are all there."""

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        signed = query["X-Amz-SignedHeaders"][0].split(";")
        known = self.headers.get("x-rft-environment") == STACK and all(
            name in self.headers for name in signed
        )
        # The signature itself would need the secret; what it covers is checked here.
        body = f"<Arn>{EVE}</Arn>" if known else "<Code>SignatureDoesNotMatch</Code>"
        self.send_response(200 if known else 403)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    server = HTTPServer(("127.0.0.1", 0), Sts)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    session = boto3.Session("AKIDEXAMPLE", "example", region_name="us-east-1")
    yield Cloud(name="test", endpoint=endpoint, session=session)
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(aws: Aws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(cloud.endpoint))

    def ask(action: str, **request: Any) -> Any:
        identity = {"identity": cloud.identity(STACK)} | request
        return change_champion.handler({"action": action, **identity}, None)

    return ask


def promoted(aws: Aws, *letters: str) -> str:
    """An environment whose champion was promoted to these models one after the other."""
    champion = aws.crown(letters[0], run=f"run-{letters[0] * 16}")
    for day, letter in enumerate(letters, 1):
        run = f"run-{letter * 16}"
        aws.train(letter, run=run, day=day)
        aws.deployments[champion]["modelArn"] = model_arn(letter)
        history.append(
            {
                "when": history.now(),
                "run": run,
                "model": model_arn(letter),
                "change": "promoted by a run",
                "metrics": {},
            }
        )
    return champion


# Who asks


def test_who_it_was_is_what_sts_says(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b")
    ask("rollback", why="slow")
    assert aws.entries()[-1]["who"] == EVE


@pytest.mark.parametrize(
    "identity",
    [
        None,
        "",
        "Action=GetCallerIdentity",
        "Action=AssumeRole&X-Amz-SignedHeaders=host%3Bx-rft-environment",
        "Action=GetCallerIdentity&X-Amz-SignedHeaders=host",
        "Action=GetCallerIdentity&X-Amz-SignedHeaders=host%3Bx-rft-environment HTTP/1.1\r\nEvil: 1",
        "Action=GetCallerIdentity&Action=AssumeRole&X-Amz-SignedHeaders=host%3Bx-rft-environment",
    ],
)
def test_nobody_acts_without_a_signature_of_their_own(aws: Aws, ask: Any, identity: str | None) -> None:
    promoted(aws, "a", "b")
    with pytest.raises(RunError, match="ask with the rft command"):
        ask("rollback", why="slow", identity=identity)
    assert not aws.called("UpdateCustomModelDeployment")


def test_a_signature_that_sts_refuses_changes_nothing(aws: Aws, ask: Any, monkeypatch: Any) -> None:
    promoted(aws, "a", "b")
    # A signature made for this environment and brought to another one.
    monkeypatch.setenv("STACK", "rft-quotes-prod")
    with pytest.raises(RunError, match="HTTP 403"):
        ask("rollback", why="slow")
    assert not aws.called("UpdateCustomModelDeployment")


def test_a_signature_covers_the_environment_and_expires_soon(cloud: Cloud) -> None:
    query = urllib.parse.parse_qs(cloud.identity(STACK))
    assert query["X-Amz-SignedHeaders"] == ["host;x-rft-environment"]
    assert query["X-Amz-Expires"] == ["60"]
    assert query["Action"] == ["GetCallerIdentity"]


def test_fails_when_the_action_is_none(aws: Aws) -> None:
    with pytest.raises(RunError, match="one of status, history, approve"):
        change_champion.handler({"action": "delete"}, None)


# Rolling back


def test_rolling_back_serves_the_model_before(aws: Aws, ask: Any) -> None:
    champion = promoted(aws, "a", "b")
    state = ask("rollback", why="slow")
    assert state == {
        "champion_arn": champion,
        "model": model_arn("b"),
        "goal": model_arn("a"),
        "updating": True,
        "update": "Updating",
        "run": f"run-{'a' * 16}",
    }
    entry = aws.entries()[-1]
    assert (entry["change"], entry["why"]) == ("rolled back", "slow")
    assert (entry["model"], entry["previous_model"]) == (model_arn("a"), model_arn("b"))
    assert aws.published[0]["Subject"] == f"{STACK}: rolled back"
    aws.arrive()
    assert ask("status")["model"] == model_arn("a")


def test_rolling_back_twice_goes_back_two_promotions(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b", "c")
    for letter in "ba":
        assert ask("rollback", why="slow")["goal"] == model_arn(letter)
        aws.arrive()
    with pytest.raises(RunError, match="there is no model before the present one"):
        ask("rollback", why="slow")


def test_rolling_back_to_a_run_goes_straight_there(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b", "c")
    assert ask("rollback", run=f"run-{'a' * 16}", why="slow")["goal"] == model_arn("a")


def test_fails_when_the_run_was_never_the_champion(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b")
    with pytest.raises(RunError, match=f"{OTHER} was never the champion .runs that were: run-a+, run-b+"):
        ask("rollback", run=OTHER, why="slow")


def test_fails_when_the_model_to_go_back_to_was_deleted(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b")
    del aws.models[model_arn("a")]
    with pytest.raises(RunError, match=r"there is no model of run-a+: .*retention"):
        ask("rollback", why="slow")
    assert len(aws.entries()) == 2


@pytest.mark.parametrize("action", ["rollback", "promote", "reject"])
def test_fails_without_a_reason(aws: Aws, ask: Any, action: str) -> None:
    promoted(aws, "a", "b")
    aws.write("approval.json", {"token": "t"})
    with pytest.raises(RunError, match="give a reason"):
        ask(action, run=RUN, why="  ")


def test_fails_while_the_champion_is_on_its_way(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b", "c")
    ask("rollback", why="slow")
    with pytest.raises(RunError, match=r"is on its way to .*: wait until it has arrived"):
        ask("rollback", why="slow")


@pytest.mark.parametrize("action", ["status", "rollback"])
def test_fails_without_a_champion(aws: Aws, ask: Any, action: str) -> None:
    with pytest.raises(RunError, match="there is no champion yet"):
        ask(action, why="slow")
    aws.parameters["/champion"] = aws.deploy("z", name="gone")
    aws.deployments.clear()
    with pytest.raises(RunError, match="was deleted: the next run that promotes makes another"):
        ask(action, why="slow")


def test_a_change_is_written_down_before_it_is_made(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b")
    aws.refusals["PutObject"] = [RefusedError("AccessDenied", "no", 403)]
    with pytest.raises(Exception, match="AccessDenied"):
        ask("rollback", why="slow")
    assert not aws.called("UpdateCustomModelDeployment")


# Promoting by hand


def test_promoting_by_hand_keeps_what_the_run_had_found(aws: Aws, ask: Any) -> None:
    promoted(aws, "a")
    aws.train("n", run=RUN)
    aws.write("decision.json", {"promote": False, "gain": -0.1, "sentence": "Not promoted: worse."})
    assert ask("promote", run=RUN, why="the rows are cleaner")["goal"] == model_arn("n")
    entry = aws.entries()[-1]
    assert entry["change"] == "promoted by hand"
    assert (entry["run"], entry["why"], entry["metrics"]) == (RUN, "the rows are cleaner", {"gain": -0.1})


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (None, "name the run"),
        (OTHER, f"there is no model of {OTHER}"),
        (f"run-{'a' * 16}", "serves the model of run-a+ already"),
    ],
)
def test_fails_when_there_is_nothing_to_promote(aws: Aws, ask: Any, run: str | None, said: str) -> None:
    promoted(aws, "a")
    with pytest.raises(RunError, match=said):
        ask("promote", run=run, why="because")


# Approving and rejecting


@pytest.mark.parametrize(("action", "approved"), [("approve", True), ("reject", False)])
def test_the_waiting_workflow_gets_the_answer(aws: Aws, ask: Any, action: str, approved: bool) -> None:
    aws.write("approval.json", {"run": RUN, "token": "token-1"})
    aws.waiting["token-1"] = None
    assert ask(action, run=RUN, why="seen it") == {"run": RUN, "approved": approved, "by": EVE}
    answer = aws.waiting["token-1"]
    assert answer is not None
    assert (answer["approved"], answer["by"], answer["why"]) == (approved, EVE, "seen it")
    assert answer["at"]


def test_approving_needs_no_reason(aws: Aws, ask: Any) -> None:
    aws.write("approval.json", {"run": RUN, "token": "token-1"})
    aws.waiting["token-1"] = None
    ask("approve", run=RUN)
    assert json.dumps(aws.waiting["token-1"])


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (None, f"{RUN} is not waiting for approval"),
        ({"approved": True, "by": EVE, "at": "noon"}, f"{RUN} was approved at noon by {EVE}"),
        ({"approved": False, "by": None, "at": "noon"}, f"{RUN} was not approved at noon$"),
        ({"token": "token-old"}, f"{RUN} waits no longer"),
    ],
)
def test_fails_when_the_run_does_not_wait(aws: Aws, ask: Any, kept: dict[str, Any] | None, said: str) -> None:
    if kept:
        aws.write("approval.json", kept)
    with pytest.raises(RunError, match=said):
        ask("approve", run=RUN)


# Looking


def test_the_history_is_told_with_what_serves(aws: Aws, ask: Any) -> None:
    promoted(aws, "a", "b")
    found = ask("history", identity=None)
    assert [each["model"] for each in found["changes"]] == [model_arn("a"), model_arn("b")]
    assert found["model"] == model_arn("b")


def test_the_history_may_be_empty(aws: Aws, ask: Any) -> None:
    found = ask("history")
    assert (found["changes"], found["model"], found["champion_arn"]) == ([], None, None)
