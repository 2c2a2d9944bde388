"""What an environment costs by the month while nothing trains, read off its template."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.config import Prices

# What is billed by the month, by the name of its price in teams/platform.toml.
_PRICED = {
    "AWS::KMS::Key": "kms_key_month",
    "AWS::CloudWatch::Alarm": "alarm_month",
    "AWS::CloudWatch::Dashboard": "dashboard_month",
}
# What is billed by use, or not at all.
_FREE_WHILE_IDLE = {
    "AWS::Budgets::Budget",
    "AWS::CDK::Metadata",
    "AWS::Events::Rule",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SSM::Parameter",
    "AWS::StepFunctions::StateMachine",
    "Custom::TrainingRun",
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """Resources of one type: how many, and what one costs a month; None where the platform has no price."""

    type: str
    count: int
    price: float | None


def idle_month(template: Mapping[str, Any], prices: Prices | None) -> list[Item]:
    """Returns what a stack is billed for by the month, whatever happens in it; storage comes on top.

    Types that this module has never heard of are items without a price: they are not taken for free.
    """
    counts = Counter(each["Type"] for each in template["Resources"].values())
    return [
        Item(
            type=kind,
            count=count,
            price=getattr(prices, _PRICED[kind]) if prices and kind in _PRICED else None,
        )
        for kind, count in sorted(counts.items())
        if kind not in _FREE_WHILE_IDLE
    ]
