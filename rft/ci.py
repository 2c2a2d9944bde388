"""`rft ci …`: what a delivery pipeline does, a verb for each step; the Makefile has the same verbs."""

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.config import load_platform, load_teams
from rft.changes import WAVES, changed_teams, losses, wave
from rft.cloud import Cloud, CloudError, Deployed
from rft.comment import comment as write_comment
from rft.delivery import Cdk
from rft.retire import end, missing_teams, read_retired
from rft.revision import merge_base

ROOT = Path(__file__).resolve().parent.parent
ASSEMBLY = ROOT / "cdk.out"

app = typer.Typer(help="Steps of a delivery pipeline.", no_args_is_help=True, rich_markup_mode=None)
out = Console()

Stage = Annotated[str, typer.Option(help="The stage, which is also the wave.")]
Stacks = Annotated[list[str], typer.Argument(help="Names of stacks.", metavar="STACK...")]


def _cdk() -> Cdk:
    return Cdk(ROOT, os.environ, ROOT / "build" / "cdk.log")


@app.command()
def changed(
    since: Annotated[str, typer.Option(help="A revision; all teams count as changed without one.")] = "",
) -> None:
    """Prints what the commits since a revision touch, as lines a workflow can take for its outputs.

    `teams` is a list with commas; `stacks` and one line for each stage are JSON: [{account, region, teams,
    stacks}], to be deployed side by side, one stage after the other. Fails where a stage is gone that nobody
    has retired: its stack would stay behind, and nothing here would ever name it again.
    """
    platform = load_platform(ROOT)
    if since and (gone := missing_teams(ROOT, merge_base(ROOT, since))):
        raise CloudError("\n".join(gone))
    teams = load_teams(ROOT, changed_teams(ROOT, since) if since else None)
    order = platform.delivery.environments if platform.delivery else WAVES
    waves = {stage: [each.document() for each in wave(teams, stage)] for stage in order}
    everywhere = [each for deployments in waves.values() for each in deployments]
    typer.echo(f"teams={','.join(team.name for team in teams)}")
    for name, deployments in {**waves, "stacks": everywhere}.items():
        typer.echo(f"{name}={json.dumps(deployments)}")


@app.command()
def diff(
    stacks: Stacks,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Only say what is lost; somebody has agreed to it.")
    ] = False,
) -> None:
    """Compares synthesized stacks with the deployed ones, as Markdown; fails where state would be lost."""
    lost: list[str] = []
    for stack in stacks:
        text = _cdk().diff(stack, ASSEMBLY)
        found = losses(text)
        lost += [f"{stack}: {each}" for each in found]
        typer.echo(diff_section(stack, text, found))
    if lost and not allow_loss:
        raise CloudError(
            "state would be lost: "
            + "; ".join(lost)
            + ". If that is meant, put the label allow-loss on the pull request (--allow-loss)"
        )


def diff_section(stack: str, text: str, lost: Sequence[str]) -> str:
    """Returns what a comment says of a stack: what would be lost, and `cdk diff` to be unfolded."""
    lines = [f"### {stack}", "", *(f"- **{each}**" for each in lost), ""]
    lines += ["<details><summary>cdk diff</summary>", "", "```", _fenced(text), "```", "", "</details>", ""]
    return "\n".join(lines)


def _fenced(text: str) -> str:
    """A text that cannot end the code block around it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("```", "'''").strip()


@app.command()
def comment(
    parts: Annotated[Path, typer.Argument(help="The folder with what the jobs have written, as *.md.")],
    run: Annotated[str, typer.Option(help="Address of the run that has the whole text.")] = "",
) -> None:
    """Puts the comment on a pull request together, and cuts it to the length that GitHub takes.

    Files stand in the order of their own names, whatever folders they are in.
    """
    if not parts.is_dir():
        raise CloudError(f"{parts}: there is no such folder: give the one with the parts of the comment")
    files = sorted(parts.rglob("*.md"), key=lambda path: (path.name, str(path)))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    which = f"[this run]({run})" if run else "this run"
    typer.echo(write_comment(texts, f"the artifacts `review` and `diff-…` of {which}"), nl=False)


@app.command()
def deploy(stacks: Stacks) -> None:
    """Deploys stacks exactly as they were synthesized."""
    _cdk().deploy_assembly(stacks, ASSEMBLY)
    out.print(f"deployed {', '.join(stacks)}", highlight=False)


@app.command()
def smoke(
    teams: Annotated[str, typer.Argument(help="Names of teams, comma-separated.")], stage: Stage
) -> None:
    """Tries out what was deployed: the reward function answers, and a run could be started."""
    for team in load_teams(ROOT, teams.split(",")):
        cloud = Cloud.account(team.stages[stage].region)
        _try_out(cloud.deployed(team.stack_id(stage)))
        out.print(f"{team.stack_id(stage)}: the reward function answers and a run can start", highlight=False)


def _try_out(deployed: Deployed) -> None:
    """Raises CloudError when the reward function does not keep the contract or the workflow cannot begin."""
    # A completion that says nothing, and no reference: it gets the lowest score, which is all that is asked.
    sample = {
        "id": "smoke",
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": ""}],
    }
    answer = deployed.invoke(deployed.outputs["RewardVersion"], [sample], f"{deployed.stack}: no score")
    if not isinstance(answer, list) or [each.get("id") for each in answer] != ["smoke"]:
        raise CloudError(f"{deployed.stack}: the reward function answered {json.dumps(answer)[:200]}")
    deployed.invoke(deployed.outputs["Start"], {"dry_run": True}, f"{deployed.stack}: no run")


@app.command()
def ended(
    team: Annotated[str, typer.Argument(help="The team's name.", metavar="TEAM")],
    stage: Stage,
    source: Annotated[Path, typer.Option("--from", help="The retired.toml that the retirement wrote.")],
) -> None:
    """Takes a retired stage out of the files under teams/, and says so as the text of a pull request."""
    path = source.resolve()
    if not path.is_relative_to(ROOT):
        raise CloudError(f"{source}: must be a file within {ROOT}")
    entry = read_retired(ROOT, path).get(team, {}).get(stage)
    if entry is None:
        raise CloudError(f"{source}: lists no {team}.{stage}: the stage has not been retired")
    done = end(ROOT, team, stage, entry)
    typer.echo(f"`rft-{team}-{stage}` was retired on {entry.date} in {entry.account}, {entry.region}.\n")
    for each in (*done, *(f"kept on purpose: {each}" for each in entry.kept)):
        typer.echo(f"- {each}")
    typer.echo("\nNo check starts for what a workflow opens: close this and open it again.")


@app.command()
def drift(
    stacks: Stacks,
    lookup_role: Annotated[
        bool, typer.Option("--lookup-role", help="Take the bootstrap's lookup role, which may read.")
    ] = False,
    region: Annotated[str | None, typer.Option(help="The stacks' region.")] = None,
) -> None:
    """Prints a line per resource that differs from its template, as Markdown; nothing where none does."""
    platform = load_platform(ROOT)
    cloud = Cloud.account(region)
    if lookup_role:
        qualifier = platform.delivery.qualifier if platform.delivery else "hnb659fds"
        cloud = cloud.assuming(f"cdk-{qualifier}-lookup-role")
    for stack in stacks:
        for finding in _drift_of(cloud, stack):
            typer.echo(f"- {stack}: {finding}")


def _drift_of(cloud: Cloud, stack: str) -> list[str]:
    """Returns what of a stack differs from its template, once CloudFormation has looked."""
    formation = cloud.client("cloudformation")
    detection = formation.detect_stack_drift(StackName=stack)["StackDriftDetectionId"]
    for _ in range(120):
        status = formation.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        if status["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        time.sleep(2)
    else:
        raise CloudError(f"{stack}: CloudFormation has not finished looking for drift in four minutes")
    if status["DetectionStatus"] == "DETECTION_FAILED":
        raise CloudError(f"{stack}: drift cannot be detected: {status.get('DetectionStatusReason', '')}")
    return cloud.differences(stack)
