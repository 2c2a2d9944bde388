"""Makes a run's model the champion: the model behind the one deployment ARN that applications call.

Event: {"run", "model_arn", "deployment_arn", "decision", "execution": ARN of the run's execution}.
Returns: {"champion_arn", "adopted", "previous_model": ARN | null, "when"}. `adopted`: the candidate's
    deployment is the champion's from now on, and must stay. Otherwise the champion's deployment is on its way
    to the new model: wait while GetCustomModelDeployment of `champion_arn` says updateDetails.updateStatus
    "Updating", then delete the candidate's deployment.
Writes: the same as runs/<run>/promotion.json, and an entry of the history (see `history`), both before it
    changes anything: they are what the way back needs.
Errors: `RunError` when the champion is no longer the one that the decision compared with, or the run was
    stopped meanwhile. botocore's own errors by their own names.
Environment: STACK, ARTIFACTS, CHAMPION (name of the SSM parameter; its value is "none" or a deployment ARN).
IAM:
    - ssm:GetParameter, ssm:PutParameter on CHAMPION;
    - bedrock:GetCustomModelDeployment, bedrock:UpdateCustomModelDeployment on custom-model-deployment/*, and
      bedrock:UpdateCustomModelDeployment on custom-model/* (the service makes the ids);
    - states:DescribeExecution on the executions of the state machine;
    - s3:GetObject, s3:PutObject on ARTIFACTS/runs/*/promotion.json, s3:PutObject on ARTIFACTS/history/*,
      s3:ListBucket on ARTIFACTS;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import history, runs
from lambdas.workflow.runs import RunError

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_bedrock.type_defs import GetCustomModelDeploymentResponseTypeDef
    from types_boto3_ssm import SSMClient

# The value of CHAMPION before the first promotion: SSM knows no empty parameter.
NO_CHAMPION: Final = "none"


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Puts the run's model behind the champion's ARN; doing it twice changes nothing (see the module)."""
    run, decision = event["run"], event["decision"]
    promotion: dict[str, Any] | None = runs.read(run, "promotion.json")
    if promotion is None:
        promotion = {**_plan(event["deployment_arn"], decision), "when": history.now()}
        runs.write(run, "promotion.json", promotion)
    # In this order: a clean-up that comes from now on finds what was written and leaves the deployment alone.
    if not runs.at_work(event["execution"]):
        raise RunError(f"{run} was stopped before its model was promoted: the champion stays as it was")
    approval = decision.get("approval") or {}
    history.append(
        {
            "when": promotion["when"],
            # Without an approval nobody decided but the workflow itself.
            "who": approval.get("by") or event["execution"],
            "why": decision["sentence"],
            "change": "promoted by a run",
            "run": run,
            "model": event["model_arn"],
            "previous_model": promotion["previous_model"],
            "deployment": promotion["champion_arn"],
            "metrics": history.metrics(decision),
        }
    )
    if promotion["adopted"]:
        ssm: SSMClient = runs.client("ssm")
        ssm.put_parameter(Name=os.environ["CHAMPION"], Value=promotion["champion_arn"], Overwrite=True)
    else:
        move(promotion["champion_arn"], event["model_arn"])
    return promotion


def champion() -> str | None:
    """Returns the ARN of the champion's deployment, None before the first promotion."""
    ssm: SSMClient = runs.client("ssm")
    value = ssm.get_parameter(Name=os.environ["CHAMPION"])["Parameter"]["Value"]
    return None if value == NO_CHAMPION else value


def restore_champion() -> None:
    """Writes the record of the champion again, from the history, where a deploy has set it back.

    CloudFormation changes the tags of a parameter by writing all of it, its first value included, whenever a
    tag of the stack is another one.
    """
    if champion() is None and (last := history.entries(1)):
        ssm: SSMClient = runs.client("ssm")
        ssm.put_parameter(Name=os.environ["CHAMPION"], Value=last[0]["deployment"], Overwrite=True)


def goal(deployment: "GetCustomModelDeploymentResponseTypeDef") -> str:
    """Returns the ARN of the model that a deployment serves, or that it is on its way to."""
    update = deployment.get("updateDetails")
    return update["modelArn"] if update and update["updateStatus"] == "Updating" else deployment["modelArn"]


def move(deployment_arn: str, model_arn: str) -> None:
    """Moves a deployment to a model, unless it is there or on its way."""
    bedrock: BedrockClient = runs.client("bedrock")
    deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=deployment_arn)
    if goal(deployment) != model_arn:
        bedrock.update_custom_model_deployment(
            customModelDeploymentIdentifier=deployment_arn, modelArn=model_arn
        )


def _plan(candidate: str, decision: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a promotion is going to do, as it is now.

    Raises:
        RunError: Another champion was compared than there is.
    """
    bedrock: BedrockClient = runs.client("bedrock")
    current = champion()
    if current is not None:
        try:
            deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=current)
        except bedrock.exceptions.ResourceNotFoundException:
            # Somebody deleted it: its ARN is lost for good, so the candidate's takes its place.
            current = None
        else:
            if current != candidate:
                _check_compared(goal(deployment), decision)
            return {
                "champion_arn": current,
                "adopted": current == candidate,
                "previous_model": None if current == candidate else deployment["modelArn"],
            }
    return {"champion_arn": candidate, "adopted": True, "previous_model": None}


def _check_compared(serving: str, decision: Mapping[str, Any]) -> None:
    compared = (decision.get("champion") or {}).get("model_arn")
    if serving != compared:
        raise RunError(
            f"the champion serves {serving} by now, and this run was compared with"
            f" {compared or 'no champion'}: look at `rft history`; the model stays, and `rft promote` makes"
            " it the champion all the same"
        )
