"""What all verbs of the `rft` command share: where the project is, what they act on, how they speak."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infra import config
from infra.config import Team, load_platform, load_team
from rft.cloud import Cloud, CloudError, Deployed
from rft.embedded.aws import EmbeddedAws

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".rft"

out = Console()
err = Console(stderr=True)

TeamName = Annotated[str, typer.Argument(help="A folder under teams/.", metavar="TEAM")]
Stage = Annotated[str, typer.Option(help="One of the team's stages.")]
OnAws = Annotated[bool, typer.Option("--aws", help="Act on the AWS account even while an embedded AWS runs.")]


def team(name: str) -> Team:
    """Reads a team's settings; raises `SettingsError` with all their faults."""
    return load_team(ROOT, name, load_platform(ROOT))


def cloud(on_aws: bool, region: str | None = None) -> Cloud:
    """Returns what a verb acts on: the embedded AWS while one runs, and otherwise the account."""
    running = None if on_aws else EmbeddedAws.find(DATA / "embedded")
    return Cloud.embedded(running, region) if running else Cloud.account(region)


def deployed(name: str, stage_name: str, on_aws: bool, *, say: Console = out) -> Deployed:
    """Returns a stage's environment, and says where it is.

    Raises:
        CloudError: There is no such stage, or it is not deployed.
    """
    settings = team(name)
    there = cloud(on_aws, stage(settings, stage_name).region)
    say.print(f"[dim]on {there.name}[/dim]", highlight=False)
    return there.deployed(settings.stack_id(stage_name))


@contextmanager
def step(text: str) -> Iterator[None]:
    """Shows one piece of preparation with its time."""
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        task = progress.add_task(text, total=1)
        yield
        progress.update(task, completed=1)


def stage(settings: Team, name: str) -> config.Stage:
    """Returns a stage of a team; raises `CloudError` with those that there are."""
    if name not in settings.stages:
        raise CloudError(f"team {settings.name} has no stage {name!r} (stages: {', '.join(settings.stages)})")
    return settings.stages[name]


def today() -> date:
    """Returns the day it is, in UTC."""
    return datetime.now(UTC).date()
