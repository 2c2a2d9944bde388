"""How people hear of what happens: one topic for everything about one environment."""

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.customization import CustomizationRole
from infra.encryption import TeamKey, budgets_of
from infra.permissions import Permission, allow, grant


class Notifications(Construct):
    """The encrypted topic of one environment, and the news of its customization jobs.

    Bedrock's job events are best effort: the workflow polls, and nothing depends on them.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, customization: CustomizationRole, key: TeamKey
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        self._key = key
        self.topic = sns.Topic(self, "Topic", master_key=key.key, enforce_ssl=True)
        rules = stack.format_arn(service="events", resource="rule", resource_name="*")
        role = iam.Role(
            self,
            "Role",
            description="Lets EventBridge publish news of customization jobs",
            # A role, because EventBridge gives no SourceArn or SourceAccount to a topic's policy: what such a
            # policy allows EventBridge, it allows the rules of every account.
            assumed_by=iam.ServicePrincipal(
                "events.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": stack.account},
                    # The rule's own ARN would be a circle: it is made with this role.
                    "ArnLike": {"aws:SourceArn": rules},
                },
            ),
        )
        grant(role, *self.publish())
        # "jobStatus", not "status": a rule on the latter never matches and says nothing.
        job_name, job_status = (
            events.EventField.from_path(f"$.detail.{name}") for name in ("jobName", "jobStatus")
        )
        events.Rule(
            self,
            "JobStateChange",
            description="A customization job of this environment changed its state",
            event_pattern=events.EventPattern(
                source=["aws.bedrock"],
                detail_type=["Model Customization Job State Change"],
                detail={"roleArn": [customization.role.role_arn]},
            ),
            targets=[
                targets.SnsTopic(
                    self.topic,
                    role=role.without_policy_updates(),
                    message=events.RuleTargetInput.from_text(
                        f"Customization job {job_name} is {job_status}."
                    ),
                )
            ],
        )

    def let_budgets_publish(self) -> None:
        """Lets the budgets of this account publish to the topic."""
        self._key.let_budgets_use()
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowBudgets",
                principals=[iam.ServicePrincipal("budgets.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions=budgets_of(cdk.Stack.of(self)),
            )
        )

    def publish(self) -> list[Permission]:
        """Lets its holder publish to the topic."""
        return [allow("sns:Publish", on=[self.topic.topic_arn]), self._key.use_through("sns")]
