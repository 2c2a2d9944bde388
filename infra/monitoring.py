"""How people hear of what happens: one topic for everything about one environment, alarms and a dashboard."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as cloudwatch_actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from infra.customization import CustomizationRole
from infra.encryption import TeamKey, alarms_of, budgets_of
from infra.permissions import Permission, allow, grant

# What lambdas/contract.py prints of every batch, under the name of the stack.
_NAMESPACE = "RFT"
_RUN_ENDINGS = ("Succeeded", "Failed", "TimedOut", "Aborted")


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
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowAlarms",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions=alarms_of(stack),
            )
        )
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


class Alarms(Construct):
    """What needs a person; each says what happened and which page says what to do.

    Few, because an alarm costs money whether it rings or not, and because one that rings for nothing teaches
    people to ignore the others. What stops a run is told by the run itself, with its reason: the alarm on it
    is for whoever has the night watch.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        reward: lambda_.Function,
        state_machine: sfn.IStateMachine,
        notifications: Notifications,
        runbook: str,
    ) -> None:
        super().__init__(scope, construct_id)
        tell = cloudwatch_actions.SnsAction(notifications.topic)
        minutes = cdk.Duration.minutes

        def alarm(name: str, metric: cloudwatch.IMetric, at_least: float, *, says: str) -> None:
            cloudwatch.Alarm(
                self,
                name,
                alarm_description=f"{says} What to do: {runbook}#{name.lower()}",
                metric=metric,
                threshold=at_least,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
                evaluation_periods=1,
                # Nothing is measured while nothing trains.
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            ).add_alarm_action(tell)

        assert reward.timeout is not None  # noqa: S101 - narrows the type, every reward function has one
        alarm(
            "RunFailed",
            state_machine.metric_failed(period=minutes(1)),
            1,
            says="A training run ended without a decision.",
        )
        alarm(
            "RewardFailed",
            reward.metric_errors(period=minutes(1)),
            1,
            says="The reward function failed on a whole batch; Bedrock asks three more times and then fails "
            "the job.",
        )
        alarm(
            "RewardThrottled",
            reward.metric_throttles(period=minutes(1)),
            1,
            says="The reward function was throttled: the account's concurrency does not suffice.",
        )
        alarm(
            "RewardSlow",
            reward.metric_duration(period=minutes(1), statistic="p99"),
            reward.timeout.to_milliseconds() * 0.8,
            says="The reward function needs most of its time for a batch: what takes longer fails the job.",
        )
        alarm(
            "RewardUnscorable",
            _of_batches("unscorable_share", "Maximum", minutes(1)),
            # Any: the share is of one batch, and one row in a batch of thousands is one too many.
            1e-6,
            says="Rows reach the reward function that it cannot score; they teach the model nothing.",
        )


class Dashboard(Construct):
    """One page for everything there is to see while a model trains; a stage asks for it, since it costs."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        reward: lambda_.Function,
        state_machine: sfn.IStateMachine,
    ) -> None:
        super().__init__(scope, construct_id)
        minute = cdk.Duration.minutes(1)

        def graph(
            title: str, *metrics: cloudwatch.IMetric, top: float | None = None
        ) -> cloudwatch.GraphWidget:
            return cloudwatch.GraphWidget(
                title=title,
                left=list(metrics),
                width=8,
                left_y_axis=cloudwatch.YAxisProps(min=0, max=top, show_units=False),
            )

        def batches(*names: str) -> list[cloudwatch.Metric]:
            return [_of_batches(name, "Average", minute) for name in names]

        components = cloudwatch.MathExpression(
            expression=f'SEARCH(\'{{{_NAMESPACE},Environment}} Environment="{cdk.Aws.STACK_NAME}" '
            "MetricName=component_', 'Average', 60)",
            label="",
        )
        cloudwatch.Dashboard(
            self,
            "Default",
            widgets=[
                [
                    graph("Reward", *batches("reward_mean")),
                    graph("Spread of the reward within batches", *batches("reward_std")),
                    graph("Components", components),
                ],
                [
                    graph(
                        "Shares in trouble", *batches("zero_share", "unscorable_share", "error_share"), top=1
                    ),
                    graph("Characters of a completion", *batches("completion_length")),
                    graph("Completions scored", _of_batches("samples", "Sum", minute)),
                ],
                [
                    graph(
                        "Milliseconds of a batch",
                        *(reward.metric_duration(period=minute, statistic=each) for each in ("p50", "p99")),
                    ),
                    graph(
                        "Failed and throttled batches",
                        reward.metric_errors(period=minute),
                        reward.metric_throttles(period=minute),
                    ),
                    graph(
                        "Ends of runs",
                        *(state_machine.metric(f"Executions{end}", statistic="Sum") for end in _RUN_ENDINGS),
                    ),
                ],
            ],
        )


def _of_batches(name: str, statistic: str, period: cdk.Duration) -> cloudwatch.Metric:
    """What the reward function says of its batches."""
    return cloudwatch.Metric(
        namespace=_NAMESPACE,
        metric_name=name,
        dimensions_map={"Environment": cdk.Aws.STACK_NAME},
        statistic=statistic,
        period=period,
    )
