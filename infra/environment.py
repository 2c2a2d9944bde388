"""One team's reinforcement fine-tuning environment in one stage: the diagram.

Nothing here may depend on the names of team and stage: teams that ask for the same get the same template.
"""

import re
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.budget import BudgetAlerts
from infra.champion import Champion, ChampionChanges
from infra.config import Platform, Team
from infra.customization import CustomizationRole
from infra.datasets import AccessLogs, Artifacts, Datasets, Rows
from infra.encryption import TeamKey
from infra.monitoring import Alarms, Dashboard, Notifications
from infra.permissions import bound_roles, grant
from infra.rewards import RewardFunction
from infra.runs import cost_basis, gate_settings, run_settings, training_limits
from infra.steps import Steps
from infra.training import TrainingWorkflow
from infra.triggers import RunStarter, Triggers


class RftEnvironment(cdk.Stack):
    """Datasets, reward function, training workflow and everything around them, for one team and stage.

    `packages` holds what `rft package` built: `<team>/reward` and `workflow`. `revision` is the sources', and
    stands in the template's metadata: as a tag it would change with every deployment, and CloudFormation,
    which writes a whole parameter to change its tags, would each time forget the champion.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        team: Team,
        stage: str,
        platform: Platform,
        packages: Path,
        env: cdk.Environment,
        revision: str | None = None,
    ) -> None:
        lasting = team.stages[stage].retention == "lasting"
        super().__init__(
            scope,
            team.stack_id(stage),
            # The same inside of a cdk.Stage, which would put its own name in front.
            stack_name=team.stack_id(stage),
            env=env,
            description="Reinforcement fine-tuning environment of one team",
            tags={
                **team.tags(stage, platform),
                "description": _tag_value(team.description),
            },
            termination_protection=lasting,
            analytics_reporting=False,
        )
        if revision:
            self.template_options.metadata = {"revision": revision}
        bound_roles(self, platform.permissions_boundary)

        key = TeamKey(self, "Key", encryption=team.encryption, lasting=lasting)
        access_logs = AccessLogs(self, "AccessLogs", lasting=lasting)
        datasets = Datasets(self, "Datasets", key=key, access_logs=access_logs, lasting=lasting)
        artifacts = Artifacts(self, "Artifacts", key=key, access_logs=access_logs, stage=team.stages[stage])
        rows = Rows(self, "Rows", dataset=team.dataset, folder=team.folder)
        package = packages / team.name / "reward"
        reward = RewardFunction(
            self,
            "Reward",
            package=package,
            settings=team.reward,
            judges=platform.judges_of(team.reward),
            network=team.network,
            key=key,
            lasting=lasting,
        )
        customization = CustomizationRole(self, "Customization", key=key, network=team.network)
        notifications = Notifications(self, "Notifications", customization=customization, key=key)
        budget = platform.budget_of(team)
        if budget.per_month is not None and platform.prices is not None:
            BudgetAlerts(
                self,
                "BudgetAlerts",
                per_month=budget.per_month,
                currency=platform.prices.currency,
                notifications=notifications,
            )
        champion = Champion(self, "ChampionDeployment", lasting=lasting)
        code = lambda_.Code.from_asset(str(packages / "workflow"))
        inference = platform.models[team.model.base].inference
        steps = Steps(
            self,
            "Steps",
            code=code,
            base_model=team.model.base,
            inference=inference,
            rows=rows,
            datasets=datasets,
            artifacts=artifacts,
            reward=reward,
            customization=customization,
            network=team.network,
            champion=champion,
            stage=team.stages[stage],
            retention=team.retention,
            costs=cost_basis(team, platform),
            notifications=notifications,
            key=key,
            lasting=lasting,
        )
        workflow = TrainingWorkflow(
            self,
            "Training",
            steps=steps,
            inference=inference,
            artifacts=artifacts,
            champion=champion,
            notifications=notifications,
            key=key,
            lasting=lasting,
        )
        changes = ChampionChanges(
            self,
            "ChampionChanges",
            code=code,
            champion=champion,
            state_machine_arn=workflow.state_machine.state_machine_arn,
            artifacts=artifacts,
            notifications=notifications,
            key=key,
            lasting=lasting,
        )
        settings = run_settings(team, source=rows.uris, reward_version=reward.version_arn)
        starter = RunStarter(
            self,
            "RunStarter",
            code=code,
            workflow=workflow,
            settings=settings,
            gates=gate_settings(team, cases=rows.cases),
            limits=training_limits(team, platform),
            rows=rows,
            datasets=datasets,
            artifacts=artifacts,
            champion=champion,
            notifications=notifications,
            key=key,
            lasting=lasting,
        )
        Triggers(
            self,
            "Triggers",
            train_when=team.stages[stage].train_when,
            starter=starter,
            settings=settings,
            datasets=datasets,
            after=[reward, customization, notifications, steps, workflow],
        )
        Alarms(
            self,
            "Alarms",
            reward=reward.function,
            state_machine=workflow.state_machine,
            notifications=notifications,
            runbook=platform.runbook,
        )
        if team.stages[stage].dashboard:
            Dashboard(self, "Dashboard", reward=reward.function, state_machine=workflow.state_machine)

        grant(
            customization.role,
            *customization.run_jobs(),
            *datasets.train_from(),
            *artifacts.train_into(),
            reward.invoke(),
        )

        for name, value in {
            "DatasetBucket": datasets.bucket.bucket_name,
            "ArtifactBucket": artifacts.bucket.bucket_name,
            "Workflow": workflow.state_machine.state_machine_arn,
            "Start": starter.start.function.function_name,
            "RewardVersion": reward.version_arn,
            "RewardLogGroup": reward.log_group.log_group_name,
            "Champion": champion.parameter.parameter_name,
            "ChangeChampion": changes.function.function.function_name,
            "Topic": notifications.topic.topic_arn,
        }.items():
            cdk.CfnOutput(self, name, value=value)


def _tag_value(text: str) -> str:
    """A text as every service takes it for a tag: what they refuse as `=` and its bytes, cut to their limit.

    Bedrock is the strictest: 256 characters of ASCII with little punctuation. What reads it turns it back:
    lambdas/workflow/provenance.py.
    """
    spelled = ""
    for character in " ".join(text.split()):
        fits = re.fullmatch(r"[\w .:/+@-]", character, re.ASCII)
        piece = character if fits else "".join(f"={byte:02X}" for byte in character.encode())
        if len(spelled) + len(piece) > 253:
            return f"{spelled}..."
        spelled += piece
    return spelled
