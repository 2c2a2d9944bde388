"""A person is asked with all there is to know, and the decision says what came of it."""

from typing import Any

import pytest

from lambdas.workflow import approval
from tests.unit.workflow.conftest import RUN, TOPIC, Aws

EVE = "arn:aws:iam::111122223333:user/eve"
DECISION: dict[str, Any] = {
    "promote": True,
    "approval_seconds": 7200,
    "gain": 0.2,
    "sentence": "Cleared for promotion: on 100 held-out prompts it is better.",
}


def asked(aws: Aws, token: str = "token-1") -> None:
    event = {"run": RUN, "decision": DECISION, "report": "s3://a/report.html", "token": token, "answer": None}
    assert approval.handler(event, None) == DECISION


def answered(aws: Aws, **answer: Any) -> dict[str, Any]:
    event = {"run": RUN, "decision": DECISION, "report": None, "token": None, "answer": answer}
    return approval.handler(event, None)


def test_the_team_is_told_what_to_decide_and_how(aws: Aws) -> None:
    asked(aws)
    (message,) = aws.published
    assert message["TopicArn"] == TOPIC
    assert message["Subject"] == "rft-quotes-dev: approve or reject a model"
    for said in (
        DECISION["sentence"],
        "Report: s3://a/report.html",
        f"rft approve quotes --stage dev --run {RUN}",
        f"rft reject quotes --stage dev --run {RUN} --reason",
    ):
        assert said in message["Message"]
    # The token is for the function that answers, not for everybody who reads mail.
    assert "token-1" not in message["Message"]


def test_the_token_is_kept_until_there_is_an_answer(aws: Aws) -> None:
    asked(aws)
    kept = aws.document("approval.json")
    assert kept["token"] == "token-1"
    assert kept["until"] > kept["asked_at"]
    answered(aws, approved=True, by=EVE, why="", at="2026-01-01T00:00:00+00:00")
    kept = aws.document("approval.json")
    assert "token" not in kept
    assert (kept["approved"], kept["by"]) == (True, EVE)


def test_asking_again_keeps_the_newest_token(aws: Aws) -> None:
    asked(aws)
    asked(aws, "token-2")
    assert aws.document("approval.json")["token"] == "token-2"


@pytest.mark.parametrize(
    ("answer", "promote", "sentence"),
    [
        (
            {"approved": True, "by": EVE, "why": ""},
            True,
            f"Promoted: on 100 held-out prompts it is better. Approved by {EVE}.",
        ),
        (
            {"approved": True, "by": EVE, "why": "looks good."},
            True,
            f"Promoted: on 100 held-out prompts it is better. Approved by {EVE}: looks good.",
        ),
        (
            {"approved": False, "by": EVE, "why": "too long"},
            False,
            f"Not promoted: rejected by {EVE}: too long. Before that, on 100 held-out prompts it is better.",
        ),
        (
            {"approved": False, "by": None, "why": "nobody answered in time"},
            False,
            "Not promoted: nobody answered in time. Before that, on 100 held-out prompts it is better.",
        ),
    ],
)
def test_the_answer_becomes_the_decision(
    aws: Aws, answer: dict[str, Any], promote: bool, sentence: str
) -> None:
    asked(aws)
    decision = answered(aws, **answer)
    assert (decision["promote"], decision["sentence"]) == (promote, sentence)
    assert decision["approval"].items() >= answer.items()
    assert decision["approval"]["at"]
    assert aws.document("decision.json") == decision
