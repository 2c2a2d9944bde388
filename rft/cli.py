"""The `rft` command: one verb per thing a person does with a team's environment.

The verbs act on the embedded AWS while one is running, and on the account of the AWS environment otherwise;
`--aws` always means the account. Each says which one it means before it does anything.
"""

import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer
from botocore.exceptions import BotoCoreError, ClientError
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

from infra.config import (
    Platform,
    SettingsError,
    Team,
    load_platform,
    schemas,
    team_names,
)
from lambdas.dataset import DatasetError
from rft import check_report, ci, platform_team, scoring, terminal
from rft import doctor as diagnosing
from rft.changes import ChangesError
from rft.check import CheckError
from rft.check import check as check_team
from rft.cloud import Cloud, CloudError, Deployed, Run
from rft.delivery import Cdk, DeliveryError
from rft.embedded.aws import EmbeddedAws, EmbeddedAwsError
from rft.grader_import import JUDGE, GraderError, main_text, placed
from rft.new_team import TASKS, NewTeam, NewTeamError, Request, Task, write_team
from rft.packaging import PackagingError, package
from rft.rows import Columns, RowsError
from rft.scoring import ScoringError
from rft.terminal import OnAws, Stage, TeamName, err, out
from rft.toolchain import ToolchainError, require_node
from rft.watching import Watch, duration

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
app.add_typer(platform_team.app)

Reason = Annotated[str, typer.Option(help="Why, for the history.")]
RunName = Annotated[str | None, typer.Option("--run", help="A run's name; the latest without it.")]


@app.command()
def up(
    team: Annotated[str, typer.Argument(help="A folder under teams/.", metavar="[TEAM]")] = "quotes",
    stage: Stage = "dev",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded AWS running afterwards.")] = False,
    port: Annotated[int | None, typer.Option(help="The port to listen on; a free one without it.")] = None,
) -> None:
    """Rehearses a team's whole life on the embedded AWS: deploy, train, measure, decide, report."""
    settings = terminal.team(team)
    terminal.stage(settings, stage)
    require_node()
    running = EmbeddedAws.find(terminal.DATA / "embedded")
    if running and port is not None and not running.endpoint.endswith(f":{port}"):
        raise CloudError(
            f"an embedded AWS runs at {running.endpoint} already: stop it with `rft down`, or omit --port"
        )
    with terminal.step(f"Package the Lambdas of {team}"):
        package(terminal.ROOT, "embedded", [team], report=lambda _line: None)
    aws = running or EmbeddedAws(terminal.DATA / "embedded", port, keep=keep)
    if not running:
        with terminal.step("Start the embedded AWS"):
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
            shutil.rmtree(terminal.DATA / "embedded", ignore_errors=True)


def _rehearse(aws: EmbeddedAws, team: Team, stage: str) -> None:
    environment = aws.environment(os.environ)
    stack = team.stack_id(stage)
    cdk = Cdk(terminal.ROOT, environment, terminal.DATA / "embedded" / "cdk.log")
    with terminal.step("Bootstrap it for CDK"):
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
    report = deployed.save_report(run, terminal.DATA / "reports")
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
    deployed = terminal.deployed(team, stage, aws)
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
    deployed = terminal.deployed(team, stage, aws)
    found = deployed.run(name) if name else deployed.latest()
    _finish(deployed, Watch(deployed, found).follow(out))


@app.command()
def report(team: TeamName, stage: Stage = "dev", name: RunName = None, aws: OnAws = False) -> None:
    """Fetches a run's report and prints its path."""
    deployed = terminal.deployed(team, stage, aws)
    found = deployed.run(name) if name else deployed.latest()
    path = deployed.save_report(found, terminal.DATA / "reports")
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
    _answer("approve", terminal.deployed(team, stage, aws), name, reason, team)


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
    _answer("reject", terminal.deployed(team, stage, aws), name, reason, team)


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
    _change("promote", terminal.deployed(team, stage, aws), name, reason)


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
    _change("rollback", terminal.deployed(team, stage, aws), to, reason)


def _change(action: str, deployed: Deployed, run: str | None, reason: str) -> None:
    """Changes the champion and waits until it serves the other model."""
    state = deployed.change_champion(action, run=run, why=reason)
    goal, chosen = state["goal"], state["run"]
    # A change may be there at once; one that takes long is asked after less and less often.
    pause = 0.5
    deadline = time.monotonic() + _CHANGE_SECONDS
    with terminal.step(f"Move the champion to the model of {chosen}"):
        while state["model"] != goal:
            if not state["updating"] or time.monotonic() > deadline:
                raise CloudError(
                    f"the champion still serves {state['model']}: moving it is {state['update']};"
                    " look at it with `rft history` and try again"
                )
            time.sleep(pause)
            pause = min(pause if deployed.cloud.endpoint else 2 * pause, 15.0)
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
    deployed = terminal.deployed(team, stage, aws, say=err if as_json else out)
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
    deployed = terminal.deployed(team, stage, aws)
    run = deployed.run(name) if name else deployed.latest()
    with terminal.step(f"Read what {run.name} has left"):
        evidence = diagnosing.read(deployed, run)
    found = diagnosing.examine(evidence)
    if json_:
        sys.stdout.write(json.dumps(diagnosing.document(evidence, found), indent=1) + "\n")
    else:
        out.print(diagnosing.shown(evidence, found), highlight=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def new(
    context: typer.Context,
    team: Annotated[str, typer.Argument(help="The new team's name, and its folder's.", metavar="TEAM")],
    owner: Annotated[str | None, typer.Option(help="E-mail address of who answers for it.")] = None,
    description: Annotated[str | None, typer.Option(help="What it trains, in a sentence.")] = None,
    task: Annotated[str | None, typer.Option(help=f"What an answer is: {', '.join(TASKS)}.")] = None,
    train: Annotated[
        str | None, typer.Option(help="Rows: CSV, chat JSONL, Bedrock's logs, or s3://bucket/key.")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="Held-out rows, in any of the same shapes; split off without it.")
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="The column with the prompts.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="The column with the right answers.")] = None,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of prompts split off.")] = 0.2,
    base_model: Annotated[str | None, typer.Option(help="One of the platform's models.")] = None,
) -> None:
    """Writes the folder of a new team, from a file of rows or with synthetic ones to begin with.

    Tags that the platform asks for are flags of their own: --cost-center sales-tools.
    """
    platform = load_platform(terminal.ROOT)
    tags = _extra_tags(context.args, platform)
    required = [tag for tag in platform.required_tags if tag not in {**platform.tags, **tags}]
    missing = [
        flag for flag, value in (("owner", owner), ("description", description), ("task", task)) if not value
    ] + required
    if missing and not sys.stdin.isatty():
        raise NewTeamError(f"also needed: {', '.join(f'--{flag}' for flag in missing)}")
    asked = bool(missing)
    owner = owner or typer.prompt("E-mail address of who answers for it")
    description = description or typer.prompt("What it trains, in a sentence")
    task = task or _ask_for_task()
    if asked and train is None:
        train = typer.prompt(
            "File with rows (empty: synthetic ones to begin with)", default="", show_default=False
        )
    for tag in required:
        tags[tag] = typer.prompt(f"Tag {tag}")
    request = Request(
        name=team,
        owner=owner,
        description=description,
        task=task,
        tags=tags,
        train=train or None,
        evaluation=evaluation,
        columns=Columns(prompt=prompt_column, answer=answer_column),
        held_out=held_out,
        base_model=base_model,
    )
    with terminal.step("Convert and check the rows"):
        made = write_team(terminal.ROOT, request, platform)
    _show_new(made, TASKS[task])


def _extra_tags(words: list[str], platform: Platform) -> dict[str, str]:
    """The tags among the flags that the command does not know by itself."""
    tags: dict[str, str] = {}
    rest = list(words)
    while rest:
        flag, sign, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--")
        if not flag.startswith("--") or name not in platform.required_tags:
            known = ", ".join(f"--{tag}" for tag in platform.required_tags) or "none"
            raise NewTeamError(f"{flag}: no such option (the platform's tags: {known}); see `rft new --help`")
        if not sign and not rest:
            raise NewTeamError(f"{flag}: a value is missing")
        tags[name] = value if sign else rest.pop(0)
    return tags


def _ask_for_task() -> str:
    table = Table(box=None, show_header=False)
    for number, (name, each) in enumerate(TASKS.items(), 1):
        table.add_row(str(number), Text(name, "bold"), each.says, Text(each.function, "dim"))
    out.print("What is an answer?")
    out.print(table)
    names = list(TASKS)
    while True:
        said = str(typer.prompt("Number or name")).strip()
        if said in TASKS:
            return said
        if said.isdecimal() and 1 <= int(said) <= len(names):
            return names[int(said) - 1]
        out.print(f"1 to {len(names)}, or a name")


def _show_new(made: NewTeam, task: Task) -> None:
    """What became of the rows, and what to do next."""
    table = Table("rows", "", "lines", box=None, header_style="bold")
    for each in made.read:
        table.add_row(f"{each.read:,}", Text(f"read: {each.shape}"))
        for reason, lines in each.dropped.items():
            shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
            table.add_row(f"-{len(lines):,}", Text(reason, "yellow"), Text(shown, "dim"))
    if made.train is not None and made.evaluation is not None:
        table.add_row(f"{len(made.train.rows):,}", Text("to train on", "bold"))
        table.add_row(f"{len(made.evaluation.rows):,}", Text("held out", "bold"))
        out.print(table)
    if made.own_instructions and made.instruction:
        out.print(
            f"[yellow]Rows with a system message of their own: {made.own_instructions:,}.[/yellow]"
            " It has to ask for the form that the reward looks for:",
            highlight=False,
        )
        out.print(f"  {made.instruction}", highlight=False, markup=False)
    name = made.team.name
    said = Text(f"teams/{name}", "bold")
    said.append(f" scores by {task.function}: {task.says}.\n", "not bold")
    said.append(f"Try it on the embedded AWS: make local TEAM={name}", "not bold")
    out.print(Panel(said), highlight=False)


@app.command()
def down() -> None:
    """Stops the embedded AWS and removes everything it wrote, except the reports."""
    running = EmbeddedAws.find(terminal.DATA / "embedded")
    if running:
        running.stop()
    existed = (terminal.DATA / "embedded").exists()
    shutil.rmtree(terminal.DATA / "embedded", ignore_errors=True)
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
    settings = terminal.team(team)
    scoring.require_judges(settings, os.environ)
    dataset = scoring.dataset_rows(terminal.ROOT, settings, rows)
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


@app.command()
def check(
    team: TeamName,
    stage: Annotated[str | None, typer.Option(help="Speak of this stage only.")] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Compare with a git revision: rows, reward and settings.", metavar="REV"),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the comment for a pull request.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Write everything as JSON.")] = False,
) -> None:
    """Checks all that can be known before the first paid call, offline: settings, rows, reward.

    It fails where a run would be stopped; a warning lets pass.
    """
    if markdown and json_:
        raise CheckError("--markdown and --json are two ways to write the same: choose one of them")
    with err.status("check") as waiting:
        found = check_team(
            terminal.ROOT,
            team,
            stage=stage,
            against=against,
            today=terminal.today(),
            tell=lambda step: waiting.update(step),
        )
    if json_:
        typer.echo(json.dumps(found.document(), indent=2))
    elif markdown:
        typer.echo(check_report.markdown(found))
    else:
        out.print(check_report.terminal(found), highlight=False)
    if found.verdict == "stop":
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
    if into not in team_names(terminal.ROOT):
        # Raises, and says which teams there are.
        terminal.team(into)
    path, name = terminal.ROOT / "teams" / into / "team.toml", f"teams/{into}/team.toml"
    try:
        path.write_bytes(placed(path.read_bytes(), text, name=name, force=force))
    except OSError as error:
        raise GraderError(f"{name} cannot be written: {error.strerror}") from error
    out.print(Text(f"{name} has a new [reward]; the comment above it says what is left to do."))
    try:
        terminal.team(into)
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
    package(terminal.ROOT, target, team, report=lambda line: out.print(line, highlight=False, soft_wrap=True))


@app.command()
def schema() -> None:
    """Writes the JSON Schemas that let an editor complete and check the settings files."""
    for path, document in schemas().items():
        (terminal.ROOT / path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
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
        CheckError,
        CloudError,
        DatasetError,
        DeliveryError,
        EmbeddedAwsError,
        GraderError,
        NewTeamError,
        PackagingError,
        RowsError,
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
