"""Applications keep one ARN; what is behind it changes, once, and the way back is written down first."""

from typing import Any

import pytest

from lambdas.workflow import history, promote
from lambdas.workflow.runs import RunError
from tests.unit.workflow.conftest import NAME, RUN, STATE_MACHINE, Aws, RefusedError, model_arn

EXECUTION = f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{RUN}"


def plan(promotion: dict[str, Any]) -> dict[str, Any]:
    """A promotion without its time."""
    return {key: value for key, value in promotion.items() if key != "when"}


@pytest.fixture
def event(aws: Aws) -> dict[str, Any]:
    aws.statuses[EXECUTION] = "RUNNING"
    return {
        "run": RUN,
        "model_arn": model_arn("n"),
        "deployment_arn": aws.deploy("c", name=NAME, model="n"),
        "decision": {
            "sentence": "Promoted: better.",
            "gain": 0.2,
            "champion": {"model_arn": model_arn("o")},
        },
        "execution": EXECUTION,
    }


def test_the_first_candidate_becomes_the_champion(aws: Aws, event: dict[str, Any]) -> None:
    promotion = promote.handler(event, None)
    assert plan(promotion) == {
        "champion_arn": event["deployment_arn"],
        "adopted": True,
        "previous_model": None,
    }
    assert aws.parameters["/champion"] == event["deployment_arn"]
    assert aws.document("promotion.json") == promotion
    assert not aws.called("UpdateCustomModelDeployment")


def test_a_run_that_was_stopped_promotes_nothing(aws: Aws, event: dict[str, Any]) -> None:
    aws.statuses[EXECUTION] = "ABORTED"
    with pytest.raises(RunError, match=f"{RUN} was stopped before its model was promoted"):
        promote.handler(event, None)
    assert aws.parameters["/champion"] == "none"
    assert not history.entries()
    # Whoever cleans up from then on knows what it was about: first the word, then the look.
    assert aws.document("promotion.json")["champion_arn"] == event["deployment_arn"]


def test_a_later_candidate_moves_behind_the_champions_arn(aws: Aws, event: dict[str, Any]) -> None:
    champion = aws.deploy("a", name="champion", model="o")
    aws.parameters["/champion"] = champion
    promotion = promote.handler(event, None)
    assert plan(promotion) == {"champion_arn": champion, "adopted": False, "previous_model": model_arn("o")}
    assert aws.parameters["/champion"] == champion
    assert aws.deployments[champion]["updateDetails"]["modelArn"] == model_arn("n")


def test_promoting_twice_changes_nothing_and_keeps_the_way_back(aws: Aws, event: dict[str, Any]) -> None:
    champion = aws.deploy("a", name="champion", model="o")
    aws.parameters["/champion"] = champion
    first = promote.handler(event, None)
    assert promote.handler(event, None) == first
    # The update has come to its end in between.
    aws.deployments[champion]["modelArn"] = model_arn("n")
    aws.deployments[champion]["updateDetails"]["updateStatus"] = "UpdateCompleted"
    assert promote.handler(event, None) == first
    assert len(aws.called("UpdateCustomModelDeployment")) == 1
    assert first["previous_model"] == model_arn("o")


def test_adopting_twice_changes_nothing(aws: Aws, event: dict[str, Any]) -> None:
    first = promote.handler(event, None)
    assert promote.handler(event, None) == first
    assert aws.parameters["/champion"] == event["deployment_arn"]


def test_a_promotion_that_broke_in_the_middle_is_carried_on(aws: Aws, event: dict[str, Any]) -> None:
    champion = aws.deploy("a", name="champion", model="o")
    aws.parameters["/champion"] = champion
    aws.refusals["UpdateCustomModelDeployment"] = [RefusedError("ThrottlingException", "later", 429)]
    with pytest.raises(Exception, match="later"):
        promote.handler(event, None)
    assert promote.handler(event, None)["previous_model"] == model_arn("o")
    assert aws.deployments[champion]["updateDetails"]["modelArn"] == model_arn("n")


def test_an_update_that_failed_is_tried_again(aws: Aws, event: dict[str, Any]) -> None:
    champion = aws.deploy("a", name="champion", model="o")
    aws.parameters["/champion"] = champion
    promote.handler(event, None)
    aws.deployments[champion]["updateDetails"]["updateStatus"] = "UpdateFailed"
    promote.handler(event, None)
    assert len(aws.called("UpdateCustomModelDeployment")) == 2


def test_a_champion_somebody_deleted_is_replaced(aws: Aws, event: dict[str, Any]) -> None:
    gone = aws.deploy("a", name="champion", model="o")
    del aws.deployments[gone]
    aws.parameters["/champion"] = gone
    promotion = promote.handler(event, None)
    assert plan(promotion) == {
        "champion_arn": event["deployment_arn"],
        "adopted": True,
        "previous_model": None,
    }
    assert aws.parameters["/champion"] == event["deployment_arn"]


def test_nothing_is_changed_before_the_way_back_is_written(aws: Aws, event: dict[str, Any]) -> None:
    champion = aws.deploy("a", name="champion", model="o")
    aws.parameters["/champion"] = champion
    aws.refusals["PutObject"] = [RefusedError("AccessDenied", "no", 403)]
    with pytest.raises(Exception, match="AccessDenied"):
        promote.handler(event, None)
    assert "updateDetails" not in aws.deployments[champion]


def test_a_promotion_is_written_down_before_it_is_made(aws: Aws, event: dict[str, Any]) -> None:
    aws.parameters["/champion"] = aws.deploy("a", name="champion", model="o")
    promotion = promote.handler(event, None)
    (entry,) = aws.entries()
    assert entry == {
        "when": promotion["when"],
        "who": EXECUTION,
        "why": "Promoted: better.",
        "change": "promoted by a run",
        "run": RUN,
        "model": model_arn("n"),
        "previous_model": model_arn("o"),
        "deployment": promotion["champion_arn"],
        "metrics": {"gain": 0.2},
    }
    names = [name for name, _ in aws.calls]
    last_write = max(at for at, name in enumerate(names) if name == "PutObject")
    assert last_write < names.index("UpdateCustomModelDeployment")


def test_a_promotion_repeated_is_one_change(aws: Aws, event: dict[str, Any]) -> None:
    promote.handler(event, None)
    promote.handler(event, None)
    assert len(aws.entries()) == 1


def test_who_approved_is_who_changed_the_champion(aws: Aws, event: dict[str, Any]) -> None:
    event["decision"]["approval"] = {"approved": True, "by": "arn:aws:iam::111122223333:user/eve"}
    promote.handler(event, None)
    assert aws.entries()[0]["who"] == "arn:aws:iam::111122223333:user/eve"


@pytest.mark.parametrize("compared", [None, {"model_arn": model_arn("x")}])
def test_a_champion_that_was_not_compared_is_not_replaced(
    aws: Aws, event: dict[str, Any], compared: dict[str, str] | None
) -> None:
    aws.parameters["/champion"] = aws.deploy("a", name="champion", model="o")
    event["decision"]["champion"] = compared
    with pytest.raises(RunError, match="by now, and this run was compared with"):
        promote.handler(event, None)
    assert not aws.called("UpdateCustomModelDeployment")
    assert aws.entries() == []
