"""The deployed reward function and the version of it that runs are pinned to."""

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.config import AllowedJudge, Network, RewardDefaults
from infra.encryption import TeamKey
from infra.functions import Function
from infra.permissions import Permission, allow, allow_judge


class RewardFunction(Construct):
    """One team's reward function.

    Bedrock and the measurement call the published version, never the newest code: a deploy in the middle of a
    run cannot change what a completion is worth. Old versions stay, on replacement and on deletion alike.
    It may ask its judges, by the names that its settings call them, and no other model. Outside of a VPC it
    could reach the internet; a network with security groups for it closes it in.
    No reserved concurrency: Bedrock calls it in bursts, and a throttled reward function fails the job.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        package: Path,
        settings: RewardDefaults,
        judges: Mapping[str, AllowedJudge],
        network: Network | None,
        key: TeamKey,
        lasting: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        self._reward = Function(
            self,
            "Function",
            code=lambda_.Code.from_asset(str(package)),
            handler="lambdas.reward_function.handler",
            description="Scores completions during training and measurement",
            timeout=cdk.Duration.seconds(settings.timeout_seconds),
            memory_mb=settings.memory_mb,
            may=[
                permission
                for name, judge in judges.items()
                for permission in allow_judge(name, judge, cdk.Stack.of(self))
            ],
            key=key,
            lasting=lasting,
            versions_are_kept=True,
            network=network,
        )

    @property
    def version_arn(self) -> str:
        """The ARN of the published version, qualifier included."""
        return self._reward.function.current_version.function_arn

    @property
    def function(self) -> lambda_.Function:
        """The function itself, for who watches it."""
        return self._reward.function

    @property
    def log_group(self) -> logs.ILogGroup:
        """Where it writes its scores and metrics."""
        return self._reward.log_group

    def read_versions(self) -> Permission:
        """Lets its holder read what any version is made of, as its hash; not the code."""
        return allow(
            "lambda:GetFunctionConfiguration",
            on=[f"{self._reward.function.function_arn}:*"],
            because="A run keeps the version it began with, which later deploys follow with others.",
        )

    def invoke(self) -> Permission:
        """Lets its holder have completions scored by exactly this version."""
        return allow("lambda:InvokeFunction", on=[self.version_arn])
