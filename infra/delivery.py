"""How a merged pull request reaches an account: what GitHub's workflows may do there, and nothing with a key.

Once per account, by a person: `cdk deploy rft-delivery -c delivery=github`. It is no part of what the
workflows deploy, so a pull request cannot widen what the next one may do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.config import Delivery
from infra.permissions import Permission, allow, bound_roles, grant

_ISSUER = "token.actions.githubusercontent.com"
# The GitHub environment whose jobs may take stages away.
_RETIRE = "retire"
# What CloudFormation begins the names of our state machines with: the logical id, which never changes.
_STATE_MACHINES = "TrainingStateMachineEAE34FB3-*"


class GithubDelivery(cdk.Stack):
    """The identity provider of GitHub's workflows in one account, and the four roles they can take.

    `Read` is for pull requests and for the watch on drift: it may take CDK's lookup role. `Deploy` is for the
    protected environments: it may take CDK's deploying roles. `Smoke` is for what follows a deployment: it
    may call the functions of these environments. `Retire` is for the environment of that name: it may take
    away what our stacks made, what runs made in Bedrock, and nothing else. Which of a repository's workflows
    gets which is decided by the claim `sub` of GitHub's token, which a workflow cannot choose.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Delivery,
        regions: Sequence[str],
        boundary: str | None,
        env: cdk.Environment,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description="What the workflows of one repository may do in this account",
            termination_protection=True,
            analytics_reporting=False,
        )
        bound_roles(self, boundary)
        self._settings = settings
        self._regions = regions
        self._provider = self.format_arn(
            service="iam", region="", resource="oidc-provider", resource_name=_ISSUER
        )
        if not settings.existing_provider:
            provider = iam.CfnOIDCProvider(
                self, "Provider", url=f"https://{_ISSUER}", client_id_list=["sts.amazonaws.com"]
            )
            provider.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
            self._provider = provider.attr_arn
        repository = f"repo:{settings.repository}"
        read = self._role(
            "Read",
            "Compares pull requests and watches for drift",
            [f"{repository}:pull_request", f"{repository}:ref:refs/heads/{settings.branch}"],
        )
        environments = [f"{repository}:environment:{name}" for name in settings.environments]
        deploy = self._role("Deploy", "Deploys merged changes", environments)
        smoke = self._role("Smoke", "Tries out what was deployed", environments)
        grant(read, allow("sts:AssumeRole", on=self._bootstrap("lookup")))
        grant(deploy, allow("sts:AssumeRole", on=self._bootstrap("deploy", "file-publishing", "lookup")))
        grant(smoke, *allow_trying_out(self, regions))
        retire = self._role("Retire", "Takes stages away", [f"{repository}:environment:{_RETIRE}"])
        self._let_retire(retire)
        outputs = {"ReadRole": read, "DeployRole": deploy, "SmokeRole": smoke, "RetireRole": retire}
        for name, role in outputs.items():
            cdk.CfnOutput(self, name, value=role.role_arn)

    def _let_retire(self, role: iam.Role) -> None:
        """What `rft retire` needs (rft/retirement.py), on what is named or tagged as ours only.

        Deleting a stack also takes what the role can do that CloudFormation deployed it with: CloudFormation
        remembers that role, and takes it without being told to.
        """

        def arns(service: str, resource: str, *names: str, colon: bool = False) -> list[str]:
            form = cdk.ArnFormat.COLON_RESOURCE_NAME if colon else cdk.ArnFormat.SLASH_RESOURCE_NAME
            return [
                self.format_arn(
                    service=service, region=region, resource=resource, resource_name=name, arn_format=form
                )
                for region in self._regions
                for name in names
            ]

        named = "CloudFormation begins the names of what our stacks make with rft-, as the stacks' own do."
        tagged = "The service chooses the name; the tag, which our stacks and runs give, narrows it down."
        ours = {"Null": {"aws:ResourceTag/team": "false"}}
        runs = {"StringLike": {"aws:ResourceTag/rft:environment": "rft-*"}}
        buckets = f"arn:{cdk.Aws.PARTITION}:s3:::rft-*"
        bedrock = [
            arn
            for kind in ("model-customization-job", "custom-model", "custom-model-deployment")
            for arn in arns("bedrock", kind, "*")
        ]
        grant(
            role,
            allow(
                "bedrock:ListCustomModelDeployments",
                "bedrock:ListCustomModels",
                "bedrock:ListModelCustomizationJobs",
                "bedrock:ListProvisionedModelThroughputs",
                "cloudformation:ListStacks",
                "events:ListRuleNamesByTarget",
                "logs:DescribeLogGroups",
                "tag:GetResources",
                on=["*"],
                because="Listing knows no resources.",
            ),
            allow(
                "cloudformation:DeleteStack",
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStacks",
                "cloudformation:GetTemplate",
                "cloudformation:ListStackResources",
                "cloudformation:UpdateTerminationProtection",
                on=arns("cloudformation", "stack", "rft-*/*"),
                because=named,
            ),
            allow("bedrock:ListTagsForResource", on=bedrock, because="Whose it is, only its tags say."),
            allow(
                "bedrock:DeleteCustomModel",
                "bedrock:DeleteCustomModelDeployment",
                "bedrock:StopModelCustomizationJob",
                on=bedrock,
                when=runs,
                because=tagged,
            ),
            allow(
                "states:ListExecutions",
                on=arns("states", "stateMachine", _STATE_MACHINES, colon=True),
                when=runs,
                because=tagged,
            ),
            allow(
                "states:StopExecution",
                on=arns("states", "execution", f"{_STATE_MACHINES}:*", colon=True),
                because="CloudFormation begins the name of a state machine with its logical id, and the name "
                "of an execution with it; an execution has no tags to narrow it further.",
            ),
            allow(
                "lambda:DeleteFunction",
                "lambda:GetFunctionConfiguration",
                on=arns("lambda", "function", "rft-*", colon=True),
                because=named,
            ),
            allow("events:DisableRule", on=arns("events", "rule", "rft-*"), because=named),
            allow(
                "s3:DeleteBucket",
                "s3:ListBucket",
                "s3:ListBucketMultipartUploads",
                "s3:ListBucketVersions",
                on=[buckets],
                because=named,
            ),
            allow(
                "s3:AbortMultipartUpload",
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                on=[f"{buckets}/*"],
                because=named,
            ),
            allow(
                "kms:DescribeKey",
                "kms:ScheduleKeyDeletion",
                on=arns("kms", "key", "*"),
                when=ours,
                because=tagged,
            ),
            allow(
                "logs:DeleteLogGroup",
                on=arns("logs", "log-group", "rft-*", "/aws/vendedlogs/states/rft-*", colon=True),
                because=named,
            ),
            allow(
                "ssm:DeleteParameter",
                "ssm:GetParameter",
                on=arns("ssm", "parameter", "CFN-*"),
                when=ours,
                because=tagged,
            ),
        )

    def _role(self, construct_id: str, description: str, subjects: Sequence[str]) -> iam.Role:
        """A role for the workflow runs that GitHub gives one of these subjects."""
        claims: Mapping[str, Any] = {
            "StringEquals": {f"{_ISSUER}:aud": "sts.amazonaws.com", f"{_ISSUER}:sub": list(subjects)}
        }
        return iam.Role(
            self,
            construct_id,
            description=description,
            assumed_by=iam.WebIdentityPrincipal(self._provider, claims),
            max_session_duration=cdk.Duration.hours(1),
        )

    def _bootstrap(self, *kinds: str) -> list[str]:
        """The roles that `cdk bootstrap` made, of these kinds, in every region that is deployed to."""
        return [
            bootstrap_role(self, self._settings.qualifier, kind, self.account, region)
            for kind in kinds
            for region in self._regions
        ]


def bootstrap_role(stack: cdk.Stack, qualifier: str, kind: str, account: str, region: str) -> str:
    """Returns the ARN of the role of a kind that `cdk bootstrap` made in an account and region."""
    return stack.format_arn(
        service="iam",
        region="",
        account=account,
        resource="role",
        resource_name=f"cdk-{qualifier}-{kind}-role-{account}-{region}",
    )


def allow_trying_out(stack: cdk.Stack, regions: Sequence[str]) -> tuple[Permission, Permission]:
    """Returns what `make smoke` needs in the account of a stack."""
    stacks, functions = (
        [
            stack.format_arn(
                service=service, region=region, resource=resource, resource_name=name, arn_format=form
            )
            for region in regions
        ]
        for service, resource, name, form in (
            ("cloudformation", "stack", "rft-*/*", cdk.ArnFormat.SLASH_RESOURCE_NAME),
            ("lambda", "function", "rft-*", cdk.ArnFormat.COLON_RESOURCE_NAME),
        )
    )
    named = "CloudFormation begins the names of what our stacks make with rft-, as the stacks' own do."
    return (
        allow("cloudformation:DescribeStacks", on=stacks, because=named),
        allow("lambda:InvokeFunction", on=functions, because=named),
    )
