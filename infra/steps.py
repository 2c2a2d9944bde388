"""What the training workflow cannot do by itself: one function per step, each with exactly what it may do.

What a step takes, returns and writes stands in its own module below lambdas/workflow.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.champion import Champion
from infra.config import InferenceProfile, Network, Retention, Stage
from infra.customization import CustomizationRole
from infra.datasets import Artifacts, Datasets, Rows
from infra.encryption import TeamKey
from infra.functions import Function
from infra.monitoring import Notifications
from infra.permissions import (
    Permission,
    allow,
    allow_ours,
    allow_profile,
    allow_unless_others,
    bedrock_arns,
)
from infra.rewards import RewardFunction


class Steps(Construct):
    """The functions of one training workflow; `functions` has them by their names in infra/states.py."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        code: lambda_.Code,
        base_model: str,
        inference: InferenceProfile,
        rows: Rows,
        datasets: Datasets,
        artifacts: Artifacts,
        reward: RewardFunction,
        customization: CustomizationRole,
        network: Network | None,
        champion: Champion,
        stage: Stage,
        retention: Retention,
        costs: Mapping[str, Any],
        notifications: Notifications,
        key: TeamKey,
        lasting: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        self.functions: dict[str, Function] = {}
        buckets = {"DATASETS": datasets.bucket.bucket_name, "ARTIFACTS": artifacts.bucket.bucket_name}

        def step(
            name: str,
            module: str,
            description: str,
            *,
            minutes: int,
            memory_mb: int = 512,
            environment: Mapping[str, str] | None = None,
            may: Sequence[Permission],
            failures_to: sns.ITopic | None = None,
        ) -> None:
            self.functions[name] = Function(
                self,
                name,
                code=code,
                handler=f"lambdas.workflow.{module}.handler",
                description=description,
                timeout=cdk.Duration.minutes(minutes),
                memory_mb=memory_mb,
                environment={**buckets, **(environment or {})},
                may=may,
                failures_to=failures_to,
                key=key,
                lasting=lasting,
            )

        jobs, models, deployments = bedrock_arns(stack)
        foundation_model = stack.format_arn(
            service="bedrock", account="", resource="foundation-model", resource_name=base_model
        )
        step(
            "Prepare",
            "prepare",
            "Checks the datasets of a run and puts them where it reads them",
            minutes=15,
            memory_mb=1769,
            may=[
                allow("s3:GetObject", on=rows.object_arns),
                datasets.read("incoming/*", "datasets/*"),
                datasets.write("datasets/*"),
                datasets.list_objects(),
                artifacts.write(
                    "run.json",
                    "dataset.json",
                    "prompts.jsonl",
                    "training-prompts.jsonl",
                    "gates/dataset.json",
                ),
                key.use_through("s3"),
            ],
        )
        step(
            "Rehearse",
            "rehearse",
            "Tries good and bad completions on the reward function",
            minutes=15,
            memory_mb=1769,
            may=[
                *([allow("s3:GetObject", on=rows.case_arns)] if rows.case_arns else []),
                datasets.read("datasets/*"),
                reward.invoke(),
                artifacts.write("gates/rehearsal.json"),
                key.use_through("s3"),
            ],
        )
        step(
            "Measure",
            "measure",
            "Samples a model on one prompt and scores what it said",
            minutes=15,
            may=[
                *allow_profile(inference, stack),
                allow_ours("bedrock:InvokeModel", on=[deployments]),
                key.read_through("bedrock"),
                reward.invoke(),
                artifacts.write("measured/*", "failed/*"),
                key.write_through("s3"),
            ],
        )
        step(
            "Signal",
            "signal",
            "Says whether there is something to learn from",
            minutes=5,
            memory_mb=1769,
            may=[
                artifacts.list_objects(),
                artifacts.read("measured/*"),
                artifacts.write("gates/signal.json"),
                key.use_through("s3"),
            ],
        )
        step(
            "Lock",
            "lock",
            "Keeps the environment to one run at a time",
            minutes=1,
            may=[
                artifacts.list_objects(),
                artifacts.use_lock(),
                artifacts.write("gates/lock.json"),
                key.use_through("s3"),
            ],
        )
        step(
            "Estimate",
            "estimate",
            "Estimates what a run costs and holds it against the budget",
            minutes=5,
            memory_mb=1769,
            environment={"COSTS": json.dumps(costs)},
            may=[
                artifacts.list_objects(),
                artifacts.read("measured/*"),
                artifacts.write("gates/cost.json"),
                artifacts.use_ledger(),
                key.use_through("s3"),
            ],
        )
        step(
            "Filter",
            "filter_prompts",
            "Leaves training prompts out that show training nothing",
            minutes=15,
            memory_mb=1769,
            may=[
                datasets.read("datasets/*"),
                artifacts.list_objects(),
                artifacts.read("training-prompts.jsonl", "measured/training/*"),
                artifacts.write("gates/filter.json", "filtered/*"),
                key.use_through("s3"),
            ],
        )
        step(
            "Train",
            "train",
            "Submits the customization job of a run",
            minutes=1,
            environment={
                "CUSTOMIZATION_ROLE": customization.role.role_arn,
                "MODEL_KEY": key.arn,
                **({"VPC_CONFIG": _vpc_config(network)} if network else {}),
            },
            may=[
                allow(
                    "bedrock:CreateModelCustomizationJob",
                    on=[foundation_model, jobs, models],
                    because="Bedrock chooses the ids of the job and of the model it makes.",
                ),
                allow_unless_others("bedrock:TagResource", on=[jobs, models]),
                allow_unless_others("bedrock:GetModelCustomizationJob", on=[jobs]),
                allow_ours("bedrock:StopModelCustomizationJob", on=[jobs]),
                allow(
                    "iam:PassRole",
                    on=[customization.role.role_arn],
                    when={"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
                ),
                key.use_for_models(),
            ],
        )
        step(
            "Watch",
            "watch",
            "Looks at what the reward function says while a job trains",
            minutes=2,
            environment={"REWARD_LOG_GROUP": reward.log_group.log_group_name},
            may=[
                # The ARN of a log group ends in ":*", which stands for its streams.
                allow("logs:FilterLogEvents", on=[reward.log_group.log_group_arn]),
                artifacts.list_objects(),
                artifacts.read("rewards.json"),
                artifacts.write("rewards.json", "gates/tripwires.json"),
                key.use_through("s3"),
            ],
        )
        step(
            "Decide",
            "decide",
            "Decides whether the candidate is better than its base by more than chance",
            minutes=5,
            memory_mb=1769,
            environment={"APPROVAL_SECONDS": str(stage.approval_hours * 3600 if stage.approval else 0)},
            may=[
                artifacts.list_objects(),
                artifacts.read("measured/*"),
                artifacts.write("decision.json"),
                key.use_through("s3"),
            ],
        )
        step(
            "Approval",
            "approval",
            "Asks a person to approve a candidate and records the answer",
            minutes=1,
            environment={"TOPIC": notifications.topic.topic_arn},
            may=[
                artifacts.list_objects(),
                artifacts.read("approval.json"),
                artifacts.write("approval.json", "decision.json"),
                key.use_through("s3"),
                *notifications.publish(),
            ],
        )
        step(
            "Promote",
            "promote",
            "Puts the candidate's model behind the champion's deployment",
            minutes=1,
            environment={"CHAMPION": champion.parameter.parameter_name},
            may=[
                allow("ssm:GetParameter", "ssm:PutParameter", on=[champion.parameter.parameter_arn]),
                allow_unless_others("bedrock:GetCustomModelDeployment", on=[deployments]),
                allow_ours("bedrock:UpdateCustomModelDeployment", on=[deployments, models]),
                key.use_for_models(),
                artifacts.list_objects(),
                artifacts.read("promotion.json"),
                artifacts.write("promotion.json"),
                artifacts.write_history(),
                key.use_through("s3"),
            ],
        )
        step(
            "RetireOld",
            "retire_old",
            "Deletes models of earlier runs that nobody needs any more",
            minutes=5,
            environment={
                "CHAMPION": champion.parameter.parameter_name,
                "KEEP_MODELS": str(retention.models),
                "KEEP_DAYS": str(retention.days),
            },
            may=[
                allow(
                    "bedrock:ListCustomModelDeployments",
                    "bedrock:ListCustomModels",
                    on=["*"],
                    because="Listing knows no resources.",
                ),
                allow_ours("bedrock:DeleteCustomModel", on=[models]),
                allow_unless_others("bedrock:GetCustomModelDeployment", on=[deployments]),
                allow_ours("bedrock:DeleteCustomModelDeployment", on=[deployments]),
                allow("ssm:GetParameter", on=[champion.parameter.parameter_arn]),
                artifacts.list_objects(),
                artifacts.read_history(),
                artifacts.write("retired.json"),
                key.use_through("s3"),
            ],
        )
        step(
            "Report",
            "report",
            "Writes the report of a run",
            minutes=5,
            memory_mb=1769,
            environment={"STACK_ID": cdk.Aws.STACK_ID, **artifacts.lock_settings},
            may=[
                allow_unless_others("bedrock:GetModelCustomizationJob", on=[jobs]),
                allow("cloudformation:DescribeStacks", "cloudformation:GetTemplate", on=[cdk.Aws.STACK_ID]),
                reward.read_versions(),
                artifacts.list_objects(),
                artifacts.read("*"),
                artifacts.write("report.html", "manifest.json", "model-card.md", "model-card.html"),
                *artifacts.lock("manifest.json", "decision.json", "model-card.md", "model-card.html"),
                key.use_through("s3"),
            ],
        )
        step(
            "CleanUp",
            "clean_up",
            "Stops what a broken run left running and says what went wrong",
            minutes=5,
            environment={
                "CHAMPION": champion.parameter.parameter_name,
                "TOPIC": notifications.topic.topic_arn,
            },
            may=[
                allow_unless_others("bedrock:GetModelCustomizationJob", on=[jobs]),
                allow_ours("bedrock:StopModelCustomizationJob", on=[jobs]),
                allow_unless_others("bedrock:GetCustomModelDeployment", on=[deployments]),
                allow_ours("bedrock:DeleteCustomModelDeployment", on=[deployments]),
                allow("ssm:GetParameter", on=[champion.parameter.parameter_arn]),
                artifacts.list_objects(),
                artifacts.read("failure.json", "promotion.json", "failed/*"),
                artifacts.write("failure.json"),
                artifacts.use_lock(),
                key.use_through("s3"),
                *notifications.publish(),
            ],
            failures_to=notifications.topic,
        )


def _vpc_config(network: Network) -> str:
    return json.dumps(
        {"subnetIds": list(network.subnet_ids), "securityGroupIds": list(network.security_group_ids)}
    )
