"""Deletes what earlier runs left in Bedrock and nobody needs any more: models beyond a count and an age.

The champion's model, the one that a rollback would return to and every model that is deployed stay, whatever
their number and age. So does a model that is no longer young but among the newest KEEP_MODELS. A deployment
goes when it is not the champion's and older than any run can be: a crash left it.

Event: {"run"}.
Returns: {"models": [name], "deployments": [name], "sentence"}: what was deleted; the sentence is empty where
    nothing was.
Writes: the same as runs/<run>/retired.json.
Errors: botocore's own errors by their own names.
Environment: STACK, ARTIFACTS, CHAMPION, KEEP_MODELS (a number), KEEP_DAYS (models younger than this stay).
IAM:
    - bedrock:ListCustomModels, bedrock:ListCustomModelDeployments on * (listing knows no resources);
    - bedrock:DeleteCustomModel on custom-model/*, bedrock:GetCustomModelDeployment and
      bedrock:DeleteCustomModelDeployment on custom-model-deployment/* (the service makes the ids);
    - ssm:GetParameter on CHAMPION;
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/history/*, s3:PutObject on
      ARTIFACTS/runs/*/retired.json;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import history, runs
from lambdas.workflow.promote import champion, goal

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_bedrock.type_defs import CustomModelDeploymentSummaryTypeDef, CustomModelSummaryTypeDef

# The workflow's own time limit, see infra/states.py.
LONGEST_RUN: Final = timedelta(days=18)


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Deletes old models and forgotten deployments of this environment (see the module)."""
    bedrock: BedrockClient = runs.client("bedrock")
    now = datetime.now(UTC)
    current = champion()
    deployments = _deployments(bedrock)
    forgotten = [
        each
        for each in deployments
        if each["customModelDeploymentArn"] != current and each["createdAt"] < now - LONGEST_RUN
    ]
    needed = {each["modelArn"] for each in deployments if each not in forgotten} | _needed(bedrock, current)
    age = timedelta(days=int(os.environ["KEEP_DAYS"]))
    models = [
        each
        for each in _models(bedrock)[int(os.environ["KEEP_MODELS"]) :]
        if each["modelArn"] not in needed and each["creationTime"] <= now - age
    ]
    for deployment in forgotten:
        bedrock.delete_custom_model_deployment(
            customModelDeploymentIdentifier=deployment["customModelDeploymentArn"]
        )
    for model in models:
        _delete(bedrock, model["modelArn"])
    retired: dict[str, Any] = {
        "models": [model["modelName"] for model in models],
        "deployments": [each["customModelDeploymentName"] for each in forgotten],
    }
    retired["sentence"] = _sentence(retired)
    runs.write(event["run"], "retired.json", retired)
    return retired


def _prefix() -> str:
    """Returns what the names of all models and deployments of this environment begin with."""
    return runs.name("run-")


def _models(bedrock: "BedrockClient") -> list["CustomModelSummaryTypeDef"]:
    """Returns the models of this environment, the newest first."""
    pages = bedrock.get_paginator("list_custom_models").paginate(nameContains=_prefix())
    found = [each for page in pages for each in page.get("modelSummaries", [])]
    ours = [each for each in found if each["modelName"].startswith(_prefix())]
    return sorted(ours, key=lambda each: each["creationTime"], reverse=True)


def _deployments(bedrock: "BedrockClient") -> list["CustomModelDeploymentSummaryTypeDef"]:
    """Returns the deployments of this environment."""
    pages = bedrock.get_paginator("list_custom_model_deployments").paginate(nameContains=_prefix())
    found = [each for page in pages for each in page.get("modelDeploymentSummaries", [])]
    return [each for each in found if each["customModelDeploymentName"].startswith(_prefix())]


def _needed(bedrock: "BedrockClient", deployment_arn: str | None) -> set[str]:
    """Returns the ARNs of the champion's model, of the one on its way in, and of the one to roll back to."""
    if deployment_arn is None:
        return set()
    try:
        deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=deployment_arn)
    except bedrock.exceptions.ResourceNotFoundException:
        return set()
    changes = history.entries()
    serving = {deployment["modelArn"], goal(deployment)}
    stand = [each for model in serving for each in history.standing(changes, model)[-2:]]
    return serving | {each["model"] for each in stand}


def _delete(bedrock: "BedrockClient", model_arn: str) -> None:
    try:
        bedrock.delete_custom_model(modelIdentifier=model_arn)
    except bedrock.exceptions.ResourceNotFoundException:
        # An earlier attempt of this step has deleted it.
        return


def _sentence(retired: Mapping[str, Any]) -> str:
    gone = [f"model {name}" for name in retired["models"]]
    gone += [f"deployment {name}" for name in retired["deployments"]]
    return f"Deleted, as no longer needed: {', '.join(gone)}." if gone else ""
