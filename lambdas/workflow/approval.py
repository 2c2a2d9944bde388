"""Asks a person whether a candidate may be promoted, and records what came of it.

Event: {"run", "decision", "report", "token", "answer"}. With a token, which the waiting workflow is answered
    with, it asks; with an answer, {"approved", "by", "why", "at"?}, it records.
Returns: the decision; after the answer with "promote" and "sentence" as the answer makes them, and with the
    answer as "approval".
Writes: runs/<run>/approval.json: while it waits {"run", "asked_at", "until", "sentence", "report", "token"},
    then the same without the token and with the answer; and, with the answer, runs/<run>/decision.json.
    Publishes to TOPIC what there is to decide.
Errors: botocore's own errors by their own names.
Environment: STACK, ARTIFACTS, TOPIC.
IAM:
    - s3:ListBucket on ARTIFACTS, s3:GetObject and s3:PutObject on ARTIFACTS/runs/*/approval.json,
      s3:PutObject on ARTIFACTS/runs/*/decision.json;
    - sns:Publish on TOPIC;
    - kms:Decrypt, kms:GenerateDataKey on the keys of ARTIFACTS and TOPIC.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_sns import SNSClient


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Asks for an approval, or records the answer (see the module)."""
    run, decision = event["run"], event["decision"]
    if event["token"]:
        _ask(run, decision, event["report"], event["token"])
        return dict(decision)
    settled = settle(decision, event["answer"])
    asked = runs.read(run, "approval.json") or {"run": run}
    asked.pop("token", None)
    runs.write(run, "approval.json", {**asked, **settled["approval"]})
    runs.write(run, "decision.json", settled)
    return settled


def settle(decision: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a decision as a person's answer, or the lack of one, makes it."""
    answer = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **answer}
    why = str(answer["why"] or "").rstrip(".")
    found = decision["sentence"].partition(": ")[2]
    if answer["approved"]:
        sentence = f"Promoted: {found} Approved by {answer['by']}" + (f": {why}." if why else ".")
    elif answer["by"]:
        sentence = f"Not promoted: rejected by {answer['by']}: {why}. Before that, {found}"
    else:
        sentence = f"Not promoted: {why}. Before that, {found}"
    return {**decision, "promote": bool(answer["approved"]), "approval": answer, "sentence": sentence}


def _ask(run: str, decision: Mapping[str, Any], report: str, token: str) -> None:
    """Writes down what there is to answer, and tells the team."""
    now = datetime.now(UTC)
    until = now + timedelta(seconds=decision["approval_seconds"])
    runs.write(
        run,
        "approval.json",
        {
            "run": run,
            "asked_at": now.isoformat(timespec="seconds"),
            "until": until.isoformat(timespec="seconds"),
            "sentence": decision["sentence"],
            "report": report,
            "token": token,
        },
    )
    stack = os.environ["STACK"]
    team, _, stage = stack.removeprefix("rft-").rpartition("-")
    sns: SNSClient = runs.client("sns")
    sns.publish(
        TopicArn=os.environ["TOPIC"],
        # SNS wants at most 100 characters of ASCII here.
        Subject=f"{stack}: approve or reject a model"[:100],
        Message=(
            f"{run} waits for a person's approval until {until:%Y-%m-%d %H:%M} UTC; without an answer its"
            f" model is not promoted.\n\n{decision['sentence']}\n\nReport: {report}\n\n"
            f"Approve: rft approve {team} --stage {stage} --run {run}\n"
            f'Reject: rft reject {team} --stage {stage} --run {run} --reason "..."'
        ),
    )
