"""The `rft` command: one verb per thing a person does with a team's environment.

The verbs act on the embedded AWS while one is running, and on the account of the AWS environment otherwise;
`--aws` always means the account. Each says which one it means before it does anything.
"""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from infra import config
from infra.config import SettingsError, Team, load_platform, load_team, load_teams, schemas, team_names
from lambdas.dataset import DatasetError
from rft import ci, scoring
from rft import doctor as diagnosing
from rft.changes import ChangesError
from rft.cloud import Cloud, CloudError, Deployed, Run
from rft.cost import idle_month
from rft.delivery import Cdk, DeliveryError
from rft.embedded.aws import EmbeddedAws, EmbeddedAwsError
from rft.execution_policy import Place, execution_policies
from rft.grader_import import JUDGE, GraderError, main_text, placed
from rft.packaging import PackagingError, package
from rft.scoring import ScoringError
from rft.toolchain import ToolchainError, require_node
from rft.watching import Watch, duration

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".rft"

# As long as the workflow itself waits for a deployment to change.
_CHANGE_SECONDS = 7200.0

app = typer.Typer(
    help="Reinforcement fine-tuning environments: rehearse, run, watch, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(ci.app, name="ci")
out = Console()
err = Console(stderr=True)

TeamName = Annotated[str, typer.Argument(help="A folder under teams/.", metavar="TEAM")]
Stage = Annotated[str, typer.Option(help="One of the team's stages.")]
OnAws = Annotated[bool, typer.Option("--aws", help="Act on the AWS account even while an embedded AWS runs.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]
RunName = Annotated[str | None, typer.Option("--run", help="A run's name; the latest without it.")]


def _team(name: str) -> Team:
    return load_team(ROOT, name, load_platform(ROOT))


def _cloud(on_aws: bool, region: str | None = None) -> Cloud:
    running = None if on_aws else EmbeddedAws.find(DATA / "embedded")
    return Cloud.embedded(running) if running else Cloud.account(region)


def _deployed(name: str, stage: str, on_aws: bool, *, say: Console = out) -> Deployed:
    team = _team(name)
    cloud = _cloud(on_aws, _known(team, stage).region)
    say.print(f"[dim]on {cloud.name}[/dim]", highlight=False)
    return cloud.deployed(team.stack_id(stage))


@contextmanager
def _step(text: str) -> Iterator[None]:
    """Shows one piece of preparation with its time."""
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        task = progress.add_task(text, total=1)
        yield
        progress.update(task, completed=1)


@app.command()
def up(
    team: Annotated[str, typer.Argument(help="A folder under teams/.", metavar="[TEAM]")] = "quotes",
    stage: Stage = "dev",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded AWS running afterwards.")] = False,
    port: Annotated[int | None, typer.Option(help="The port to listen on; a free one without it.")] = None,
) -> None:
    """Rehearses a team's whole life on the embedded AWS: deploy, train, measure, decide, report."""
    settings = _team(team)
    _known(settings, stage)
    require_node()
    running = EmbeddedAws.find(DATA / "embedded")
    if running and port is not None and not running.endpoint.endswith(f":{port}"):
        raise CloudError(
            f"an embedded AWS runs at {running.endpoint} already: stop it with `rft down`, or omit --port"
        )
    with _step(f"Package the Lambdas of {team}"):
        package(ROOT, "embedded", [team], report=lambda _line: None)
    aws = running or EmbeddedAws(DATA / "embedded", port, keep=keep)
    if not running:
        with _step("Start the embedded AWS"):
            aws.start()
    try:
        _rehearse(aws, settings, stage)
    finally:
        if keep or running:
            out.print(
                f"The embedded AWS goes on at {aws.endpoint}: `rft run {team}`, `rft status`, `rft down`.",
                highlight=False,
            )
        else:
            aws.stop()
            shutil.rmtree(DATA / "embedded", ignore_errors=True)


def _rehearse(aws: EmbeddedAws, team: Team, stage: str) -> None:
    environment = aws.environment(os.environ)
    stack = team.stack_id(stage)
    cdk = Cdk(ROOT, environment, DATA / "embedded" / "cdk.log")
    with _step("Bootstrap it for CDK"):
        cdk.bootstrap(environment["CDK_DEFAULT_ACCOUNT"], environment["AWS_REGION"])
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[resource]}"),
    )
    with Progress(*columns, console=out) as progress:
        task = progress.add_task(f"cdk deploy {stack}", total=None, resource="synthesizing")
        cdk.deploy(
            stack,
            {"team": team.name, "stage": stage, "target": "embedded"},
            lambda done, total, name: progress.update(task, completed=done, total=total, resource=name),
        )
        done = progress.tasks[0].total or 1
        progress.update(task, completed=done, total=done, resource="")
    deployed = Cloud.embedded(aws).deployed(stack)
    run, _ = deployed.start({})
    _finish(deployed, Watch(deployed, run).follow(out))


def _finish(deployed: Deployed, run: Run) -> None:
    """Says how a run ended, saves its report, and fails the command where the run failed."""
    took = duration((run.stopped or run.started) - run.started)
    report = deployed.save_report(run, DATA / "reports")
    decision = deployed.document(run, "decision.json")
    lines = Text()
    if run.status == "SUCCEEDED" and decision:
        verdict, _, why = decision["sentence"].partition(": ")
        lines.append(f"{verdict}: ", "bold green" if decision["promote"] else "bold yellow")
        lines.append(why)
        lines.append(f"\nbase {decision['base_mean']:.3f} → candidate {decision['candidate_mean']:.3f}")
        lines.append(f"\nchampion {deployed.champion() or 'none'}", "dim")
    else:
        failure = deployed.document(run, "failure.json")
        lines.append(f"{run.status.replace('_', ' ').capitalize()}. ", "bold red")
        lines.append((failure or {}).get("sentence") or run.cause or "The run left no reason.")
    if report:
        lines.append(f"\nreport {report}", "cyan")
    out.print(Panel(lines, title=f"{run.name}, {took}", title_align="left"), highlight=False)
    if run.status != "SUCCEEDED":
        raise typer.Exit(1)


@app.command()
def run(
    team: TeamName,
    stage: Stage = "dev",
    again: Annotated[
        int, typer.Option(help="Train on the same content once more: the attempt's number.")
    ] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A training setting for this run, in the service's words: epochCount=2."),
    ] = None,
    aws: OnAws = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
) -> None:
    """Starts a run, or finds the one that trains on the same content, and follows it to the end."""
    training = {}
    for text in settings or []:
        key, sign, value = text.partition("=")
        if not sign:
            raise CloudError(f"--set {text}: expected NAME=VALUE, for example epochCount=2")
        training[key] = value if key == "reasoningEffort" else json.loads(value)
    deployed = _deployed(team, stage, aws)
    started, new = deployed.start({"training": training, "attempt": again})
    if not new:
        out.print(
            f"{started.name} trains on exactly this content ({started.status.lower()});"
            f" nothing was started. Once more: --again {again + 1}",
            highlight=False,
        )
    if not detach:
        _finish(deployed, Watch(deployed, started).follow(out))


@app.command()
def watch(team: TeamName, stage: Stage = "dev", name: RunName = None, aws: OnAws = False) -> None:
    """Follows a run to its end."""
    deployed = _deployed(team, stage, aws)
    found = deployed.run(name) if name else deployed.latest()
    _finish(deployed, Watch(deployed, found).follow(out))


@app.command()
def report(team: TeamName, stage: Stage = "dev", name: RunName = None, aws: OnAws = False) -> None:
    """Fetches a run's report and prints its path."""
    deployed = _deployed(team, stage, aws)
    found = deployed.run(name) if name else deployed.latest()
    path = deployed.save_report(found, DATA / "reports")
    if path is None:
        raise CloudError(
            f"{found.name} is {found.status.lower()} and has no report yet: follow it with `rft watch {team}`"
        )
    out.print(str(path), highlight=False, soft_wrap=True)


@app.command()
def approve(
    team: TeamName,
    stage: Stage = "dev",
    name: Annotated[
        str | None, typer.Option("--run", help="The run; the one that goes on without it.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the history; may be left out.")] = "",
    aws: OnAws = False,
) -> None:
    """Lets a run that waits for approval promote its model."""
    _answer("approve", _deployed(team, stage, aws), name, reason, team)


@app.command()
def reject(
    team: TeamName,
    reason: Reason,
    stage: Stage = "dev",
    name: Annotated[
        str | None, typer.Option("--run", help="The run; the one that goes on without it.")
    ] = None,
    aws: OnAws = False,
) -> None:
    """Keeps a run that waits for approval from promoting its model."""
    _answer("reject", _deployed(team, stage, aws), name, reason, team)


def _answer(action: str, deployed: Deployed, name: str | None, reason: str, team: str) -> None:
    """Answers the run that waits for approval: the one named, or else the only one that goes on."""
    if name is None:
        going_on = [run.name for run in deployed.runs() if run.status == "RUNNING"]
        if len(going_on) != 1:
            raise CloudError(
                f"{deployed.stack} has several runs that go on: choose one with --run ({', '.join(going_on)})"
                if going_on
                else f"{deployed.stack} has no run that goes on, so none is waiting for approval"
            )
        [name] = going_on
    answer = deployed.change_champion(action, run=name, why=reason)
    verdict = "approved" if answer["approved"] else "rejected"
    out.print(f"{name} {verdict} as {answer['by']}; it ends by itself: rft watch {team}", highlight=False)


@app.command()
def promote(
    team: TeamName,
    name: Annotated[str, typer.Option("--run", help="The run whose model is to be the champion.")],
    reason: Reason,
    stage: Stage = "dev",
    aws: OnAws = False,
) -> None:
    """Makes the model of a run the champion, whatever the run decided, and waits until it is served."""
    _change("promote", _deployed(team, stage, aws), name, reason)


@app.command()
def rollback(
    team: TeamName,
    reason: Reason,
    stage: Stage = "dev",
    to: Annotated[
        str | None, typer.Option(help="A run that was the champion; the one before without it.")
    ] = None,
    aws: OnAws = False,
) -> None:
    """Makes the model before the present one the champion again, and waits until it is served."""
    _change("rollback", _deployed(team, stage, aws), to, reason)


def _change(action: str, deployed: Deployed, run: str | None, reason: str) -> None:
    """Changes the champion and waits until it serves the other model."""
    state = deployed.change_champion(action, run=run, why=reason)
    goal, chosen = state["goal"], state["run"]
    pause = 0.5 if deployed.cloud.endpoint else 15.0
    deadline = time.monotonic() + _CHANGE_SECONDS
    with _step(f"Move the champion to the model of {chosen}"):
        while state["model"] != goal:
            if not state["updating"] or time.monotonic() > deadline:
                raise CloudError(
                    f"the champion still serves {state['model']}: moving it is {state['update']};"
                    " look at it with `rft history` and try again"
                )
            time.sleep(pause)
            state = deployed.change_champion("status")
    out.print(f"The champion {state['champion_arn']} serves {goal} of {chosen}.", highlight=False)


@app.command()
def history(
    team: TeamName,
    stage: Stage = "dev",
    as_json: Annotated[bool, typer.Option("--json", help="Print all there is, as JSON.")] = False,
    aws: OnAws = False,
) -> None:
    """Lists who changed the champion, when and why."""
    deployed = _deployed(team, stage, aws, say=err if as_json else out)
    found = deployed.change_champion("history")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("when", "change", "run", "gain", "who", "why", box=None, header_style="bold")
    serving = max(
        (at for at, each in enumerate(found["changes"]) if each["model"] == found["model"]), default=None
    )
    for at, each in enumerate(found["changes"]):
        gain = each["metrics"].get("gain")
        table.add_row(
            each["when"][:16].replace("T", " "),
            Text(each["change"] + (" (serving)" if at == serving else ""), "green" if at == serving else ""),
            each["run"],
            "" if gain is None else f"{gain:+.3f}",
            # The end of an ARN is what tells people apart.
            Text(each["who"].rpartition(":")[2]),
            Text(each["why"]),
        )
    out.print(table if found["changes"] else "No model has been promoted yet.")


@app.command()
def doctor(
    team: TeamName,
    stage: Stage = "dev",
    name: RunName = None,
    aws: OnAws = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Says why a run's reward is flat, falling, spiking or suspiciously perfect, and what to try."""
    if json_:
        out.quiet = True
    deployed = _deployed(team, stage, aws)
    run = deployed.run(name) if name else deployed.latest()
    with _step(f"Read what {run.name} has left"):
        evidence = diagnosing.read(deployed, run)
    found = diagnosing.examine(evidence)
    if json_:
        sys.stdout.write(json.dumps(diagnosing.document(evidence, found), indent=1) + "\n")
    else:
        out.print(diagnosing.shown(evidence, found), highlight=False)


@app.command()
def status(aws: OnAws = False) -> None:
    """Lists every team and stage with its stack, last run and champion."""
    teams = load_teams(ROOT, None)
    cloud = _cloud(aws)
    out.print(f"[dim]on {cloud.name}[/dim]", highlight=False)
    table = Table("team", "stage", "stack", "last run", "result", "champion", box=None, header_style="bold")
    for team in teams:
        for stage in team.stages:
            try:
                deployed = cloud.deployed(team.stack_id(stage))
            except CloudError:
                table.add_row(team.name, stage, Text("not deployed", "dim"), "", "", "")
                continue
            last = next(iter(deployed.runs()), None)
            decision = deployed.document(last, "decision.json") if last else None
            table.add_row(
                team.name,
                stage,
                deployed.status,
                last.name if last else "",
                _result(last, decision),
                (deployed.champion() or "none").rpartition("/")[2],
            )
    out.print(table)


def _result(run: Run | None, decision: dict[str, object] | None) -> str:
    if run is None:
        return ""
    if decision is None or run.status != "SUCCEEDED":
        return run.status.lower()
    return f"{'promoted' if decision['promote'] else 'not promoted'}, gain {decision['gain']:+.3f}"


@app.command()
def cost(team: TeamName, stage: Stage = "dev") -> None:
    """Prices what a stage costs by the month while nothing trains, from its template."""
    settings, platform = _team(team), load_platform(ROOT)
    stack = settings.stack_id(_known(settings, stage).name)
    with tempfile.TemporaryDirectory(prefix="rft-cost-") as folder:
        assembly = Path(folder) / "cdk.out"
        with _step(f"Synthesize {stack}"):
            Cdk(ROOT, os.environ, Path(folder) / "cdk.log").synth({"team": team, "stage": stage}, assembly)
        items = idle_month(json.loads((assembly / f"{stack}.template.json").read_text()), platform.prices)
    table = Table("billed by the month", "count", "each", "together", box=None, header_style="bold")
    currency = platform.prices.currency if platform.prices else ""
    for item in items:
        priced = [] if item.price is None else [f"{item.price:.2f}", f"{item.price * item.count:.2f}"]
        table.add_row(item.type, str(item.count), *(priced or ["no price", "?"]))
    total = sum((item.price or 0) * item.count for item in items)
    table.add_row("in all", "", "", Text(f"{total:.2f} {currency}", "bold"))
    out.print(table)
    dated = f"prices of {platform.prices.date}" if platform.prices else "no prices in teams/platform.toml"
    out.print(f"[dim]{dated}; what is stored and what is used come on top[/dim]", highlight=False)


def _known(team: Team, stage: str) -> config.Stage:
    if stage not in team.stages:
        raise CloudError(f"team {team.name} has no stage {stage!r} (stages: {', '.join(team.stages)})")
    return team.stages[stage]


@app.command()
def down() -> None:
    """Stops the embedded AWS and removes everything it wrote, except the reports."""
    running = EmbeddedAws.find(DATA / "embedded")
    if running:
        running.stop()
    existed = (DATA / "embedded").exists()
    shutil.rmtree(DATA / "embedded", ignore_errors=True)
    out.print("The embedded AWS is down." if running or existed else "No embedded AWS was running.")


@app.command()
def score(
    team: TeamName,
    completions: Annotated[
        Path | None,
        typer.Option(
            help='JSONL of {"id" or "row": ..., "completion": ...}; without it, the rows\' own references.'
        ),
    ] = None,
    row: Annotated[
        list[str] | None, typer.Option(help="Only this row, by its number or its id; may be repeated.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show rows in full: those of --row, or the lowest ones.")
    ] = False,
    rows: Annotated[
        Path | None, typer.Option(help="A dataset in place of the team's, as where that is in S3.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line per sample to this file.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
) -> None:
    """Scores a team's references, or completions from a file, with exactly the deployed code, offline.

    It fails where a reference does not earn the maximum, and where the reward function is broken.
    """
    settings = _team(team)
    scoring.require_judges(settings, os.environ)
    dataset = scoring.dataset_rows(ROOT, settings, rows)
    wanted = scoring.chosen(dataset, row or [])
    columns = (TextColumn("Score"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        if completions is None:
            task = progress.add_task("", total=len(wanted))
            scores = scoring.score_references(settings, wanted, lambda done: progress.advance(task, done))
        else:
            answered = scoring.completions(completions, dataset, wanted)
            task = progress.add_task("", total=len(answered))
            scores = scoring.score_completions(settings, answered, lambda done: progress.advance(task, done))
    for path, write in ((csv, scoring.write_csv), (json_, scoring.write_json)):
        if path is not None:
            write(scores, path)
    if explain:
        out.print(scoring.explanation(scores, named=bool(row)), highlight=False)
    else:
        out.print(scoring.overview(scores, out.width), highlight=False)
    if scores.mistaken:
        raise typer.Exit(1)


@app.command(name="import-grader")
def import_grader(
    file: Annotated[Path, typer.Argument(help="JSON with a grader, or with a job that has one.")],
    judge: Annotated[str, typer.Option(help="The model that takes the place of OpenAI's.")] = JUDGE,
    into: Annotated[
        str | None, typer.Option(help="Write it into this team's team.toml.", metavar="TEAM")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the [reward] that is there.")] = False,
) -> None:
    """Turns a grader of OpenAI's reinforcement fine-tuning into a [reward] table."""
    text = main_text(file, judge=judge)
    if into is None:
        sys.stdout.write(text)
        return
    if into not in team_names(ROOT):
        # Raises, and says which teams there are.
        _team(into)
    path, name = ROOT / "teams" / into / "team.toml", f"teams/{into}/team.toml"
    try:
        path.write_bytes(placed(path.read_bytes(), text, name=name, force=force))
    except OSError as error:
        raise GraderError(f"{name} cannot be written: {error.strerror}") from error
    out.print(Text(f"{name} has a new [reward]; the comment above it says what is left to do."))
    try:
        _team(into)
    except SettingsError as error:
        out.print(f"[yellow]Still to mend:[/yellow]\n{escape(str(error))}", highlight=False, soft_wrap=True)
    else:
        out.print(f"Look at it: [cyan]rft score {into}[/cyan]", highlight=False)


@app.command(name="package")
def package_(
    target: Annotated[Literal["aws", "embedded"], typer.Option(help="What the Lambdas will run on.")] = "aws",
    team: Annotated[list[str] | None, typer.Option(help="Only these teams.")] = None,
) -> None:
    """Builds the Lambda packages that synthesis takes from build/."""
    package(ROOT, target, team, report=lambda line: out.print(line, highlight=False, soft_wrap=True))


@app.command()
def execution_policy(
    account: Annotated[str, typer.Option(help="The account's 12 digits.")],
    region: Annotated[str, typer.Option(help="The region that is bootstrapped.")] = "us-east-1",
    qualifier: Annotated[str, typer.Option(help="The bootstrap's qualifier.")] = "hnb659fds",
) -> None:
    """Writes what CloudFormation needs to deploy all stacks, to bootstrap with instead of administrator."""
    platform = load_platform(ROOT)
    if not re.fullmatch(r"[0-9]{12}", account):
        raise CloudError(f"--account {account}: an account has 12 digits")
    place = Place(account=account, region=region, qualifier=qualifier)
    boundary = platform.permissions_boundary
    if boundary and not boundary.startswith("arn:"):
        boundary = f"arn:aws:iam::{account}:policy/{boundary}"
    with tempfile.TemporaryDirectory(prefix="rft-policy-") as folder:
        assembly = Path(folder) / "cdk.out"
        with _step("Synthesize all stacks"):
            Cdk(ROOT, os.environ, Path(folder) / "cdk.log").synth({}, assembly)
        templates = [json.loads(path.read_text()) for path in assembly.glob("*.template.json")]
    policies = execution_policies(templates, place, boundary=boundary)
    target = ROOT / "build" / "execution-policy" / f"{account}-{region}"
    target.mkdir(parents=True, exist_ok=True)
    names = [f"rft-execution-{region}-{number}" for number in range(1, len(policies) + 1)]
    for name, policy in zip(names, policies, strict=True):
        path = target / f"{name}.json"
        path.write_text(json.dumps(policy, indent=2) + "\n", encoding="utf-8")
        document = f"file://{path.relative_to(ROOT)}"
        out.print(
            f"aws iam create-policy --policy-name {name} --policy-document {document}",
            highlight=False,
            soft_wrap=True,
        )
    arns = ",".join(f"arn:aws:iam::{account}:policy/{name}" for name in names)
    out.print(
        f"npx cdk bootstrap aws://{account}/{region} --qualifier {qualifier}"
        f" --cloudformation-execution-policies {arns}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def schema() -> None:
    """Writes the JSON Schemas that let an editor complete and check the settings files."""
    for path, document in schemas().items():
        (ROOT / path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        out.print(str(path), highlight=False)


def main() -> None:
    """Runs the command; a person's mistake ends in one clear message and exit code 1, not in a traceback."""
    # A closed terminal or a stopped job must run the same clean-up as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: sys.exit(130))
    try:
        app()
    except KeyboardInterrupt:
        err.print("stopped")
        raise SystemExit(130) from None
    except (
        SettingsError,
        ChangesError,
        CloudError,
        DatasetError,
        DeliveryError,
        EmbeddedAwsError,
        GraderError,
        PackagingError,
        ScoringError,
        ToolchainError,
    ) as error:
        err.print(f"[bold red]rft:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except (BotoCoreError, ClientError) as error:
        err.print(
            f"[bold red]rft:[/bold red] AWS refused: {escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise SystemExit(1) from None
    except BrokenPipeError:
        with suppress(OSError):
            os.close(sys.stdout.fileno())
        raise SystemExit(141) from None
