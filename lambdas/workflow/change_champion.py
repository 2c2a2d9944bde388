"""Does what a person asks for: approves or rejects a candidate, promotes a run's model, or rolls back.

Whoever may invoke this function may change the champion, and needs no other permission for it. Who it was is
not taken on trust: the caller signs a GetCallerIdentity request of STS, which this function sends, so that
STS says whose signature it is. The signature covers the name of the environment and is good for a minute.

Event: {"action", "run"?, "why"?, "identity"?: the query of the signed request}. Actions:
    - "status", "history": look;
    - "approve" a waiting `run`, or "reject" it for a reason;
    - "promote" the model of a `run` for a reason;
    - "rollback" to the model before, or to that of a `run`, for a reason.
Returns: for approvals {"run", "approved", "by"}; for the rest {"champion_arn", "model", "goal", "updating",
    "changes"?}: the model that is served, and the one that the deployment is on its way to. "history" has the
    last 500 changes of the champion.
Errors: `RunError` for what cannot be done; the message says what to do.
Environment: STACK, ARTIFACTS, CHAMPION, TOPIC; AWS_REGION, which Lambda sets.
IAM:
    - ssm:GetParameter on CHAMPION;
    - bedrock:GetCustomModelDeployment, bedrock:UpdateCustomModelDeployment on custom-model-deployment/*, and
      bedrock:GetCustomModel, bedrock:UpdateCustomModelDeployment on custom-model/* (the service makes the
      ids);
    - states:SendTaskSuccess on the state machine;
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/approval.json and
      ARTIFACTS/runs/*/decision.json, s3:GetObject and s3:PutObject on ARTIFACTS/history/*;
    - sns:Publish on TOPIC;
    - kms:Decrypt, kms:GenerateDataKey on the keys of ARTIFACTS and TOPIC.
"""

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import history, runs
from lambdas.workflow.promote import champion, goal, move
from lambdas.workflow.runs import RunError

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_bedrock.type_defs import GetCustomModelDeploymentResponseTypeDef
    from types_boto3_sns import SNSClient
    from types_boto3_stepfunctions import SFNClient

_MOST_CHANGES: Final = 500
# The header that ties a signature to one environment.
_HEADER: Final = "x-rft-environment"
_QUERY: Final = re.compile(r"[A-Za-z0-9%&=_.~+-]{1,4000}")


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Does what a person asks for (see the module)."""
    actions: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "status": lambda _asked: _state(_deployment()),
        "history": lambda _asked: {
            **_state(_found()),
            "changes": history.entries(_MOST_CHANGES),
        },
        "approve": lambda asked: _answer(asked, approved=True),
        "reject": lambda asked: _answer(asked, approved=False),
        "promote": _promote,
        "rollback": _roll_back,
    }
    if event.get("action") not in actions:
        raise RunError(f"`action` is {event.get('action')!r}, it must be one of {', '.join(actions)}")
    return actions[event["action"]](event)


# --- who asks, and why ---


def _caller(event: Mapping[str, Any]) -> str:
    """Returns the ARN of whoever signed the request, as STS knows it.

    Raises:
        RunError: The signature is not one for this environment, or STS does not accept it.
    """
    query = str(event.get("identity") or "")
    asked = urllib.parse.parse_qs(query)
    signed = asked.get("X-Amz-SignedHeaders", [""])[0].split(";")
    if not _QUERY.fullmatch(query) or asked.get("Action") != ["GetCallerIdentity"] or _HEADER not in signed:
        raise RunError("`identity` is no GetCallerIdentity request signed for this: ask with the rft command")
    # Of its own region, whatever the request says; the variable is set where an embedded AWS runs this.
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL") or f"https://sts.{os.environ.get('AWS_REGION')}.amazonaws.com"
    )
    request = urllib.request.Request(  # noqa: S310 - an address of AWS
        f"{endpoint}/?{query}", headers={_HEADER: os.environ["STACK"]}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - an address of AWS
            body = answer.read(10_000).decode()
    except urllib.error.HTTPError as error:
        raise RunError(
            f"STS does not accept who you are (HTTP {error.code}): sign in again, and check your clock"
        ) from error
    found = re.search(r"<Arn>([^<\s]+)</Arn>", body)
    if not found:
        raise RunError("STS did not say who you are: ask with the rft command")
    return found[1]


def _reason(event: Mapping[str, Any]) -> str:
    why = str(event.get("why") or "").strip()
    if not why:
        raise RunError("give a reason: it is what others find in the history")
    return why


# --- approvals ---


def _answer(event: Mapping[str, Any], *, approved: bool) -> dict[str, Any]:
    """Answers a workflow that waits for approval."""
    run = event.get("run")
    asked = runs.read(run, "approval.json") if run else None
    if asked is None:
        raise RunError(f"{run or 'no run'} is not waiting for approval")
    if "token" not in asked:
        happened = "approved" if asked["approved"] else "not approved"
        raise RunError(
            f"{run} was {happened} at {asked['at']}" + (f" by {asked['by']}" if asked["by"] else "")
        )
    why = _reason(event) if not approved else str(event.get("why") or "").strip()
    answer = {"approved": approved, "by": _caller(event), "why": why, "at": history.now()}
    states: SFNClient = runs.client("stepfunctions")
    try:
        states.send_task_success(taskToken=asked["token"], output=json.dumps(answer))
    except (
        states.exceptions.InvalidToken,
        states.exceptions.TaskDoesNotExist,
        states.exceptions.TaskTimedOut,
    ) as error:
        raise RunError(f"{run} waits no longer: it was answered, stopped or ran out of time") from error
    return {"run": run, "approved": approved, "by": answer["by"]}


# --- changes ---


def _promote(event: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the model of a run the champion, whatever its decision was."""
    run, why = event.get("run"), _reason(event)
    if not run:
        raise RunError("name the run whose model is to be the champion")
    return _change(event, "promoted by hand", run, _model(runs.name(run), run), why)


def _roll_back(event: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the model before the present one the champion, or that of a run which was it before."""
    run, why = event.get("run"), _reason(event)
    deployment = _settled()
    changes = history.entries()
    if run:
        found = next((each for each in reversed(changes) if each["run"] == run), None)
        if found is None:
            known = ", ".join(dict.fromkeys(each["run"] for each in changes)) or "none"
            raise RunError(f"{run} was never the champion (runs that were: {known})")
    else:
        stand = history.standing(changes, deployment["modelArn"])
        if len(stand) < 2:
            raise RunError("there is no model before the present one: name a run with --to, or promote one")
        found = stand[-2]
    return _change(event, history.ROLLED_BACK, found["run"], _model(found["model"], found["run"]), why)


def _change(event: Mapping[str, Any], change: str, run: str, model: str, why: str) -> dict[str, Any]:
    """Moves the champion's deployment to a model; the history and the team are told first."""
    state = _state(_settled())
    if state["model"] == model:
        raise RunError(f"the champion serves the model of {run} already")
    who = _caller(event)
    history.append(
        {
            "when": history.now(),
            "who": who,
            "why": why,
            "change": change,
            "run": run,
            "model": model,
            "previous_model": state["model"],
            "deployment": state["champion_arn"],
            "metrics": history.metrics(runs.read(run, "decision.json")),
        }
    )
    move(state["champion_arn"], model)
    stack = os.environ["STACK"]
    sns: SNSClient = runs.client("sns")
    sns.publish(
        TopicArn=os.environ["TOPIC"],
        # SNS wants at most 100 characters of ASCII here.
        Subject=f"{stack}: {change}"[:100],
        Message=f"The champion of {stack} moves to the model of {run} ({change}) by {who}: {why}",
    )
    return {**_state(_deployment()), "run": run}


def _model(identifier: str, run: str) -> str:
    """Returns the ARN of the model that a run made.

    Raises:
        RunError: There is none.
    """
    bedrock: BedrockClient = runs.client("bedrock")
    try:
        return bedrock.get_custom_model(modelIdentifier=identifier)["modelArn"]
    except bedrock.exceptions.ResourceNotFoundException as error:
        raise RunError(
            f"there is no model of {run}: it made none, or it was deleted as an old one, see [retention]"
        ) from error


def _deployment() -> "GetCustomModelDeploymentResponseTypeDef":
    """Returns the champion's deployment.

    Raises:
        RunError: There is none.
    """
    found = _found()
    if found is not None:
        return found
    if current := champion():
        raise RunError(
            f"the champion's deployment {current} was deleted: the next run that promotes makes another"
        )
    raise RunError("there is no champion yet: the first one is made by a run that promotes its model")


def _settled() -> "GetCustomModelDeploymentResponseTypeDef":
    """Returns the champion's deployment.

    Raises:
        RunError: There is none, or it is on its way to another model.
    """
    deployment = _deployment()
    if _state(deployment)["updating"]:
        raise RunError(f"the champion is on its way to {goal(deployment)}: wait until it has arrived")
    return deployment


def _found() -> "GetCustomModelDeploymentResponseTypeDef | None":
    """Returns the champion's deployment, None where there is none."""
    bedrock: BedrockClient = runs.client("bedrock")
    current = champion()
    if current is None:
        return None
    try:
        return bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=current)
    except bedrock.exceptions.ResourceNotFoundException:
        return None


def _state(deployment: "GetCustomModelDeploymentResponseTypeDef | None") -> dict[str, Any]:
    if deployment is None:
        return {"champion_arn": None, "model": None, "goal": None, "updating": False, "update": None}
    update = deployment.get("updateDetails")
    return {
        "champion_arn": deployment["customModelDeploymentArn"],
        "model": deployment["modelArn"],
        "goal": goal(deployment),
        "updating": bool(update and update["updateStatus"] == "Updating"),
        "update": update["updateStatus"] if update else None,
    }
