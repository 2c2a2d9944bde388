"""What a platform team does with all environments: look at them, trace models, price, bootstrap, retire."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from infra import config
from infra.config import (
    Platform,
    SettingsError,
    Team,
    load_platform,
    load_teams,
)
from rft import fleet, terminal
from rft import lineage as origin
from rft.cloud import Cloud, CloudError, Deployed
from rft.cost import idle_month
from rft.delivery import Cdk
from rft.execution_policy import Place, execution_policies, shield
from rft.retire import Retired, entry_text, expired, expiring, place, record, retired
from rft.retirement import Item, Retirement
from rft.terminal import OnAws, Stage, TeamName, err, out

app = typer.Typer(rich_markup_mode=None)


@app.command()
def status(
    aws: OnAws = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one page that needs no network.")] = None,
) -> None:
    """Shows how every stage of every team stands, in all their accounts, and what needs a person."""
    teams, platform = load_teams(terminal.ROOT, None), load_platform(terminal.ROOT)
    cloud, sources = _home(aws, teams)
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
    )
    # To standard error: what reads the JSON is a program.
    with Progress(*columns, TimeElapsedColumn(), console=err) as progress:
        task = progress.add_task(f"Look at {cloud.name}", total=None)
        rows = fleet.look(
            teams,
            platform,
            fleet.Places(cloud, platform),
            sources,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    found = fleet.Fleet(made_at=datetime.now(UTC), where=cloud.name, revision=sources.revision, rows=rows)
    if html:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(fleet.page(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.document(), indent=2))
        return
    out.print(f"[dim]on {cloud.name}[/dim]", highlight=False)
    out.print(_table(found))
    for row in rows:
        for need in row.needs():
            out.print(Text.assemble((f"{row.team} {row.stage}: ", "bold yellow"), need))
    for sentence in expiring(teams, terminal.today()):
        out.print(f"[yellow]{sentence}[/yellow]", highlight=False)


def _home(aws: bool, teams: Sequence[Team]) -> tuple[Cloud, fleet.Sources]:
    """Returns what a look at all stages starts from, and what they are compared with."""
    regions = (stage.region for team in teams for stage in team.stages.values() if stage.region)
    cloud = terminal.cloud(aws, os.environ.get("AWS_REGION") or next(regions, None))
    return cloud, fleet.Sources(
        terminal.ROOT, terminal.DATA / "embedded/cdk.out" if cloud.endpoint else terminal.ROOT / "cdk.out"
    )


def _table(found: fleet.Fleet) -> Table:
    names = (
        *("team", "stage", "stack", "last run", "result", "champion", "gain", "calls"),
        *("spent", "version", "drift"),
    )
    table = Table(*names, box=None, header_style="bold")
    for row in found.rows:
        nothing = Text("out of reach", "red") if row.troubles else Text("not deployed", "dim")
        drift = "-" if row.drift is None or row.drift.checked is None else str(len(row.drift.findings))
        table.add_row(
            row.team,
            row.stage,
            row.status or nothing,
            row.run.name if row.run else "",
            _result(row.run),
            (row.champion.run or "" if row.champion else "none") if row.status else "",
            fleet.gain(row.champion.gain) if row.champion else "",
            fleet.calls(row.calls) if row.champion else "",
            fleet.money(row.spend) if row.status else "",
            row.version.state if row.version else "",
            drift if row.status else "",
        )
    return table


def _result(run: fleet.LastRun | None) -> str:
    if run is None:
        return ""
    if run.promoted is None:
        return run.status.lower()
    return "promoted" if run.promoted else "not promoted"


@app.command()
def lineage(
    what: Annotated[
        str | None, typer.Argument(help="ARN of a model, deployment or job; or a run.", metavar="[WHAT]")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Find what was trained on this: a SHA-256, or how it begins.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read the rows and check their hash.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    aws: OnAws = False,
) -> None:
    """Follows a model back to the rows it was trained on, or rows to the models that were trained on them."""
    if (what is None) == (dataset is None):
        raise CloudError("lineage: expected the ARN of a model or the name of a run, or --dataset SHA256")
    teams, platform = load_teams(terminal.ROOT, None), load_platform(terminal.ROOT)
    cloud, _ = _home(aws, teams)
    environments, unread = [], []
    for team, stage, found in fleet.Places(cloud, platform).stages(teams):
        if isinstance(found, Deployed):
            environments.append(found)
        elif found is not None:
            unread.append(f"{team.name} {stage}: {found}")
    for each in unread:
        err.print(f"[yellow]not searched:[/yellow] {escape(each)}", highlight=False, soft_wrap=True)
    traces = (
        origin.of(what, environments, verify=verify)
        if what
        else origin.of_dataset(dataset or "", environments)
    )
    if not traces:
        raise CloudError(
            f"no run of {len(environments)} deployed stages on {cloud.name} knows {what or dataset}"
            " (a run is known by its manifest, which its report step writes)"
        )
    if as_json:
        typer.echo(json.dumps([each.document() for each in traces], indent=2))
        return
    for trace in traces:
        out.print(_told(trace))


def _told(trace: origin.Trace) -> Table:
    table = Table(box=None, show_header=False, title=trace.model or trace.run, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    training = (trace.settings.get("training") or {}).items()
    checked = {True: ", verified", False: ", NOT THE ROWS THAT ARE KEPT NOW", None: ""}[trace.verified]
    facts = [
        ("run", f"{trace.run} of {trace.stack}: {trace.outcome}"),
        ("job", trace.job),
        ("base model", trace.base_model),
        ("champion at", trace.deployment),
        ("reward", trace.reward_version),
        ("reward package", trace.reward_sha256),
        ("settings", ", ".join(f"{name}={value}" for name, value in training)),
        ("dataset", f"{trace.dataset_sha256}{checked}" if trace.dataset_sha256 else None),
        *((f"{rows.name} rows", f"{rows.rows} in {rows.uri}, from {rows.source}") for rows in trace.rows),
        ("revision", trace.revision or "not recorded"),
        ("template", trace.template_sha256),
        ("approver", trace.approver or "nobody was asked"),
        ("manifest", trace.manifest + (f", locked until {trace.locked_until}" if trace.locked_until else "")),
    ]
    for name, value in facts:
        if value:
            table.add_row(name, Text(value))
    return table


@app.command()
def cost(team: TeamName, stage: Stage = "dev") -> None:
    """Prices what a stage costs by the month while nothing trains, from its template."""
    settings, platform = terminal.team(team), load_platform(terminal.ROOT)
    stack = settings.stack_id(terminal.stage(settings, stage).name)
    with tempfile.TemporaryDirectory(prefix="rft-cost-") as folder:
        assembly = Path(folder) / "cdk.out"
        with terminal.step(f"Synthesize {stack}"):
            Cdk(terminal.ROOT, os.environ, Path(folder) / "cdk.log").synth(
                {"team": team, "stage": stage}, assembly
            )
        items = idle_month(json.loads((assembly / f"{stack}.template.json").read_text()), platform.prices)
    table = Table("billed by the month", "count", "each", "together", box=None, header_style="bold")
    currency = platform.prices.currency if platform.prices else ""
    for item in items:
        priced = [] if item.price is None else [f"{item.price:.2f}", f"{item.price * item.count:.2f}"]
        table.add_row(item.type, str(item.count), *(priced or ["unpriced", "unpriced"]))
    total = sum((item.price or 0) * item.count for item in items)
    priced_only = any(item.price is None for item in items)
    label = "what has a price, in all" if priced_only else "in all"
    table.add_row(label, "", "", Text(f"{total:.2f} {currency}", "bold"))
    # The template knows nothing of what runs make.
    model = platform.prices.custom_model_month if platform.prices else None
    each = "unpriced" if model is None else f"{model:.2f}"
    table.add_row("on top: every custom model", "", each, "")
    out.print(table)
    dated = f"prices of {platform.prices.date}" if platform.prices else "no prices in teams/platform.toml"
    out.print(f"[dim]{dated}; what is stored and what is used come on top[/dim]", highlight=False)


@app.command(name="expired")
def expired_(
    team: Annotated[
        str | None, typer.Option(help="This team's stages instead, whether they have expired or not.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only this one of them.")] = None,
) -> None:
    """Prints the throw-away stages whose last day is over and where they are, as JSON."""
    if team:
        settings = terminal.team(team)
        stages = [terminal.stage(settings, stage)] if stage else settings.stages.values()
        found = [place(settings, each) for each in stages]
    else:
        found = expired(load_teams(terminal.ROOT, None), terminal.today())
    # To standard output as it is: what reads it is a program.
    typer.echo(json.dumps(found))


@app.command(name="retire")
def retire_(
    team: TeamName,
    stage: Annotated[
        str | None, typer.Option(help="One of the team's stages; all of them without it.")
    ] = None,
    yes: Annotated[
        int,
        typer.Option("--yes", "-y", count=True, help="Do not ask; twice where kept data is to go as well."),
    ] = 0,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the data, key and logs that a lasting stage keeps.")
    ] = False,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Refuse to retire a stage whose data goes with its stack.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    aws: OnAws = False,
) -> None:
    """Takes a stage away: stops what runs, deletes what is deployed and its stack, and says what is left."""
    if purge and keep_data:
        raise CloudError("--purge deletes the data and --keep-data keeps it: choose one of them")
    platform = load_platform(terminal.ROOT)
    left = False
    for name, region, account in _places(team, stage):
        cloud = terminal.cloud(aws, region)
        stack = f"rft-{team}-{name}"
        out.print(f"\n[bold]{stack}[/bold] [dim]on {cloud.name}[/dim]", highlight=False)
        here = cloud.account_id()
        if account and cloud.endpoint is None and here != account:
            raise CloudError(
                f"{stack} is in account {account} and the credentials are for {here}: sign in there, "
                f"and retire it with --stage {name}"
            )
        retirement = Retirement(cloud, stack, purge=purge, prices=platform.prices)
        rest = _retire(retirement, stack, platform, yes, keep_data, dry_run)
        if rest is None:
            continue
        if any(item.fate == "left" for item in rest):
            left = True
            continue
        entry = Retired(
            date=terminal.today(),
            account=here,
            region=cloud.region,
            kept=tuple(f"{item.kind} {item.name}" for item in rest),
        )
        if cloud.endpoint is None:
            record(terminal.ROOT, team, name, entry)
            out.print("Written to teams/retired.toml; bring it along with the change that removes the stage:")
            out.print(entry_text(team, name, entry), highlight=False, markup=False, soft_wrap=True)
    if left:
        raise typer.Exit(1)


def _places(team: str, stage: str | None) -> list[tuple[str, str | None, str | None]]:
    """Stage, region and account of what is to be retired; also of a folder that is gone already."""
    if team in config.team_names(terminal.ROOT):
        settings = terminal.team(team)
        stages = [terminal.stage(settings, stage)] if stage else list(settings.stages.values())
        return [(each.name, each.region, each.account) for each in stages]
    ended = retired(terminal.ROOT).get(team, {})
    if not ended or (stage and stage not in ended):
        # The usual words for a team or stage that there is not.
        terminal.team(team)
    return [(name, each.region, each.account) for name, each in ended.items() if stage in (None, name)]


def _retire(
    retirement: Retirement, stack: str, platform: Platform, yes: int, keep_data: bool, dry_run: bool
) -> list[Item] | None:
    """Shows the plan, asks, carries it out; returns what is there afterwards, None where nothing was done."""
    with terminal.step("Look at what there is"):
        plan = retirement.plan()
        obstacles = retirement.obstacles()
        goes_along = retirement.data_goes_along()
        purged = retirement.purges()
    currency = platform.prices.currency if platform.prices else ""
    if plan:
        out.print(_items_table(plan, currency))
    else:
        out.print("Nothing of it is there.")
    if obstacles:
        raise CloudError("\n".join(obstacles))
    if keep_data and goes_along:
        raise CloudError(
            f"the data of {stack} goes with its stack, because the stage is deployed as a throw-away one: "
            'copy what you need, or set retention = "lasting" in team.toml and deploy it before you retire it'
        )
    if dry_run:
        return None
    if any(item.fate != "kept" for item in plan):
        _agree(stack, yes, purged)
        for name, step in retirement.steps():
            with _telling_step(name) as say:
                step(say)
    with terminal.step("Look at what is left"):
        rest = retirement.rest()
    if rest:
        out.print(_items_table(rest, currency))
    if any(item.fate == "left" for item in rest):
        out.print("[bold red]This is left, and may cost money.[/bold red] Begin again when it can go.")
    else:
        kept = "Kept on purpose is what the table shows; nothing else" if rest else "Nothing"
        out.print(f"[bold green]{kept} of it is left that costs money.[/bold green]", highlight=False)
    return rest


def _agree(stack: str, yes: int, purged: bool) -> None:
    """Asks whether to go on; data that was meant to last takes the stack's name."""
    if yes >= (2 if purged else 1):
        return
    if not sys.stdin.isatty():
        flags = "--yes --yes, because data that was meant to last is deleted" if purged else "--yes"
        raise CloudError(f"nobody is there to ask: look at the plan, and give {flags}")
    if purged:
        if typer.prompt("Data that was meant to last is deleted for good. Type the stack's name") != stack:
            raise CloudError("that is not its name; nothing was done")
    elif not typer.confirm("Go on?"):
        raise CloudError("nothing was done")


def _items_table(items: list[Item], currency: str) -> Table:
    table = Table("what", "name", "", f"{currency} a month".strip(), "becomes", box=None, header_style="bold")
    colors = {"kept": "green", "left": "bold red", "stopped": "yellow", "deleted": "yellow"}
    for item in items:
        month = "unpriced" if item.month is None else _price(item.month)
        fate = Text(item.fate, colors[item.fate])
        table.add_row(item.kind, Text(item.name), Text(item.note, "dim"), month, fate)
    table.columns[1].overflow = "fold"
    table.columns[3].justify = "right"
    return table


def _price(month: float) -> str:
    return "" if month == 0 else "< 0.01" if month < 0.01 else f"{month:.2f}"


@contextmanager
def _telling_step(text: str) -> Iterator[Callable[[str], None]]:
    """Shows one piece of work with its time, and what it says of itself meanwhile."""
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[said]}", markup=True),
    )
    with Progress(*columns, console=out) as progress:
        task = progress.add_task(text, total=1, said="")
        yield lambda said: progress.update(task, said=said)
        progress.update(task, completed=1, said="")


@app.command()
def execution_policy(
    account: Annotated[str, typer.Option(help="The account's 12 digits.")],
    region: Annotated[str, typer.Option(help="The region that is bootstrapped.")] = "us-east-1",
    qualifier: Annotated[str, typer.Option(help="The bootstrap's qualifier.")] = "hnb659fds",
    network: Annotated[bool, typer.Option("--network", help="Also what rft-network needs.")] = False,
    delivery: Annotated[
        bool,
        typer.Option("--delivery", help="Also what rft-delivery needs, which is kept from it otherwise."),
    ] = False,
) -> None:
    """Writes what CloudFormation needs to deploy all stacks, to bootstrap with instead of administrator."""
    platform = load_platform(terminal.ROOT)
    if not re.fullmatch(r"[0-9]{12}", account):
        raise CloudError(f"--account {account}: an account has 12 digits")
    if delivery and platform.delivery is None:
        raise SettingsError(
            ["teams/platform.toml: delivery: is missing: --delivery needs the repository that may deploy"]
        )
    place = Place(account=account, region=region, qualifier=qualifier)
    boundary = platform.permissions_boundary
    if boundary and not boundary.startswith("arn:"):
        boundary = f"arn:aws:iam::{account}:policy/{boundary}"
    wanted: dict[str, dict[str, str]] = {"": {}}
    wanted |= {"network-": {"network": "true"}} if network else {}
    wanted |= {"delivery-": {"delivery": "github"}} if delivery else {}
    policies = {}
    for kind, context in wanted.items():
        with tempfile.TemporaryDirectory(prefix="rft-policy-") as folder:
            assembly = Path(folder) / "cdk.out"
            with terminal.step(f"Synthesize {f'rft-{kind[:-1]}' if kind else 'the stacks of all teams'}"):
                Cdk(terminal.ROOT, os.environ, Path(folder) / "cdk.log").synth(context, assembly)
            templates = [json.loads(path.read_text()) for path in assembly.glob("*.template.json")]
        for number, policy in enumerate(execution_policies(templates, place, boundary=boundary), 1):
            policies[f"rft-execution-{region}-{kind}{number}"] = policy
    if not delivery:
        policies[f"rft-execution-{region}-shield"] = shield(policies.values(), place)
    target = terminal.ROOT / "build" / "execution-policy" / f"{account}-{region}"
    target.mkdir(parents=True, exist_ok=True)
    for name, policy in policies.items():
        path = target / f"{name}.json"
        path.write_text(json.dumps(policy, indent=2) + "\n", encoding="utf-8")
        document = f"file://{path.relative_to(terminal.ROOT)}"
        out.print(
            f"aws iam create-policy --policy-name {name} --policy-document {document}",
            highlight=False,
            soft_wrap=True,
        )
    arns = ",".join(f"arn:aws:iam::{account}:policy/{name}" for name in policies)
    out.print(
        f"npx cdk bootstrap aws://{account}/{region} --qualifier {qualifier}"
        f" --cloudformation-execution-policies {arns}",
        highlight=False,
        soft_wrap=True,
    )
