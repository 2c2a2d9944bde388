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
from infra.permissions import allow, bound_roles, grant

_ISSUER = "token.actions.githubusercontent.com"


class GithubDelivery(cdk.Stack):
    """The identity provider of GitHub's workflows in one account, and the three roles they can take.

    `Read` is for pull requests and for the watch on drift: it may take CDK's lookup role. `Deploy` is for the
    protected environments: it may take CDK's deploying roles. `Smoke` is for what follows a deployment: it
    may call the functions of these environments. Which of a repository's workflows gets which is decided by
    the claim `sub` of GitHub's token, which a workflow cannot choose.
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
        stacks, functions = (
            [
                self.format_arn(
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
        grant(
            smoke,
            allow("cloudformation:DescribeStacks", on=stacks, because=named),
            allow("lambda:InvokeFunction", on=functions, because=named),
        )
        for name, role in {"ReadRole": read, "DeployRole": deploy, "SmokeRole": smoke}.items():
            cdk.CfnOutput(self, name, value=role.role_arn)

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
            self.format_arn(
                service="iam",
                region="",
                resource="role",
                resource_name=f"cdk-{self._settings.qualifier}-{kind}-role-{self.account}-{region}",
            )
            for kind in kinds
            for region in self._regions
        ]
