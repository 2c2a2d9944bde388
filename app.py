"""The CDK app: one stack per team and stage.

The only place that reads context and environment variables. Context: `team` (names, comma-separated) and
`stage` build only those; `target` (aws or embedded) says whose packages the functions are made of;
`network=true` builds the private network of an account and region, and nothing else.
"""

import os
import sys
from pathlib import Path

# On these versions of Node, importing aws_cdk draws a banner. `make install` says the same once, in a line.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")

import aws_cdk as cdk

from infra.config import SettingsError, load_platform, load_teams
from infra.environment import RftEnvironment
from infra.network import PrivateNetwork
from infra.validation import check

ROOT = Path(__file__).parent


def main() -> None:
    """Synthesizes the environments that were asked for; all of them without a context."""
    # `make test` validates every template by the same rules, natively and in a tenth of the time.
    app = cdk.App(builtin_cloud_formation_validation=False)
    if app.node.try_get_context("network") == "true":
        network(app)
        return
    only, stage, target = (app.node.try_get_context(key) for key in ("team", "stage", "target"))
    packages = ROOT / "build" / (target or "aws")
    platform = load_platform(ROOT)
    check(app, platform)
    for team in load_teams(ROOT, only.split(",") if only else None):
        for name in (name for name in team.stages if stage in (None, name)):
            account = team.stages[name].account or os.environ.get("CDK_DEFAULT_ACCOUNT")
            region = team.stages[name].region or os.environ.get("CDK_DEFAULT_REGION")
            if account:
                platform.check_account(name, account)
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


def network(app: cdk.App) -> None:
    """Synthesizes the network that teams of one account and region may share."""
    platform = load_platform(ROOT)
    check(app, platform)
    account, region = (os.environ.get(f"CDK_DEFAULT_{what}") for what in ("ACCOUNT", "REGION"))
    PrivateNetwork(app, "rft-network", platform=platform, env=cdk.Environment(account=account, region=region))
    app.synth()


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(str(error))
