"""The one deployment that a team's applications call."""

import aws_cdk as cdk
from aws_cdk import aws_ssm as ssm
from constructs import Construct


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
