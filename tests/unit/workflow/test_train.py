"""The customization job is asked for exactly as the service documents it, and only once."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.workflow import train
from lambdas.workflow.runs import RunError
from tests.unit.workflow.conftest import (
    ARTIFACTS,
    JOB_ARN,
    NAME,
    REWARD,
    RUN,
    STATE_MACHINE,
    Aws,
    RefusedError,
)

EVENT: dict[str, Any] = {
    "run": RUN,
    "base_model": "amazon.nova-2-lite-v1:0:256k",
    "reward_version": REWARD,
    "training": {
        "epochCount": 2,
        "batchSize": 32,
        "learningRate": 1e-4,
        "trainingSamplePerPrompt": 8,
        "maxPromptLength": 4096,
        "inferenceMaxTokens": 1024,
        "reasoningEffort": "low",
        "evalInterval": 10,
    },
    "train": "s3://datasets-bucket/datasets/abc/train.jsonl",
    "state_machine": STATE_MACHINE,
}


def test_the_request_is_the_documented_one(aws: Aws) -> None:
    aws.tags = {"team": "quotes", "aws:cloudformation:stack-name": "rft-quotes-dev"}
    assert train.handler(EVENT, None) == {"job_arn": JOB_ARN, "job_name": NAME}
    tags = [{"key": "team", "value": "quotes"}, {"key": "run", "value": RUN}]
    assert aws.called("CreateModelCustomizationJob") == [
        {
            "jobName": NAME,
            "customModelName": NAME,
            "roleArn": "arn:aws:iam::111122223333:role/Customization",
            "clientRequestToken": RUN,
            "baseModelIdentifier": "amazon.nova-2-lite-v1:0:256k",
            "customizationType": "REINFORCEMENT_FINE_TUNING",
            "trainingDataConfig": {"s3Uri": "s3://datasets-bucket/datasets/abc/train.jsonl"},
            "outputDataConfig": {"s3Uri": f"s3://{ARTIFACTS}/runs/{RUN}/output/"},
            "customizationConfig": {
                "rftConfig": {
                    "graderConfig": {"lambdaGrader": {"lambdaArn": REWARD}},
                    "hyperParameters": EVENT["training"],
                }
            },
            "jobTags": tags,
            "customModelTags": tags,
        }
    ]


def test_key_and_network_go_with_it_where_the_team_has_them(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012"
    network = {"subnetIds": ["subnet-0123456789abcdef0"], "securityGroupIds": ["sg-0123456789abcdef0"]}
    monkeypatch.setenv("MODEL_KEY", key)
    monkeypatch.setenv("VPC_CONFIG", json.dumps(network))
    train.handler(EVENT, None)
    (asked,) = aws.called("CreateModelCustomizationJob")
    assert (asked["customModelKmsKeyId"], asked["vpcConfig"]) == (key, network)


def test_without_a_state_machine_there_are_no_tags_but_the_runs(aws: Aws) -> None:
    train.handler({key: value for key, value in EVENT.items() if key != "state_machine"}, None)
    assert not aws.called("ListTagsForResource")
    assert aws.called("CreateModelCustomizationJob")[0]["jobTags"] == [{"key": "run", "value": RUN}]


def test_asking_twice_finds_the_same_job(aws: Aws) -> None:
    assert train.handler(EVENT, None) == train.handler(EVENT, None)
    first, second = aws.called("CreateModelCustomizationJob")
    assert first == second
    assert len(aws.jobs) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": "s3://datasets-bucket/datasets/other/train.jsonl"}, "whose trainingDataConfig is not"),
        ({"reward_version": REWARD.replace(":3", ":2")}, "whose customizationConfig is not this run's"),
        ({"training": {**EVENT["training"], "epochCount": 3}}, "whose customizationConfig is not this run's"),
    ],
)
def test_the_job_of_somebody_else_is_not_taken_for_ours(aws: Aws, change: dict[str, Any], said: str) -> None:
    train.handler({**EVENT, **change}, None)
    with pytest.raises(RunError, match=said) as caught:
        train.handler(EVENT, None)
    assert "start the run with another `attempt`" in str(caught.value)


@pytest.mark.parametrize("ended", [False, True])
def test_the_job_of_a_run_that_was_stopped_meanwhile_is_stopped(aws: Aws, *, ended: bool) -> None:
    execution = f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{RUN}"
    aws.statuses[execution] = "RUNNING"
    train.handler({**EVENT, "execution": execution}, None)
    assert not aws.called("StopModelCustomizationJob")
    aws.statuses[execution] = "ABORTED"
    if ended:
        aws.refusals["StopModelCustomizationJob"] = [RefusedError("ConflictException", "it has ended", 409)]
    with pytest.raises(RunError, match=f"{RUN} was stopped while its customization job was submitted"):
        train.handler({**EVENT, "execution": execution}, None)
    assert aws.called("StopModelCustomizationJob") == [{"jobIdentifier": JOB_ARN}]


def test_a_name_that_only_a_model_has_is_said(aws: Aws) -> None:
    aws.refusals["CreateModelCustomizationJob"] = [
        RefusedError("ConflictException", "model name in use", 409)
    ]
    with pytest.raises(RunError, match=r"is taken, but not by a job: .*model name in use"):
        train.handler(EVENT, None)


def test_other_refusals_keep_their_names(aws: Aws) -> None:
    aws.refusals["CreateModelCustomizationJob"] = [RefusedError("ServiceQuotaExceededException", "10 jobs")]
    with pytest.raises(ClientError, match="10 jobs") as caught:
        train.handler(EVENT, None)
    assert type(caught.value).__name__ == "ServiceQuotaExceededException"
