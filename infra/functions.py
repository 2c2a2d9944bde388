"""A Lambda function with a role and a log group of its own, and nothing else."""

from collections.abc import Iterable, Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.encryption import TeamKey
from infra.permissions import Permission, allow, grant


class Function(Construct):
    """One handler of a package, on arm64 and the newest Python of Lambda.

    Its role may write to its own log group and do what `may` says: no managed policy, no role shared with
    another function. The code knows its environment by the variable STACK. `failures_to` hears of events it
    could not handle; publishing there has to be in `may`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        code: lambda_.Code,
        handler: str,
        description: str,
        timeout: cdk.Duration,
        memory_mb: int,
        key: TeamKey,
        lasting: bool,
        environment: Mapping[str, str] | None = None,
        may: Iterable[Permission] = (),
        versions_are_kept: bool = False,
        failures_to: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.log_group = logs.LogGroup(
            self,
            "LogGroup",
            encryption_key=key.key,
            retention=logs.RetentionDays.ONE_YEAR if lasting else logs.RetentionDays.ONE_MONTH,
            removal_policy=cdk.RemovalPolicy.RETAIN if lasting else cdk.RemovalPolicy.DESTROY,
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        # The ARN of a log group ends in ":*", which stands for its streams: every instance opens one.
        write_logs = allow("logs:CreateLogStream", "logs:PutLogEvents", on=[self.log_group.log_group_arn])
        grant(self.role, write_logs, *may)
        self.function = lambda_.Function(
            self,
            "Default",
            description=description,
            code=code,
            handler=handler,
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            timeout=timeout,
            memory_size=memory_mb,
            role=self.role,
            log_group=self.log_group,
            environment={"STACK": cdk.Aws.STACK_NAME, **(environment or {})},
            current_version_options=lambda_.VersionOptions(removal_policy=cdk.RemovalPolicy.RETAIN)
            if versions_are_kept
            else None,
        )
        if failures_to:
            lambda_.CfnEventInvokeConfig(
                self,
                "FailedEvents",
                function_name=self.function.function_name,
                qualifier="$LATEST",
                destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                    on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(
                        destination=failures_to.topic_arn
                    )
                ),
            )

    def call_on(self, construct_id: str, *, description: str, event: Mapping[str, Any]) -> None:
        """Has EventBridge call the function for every event that fits the pattern.

        The library's own target would put the name of the stack, and so the team's, into a logical id.
        """
        rule = events.CfnRule(
            self,
            construct_id,
            description=description,
            event_pattern=event,
            state="ENABLED",
            targets=[events.CfnRule.TargetProperty(id="Function", arn=self.function.function_arn)],
        )
        self.function.add_permission(
            f"CallOn{construct_id}",
            principal=iam.ServicePrincipal("events.amazonaws.com"),
            source_arn=rule.attr_arn,
        )
