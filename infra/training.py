"""The training workflow: the state machine that waits, and what it may do."""

import json

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from infra.champion import Champion
from infra.config import ENVIRONMENT_TAG, InferenceProfile
from infra.datasets import Artifacts
from infra.encryption import TeamKey
from infra.monitoring import Notifications
from infra.permissions import (
    allow,
    allow_ours,
    allow_unless_others,
    bedrock_arns,
    grant,
    grant_apart,
)
from infra.states import WORKFLOW
from infra.steps import Steps


class TrainingWorkflow(Construct):
    """Everything between "there are rows" and "the better model answers": see infra/states.py."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        steps: Steps,
        inference: InferenceProfile,
        artifacts: Artifacts,
        champion: Champion,
        notifications: Notifications,
        key: TeamKey,
        lasting: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        jobs, models, deployments = bedrock_arns(stack)
        arns = {name: each.function.function_arn for name, each in steps.functions.items()}
        role = iam.Role(
            self,
            "StateMachineRole",
            description="What a training run may do between its functions",
            assumed_by=iam.ServicePrincipal(
                "states.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": stack.account},
                    # The state machine's own ARN would be a circle: it is made with this role.
                    "ArnLike": {
                        "aws:SourceArn": stack.format_arn(
                            service="states",
                            resource="stateMachine",
                            resource_name="*",
                            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                        )
                    },
                },
            ),
        )
        grant(
            role,
            allow("lambda:InvokeFunction", on=[*arns.values()]),
            artifacts.read("prompts.jsonl", "training-prompts.jsonl"),
            key.read_through("s3"),
            allow_unless_others("bedrock:GetModelCustomizationJob", on=[jobs]),
            allow_ours("bedrock:CreateCustomModelDeployment", on=[models]),
            allow_unless_others("bedrock:TagResource", on=[deployments]),
            allow_unless_others("bedrock:GetCustomModelDeployment", on=[deployments]),
            allow_ours("bedrock:DeleteCustomModelDeployment", on=[deployments]),
            allow("ssm:GetParameter", on=[champion.parameter.parameter_arn]),
            key.use_for_models(),
            *notifications.publish(),
            allow(
                "logs:CreateLogDelivery",
                "logs:DeleteLogDelivery",
                "logs:DescribeLogGroups",
                "logs:DescribeResourcePolicies",
                "logs:GetLogDelivery",
                "logs:ListLogDeliveries",
                "logs:PutResourcePolicy",
                "logs:UpdateLogDelivery",
                on=["*"],
                because="Setting up log delivery knows no resources.",
            ),
            allow(
                "xray:GetSamplingRules",
                "xray:GetSamplingTargets",
                "xray:PutTelemetryRecords",
                "xray:PutTraceSegments",
                on=["*"],
                because="Tracing knows no resources.",
            ),
        )
        self.state_machine = sfn.StateMachine(
            self,
            "StateMachine",
            definition_body=sfn.DefinitionBody.from_string(json.dumps(WORKFLOW, indent=1)),
            definition_substitutions={
                **arns,
                "BaseModelForInference": inference.profile,
                "Champion": champion.parameter.parameter_name,
                "Stack": cdk.Aws.STACK_NAME,
                "Topic": notifications.topic.topic_arn,
            },
            role=role.without_policy_updates(),
            tracing_enabled=True,
            logs=sfn.LogOptions(
                destination=logs.LogGroup(
                    self,
                    "StateMachineLogGroup",
                    # Log delivery writes every group into one policy of the account, which is full after some
                    # twenty of them, but not those below this name. The stack's id makes it unique.
                    log_group_name=f"/aws/vendedlogs/states/{cdk.Aws.STACK_NAME}-{_stack_number()}",
                    encryption_key=key.key,
                    retention=logs.RetentionDays.ONE_YEAR if lasting else logs.RetentionDays.ONE_MONTH,
                    removal_policy=cdk.RemovalPolicy.RETAIN if lasting else cdk.RemovalPolicy.DESTROY,
                ),
                level=sfn.LogLevel.ALL,
                # Inputs and outputs hold prompts and reference answers; those belong into the buckets alone.
                include_execution_data=False,
            ),
        )
        # Stopped from outside, out of time, or failed where no state can catch it. Twice does no harm.
        steps.functions["CleanUp"].call_on(
            "RunEndedBadly",
            description="A training run ended badly",
            event={
                "source": ["aws.states"],
                "detail-type": ["Step Functions Execution Status Change"],
                "detail": {
                    "stateMachineArn": [self.state_machine.state_machine_arn],
                    "status": ["ABORTED", "FAILED", "TIMED_OUT"],
                },
            },
        )
        cdk.Tags.of(self.state_machine).add(ENVIRONMENT_TAG, cdk.Aws.STACK_NAME)
        # What names the state machine itself stands apart from the roles' own policies, for which it waits.
        machine = self.state_machine.state_machine_arn
        read_tags = allow("states:ListTagsForResource", on=[machine])
        grant_apart(self, "ReadTags", [steps.functions["Train"].role], read_tags)
        grant_apart(
            self,
            "SeeHolder",
            [steps.functions[name].role for name in ("Lock", "Promote", "Train")],
            allow(
                "states:DescribeExecution",
                on=[
                    stack.format_arn(
                        service="states",
                        resource="execution",
                        resource_name=f"{self.state_machine.state_machine_name}:*",
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                ],
                because="What holds the lock, submits or promotes is an execution of this state machine,"
                " named by its run.",
            ),
        )
        grant_apart(
            self,
            "RunMaps",
            [role],
            read_tags,
            allow("states:StartExecution", on=[machine]),
            allow(
                "states:DescribeExecution",
                "states:StopExecution",
                on=[
                    stack.format_arn(
                        service="states",
                        resource="execution",
                        resource_name=f"{self.state_machine.state_machine_name}{separator}*",
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                    for separator in (":", "/")
                ],
                because="A distributed map runs each of its items as an execution of this state machine.",
            ),
        )


def _stack_number() -> str:
    """The part of a stack's id that no other stack ever has."""
    return cdk.Fn.select(2, cdk.Fn.split("/", cdk.Aws.STACK_ID))
