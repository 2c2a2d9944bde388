"""What nobody needs any more goes; the champion and the way back stay, whatever their age."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lambdas.workflow import history, retire_old
from tests.unit.workflow.conftest import NAME, RUN, STACK, Aws, RefusedError, model_arn


def retired(aws: Aws) -> dict[str, Any]:
    return retire_old.handler({"run": RUN}, None)


def runs_of(aws: Aws) -> str:
    """The letters of the models that are left, the oldest first."""
    left = sorted(aws.models.values(), key=lambda each: each["creationTime"])
    return "".join(each["modelArn"][-1] for each in left)


@pytest.fixture
def eight(aws: Aws) -> Aws:
    for day, letter in enumerate("abcdefgh", 1):
        aws.train(letter, run=f"run-{letter * 16}", day=day)
    return aws


def changed(letter: str, change: str = "promoted by a run") -> None:
    run = f"run-{letter * 16}"
    history.append({"when": history.now(), "run": run, "model": model_arn(letter), "change": change})


def test_the_newest_models_stay_and_the_others_go(eight: Aws) -> None:
    found = retired(eight)
    assert runs_of(eight) == "defgh"
    assert sorted(found["models"]) == [f"{STACK}-run-{letter * 16}" for letter in "abc"]
    assert found["sentence"].startswith("Deleted, as no longer needed: model rft-quotes-dev-run-")
    assert eight.document("retired.json") == found


def test_few_models_all_stay(aws: Aws) -> None:
    for day, letter in enumerate("abcde", 1):
        aws.train(letter, run=f"run-{letter * 16}", day=day)
    assert retired(aws)["sentence"] == ""
    assert runs_of(aws) == "abcde"


@pytest.mark.parametrize(("days", "left"), [("400000", "abcdefgh"), ("1", "defgh")])
def test_young_models_stay_beyond_the_number(
    eight: Aws, monkeypatch: pytest.MonkeyPatch, days: str, left: str
) -> None:
    monkeypatch.setenv("KEEP_DAYS", days)
    retired(eight)
    assert runs_of(eight) == left


def test_the_champion_and_the_model_before_it_stay(eight: Aws) -> None:
    for letter in "cab":
        changed(letter)
    eight.parameters["/champion"] = eight.deploy("z", name=f"{STACK}-run-{'c' * 16}", model="b")
    retired(eight)
    assert runs_of(eight) == "abdefgh"


def test_after_a_rollback_the_way_further_back_stays(eight: Aws) -> None:
    for letter in "abc":
        changed(letter)
    changed("b", history.ROLLED_BACK)
    eight.parameters["/champion"] = eight.deploy("z", name=f"{STACK}-run-{'a' * 16}", model="b")
    retired(eight)
    assert runs_of(eight) == "abdefgh"


def test_the_model_on_its_way_in_stays_and_so_does_the_one_on_its_way_out(eight: Aws) -> None:
    champion = eight.deploy("z", name=f"{STACK}-run-{'b' * 16}", model="b")
    eight.parameters["/champion"] = champion
    eight.deployments[champion]["updateDetails"] = {"modelArn": model_arn("a"), "updateStatus": "Updating"}
    retired(eight)
    assert runs_of(eight) == "abdefgh"


def test_the_model_of_a_candidate_that_waits_for_approval_stays(eight: Aws) -> None:
    waiting = eight.deploy("y", name=f"{STACK}-run-{'b' * 16}", model="b")
    eight.deployments[waiting]["createdAt"] = datetime.now(UTC) - timedelta(days=13)
    assert retired(eight)["deployments"] == []
    assert runs_of(eight) == "bdefgh"


def test_a_deployment_that_a_crash_left_goes_with_its_model(eight: Aws) -> None:
    eight.deploy("y", name=f"{STACK}-run-{'b' * 16}", model="b")
    assert retired(eight)["deployments"] == [f"{STACK}-run-{'b' * 16}"]
    assert eight.deployments == {}
    assert runs_of(eight) == "defgh"


def test_the_champions_deployment_stays_however_old_it_is(eight: Aws) -> None:
    eight.parameters["/champion"] = eight.deploy("z", name=NAME, model="h")
    assert retired(eight)["deployments"] == []
    assert len(eight.deployments) == 1


def test_what_belongs_to_another_environment_stays(eight: Aws) -> None:
    for at in range(8):
        eight.train(f"{at}", name=f"other-{STACK}-run-{at}")
    eight.deploy("x", name=f"other-{STACK}-run-1")
    retired(eight)
    assert len(eight.models) == 5 + 8
    assert len(eight.deployments) == 1


def test_what_another_attempt_deleted_is_no_error(eight: Aws) -> None:
    eight.refusals["DeleteCustomModel"] = [RefusedError("ResourceNotFoundException", "gone", 404)]
    retired(eight)
    assert len(eight.called("DeleteCustomModel")) == 3


def test_what_cannot_be_deleted_is_an_error(eight: Aws) -> None:
    eight.refusals["DeleteCustomModel"] = [RefusedError("AccessDeniedException", "no", 403)]
    with pytest.raises(Exception, match="AccessDenied"):
        retired(eight)


def test_the_champion_unknown_deletes_nothing(eight: Aws) -> None:
    eight.refusals["GetParameter"] = [RefusedError("AccessDeniedException", "no", 403)]
    with pytest.raises(Exception, match="AccessDenied"):
        retired(eight)
    assert runs_of(eight) == "abcdefgh"
