"""The alerts on what AWS bills for one environment."""

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from constructs import Construct

from infra.config import ENVIRONMENT_TAG
from infra.monitoring import Notifications

# Percent of the month's budget, and whether it was spent already or is foreseen.
_ALERTS = ((80, "ACTUAL"), (100, "ACTUAL"), (100, "FORECASTED"))


class BudgetAlerts(Construct):
    """Tells the team when the bill nears or passes its monthly budget.

    It stops nothing: bills come a day late, and the workflow's cost gate is what refuses a run. It sees what
    bears the environment's tag (everything of the stack, and the jobs, models and deployments of its runs),
    once `rft:environment` is activated as a cost allocation tag. Calls of the base model and of judges bear
    no tag.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        per_month: float,
        currency: str,
        notifications: Notifications,
    ) -> None:
        super().__init__(scope, construct_id)
        notifications.let_budgets_publish()
        topic = notifications.topic.topic_arn
        budget = budgets.CfnBudget(
            self,
            "Default",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=per_month, unit=currency),
                cost_filters={"TagKeyValue": [f"user:{ENVIRONMENT_TAG}${cdk.Aws.STACK_NAME}"]},
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type=kind,
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[
                        budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=topic)
                    ],
                )
                for percent, kind in _ALERTS
            ],
        )
        # AWS Budgets tries the topic when it is given one.
        budget.node.add_dependency(notifications)
