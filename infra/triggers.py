"""What starts a run: the one function that can, and what calls it without a person."""

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct, IDependable

from infra.config import TrainWhen
from infra.datasets import Artifacts, Datasets, Rows
from infra.encryption import TeamKey
from infra.functions import Function
from infra.monitoring import Notifications
from infra.permissions import allow
from infra.training import TrainingWorkflow


class RunStarter(Construct):
    """Starts a run, or finds the one that trains on the same content."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        code: lambda_.Code,
        workflow: TrainingWorkflow,
        settings: Mapping[str, Any],
        gates: Mapping[str, Any],
        limits: Mapping[str, float],
        rows: Rows,
        datasets: Datasets,
        artifacts: Artifacts,
        notifications: Notifications,
        key: TeamKey,
        lasting: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        state_machine = workflow.state_machine.state_machine_arn
        self.start = Function(
            self,
            "Function",
            code=code,
            handler="lambdas.workflow.start.handler",
            description="Starts a run, or finds the one that trains on the same content",
            # It hashes the files, and CloudFormation waits for it.
            timeout=cdk.Duration.minutes(4),
            memory_mb=1769,
            environment={
                "DATASETS": datasets.bucket.bucket_name,
                "ARTIFACTS": artifacts.bucket.bucket_name,
                "STATE_MACHINE": state_machine,
                "SETTINGS": cdk.Stack.of(self).to_json_string({**settings, "gates": gates, "limits": limits}),
            },
            may=[
                allow("states:StartExecution", on=[state_machine]),
                allow("s3:GetObject", on=rows.object_arns),
                datasets.read("incoming/*", "datasets/*"),
                datasets.list_objects(),
                key.read_through("s3"),
                *notifications.publish(),
            ],
            failures_to=notifications.topic,
            key=key,
            lasting=lasting,
        )


class Triggers(Construct):
    """Starts a run when a deploy changes what is trained, when somebody uploads rows, or never by itself."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        train_when: TrainWhen,
        starter: RunStarter,
        settings: Mapping[str, Any],
        datasets: Datasets,
        after: list[IDependable],
    ) -> None:
        super().__init__(scope, construct_id)
        match train_when:
            case "on-deploy":
                self._train_on_deploy(starter.start, settings, [starter, *after])
            case "on-upload":
                self._train_on_upload(starter.start, datasets)

    def _train_on_deploy(
        self, start: Function, settings: Mapping[str, Any], after: list[IDependable]
    ) -> None:
        """CloudFormation calls the function when a property changes, and only then.

        The settings are exactly what a run is named by: the files by their content, the version of the reward
        function, the model and the numbers. Rows that lie in S3 under a fixed URI can change unseen: the
        upload trigger is for those.
        """
        run = cdk.CustomResource(
            self,
            "TrainingRun",
            resource_type="Custom::TrainingRun",
            service_token=start.function.function_arn,
            # A function that never answers would hold the deploy for an hour otherwise.
            service_timeout=cdk.Duration.minutes(5),
            properties={"Settings": cdk.Stack.of(self).to_json_string(settings)},
        )
        # A run begins at once: everything it uses has to be there.
        run.node.add_dependency(*after)

    def _train_on_upload(self, start: Function, datasets: Datasets) -> None:
        """Nothing that the workflow or Bedrock writes can start a run: they never write below incoming/."""
        datasets.announce_uploads()
        start.call_on(
            "Upload",
            description="A training file was uploaded",
            event={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [datasets.bucket.bucket_name]},
                    # Both ends of the key in one pattern: a prefix and a suffix would be alternatives.
                    "object": {"key": [{"wildcard": "incoming/*/train.jsonl"}]},
                },
            },
        )
