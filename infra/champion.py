"""The one deployment that a team's applications call, and what people may do about it."""

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from infra.datasets import Artifacts
from infra.encryption import TeamKey
from infra.functions import Function
from infra.monitoring import Notifications
from infra.permissions import allow, allow_ours, allow_unless_others, bedrock_arns


class Champion(Construct):
    """Where the one deployment that a team's applications call is remembered: its ARN, or "none".

    Only the workflow changes the value. CloudFormation sets it once: the property never changes again.
    """

    def __init__(self, scope: Construct, construct_id: str, *, lasting: bool) -> None:
        super().__init__(scope, construct_id)
        self.parameter = ssm.StringParameter(
            self,
            "Default",
            description="ARN of the custom model deployment that serves the promoted model, or none",
            string_value="none",
            simple_name=True,
        )
        self.parameter.apply_removal_policy(
            cdk.RemovalPolicy.RETAIN if lasting else cdk.RemovalPolicy.DESTROY
        )


class ChampionChanges(Construct):
    """What approves, rejects, promotes and rolls back for people, who need no permission but to invoke it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        code: lambda_.Code,
        champion: Champion,
        state_machine_arn: str,
        artifacts: Artifacts,
        notifications: Notifications,
        key: TeamKey,
        lasting: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        _, models, deployments = bedrock_arns(cdk.Stack.of(self))
        self.function = Function(
            self,
            "Function",
            code=code,
            handler="lambdas.workflow.change_champion.handler",
            description="Approves, rejects, promotes and rolls back for a person",
            timeout=cdk.Duration.minutes(1),
            memory_mb=512,
            environment={
                "ARTIFACTS": artifacts.bucket.bucket_name,
                "CHAMPION": champion.parameter.parameter_name,
                "TOPIC": notifications.topic.topic_arn,
            },
            may=[
                allow("ssm:GetParameter", on=[champion.parameter.parameter_arn]),
                allow_unless_others("bedrock:GetCustomModel", on=[models]),
                allow_unless_others("bedrock:GetCustomModelDeployment", on=[deployments]),
                allow_ours("bedrock:UpdateCustomModelDeployment", on=[deployments, models]),
                key.use_for_models(),
                # The service's own tables name no resource for it; what it asks for is the state machine.
                allow("states:SendTaskSuccess", on=[state_machine_arn]),
                artifacts.list_objects(),
                artifacts.read("approval.json", "decision.json"),
                artifacts.read_history(),
                artifacts.write_history(),
                key.use_through("s3"),
                *notifications.publish(),
            ],
            key=key,
            lasting=lasting,
        )
