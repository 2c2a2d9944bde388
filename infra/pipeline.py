"""How a merged change reaches the accounts from inside of AWS: CodePipeline in place of GitHub's workflows.

Once per region, by the platform team: `cdk deploy rft-delivery -c delivery=pipeline`. The pipeline does not
update itself: what it delivers are the stacks of teams, and its own definition, with the approvals in it, is
no part of that. So a change cannot remove what it has to pass, and a new team is a new deployment of this.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import pipelines
from constructs import Construct, IConstruct

from infra.config import Delivery, SettingsError
from infra.datasets import AccessLogs, encrypted_bucket
from infra.delivery import allow_trying_out, bootstrap_role
from infra.encryption import TeamKey
from infra.environment import RftEnvironment
from infra.permissions import Permission, accept, allow, bound_roles, grant, regrant

# CodePipeline's quotas, by a count that is on the safe side: AWS has raised the first since. The library
# spreads a wave over as many stages as it needs, with 50 actions in each.
_MOST_ACTIONS = 500
_MOST_STAGES = 50
_DAYS_ARTIFACTS_ARE_KEPT = 90
# What publishes assets, by its version at the package registry.
_CDK_ASSETS = "4.7.3"
# What builds in: Ubuntu, with Python as the workflows have it and a Node that its runtimes include.
_IMAGE = codebuild.LinuxBuildImage.STANDARD_7_0
_RUNTIMES = {"python": "3.11", "nodejs": "22"}
_APPROVE = "Approve"
_CONFIRM = "ConfirmPermissions"
_Kind = TypeVar("_Kind", bound=cdk.CfnResource)
_NAMED_BY_PIPELINE = "CodePipeline names what a step hands on."
# The profile of the AWS CLI and of `rft` for what is in another account.
_THERE = "/tmp/aws-config"  # noqa: S108 - the machine is the build's own, and goes with it


@dataclass(frozen=True, kw_only=True)
class Wave:
    """What is deployed side by side: a stage of the app, and the environments in it by their teams."""

    stage: cdk.Stage
    environments: dict[str, RftEnvironment]

    def by_account(self) -> dict[str, dict[str, RftEnvironment]]:
        """The environments by the account they are in."""
        found: dict[str, dict[str, RftEnvironment]] = {}
        for team, environment in self.environments.items():
            found.setdefault(environment.account, {})[team] = environment
        return found


class DeliveryPipeline(cdk.Stack):
    """Source, synthesis, assets, and then wave after wave: approval, deployment, and trying it out.

    Every wave but the first waits for a person, and every wave in which permissions broaden waits for one as
    well. What a step may do is written where its role is made. The steps `Synth` and `Smoke` run code of the
    repository, and `Assets` runs what the synthesis wrote; none of them may answer an approval, nor take a
    role that deploys. CodePipeline itself takes those, the same that the CDK CLI takes, so both ways of
    delivery make the same stacks, and one can follow the other.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Delivery,
        connection_arn: str,
        waves: Sequence[Wave],
        boundary: str | None,
        tags: Mapping[str, str],
        cli_version: str,
        env: cdk.Environment,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description="What delivers the environments of one repository",
            tags=dict(tags),
            termination_protection=True,
            analytics_reporting=False,
        )
        bound_roles(self, boundary)
        self._settings = settings
        self._cli_version = cli_version
        self._key = TeamKey(self, "Key", encryption=None, lasting=True)
        self._logs = logs.LogGroup(
            self,
            "Builds",
            encryption_key=self._key.key,
            retention=logs.RetentionDays.ONE_YEAR,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        self._bucket = encrypted_bucket(
            Construct(self, "Artifacts"),
            key=self._key,
            access_logs=AccessLogs(self, "AccessLogs", lasting=True),
            lasting=True,
            lifecycle=[s3.LifecycleRule(expiration=cdk.Duration.days(_DAYS_ARTIFACTS_ARE_KEPT))],
        )
        places = [(account, found) for wave in waves for account, found in wave.by_account().items()]
        self._smoke = self._role(
            "Smoke",
            "Tries out what was deployed",
            *allow_trying_out(self, [self.region]),
            *_taking(
                self._smoke_role(account, found) for account, found in places if account != self.account
            ),
        )
        self._protect = self._role(
            "Protect",
            "Protects lasting stacks from deletion",
            *_taking(self._bootstrap("deploy", [account for account, found in places if _lasting(found)])),
        )
        self._pipeline = pipelines.CodePipeline(
            self,
            "Delivery",
            synth=self._synth(connection_arn),
            role=self._pipeline_role(),
            artifact_bucket=self._bucket,
            cross_account_keys=True,
            self_mutation=False,
            # A build of its own for each asset would name the assets in the pipeline, which a change of the
            # rows of a team would then have to update. This one reads from the assembly what to publish.
            publish_assets_in_parallel=False,
            # Nothing comes between a change set and its execution, and a wave has half as many actions.
            use_change_sets=False,
            cdk_assets_cli_version=_CDK_ASSETS,
            code_build_defaults=pipelines.CodeBuildOptions(
                build_environment=codebuild.BuildEnvironment(build_image=_IMAGE, privileged=False),
                logging=self._logging(),
            ),
        )
        for number, wave in enumerate(waves):
            _keep_metadata(wave)
            self._pipeline.add_stage(wave.stage, pre=self._before(wave, number), post=self._after(wave))
        self._pipeline.build_pipeline()
        _check_size(self._stages(), waves)
        accounts = sorted({account for wave in waves for account in wave.by_account()})
        self._tighten_assets(accounts)
        self._tighten_check(accounts)
        self._accept_grants_of_the_library()
        cdk.CfnOutput(self, "Pipeline", value=self._pipeline.pipeline.pipeline_name)

    def _synth(self, connection_arn: str) -> pipelines.CodeBuildStep:
        """Synthesizes once, the pipeline's own stack with it, because the assets of waves hang on that."""
        bucket = self._bucket
        role = self._role(
            "Synth",
            "Synthesizes what is delivered",
            allow(
                "s3:PutObject",
                on=[bucket.arn_for_objects("*")],
                because=_NAMED_BY_PIPELINE,
            ),
        )
        return pipelines.CodeBuildStep(
            "Synth",
            input=pipelines.CodePipelineSource.connection(
                self._settings.repository, self._settings.branch, connection_arn=connection_arn
            ),
            # Without its history the checkout cannot say what it is called.
            commands=['make assembly DELIVERY=pipeline REVISION="$CODEBUILD_RESOLVED_SOURCE_VERSION"'],
            primary_output_directory="cdk.out",
            partial_build_spec=_runtimes(),
            build_environment=codebuild.BuildEnvironment(compute_type=codebuild.ComputeType.MEDIUM),
            role=role.without_policy_updates(),
        )

    def _before(self, wave: Wave, number: int) -> list[pipelines.Step]:
        confirm = pipelines.ConfirmPermissionsBroadening(_CONFIRM, stage=wave.stage)
        if number == 0:
            return [confirm]
        comment = f"Deploys the stage {wave.stage.node.id} of {len(wave.environments)} teams"
        return [pipelines.ManualApprovalStep(_APPROVE, comment=comment), confirm]

    def _after(self, wave: Wave) -> list[pipelines.Step]:
        steps: list[pipelines.Step] = []
        for account, environments in wave.by_account().items():
            here = account == self.account
            lasting = _lasting(environments)
            if lasting:
                steps.append(
                    # CodePipeline knows no protection from deletion. Nothing of the repository runs here, so
                    # the role that deploys is in no hands but these.
                    self._step(
                        "Protect" if here else f"Protect-{account}",
                        role=self._protect,
                        variables={"STACKS": " ".join(lasting)},
                        through=self._bootstrap("deploy", [account])[0],
                        commands=[
                            "cd /tmp",
                            "for stack in $STACKS; do aws cloudformation update-termination-protection "
                            '--enable-termination-protection --stack-name "$stack" || exit 1; done',
                        ],
                    )
                )
            steps.append(
                self._step(
                    "Smoke" if here else f"Smoke-{account}",
                    role=self._smoke,
                    variables={"TEAMS": ",".join(environments), "STAGE": wave.stage.node.id},
                    through=None if here else self._smoke_role(account, environments),
                    commands=['make smoke TEAMS="$TEAMS" STAGE="$STAGE"'],
                )
            )
        return steps

    def _step(
        self,
        construct_id: str,
        *,
        role: iam.Role,
        variables: Mapping[str, str],
        through: str | None,
        commands: Sequence[str],
    ) -> pipelines.CodeBuildStep:
        """A step on a checkout of the repository, by its own role or through another one."""
        profile = [
            f"export AWS_CONFIG_FILE={_THERE} AWS_PROFILE=there",
            'printf "[profile there]\\nrole_arn = %s\\ncredential_source = EcsContainer\\nregion = %s\\n" '
            '"$ROLE_ARN" "$AWS_REGION" >"$AWS_CONFIG_FILE"',
        ]
        return pipelines.CodeBuildStep(
            construct_id,
            commands=[*(profile if through else []), *commands],
            env={**variables, **({"ROLE_ARN": through} if through else {})},
            partial_build_spec=_runtimes(),
            role=role.without_policy_updates(),
        )

    def _smoke_role(self, account: str, environments: Mapping[str, RftEnvironment]) -> str:
        if not self._settings.smoke_role_arn:
            stacks = ", ".join(each.stack_name for each in environments.values())
            raise SettingsError(
                [
                    f"teams/platform.toml: delivery.smoke_role_arn: is missing: {stacks} is deployed to "
                    f"{account}, and the pipeline in {self.account} tries it out through a role there: "
                    "give its ARN with {account} in place of the account, like "
                    '"arn:aws:iam::{account}:role/rft-smoke"'
                ]
            )
        return self._settings.smoke_role_arn.replace("{account}", account)

    def _role(self, construct_id: str, description: str, *permissions: Permission) -> iam.Role:
        """A role of builds: what every build needs, and these permissions."""
        role = iam.Role(
            self,
            f"{construct_id}Role",
            description=description,
            assumed_by=iam.ServicePrincipal("codebuild.amazonaws.com", conditions=self._on_our_behalf()),
        )
        grant(role, *self._building(), *permissions)
        return role

    def _pipeline_role(self) -> iam.Role:
        return iam.Role(
            self,
            "PipelineRole",
            description="Moves a change from step to step",
            assumed_by=iam.ServicePrincipal("codepipeline.amazonaws.com", conditions=self._on_our_behalf()),
        )

    def _on_our_behalf(self) -> dict[str, dict[str, str]]:
        return {"StringEquals": {"aws:SourceAccount": self.account}}

    def _logging_to_builds(self) -> Permission:
        return allow(
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            on=[self._logs.log_group_arn],
            because="The ARN of a log group ends in a wildcard for its streams: each build has one.",
        )

    def _building(self) -> tuple[Permission, ...]:
        """What every build needs: to read what it is given, and to write its log."""
        return (
            self._logging_to_builds(),
            allow(
                "s3:GetObject",
                "s3:GetObjectVersion",
                on=[self._bucket.arn_for_objects("*")],
                because=_NAMED_BY_PIPELINE,
            ),
            allow("s3:GetBucketAcl", "s3:GetBucketLocation", on=[self._bucket.bucket_arn]),
            # Not only through S3: CodeBuild uses the key of a project as itself as well.
            allow(
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:Encrypt",
                "kms:GenerateDataKey",
                on=[self._key.key.key_arn],
            ),
        )

    def _logging(self) -> codebuild.LoggingOptions:
        return codebuild.LoggingOptions(cloud_watch=codebuild.CloudWatchLoggingOptions(log_group=self._logs))

    def _stages(self) -> list[dict[str, Any]]:
        """The stages as they are rendered."""
        resource = _resource(self._pipeline.pipeline, codepipeline.CfnPipeline)
        return list(self.resolve(resource.stages))

    def _tighten_assets(self, accounts: Sequence[str]) -> None:
        """Lets the step that publishes assets do just that.

        As the library makes it, it may start any build of the account, with commands of its own choice: what
        it runs is written by the synthesis, so a change could have had the role of any other build.
        """
        role = self._pipeline.node.find_child("Assets").node.find_child("FileRole")
        publishing = self._bootstrap("file-publishing", accounts)
        self._rewrite(role, *self._building(), allow("sts:AssumeRole", on=publishing))

    def _tighten_check(self, accounts: Sequence[str]) -> None:
        """Lets the step that looks for broadened permissions do just that.

        As the library makes it, it installs whatever CDK CLI is the newest, in a folder whose files the
        change has written, may take every deploying role there is, and answers any approval that it is told
        to: those of waves as well.
        """
        check = self._pipeline.node.find_child("PipelinesSecurityCheck")
        project, function = (
            check.node.find_child(name) for name in ("CDKSecurityCheck", "CDKPipelinesAutoApprove")
        )
        resource, answer = _resource(project, codebuild.CfnProject), _resource(function, lambda_.CfnFunction)
        resource.logs_config = codebuild.CfnProject.LogsConfigProperty(
            cloud_watch_logs=codebuild.CfnProject.CloudWatchLogsConfigProperty(
                status="ENABLED", group_name=self._logs.log_group_name
            )
        )
        source = self.resolve(resource.source)
        resource.source = codebuild.CfnProject.SourceProperty(
            type=source["type"],
            build_spec=cdk.Token.as_string(_pinned(source["buildSpec"], self._cli_version)),
        )
        self._rewrite(
            project.node.find_child("Role"),
            *self._building(),
            allow("sts:AssumeRole", on=self._bootstrap("deploy", accounts)),
            allow("lambda:InvokeFunction", on=[answer.attr_arn]),
        )
        function.node.try_remove_child("LogGroup")
        answer.logging_config = lambda_.CfnFunction.LoggingConfigProperty(log_group=self._logs.log_group_name)
        role = function.node.find_child("ServiceRole")
        _resource(role, iam.CfnRole).managed_policy_arns = None
        # The name of the pipeline would be a circle: it calls the build, which calls the function.
        ours = f"{self.stack_name}-*"
        circle = "The pipeline's own name here would be a circle; CloudFormation begins it with the stack's."
        regrant(
            _resource(role.node.find_child("DefaultPolicy"), iam.CfnPolicy),
            self._logging_to_builds(),
            allow(
                "codepipeline:GetPipelineState",
                on=[self.format_arn(service="codepipeline", resource=ours)],
                because=circle,
            ),
            allow(
                "codepipeline:PutApprovalResult",
                on=[
                    self.format_arn(
                        service="codepipeline",
                        resource=ours,
                        resource_name=f"{stage['name']}/{action['name']}",
                    )
                    for stage in self._stages()
                    for action in stage["actions"]
                    if action["name"] == f"{_CONFIRM}.Confirm"
                ],
                because=circle,
            ),
        )

    def _rewrite(self, role: IConstruct, *permissions: Permission) -> None:
        """Puts permissions in place of those that the library gave a build, and bounds whom it trusts."""
        _resource(role, iam.CfnRole).assume_role_policy_document = iam.PolicyDocument(
            statements=[
                iam.PolicyStatement(
                    actions=["sts:AssumeRole"],
                    principals=[iam.ServicePrincipal("codebuild.amazonaws.com")],
                    conditions=self._on_our_behalf(),
                )
            ]
        )
        regrant(_resource(role.node.find_child("DefaultPolicy"), iam.CfnPolicy), *permissions)

    def _bootstrap(self, kind: str, accounts: Sequence[str]) -> list[str]:
        return [
            bootstrap_role(self, self._settings.qualifier, kind, account, self.region) for account in accounts
        ]

    def _accept_grants_of_the_library(self) -> None:
        """Says why the pipeline itself, and what reads the repository, may do so much with artifacts."""
        (source,) = self._pipeline.pipeline.node.find_child("Source").node.children
        bucket = self.resolve(self._bucket.bucket_arn)["Fn::GetAtt"][0]
        own = "The library grants reading and writing by families; it is the pipeline's own bucket and key."
        wildcards = [
            *(f"Action::s3:{each}*" for each in ("Abort", "DeleteObject", "GetBucket", "GetObject", "List")),
            *(f"Action::kms:{each}*" for each in ("GenerateDataKey", "ReEncrypt")),
        ]
        roles = (self.node.find_child("PipelineRole"), source.node.find_child("CodePipelineActionRole"))
        for role in roles:
            accept(
                role.node.find_child("DefaultPolicy"),
                {
                    **{f"AwsSolutions-IAM5[{each}]": own for each in wildcards},
                    f"AwsSolutions-IAM5[Resource::<{bucket}.Arn>/*]": _NAMED_BY_PIPELINE,
                },
            )


def _lasting(environments: Mapping[str, RftEnvironment]) -> list[str]:
    """The stacks among them that are protected from deletion."""
    return [each.stack_name for each in environments.values() if each.termination_protection]


def _taking(roles: Iterable[str]) -> list[Permission]:
    """Lets its holder take these roles, if there are any."""
    found = sorted(set(roles))
    return [allow("sts:AssumeRole", on=found)] if found else []


def _check_size(stages: Sequence[Mapping[str, Any]], waves: Sequence[Wave]) -> None:
    """Raises `SettingsError` where CodePipeline would refuse so large a pipeline."""
    actions = sum(len(stage["actions"]) for stage in stages)
    if actions <= _MOST_ACTIONS and len(stages) <= _MOST_STAGES:
        return
    teams = len({team for wave in waves for team in wave.environments})
    stacks = sum(len(wave.environments) for wave in waves)
    possible = (_MOST_ACTIONS - (actions - stacks)) * teams // stacks
    raise SettingsError(
        [
            f"teams: {teams} teams with {stacks} stages make a pipeline of {actions} actions in "
            f"{len(stages)} stages, and CodePipeline takes {_MOST_ACTIONS} in {_MOST_STAGES}: one pipeline "
            f"delivers about {possible} teams; deliver with -c delivery=github, or by the verbs of the "
            "Makefile (docs/delivery.md)"
        ]
    )


def _keep_metadata(wave: Wave) -> None:
    """Leaves metadata as it is outside of a stage, so that who deploys a stack changes nothing of it.

    The CDK CLI asks to be told where a construct is in the tree, and where its asset is beside the template.
    """
    places = {"aws:cdk:path": f"{wave.stage.node.path}/", "aws:asset:path": "../"}
    for environment in wave.environments.values():
        for resource in (each for each in environment.node.find_all() if isinstance(each, cdk.CfnResource)):
            for key, place in places.items():
                if text := resource.get_metadata(key):
                    resource.add_metadata(key, text.removeprefix(place))


def _pinned(spec: Any, version: str) -> Any:
    """The commands of the library's check with the CDK CLI of this version, away from files of the change."""
    changes = {
        # npm and the CLI both read settings from the folder one is in.
        '"npm install -g aws-cdk"': f'"cd /tmp", "npm install -g aws-cdk@{version}"',
        "cdk diff -a . ": r"cdk diff -a \"$CODEBUILD_SRC_DIR\" ",
    }
    parts = spec["Fn::Join"][1]
    for before, after in changes.items():
        found = [number for number, part in enumerate(parts) if isinstance(part, str) and before in part]
        if len(found) != 1:
            raise AssertionError(f"the library's check of permissions has no {before} any more")
        parts[found[0]] = parts[found[0]].replace(before, after)
    return {"Fn::Join": ["", parts]}


def _runtimes() -> codebuild.BuildSpec:
    return codebuild.BuildSpec.from_object(
        {"version": "0.2", "phases": {"install": {"runtime-versions": _RUNTIMES}}}
    )


def _resource(construct: IConstruct, kind: type[_Kind]) -> _Kind:
    """The resource behind a construct of the library."""
    found = construct.node.default_child
    if not isinstance(found, kind):
        raise TypeError(f"{construct.node.path} is no {kind.__name__} any more")
    return found
