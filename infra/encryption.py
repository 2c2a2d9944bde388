"""The key a team's data, models, logs and notifications are encrypted with.

A team that brings its own key keeps the key's policy itself: it has to allow the account's IAM policies to
grant its use, CloudWatch Logs what `_use_by_logs` allows it, CloudWatch what `_use_by_alarms` allows it, and
AWS Budgets what `let_budgets_use` allows it where the team has a monthly budget.
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.config import Encryption
from infra.permissions import Permission, allow


class TeamKey(Construct):
    """One customer-managed KMS key, made here and rotated every year, or the team's own."""

    def __init__(
        self, scope: Construct, construct_id: str, *, encryption: Encryption | None, lasting: bool
    ) -> None:
        super().__init__(scope, construct_id)
        self._region = cdk.Stack.of(self).region
        self.key: kms.IKey
        if encryption:
            self.key = kms.Key.from_key_arn(self, "Imported", encryption.key_arn)
        else:
            self.key = kms.Key(
                self,
                "Default",
                description="Data, models, logs and notifications of one fine-tuning environment",
                enable_key_rotation=True,
                removal_policy=cdk.RemovalPolicy.RETAIN if lasting else cdk.RemovalPolicy.DESTROY,
                pending_window=cdk.Duration.days(30 if lasting else 7),
            )
            self.key.add_to_resource_policy(self._use_by_logs())
            self.key.add_to_resource_policy(self._use_by_alarms())
        self.arn = self.key.key_arn

    def read_through(self, *services: str) -> Permission:
        """Lets its holder read what these services store under the key."""
        return allow("kms:Decrypt", on=[self.arn], when=self._via(*services))

    def write_through(self, *services: str) -> Permission:
        """Lets its holder store under the key through these services, but not read it back."""
        return allow("kms:GenerateDataKey", on=[self.arn], when=self._via(*services))

    def use_through(self, *services: str) -> Permission:
        """Lets its holder store under the key through these services, and read it back."""
        return allow("kms:Decrypt", "kms:GenerateDataKey", on=[self.arn], when=self._via(*services))

    def use_for_models(self) -> Permission:
        """Lets its holder have Bedrock make and deploy custom models under the key."""
        return allow(
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKey",
            on=[self.arn],
            when=self._via("bedrock"),
        )

    def let_budgets_use(self) -> None:
        """Lets budgets of this account publish to a topic under the key, which AWS Budgets does as itself."""
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("budgets.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                # In a key's own policy "*" means this key.
                resources=["*"],
                conditions=budgets_of(cdk.Stack.of(self)),
            )
        )

    def _via(self, *services: str) -> dict[str, dict[str, list[str]]]:
        names = [f"{service}.{self._region}.amazonaws.com" for service in services]
        return {"StringEquals": {"kms:ViaService": names}}

    def _use_by_logs(self) -> iam.PolicyStatement:
        stack = cdk.Stack.of(self)
        # CloudFormation names log groups after their stack. Their exact ARNs cannot stand here: a group needs
        # the key before it exists.
        groups = [
            stack.format_arn(
                service="logs",
                resource="log-group",
                resource_name=f"{prefix}{cdk.Aws.STACK_NAME}-*",
                arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
            )
            for prefix in ("", "/aws/vendedlogs/states/")
        ]
        return iam.PolicyStatement(
            principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
            actions=[
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:Encrypt",
                "kms:GenerateDataKey",
                "kms:GenerateDataKeyWithoutPlaintext",
                "kms:ReEncryptFrom",
                "kms:ReEncryptTo",
            ],
            # In a key's own policy "*" means this key.
            resources=["*"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
        )

    def _use_by_alarms(self) -> iam.PolicyStatement:
        """Lets alarms of this stack publish to its encrypted topic, which CloudWatch does as itself."""
        return iam.PolicyStatement(
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            # In a key's own policy "*" means this key.
            resources=["*"],
            conditions=alarms_of(cdk.Stack.of(self)),
        )


def alarms_of(stack: cdk.Stack) -> dict[str, dict[str, Any]]:
    """Returns the conditions that only the alarms of this stack meet; CloudFormation names them after it."""
    arn = stack.format_arn(
        service="cloudwatch",
        resource="alarm",
        resource_name=f"{cdk.Aws.STACK_NAME}-*",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    return {"StringEquals": {"aws:SourceAccount": stack.account}, "ArnLike": {"aws:SourceArn": arn}}


def budgets_of(stack: cdk.Stack) -> dict[str, dict[str, Any]]:
    """Returns the conditions that only the budgets of this account meet; they belong to no region."""
    arn = stack.format_arn(
        service="budgets", region="", resource="*", arn_format=cdk.ArnFormat.NO_RESOURCE_NAME
    )
    return {"StringEquals": {"aws:SourceAccount": stack.account}, "ArnLike": {"aws:SourceArn": arn}}
