"""The CDK app: one stack per team and stage.

The only place that reads context and environment variables. Context: `team` (names, comma-separated) and
`stage` build only those; `target` (aws or embedded) says whose packages the functions are made of;
`delivery=github` builds what deploys them, and nothing else.
"""

import os
import sys
from pathlib import Path

# On these versions of Node, importing aws_cdk draws a banner. `make install` says the same once, in a line.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.config import SettingsError, load_platform, load_teams
from infra.delivery import GithubDelivery
from infra.environment import RftEnvironment

ROOT = Path(__file__).parent


def main() -> None:
    """Synthesizes the environments that were asked for; all of them without a context."""
    # `make test` validates every template by the same rules, natively and in a tenth of the time.
    app = cdk.App(builtin_cloud_formation_validation=False)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    if delivery := app.node.try_get_context("delivery"):
        deliver(app, delivery)
    else:
        environments(app)


def deliver(app: cdk.App, how: str) -> None:
    """Synthesizes what may deploy the environments of an account."""
    platform = load_platform(ROOT)
    if how != "github":
        raise SettingsError([f"delivery={how}: is none; allowed: github"])
    if platform.delivery is None:
        raise SettingsError(
            ["teams/platform.toml: delivery: is missing: it says which repository may deploy"]
        )
    GithubDelivery(
        app,
        "rft-delivery",
        settings=platform.delivery,
        regions=sorted({region for model in platform.models.values() for region in model.regions}),
        boundary=platform.permissions_boundary,
        env=cdk.Environment(
            account=os.environ.get("CDK_DEFAULT_ACCOUNT"), region=os.environ.get("CDK_DEFAULT_REGION")
        ),
    )
    app.synth()


def environments(app: cdk.App) -> None:
    """Synthesizes the stacks of teams."""
    only, stage, target = (app.node.try_get_context(key) for key in ("team", "stage", "target"))
    packages = ROOT / "build" / (target or "aws")
    platform = load_platform(ROOT)
    for team in load_teams(ROOT, only.split(",") if only else None):
        for name in (name for name in team.stages if stage in (None, name)):
            account = team.stages[name].account or os.environ.get("CDK_DEFAULT_ACCOUNT")
            region = team.stages[name].region or os.environ.get("CDK_DEFAULT_REGION")
            if region:
                platform.check_region(team.model.base, region)
            for folder in (packages / "workflow", packages / team.name / "reward"):
                if not folder.is_dir():
                    missing = folder.relative_to(ROOT)
                    raise SettingsError([f"{missing} is missing: run `rft package --target {packages.name}`"])
            env = cdk.Environment(account=account, region=region)
            RftEnvironment(app, team=team, stage=name, platform=platform, packages=packages, env=env)
    if not app.synth().stacks:
        raise SettingsError([f"no team that was asked for has a stage {stage}"])


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(str(error))
