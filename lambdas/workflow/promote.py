"""Makes a run's model the champion: the model behind the one deployment ARN that applications call.

Event: {"run", "model_arn", "deployment_arn"}.
Returns: {"champion_arn", "adopted", "previous_model": ARN | null}. `adopted`: the candidate's deployment is
    the champion's from now on, and must stay. Otherwise the champion's deployment is on its way to the new
    model: wait while GetCustomModelDeployment of `champion_arn` says updateDetails.updateStatus "Updating",
    then delete the candidate's deployment.
Writes: the same as runs/<run>/promotion.json, before it changes anything: it is what the way back needs.
Errors: botocore's own errors by their own names.
Environment: STACK, ARTIFACTS, CHAMPION (name of the SSM parameter; its value is "none" or a deployment ARN).
IAM:
    - ssm:GetParameter, ssm:PutParameter on CHAMPION;
    - bedrock:GetCustomModelDeployment, bedrock:UpdateCustomModelDeployment on custom-model-deployment/*, and
      bedrock:UpdateCustomModelDeployment on custom-model/* (the service makes the ids);
    - s3:GetObject, s3:PutObject on ARTIFACTS/runs/*/promotion.json, s3:ListBucket on ARTIFACTS;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_ssm import SSMClient

# The value of CHAMPION before the first promotion: SSM knows no empty parameter.
NO_CHAMPION: Final = "none"


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Puts the run's model behind the champion's ARN; doing it twice changes nothing (see the module)."""
    run = event["run"]
    promotion: dict[str, Any] | None = runs.read(run, "promotion.json")
    if promotion is None:
        promotion = _plan(event["deployment_arn"])
        runs.write(run, "promotion.json", promotion)
    if promotion["adopted"]:
        ssm: SSMClient = runs.client("ssm")
        ssm.put_parameter(Name=os.environ["CHAMPION"], Value=promotion["champion_arn"], Overwrite=True)
    else:
        _move(promotion["champion_arn"], event["model_arn"])
    return promotion


def champion() -> str | None:
    """Returns the ARN of the champion's deployment, None before the first promotion."""
    ssm: SSMClient = runs.client("ssm")
    value = ssm.get_parameter(Name=os.environ["CHAMPION"])["Parameter"]["Value"]
    return None if value == NO_CHAMPION else value


def _plan(candidate: str) -> dict[str, Any]:
    """Returns what a promotion is going to do, as it is now."""
    bedrock: BedrockClient = runs.client("bedrock")
    current = champion()
    if current is not None:
        try:
            deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=current)
        except bedrock.exceptions.ResourceNotFoundException:
            # Somebody deleted it: its ARN is lost for good, so the candidate's takes its place.
            current = None
        else:
            return {
                "champion_arn": current,
                "adopted": current == candidate,
                "previous_model": None if current == candidate else deployment["modelArn"],
            }
    return {"champion_arn": candidate, "adopted": True, "previous_model": None}


def _move(deployment_arn: str, model_arn: str) -> None:
    """Moves a deployment to a model, unless it is there or on its way."""
    bedrock: BedrockClient = runs.client("bedrock")
    deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=deployment_arn)
    update = deployment.get("updateDetails")
    goal = update["modelArn"] if update and update["updateStatus"] == "Updating" else deployment["modelArn"]
    if goal != model_arn:
        bedrock.update_custom_model_deployment(
            customModelDeploymentIdentifier=deployment_arn, modelArn=model_arn
        )
