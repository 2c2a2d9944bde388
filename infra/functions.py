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

from infra.config import Network
from infra.encryption import TeamKey
from infra.permissions import STACK_NAME, Permission, allow, deny, grant

# Asked of the library once, as STACK_NAME is.
_LAMBDA = iam.ServicePrincipal("lambda.amazonaws.com")
_ARM_64 = lambda_.Architecture.ARM_64
_PYTHON = lambda_.Runtime.PYTHON_3_14


class Function(Construct):
    """One handler of a package, on arm64 and the newest Python of Lambda.

    Its role may write to its own log group and do what `may` says: no managed policy, no role shared with
    another function. The code knows its environment by the variable STACK. `failures_to` hears of events it
    could not handle; publishing there has to be in `may`. With a network that has security groups for it, it
    reaches what they and the subnets let it reach, which may be nothing.
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
        network: Network | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.log_group = logs.LogGroup(
            self,
            "LogGroup",
            encryption_key=key.key,
            retention=logs.RetentionDays.ONE_YEAR if lasting else logs.RetentionDays.ONE_MONTH,
            removal_policy=cdk.RemovalPolicy.RETAIN if lasting else cdk.RemovalPolicy.DESTROY,
        )
        self.role = iam.Role(self, "Role", assumed_by=_LAMBDA)
        # The ARN of a log group ends in ":*", which stands for its streams: every instance opens one.
        write_logs = allow("logs:CreateLogStream", "logs:PutLogEvents", on=[self.log_group.log_group_arn])
        inside = network if network and network.reward_security_group_ids else None
        interfaces = _interfaces(inside, cdk.Stack.of(self)) if inside else ()
        grant(self.role, write_logs, *may, *interfaces)
        self.function = lambda_.Function(
            self,
            "Default",
            description=description,
            code=code,
            handler=handler,
            runtime=_PYTHON,
            architecture=_ARM_64,
            timeout=timeout,
            memory_size=memory_mb,
            role=self.role,
            log_group=self.log_group,
            environment={"STACK": STACK_NAME, **(environment or {})},
            current_version_options=lambda_.VersionOptions(removal_policy=cdk.RemovalPolicy.RETAIN)
            if versions_are_kept
            else None,
        )
        if inside:
            resource = self.function.node.default_child
            assert isinstance(resource, lambda_.CfnFunction)  # noqa: S101 - narrows the type, the library always makes it one
            # The library's own way wants a VPC that it made, or one that it looks up.
            resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
                subnet_ids=list(inside.subnet_ids), security_group_ids=list(inside.reward_security_group_ids)
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


def _interfaces(network: Network, stack: cdk.Stack) -> list[Permission]:
    """What Lambda needs of a function's role to put its network interfaces into the subnets.

    The actions are those of AWSLambdaVPCAccessExecutionRole without its logs. Lambda tries them out as the
    function is made, before there is an interface, so no condition on an interface can hold for them.
    """

    def ec2(resource: str, name: str) -> str:
        return stack.format_arn(service="ec2", resource=resource, resource_name=name)

    makes = ("ec2:CreateNetworkInterface",)
    changes = ("ec2:AssignPrivateIpAddresses", "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses")
    looks = ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets")
    return [
        allow(*looks, on=["*"], because="EC2 knows no resources for these actions."),
        allow(
            *makes,
            on=[
                *(ec2("subnet", each) for each in network.subnet_ids),
                *(ec2("security-group", each) for each in network.reward_security_group_ids),
                ec2("network-interface", "*"),
            ],
            because="EC2 chooses the id of an interface; subnets and security groups narrow it down.",
        ),
        allow(
            *changes,
            on=[ec2("*", "*")],
            because="Lambda asks for all resources here, and refuses a role that names fewer.",
        ),
        deny(
            *changes,
            *makes,
            *looks,
            on=["*"],
            # Only what runs in a function carries this key, not Lambda itself. The function's own ARN would
            # be a circle, because it waits for its role.
            when={
                "ArnLike": {
                    "lambda:SourceFunctionArn": stack.format_arn(
                        service="lambda",
                        resource="function",
                        resource_name="*",
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                }
            },
            because="Taken away from the code that runs in the function, which may be a model's.",
        ),
    ]
