"""What the `rft` verbs about the champion say, and which mistakes they tell; a stand-in answers them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from rft import cli, terminal
from rft.cloud import CloudError, Deployed, Run

RUN = "run-0123456789abcdef"
MODEL, OLD = "arn:model/new", "arn:model/old"
STILL = {"champion_arn": "arn:champion", "model": OLD, "goal": OLD, "updating": False, "update": None}


class Environment:
    """Answers as a deployed environment does; `states` are what it says of the champion, in turn."""

    stack = "rft-quotes-dev"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.running: list[str] = [RUN]
        self.states: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.cloud = type("Cloud", (), {"endpoint": "http://127.0.0.1:1"})()

    def runs(self) -> list[Run]:
        now = datetime.now(UTC)
        return [Run(name, "arn", "RUNNING", now, None) for name in self.running] + [
            Run("run-ended", "arn", "SUCCEEDED", now, now)
        ]

    def change_champion(self, action: str, *, run: str | None = None, why: str | None = None) -> Any:
        self.asked.append((action, run, why))
        match action:
            case "approve" | "reject":
                return {"run": run, "approved": action == "approve", "by": "arn:eve"}
            case "history":
                return {**STILL, "model": MODEL, "changes": self.changes}
            case _:
                return {**self.states.pop(0), "run": run or "run-before"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    made = Environment()
    monkeypatch.setattr(terminal, "deployed", lambda *_arguments, **_named: made)
    return made


def rft(*words: str) -> tuple[int, str]:
    """Runs a verb; its exit code, and all it said, the message of an error included."""
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "300"})
    said = done.output + (str(done.exception) if isinstance(done.exception, CloudError) else "")
    return done.exit_code, " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reject", "quotes"], "Missing option '--reason'"),
        (["promote", "quotes", "--reason", "x"], "Missing option '--run'"),
        (["promote", "quotes", "--run", RUN], "Missing option '--reason'"),
        (["rollback", "quotes"], "Missing option '--reason'"),
    ],
)
def test_fails_without_what_the_history_needs(environment: Environment, words: list[str], said: str) -> None:
    code, text = rft(*words)
    assert code == 2
    assert said in text
    assert environment.asked == []


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_the_one_run_that_goes_on_is_answered(environment: Environment, verb: str) -> None:
    code, text = rft(verb, "quotes", "--reason", "seen it")
    assert (code, environment.asked) == (0, [(verb, RUN, "seen it")])
    verdict = "approved" if verb == "approve" else "rejected"
    assert f"{RUN} {verdict} as arn:eve; it ends by itself: rft watch quotes" in text


@pytest.mark.parametrize(
    ("running", "said"),
    [
        ([], "has no run that goes on, so none is waiting for approval"),
        (["run-a", "run-b"], "several runs that go on: choose one with --run (run-a, run-b)"),
    ],
)
def test_fails_when_it_is_not_clear_which_run_waits(
    environment: Environment, running: list[str], said: str
) -> None:
    environment.running = running
    code, text = rft("approve", "quotes")
    assert code == 1
    assert said in text
    assert rft("approve", "quotes", "--run", "run-b")[0] == 0


def test_a_rollback_waits_until_the_model_is_served(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.time, "sleep", lambda _seconds: None)
    moving = {**STILL, "model": MODEL, "goal": OLD, "updating": True, "update": "Updating"}
    environment.states = [moving, moving, moving, {**STILL, "update": "UpdateCompleted"}]
    code, text = rft("rollback", "quotes", "--reason", "slow")
    assert code == 0
    assert environment.asked == [("rollback", None, "slow"), *[("status", None, None)] * 3]
    assert f"The champion arn:champion serves {OLD} of run-before." in text


def test_fails_when_the_deployment_does_not_move(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.time, "sleep", lambda _seconds: None)
    moving = {**STILL, "model": MODEL, "goal": OLD, "updating": True, "update": "Updating"}
    environment.states = [moving, {**moving, "updating": False, "goal": MODEL, "update": "UpdateFailed"}]
    code, text = rft("rollback", "quotes", "--to", RUN, "--reason", "slow")
    assert code == 1
    assert f"the champion still serves {MODEL}: moving it is UpdateFailed" in text


CHANGES = [
    {
        "when": f"2026-01-0{day}T10:00:00.000000+00:00",
        "who": "arn:aws:sts::111122223333:assumed-role/Developer/eve",
        "why": "[bold]because[/bold]",
        "change": "promoted by a run",
        "run": f"run-{day}",
        "model": model,
        "metrics": {"gain": 0.25} if day == 1 else {},
    }
    for day, model in ((1, MODEL), (2, OLD), (3, MODEL), (4, OLD))
]


def test_the_history_is_a_table_that_marks_what_serves(environment: Environment) -> None:
    environment.changes = CHANGES
    code, text = rft("history", "quotes")
    assert code == 0
    assert "2026-01-01 10:00 promoted by a run run-1 +0.250 assumed-role/Developer/eve" in text
    # What a person wrote is shown as written.
    assert "[bold]because[/bold]" in text
    assert text.count("(serving)") == 1
    assert "2026-01-03 10:00 promoted by a run (serving) run-3" in text


def test_the_history_is_json_on_request(environment: Environment) -> None:
    environment.changes = CHANGES
    done = CliRunner().invoke(cli.app, ["history", "quotes", "--json"])
    assert json.loads(done.stdout)["changes"] == CHANGES


def test_an_empty_history_says_so(environment: Environment) -> None:
    assert "No model has been promoted yet." in rft("history", "quotes")[1]


def test_fails_when_the_stack_is_of_an_older_version() -> None:
    class Cloud:
        def identity(self, stack: str) -> str:
            return stack

    old = Deployed(cloud=Cloud(), stack="rft-quotes-dev", status="", outputs={})  # type: ignore[arg-type]  # a fake
    with pytest.raises(CloudError, match="has no output ChangeChampion: deploy it again"):
        old.change_champion("status")
