"""Submits the reinforcement fine-tuning job of a run, once.

Event: {"run", "base_model", "reward_version", "training": {camelCase}, "train": uri, "state_machine"?: ARN,
    "execution"?: ARN of the run's execution}.
Returns: {"job_arn", "job_name"}. Job, custom model and, later, deployment are called <STACK>-<run>; job and
    model get the tags of the state machine, and the tag "run".
Errors: `RunError` when the name belongs to a job that this run did not ask for, or when the run was stopped
    meanwhile: its clean-up may have looked for the job before there was one, so the job is stopped here.
    botocore's own errors by their own names.
Environment: STACK, ARTIFACTS, CUSTOMIZATION_ROLE; optional MODEL_KEY (ARN of the KMS key of the custom model)
    and VPC_CONFIG (JSON: {"subnetIds": [...], "securityGroupIds": [...]}).
IAM:
    - bedrock:CreateModelCustomizationJob on the base model, model-customization-job/* and custom-model/*;
    - bedrock:TagResource on model-customization-job/* and custom-model/*;
    - bedrock:GetModelCustomizationJob on model-customization-job/* (the service makes the ids);
    - iam:PassRole on CUSTOMIZATION_ROLE, to bedrock.amazonaws.com;
    - bedrock:StopModelCustomizationJob on model-customization-job/*;
    - states:ListTagsForResource on the state machine, states:DescribeExecution on its executions;
    - with MODEL_KEY: kms:DescribeKey, kms:CreateGrant, kms:Decrypt, kms:GenerateDataKey on it, where
      kms:ViaService is bedrock.<region>.amazonaws.com.
"""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lambdas.workflow import runs
from lambdas.workflow.runs import RunError

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_stepfunctions import SFNClient


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Creates the customization job, or finds the one this run has created before (see the module)."""
    request = _request(event)
    bedrock: BedrockClient = runs.client("bedrock")
    try:
        job = bedrock.create_model_customization_job(**request)["jobArn"]
    except bedrock.exceptions.ConflictException as error:
        job = _created_before(request, error)
    if (execution := event.get("execution")) and not runs.at_work(execution):
        _stop(job)
        raise RunError(
            f"{event['run']} was stopped while its customization job was submitted, and the job with it"
        )
    return {"job_arn": job, "job_name": request["jobName"]}


def _stop(job: str) -> None:
    """Stops a job, unless it has ended or is told to stop already."""
    bedrock: BedrockClient = runs.client("bedrock")
    try:
        bedrock.stop_model_customization_job(jobIdentifier=job)
    except bedrock.exceptions.ConflictException:
        return


def _request(event: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the CreateModelCustomizationJob request of a run: the same one whenever it is asked for."""
    run = event["run"]
    name = runs.name(run)
    tags = _tags(event.get("state_machine"), run)
    request: dict[str, Any] = {
        "jobName": name,
        "customModelName": name,
        "roleArn": os.environ["CUSTOMIZATION_ROLE"],
        # A repeated request with the same token is answered with the same job.
        "clientRequestToken": run,
        "baseModelIdentifier": event["base_model"],
        "customizationType": "REINFORCEMENT_FINE_TUNING",
        "trainingDataConfig": {"s3Uri": event["train"]},
        "outputDataConfig": {"s3Uri": runs.uri(run, "output/")},
        "customizationConfig": {
            "rftConfig": {
                "graderConfig": {"lambdaGrader": {"lambdaArn": event["reward_version"]}},
                "hyperParameters": dict(event["training"]),
            }
        },
        "jobTags": tags,
        "customModelTags": tags,
    }
    if key := os.environ.get("MODEL_KEY"):
        request["customModelKmsKeyId"] = key
    if network := os.environ.get("VPC_CONFIG"):
        request["vpcConfig"] = json.loads(network)
    return request


def _tags(state_machine: str | None, run: str) -> list[dict[str, str]]:
    """Returns the stack's own tags, which the state machine carries, and the run's name."""
    tags: dict[str, str] = {}
    if state_machine:
        states: SFNClient = runs.client("stepfunctions")
        listed = states.list_tags_for_resource(resourceArn=state_machine)["tags"]
        # Tags that begin with aws: are AWS's own and cannot be given.
        tags = {tag["key"]: tag["value"] for tag in listed if not tag["key"].startswith("aws:")}
    return [{"key": key, "value": value} for key, value in {**tags, "run": run}.items()]


def _created_before(request: Mapping[str, Any], conflict: Exception) -> str:
    """Returns the ARN of the job that has the name, if it is the one asked for.

    Raises:
        RunError: It is another job, or only a model has the name.
    """
    bedrock: BedrockClient = runs.client("bedrock")
    name = request["jobName"]
    try:
        job = bedrock.get_model_customization_job(jobIdentifier=name)
    except bedrock.exceptions.ResourceNotFoundException:
        raise RunError(
            f"the name {name} is taken, but not by a job: {conflict}. Names are never free again;"
            " start the run with another `attempt`"
        ) from conflict
    asked = {
        "roleArn": request["roleArn"],
        "trainingDataConfig": request["trainingDataConfig"],
        "outputDataConfig": request["outputDataConfig"],
        "customizationConfig": request["customizationConfig"],
    }
    if different := [key for key, value in asked.items() if job.get(key) != value]:
        raise RunError(
            f"the name {name} belongs to {job['jobArn']}, whose {', '.join(different)} is not this run's."
            " Names are never free again; start the run with another `attempt`"
        ) from conflict
    return job["jobArn"]
