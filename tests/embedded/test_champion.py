"""What people do about the champion, on the embedded AWS: approve, reject, roll back, look."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft.cloud import Cloud, CloudError, Deployed, Run
from rft.embedded.aws import EmbeddedAws
from tests.embedded.test_environment import Project, deployments, ended

Clients = Callable[[str], Any]
TEAM = "asking"
STACK = f"rft-{TEAM}-dev"
ROOT = "arn:aws:iam::000000000000:root"


@pytest.fixture(scope="module")
def environment(
    aws: EmbeddedAws,
    tmp_path_factory: pytest.TempPathFactory,
    synthesize: Callable[..., Path],
    deploy: Callable[..., dict[str, str]],
) -> Deployed:
    """A team whose models a person approves, with a short training and a short measurement."""
    project = Project(tmp_path_factory.mktemp("project"), synthesize, deploy, TEAM)
    text = project.settings.read_text().replace('"on-deploy"', '"manual"')
    text = text.replace("prompts = 12", "prompts = 16").replace("epoch_count = 1", "epoch_count = 3")
    text = re.sub(r"(?m)^(batch_size|training_sample_per_prompt) = .*$", "\\1 = 16", text)
    rows = project.root / "teams" / TEAM / "data/train.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:128]))
    text = re.sub(r"(?m)^\[stages\.dev\]\n", "[stages.dev]\napproval = true\n", text)
    # Sixteen prompts cannot tell a model from one that was trained in the same way.
    project.settings.write_text(text + "\n[promotion]\ntolerated_drop = 0.5\n")
    outputs = project.deploy()
    return Deployed(cloud=Cloud.embedded(aws), stack=STACK, status="", outputs=outputs)


def waiting(environment: Deployed, **request: Any) -> Run:
    """A run that has come to where a person is asked."""
    run, new = environment.start(request)
    assert new
    deadline = time.monotonic() + 240
    while environment.document(run, "approval.json") is None:
        run = environment.run(run.name)
        assert run.status == "RUNNING", environment.document(run, "failure.json") or environment.document(
            run, "decision.json"
        )
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return run


def answered(environment: Deployed, action: str, run: Run, why: str) -> Run:
    answer = environment.change_champion(action, run=run.name, why=why)
    assert answer["by"] == ROOT
    run = ended(environment, run)
    assert run.status == "SUCCEEDED", environment.document(run, "failure.json")
    return run


def settled(environment: Deployed) -> dict[str, Any]:
    """How the champion stands when it has arrived."""
    deadline = time.monotonic() + 20
    while (state := environment.change_champion("status"))["updating"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return state


def test_a_rejected_model_is_not_promoted_and_its_candidate_goes(
    environment: Deployed, client: Clients, tmp_path: Path
):
    run = waiting(environment)
    asked = environment.document(run, "approval.json")
    assert asked["sentence"].startswith("Cleared for promotion: ")
    page = environment.save_report(run, tmp_path)
    assert page is not None
    assert "Cleared for promotion" in page.read_text()
    with pytest.raises(CloudError, match="give a reason"):
        environment.change_champion("reject", run=run.name, why="")
    run = answered(environment, "reject", run, "it is rude")
    decision = environment.document(run, "decision.json")
    assert decision["promote"] is False
    assert decision["sentence"].startswith(f"Not promoted: rejected by {ROOT}: it is rude.")
    assert "token" not in environment.document(run, "approval.json")
    assert environment.champion() is None
    serving = client("bedrock").list_custom_model_deployments(nameContains=STACK)
    assert serving["modelDeploymentSummaries"] == []
    with pytest.raises(CloudError, match=f"{run.name} was not approved at"):
        environment.change_champion("approve", run=run.name)
    assert environment.change_champion("history")["changes"] == []


def test_two_promotions_and_the_way_back(environment: Deployed, client: Clients):
    first = answered(environment, "approve", waiting(environment, attempt=2), "")
    champion = environment.champion()
    assert champion in deployments(client)
    second = answered(environment, "approve", waiting(environment, attempt=3), "better")
    decision = environment.document(second, "decision.json")
    assert decision["champion"]["held"] is True
    # The champion was measured anew, and scores about what its own run had found.
    before = environment.document(first, "decision.json")
    assert decision["champion"]["mean"] == pytest.approx(before["candidate_mean"], abs=0.25)
    assert environment.champion() == champion
    assert [name for name in deployments(client) if name == champion] == [champion]

    found = environment.change_champion("history")
    assert [(each["run"], each["who"]) for each in found["changes"]] == [
        (first.name, ROOT),
        (second.name, ROOT),
    ]
    assert found["changes"][1]["previous_model"] == found["changes"][0]["model"]
    assert found["model"] == found["changes"][1]["model"]

    environment.change_champion("rollback", why="slow")
    assert settled(environment)["model"] == found["changes"][0]["model"]
    assert environment.champion() == champion
    answer = client("bedrock-runtime").converse(
        modelId=champion, messages=[{"role": "user", "content": [{"text": "What is 2 + 2?"}]}]
    )
    assert answer["output"]["message"]["content"]
    with pytest.raises(CloudError, match="there is no model before the present one"):
        environment.change_champion("rollback", why="slow")
    environment.change_champion("promote", run=second.name, why="it was the network")
    assert settled(environment)["model"] == found["model"]
    changes = environment.change_champion("history")["changes"]
    assert [(each["change"], each["why"]) for each in changes[2:]] == [
        ("rolled back", "slow"),
        ("promoted by hand", "it was the network"),
    ]
