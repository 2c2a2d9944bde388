"""The CDK app: one stack per team and stage.

The only place that reads context and environment variables. Context: `team` (names, comma-separated) and
`stage` build only those; `target` (aws or embedded) says whose packages the functions are made of;
`revision` is what the sources are called, which synthesis does not ask git for; `delivery=github` builds what
deploys them, `network=true` the private network of an account and region, and nothing else;
`delivery=pipeline` builds what deploys them inside of AWS, and all that it deploys.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# On these versions of Node, importing aws_cdk draws a banner. `make install` says the same once, in a line.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")

import aws_cdk as cdk
from constructs import Construct

from infra.config import Delivery, Platform, SettingsError, Team, load_platform, load_teams
from infra.delivery import GithubDelivery
from infra.environment import RftEnvironment
from infra.network import PrivateNetwork
from infra.validation import check

ROOT = Path(__file__).parent


def main() -> None:
    """Synthesizes the environments that were asked for; all of them without a context."""
    # `make test` validates every template by the same rules, natively and in a tenth of the time.
    app = cdk.App(builtin_cloud_formation_validation=False)
    platform = load_platform(ROOT)
    check(app, platform)
    if delivery := app.node.try_get_context("delivery"):
        deliver(app, platform, delivery)
    elif app.node.try_get_context("network") == "true":
        PrivateNetwork(app, "rft-network", platform=platform, env=_env())
    else:
        for team, stage, env in places(app, platform):
            environment(app, app, platform, team, stage, env)
    if not app.synth().stacks:
        stage = app.node.try_get_context("stage")
        raise SettingsError([f"no team that was asked for has a stage {stage}"])


def _env(account: str | None = None, region: str | None = None) -> cdk.Environment:
    """The account and region given, or else those of the credentials that the CDK CLI found."""
    return cdk.Environment(
        account=account or os.environ.get("CDK_DEFAULT_ACCOUNT"),
        region=region or os.environ.get("CDK_DEFAULT_REGION"),
    )


def deliver(app: cdk.App, platform: Platform, how: str) -> None:
    """Makes what may deploy the environments of an account."""
    if how not in ("github", "pipeline"):
        raise SettingsError([f"delivery={how}: is none; allowed: github, pipeline"])
    if platform.delivery is None:
        raise SettingsError(
            ["teams/platform.toml: delivery: is missing: it says which repository may deploy"]
        )
    if how == "pipeline":
        pipeline(app, platform, platform.delivery)
        return
    GithubDelivery(
        app,
        "rft-delivery",
        settings=platform.delivery,
        regions=sorted({region for model in platform.models.values() for region in model.regions}),
        boundary=platform.permissions_boundary,
        env=_env(),
    )


def pipeline(app: cdk.App, platform: Platform, settings: Delivery) -> None:
    """Makes a region's pipeline and, in a stage of the app for each wave, what it deploys."""
    if not settings.connection_arn:
        raise SettingsError(
            [
                "teams/platform.toml: delivery.connection_arn: is missing: it must be the ARN of the "
                "connection of CodeConnections through which CodePipeline reads the repository"
            ]
        )
    here = _env()
    if not (here.account and here.region):
        raise SettingsError(["delivery=pipeline: needs credentials of the account and a region to build for"])
    if chosen := [key for key in ("team", "stage") if app.node.try_get_context(key)]:
        raise SettingsError(
            [f"{chosen[0]}: cannot be chosen for delivery=pipeline, which deploys all of them"]
        )
    # Who does not ask for a pipeline does not wait for the library behind it.
    from infra.pipeline import DeliveryPipeline, Wave

    waves = {name: Wave(stage=cdk.Stage(app, name), environments={}) for name in settings.environments}
    for team, stage, env in places(app, platform):
        if stage in waves and env.region == here.region:
            waves[stage].environments[team.name] = environment(
                app, waves[stage].stage, platform, team, stage, env
            )
    filled = [wave for wave in waves.values() if wave.environments]
    if not filled:
        raise SettingsError([f"no team has one of the stages {', '.join(waves)} in {here.region}"])
    DeliveryPipeline(
        app,
        "rft-delivery",
        settings=settings,
        connection_arn=settings.connection_arn,
        waves=filled,
        boundary=platform.permissions_boundary,
        tags=platform.tags,
        cli_version=json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"],
        env=here,
    )


def places(app: cdk.App, platform: Platform) -> Iterator[tuple[Team, str, cdk.Environment]]:
    """The teams and stages that were asked for, and where each of them is deployed to."""
    only, stage = (app.node.try_get_context(key) for key in ("team", "stage"))
    for team in load_teams(ROOT, only.split(",") if only else None):
        for name in (name for name in team.stages if stage in (None, name)):
            env = _env(team.stages[name].account, team.stages[name].region)
            if env.account:
                platform.check_account(name, env.account)
            if env.region:
                platform.check_region(team.model.base, env.region)
            yield team, name, env


def environment(
    app: cdk.App, scope: Construct, platform: Platform, team: Team, stage: str, env: cdk.Environment
) -> RftEnvironment:
    """Makes the stack of a team in a stage."""
    target, revision = (app.node.try_get_context(key) for key in ("target", "revision"))
    packages = ROOT / "build" / (target or "aws")
    for folder in (packages / "workflow", packages / team.name / "reward"):
        if not folder.is_dir():
            missing = folder.relative_to(ROOT)
            raise SettingsError([f"{missing} is missing: run `rft package --target {packages.name}`"])
    return RftEnvironment(
        scope, team=team, stage=stage, platform=platform, packages=packages, env=env, revision=revision
    )


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(str(error))
