"""How every stage of every team stands: in a table, as data, and on one page that needs no network.

Everything is read where it is: nothing is kept on the side. Stages are read side by side, and each of them
piece by piece, so that an account out of reach or a broken stack costs its own row a word and nothing else.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from infra.config import Platform, Team
from lambdas.workflow.provenance import revision_of, template_sha256
from rft.changes import ChangesError, changed_teams, revision
from rft.cloud import Cloud, CloudError, Deployed, Run

_READERS: Final = 12
# What reading a stage asks; clients are made one after the other, because making them is not safe in threads.
_SERVICES: Final = ("bedrock", "cloudformation", "cloudwatch", "s3", "ssm", "stepfunctions", "sts")
# A candidate's deployment lives as long as its measurement; one older than this was left behind.
_IDLE_AFTER: Final = timedelta(days=1)
_SOON: Final = timedelta(days=90)
# A champion that nobody has called for so long is kept for nobody.
_QUIET_AFTER: Final = timedelta(days=14)
# CloudWatch keeps hourly and coarser values for 455 days.
_METRICS_KEPT: Final = timedelta(days=455)
_DAY: Final = timedelta(days=1)
# What a synthesis is made of; a younger file than the assembly means that it is out of date.
_SOURCES: Final = ("app.py", "cdk.json", "infra", "lambdas", "requirements", "teams")


@dataclass(frozen=True, kw_only=True)
class Version:
    """What is deployed beside what the repository would deploy: "current", "behind" or "unknown", and why."""

    state: str
    why: str
    revision: str | None
    template_sha256: str | None
    reward: str | None
    """The number of the reward function's version."""


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """The newest run: its status in the words of Step Functions, and what came of it in a sentence."""

    name: str
    status: str
    started: datetime
    promoted: bool | None
    gain: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Champion:
    """What applications call, the model behind it, and what its run found; units of the reward."""

    deployment: str
    model: str | None
    run: str | None
    since: datetime | None
    gain: float | None
    lower: float | None
    upper: float | None
    made: datetime | None = None
    """When its deployment was made, which the models after the first one take over."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """How often the champion was called in the last days, by CloudWatch; None where that is not known."""

    days: int
    count: int | None
    why: str = ""
    """Why it is not known."""


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What this month's runs cost by the upper end of their estimates, and what they may; None: unknown."""

    month: str
    estimated: float | None
    budget: float | None
    currency: str | None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What CloudFormation found when it last compared the stack with its template; None: it never did."""

    checked: datetime | None
    findings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A run that waits for a person."""

    run: str
    until: str | None


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A deployment that nobody calls by the champion's ARN, and since when."""

    name: str
    arn: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """Something that ends, and when; None where the service does not say."""

    what: str
    when: date | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage of a team; what is None was not read or is not there, and `troubles` says which."""

    team: str
    stage: str
    stack: str
    owner: str
    account: str | None
    region: str | None
    status: str | None = None
    """The stack's, in the words of CloudFormation; None where it is not deployed or out of reach."""
    deployed_at: datetime | None = None
    version: Version | None = None
    run: LastRun | None = None
    champion: Champion | None = None
    calls: Calls | None = None
    spend: Spend | None = None
    drift: Drift | None = None
    approvals: Sequence[Approval] = ()
    idle: Sequence[Idle] = ()
    expiring: Sequence[Expiry] = ()
    troubles: Sequence[str] = ()
    """What could not be read, and why."""

    def needs(self) -> list[str]:
        """What of this stage needs a person, the most pressing first."""
        return list(_needs(self))


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """All stages at one moment; `where` says whose, `revision` what the repository was called."""

    made_at: datetime
    where: str
    revision: str | None
    rows: Sequence[Row]

    def document(self) -> dict[str, Any]:
        """Returns it as JSON: the fields of the classes above, times in ISO 8601."""
        rows = [{**asdict(row), "needs": row.needs()} for row in self.rows]
        head = {"schema": 1, "made_at": self.made_at, "where": self.where, "revision": self.revision}
        plain: dict[str, Any] = json.loads(json.dumps({**head, "stages": rows}, default=_plain))
        return plain


class Places:
    """The accounts and regions of stages, each reached once."""

    def __init__(self, home: Cloud, platform: Platform) -> None:
        """Takes what the command acts on; the platform says which role to take in other accounts."""
        self._home = home
        self._role = platform.fleet.role_arn if platform.fleet else None
        self._lock = threading.Lock()
        self._found: dict[tuple[str | None, str | None], Cloud | CloudError] = {}

    def cloud(self, account: str | None, region: str | None) -> Cloud:
        """Returns where a stage with these settings lives; on an embedded AWS that is always there.

        Raises:
            CloudError: It is out of reach.
        """
        with self._lock:
            if (account, region) not in self._found:
                try:
                    cloud = self._reach(account, region)
                    for service in _SERVICES:
                        cloud.client(service)
                    self._found[account, region] = cloud
                except CloudError as error:
                    self._found[account, region] = error
            found = self._found[account, region]
        if isinstance(found, CloudError):
            raise found
        return found

    def _reach(self, account: str | None, region: str | None) -> Cloud:
        home = self._home
        if home.endpoint:
            return home
        here = home.session.region_name
        if account in (None, home.account_id()):
            return home if region in (None, here) else Cloud.account(region)
        if self._role is None:
            raise CloudError(
                f"account {account} is not that of the credentials in use: say in teams/platform.toml,"
                " [fleet] role_arn, which role may read there"
            )
        return home.elsewhere(str(account), region or here, self._role.replace("{account}", str(account)))

    def stages(self, teams: Sequence[Team]) -> Iterator[tuple[Team, str, "Deployed | CloudError | None"]]:
        """Yields every stage with its environment; None where it is not deployed, the error out of reach."""

        def find(team: Team, stage: str) -> "Deployed | CloudError | None":
            settings = team.stages[stage]
            try:
                cloud = self.cloud(settings.account, settings.region)
                found = cloud.stack(team.stack_id(stage))
                return cloud.deployed_from(found) if found else None
            except CloudError as error:
                return error

        wanted = [(team, stage) for team in teams for stage in team.stages]
        with ThreadPoolExecutor(_READERS) as readers:
            yield from (
                (*each, found)
                for each, found in zip(wanted, readers.map(lambda w: find(*w), wanted), strict=True)
            )


class Sources:
    """What the repository would deploy: the templates of a synthesis that is up to date, and its history."""

    def __init__(self, root: Path, assembly: Path) -> None:
        """Takes the project's folder and where a synthesis may have left its templates."""
        self._root = root
        self._assembly = assembly if _is_current(root, assembly) else None
        self._lock = threading.Lock()
        self.revision = revision(root)

    def version(self, team: str, stack: str, deployed: str | None, template: Any) -> tuple[str, str]:
        """Returns how what is deployed stands to the repository, and how that is known."""
        written = self._assembly / f"{stack}.template.json" if self._assembly else None
        if written and written.is_file():
            if template_sha256(written.read_text(encoding="utf-8")) == template_sha256(template):
                return "current", "the template is the synthesized one"
            return "behind", "the synthesized template is another one"
        if deployed is None:
            return "unknown", "the template does not say its revision, and no synthesis is up to date"
        try:
            behind = team in self._changed(deployed.removesuffix("-dirty"))
        except ChangesError as error:
            return "unknown", str(error)
        short = deployed[:7]
        if deployed.endswith("-dirty"):
            return "unknown", f"deployed from {short} with changes that were not committed"
        if behind:
            return "behind", f"commits since {short} touch it"
        return "current", f"no commit since {short} touches it"

    def _changed(self, since: str) -> list[str]:
        with self._lock:
            return self._changed_once(since)

    @cache  # noqa: B019 - lives as long as the command
    def _changed_once(self, since: str) -> list[str]:
        return changed_teams(self._root, since)


def look(
    teams: Sequence[Team],
    platform: Platform,
    places: Places,
    sources: Sources,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """Returns a row for every stage, in the order of the teams; `on_progress` hears how many are read."""
    wanted = [(team, stage) for team in teams for stage in team.stages]
    on_progress(0, len(wanted))
    with ThreadPoolExecutor(_READERS) as readers:
        reading = [readers.submit(_row, team, stage, platform, places, sources) for team, stage in wanted]
        for done, _ in enumerate(as_completed(reading), 1):
            on_progress(done, len(wanted))
        return [each.result() for each in reading]


def page(fleet: Fleet) -> str:
    """Returns the fleet as one page of HTML that needs nothing but itself."""
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["ago"] = lambda when: ago(when, fleet.made_at)
    pages.filters["money"] = money
    pages.filters["gain"] = gain
    pages.filters["calls"] = calls
    return pages.get_template("fleet.html.jinja").render(fleet=fleet)


def ago(when: datetime | None, now: datetime) -> str:
    """Returns how long ago something was, in one unit; nothing for None."""
    if when is None:
        return ""
    minutes = max(0, round((now - when).total_seconds() / 60))
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{round(minutes / 60)} h ago" if minutes < 36 * 60 else f"{round(minutes / 60 / 24)} days ago"


def money(spend: Spend | None) -> str:
    """Returns what was spent of what may be, "-" for what is not known."""
    if spend is None or (spend.estimated is None and spend.budget is None):
        return "-"
    spent, budget = ("-" if each is None else f"{each:,.2f}" for each in (spend.estimated, spend.budget))
    currency = f" {spend.currency}" if spend.currency else ""
    return f"{spent}{currency}" if spend.budget is None else f"{spent} of {budget}{currency}"


def calls(found: Calls | None) -> str:
    """Returns how often the champion was called, "unknown" where nobody can say, "-" without one."""
    return "-" if found is None else "unknown" if found.count is None else f"{found.count:,}"


def gain(value: float | None) -> str:
    """Returns a gain with its sign, "-" for None."""
    return "-" if value is None else f"{value:+.3f}"


# --- one stage ---


@dataclass
class _Reader:
    """Reads a stage piece by piece; what fails is written down, and the next piece is read."""

    troubles: list[str] = field(default_factory=list)

    def __call__(self, what: str, read: Callable[[], Any], otherwise: Any = None) -> Any:
        try:
            return read()
        except Exception as error:
            # Any: what is wrong with one piece must not hide the others.
            self.troubles.append(f"{what}: {error or type(error).__name__}")
            return otherwise


def _row(team: Team, stage: str, platform: Platform, places: Places, sources: Sources) -> Row:
    settings, stack, read = team.stages[stage], team.stack_id(stage), _Reader()
    known: dict[str, Any] = {
        "team": team.name,
        "stage": stage,
        "stack": stack,
        "owner": team.owner,
        "account": settings.account,
        "region": settings.region,
    }
    try:
        cloud = places.cloud(settings.account, settings.region)
        found = cloud.stack(stack)
    except Exception as error:
        # Any, as in _Reader: an account can be out of reach in many ways.
        return Row(**known, troubles=[str(error) or type(error).__name__])
    known |= {"region": cloud.session.region_name}
    known |= {"account": read("the account", cloud.account_id, settings.account)}
    if found is None:
        return Row(**known, troubles=read.troubles)
    known |= {
        "status": found["StackStatus"],
        "deployed_at": found.get("LastUpdatedTime") or found["CreationTime"],
        "drift": read("drift", lambda: _drift(cloud, stack, found)),
        "expiring": read("what expires", lambda: _expiring(cloud, team, stage), ()),
    }
    deployed: Deployed | None = read("the stack", lambda: cloud.deployed_from(found))
    if deployed is None:
        return Row(**known, troubles=read.troubles)
    runs: list[Run] = read("runs", deployed.runs, [])
    champion = read("the champion", lambda: _champion(deployed))
    # What serves is not idle: without knowing the champion nobody can tell.
    told_apart = not any(each.startswith("the champion: ") for each in read.troubles)
    running = {run.name for run in runs if run.status == "RUNNING"}
    return Row(
        **known,
        version=read("the version", lambda: _version(deployed, team, sources)),
        run=read("the last run", lambda: _last_run(deployed, runs)),
        champion=champion,
        calls=_calls(deployed, champion) if champion else None,
        spend=read("spend", lambda: _spend(deployed, team, platform)),
        approvals=read("approvals", lambda: list(_approvals(deployed, runs)), ()),
        idle=read(
            "deployments",
            lambda: (
                list(_idle(deployed, champion.deployment if champion else None, running))
                if told_apart
                else ()
            ),
            (),
        ),
        troubles=read.troubles,
    )


def _version(deployed: Deployed, team: Team, sources: Sources) -> Version:
    template = deployed.cloud.client("cloudformation").get_template(
        StackName=deployed.stack, TemplateStage="Original"
    )["TemplateBody"]
    called = revision_of(template)
    state, why = sources.version(team.name, deployed.stack, called, template)
    return Version(
        state=state,
        why=why,
        revision=called,
        template_sha256=template_sha256(template),
        reward=deployed.outputs["RewardVersion"].rpartition(":")[2],
    )


def _last_run(deployed: Deployed, runs: Sequence[Run]) -> LastRun | None:
    if not runs:
        return None
    run = runs[0]
    decision = deployed.document(run, "decision.json") if run.status != "RUNNING" else None
    failure = deployed.document(run, "failure.json") if run.status not in ("RUNNING", "SUCCEEDED") else None
    said = failure or decision or {}
    return LastRun(
        name=run.name,
        status=run.status,
        started=run.started,
        promoted=bool(decision["promote"]) if decision and run.status == "SUCCEEDED" else None,
        gain=decision["gain"] if decision else None,
        sentence=str(said.get("sentence") or ""),
    )


def _champion(deployed: Deployed) -> Champion | None:
    arn = deployed.champion()
    if arn is None:
        return None
    bedrock = deployed.cloud.client("bedrock")
    serving = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    model = bedrock.get_custom_model(modelIdentifier=serving["modelArn"])
    run = model["modelName"].removeprefix(f"{deployed.stack}-")
    body = deployed.artifact(f"runs/{run}/decision.json")
    # The files of a throw-away stage's runs expire; the champion goes on.
    decision = json.loads(body) if body else {}
    return Champion(
        deployment=arn,
        model=serving["modelArn"],
        run=run,
        since=serving.get("lastUpdatedAt") or serving.get("createdAt"),
        gain=decision.get("gain"),
        lower=decision.get("lower"),
        upper=decision.get("upper"),
        made=serving.get("createdAt"),
    )


def _calls(deployed: Deployed, champion: Champion) -> Calls:
    """Counts the champion's calls, of which those that measured it as a candidate were the first.

    Bedrock measures `Invocations` by `ModelId`. Its pages do not say whether that is the ARN of a deployment
    or its id, so both are asked for; and where CloudWatch knows no call at all, not even those of the
    measurement, the metric goes by another name, and nobody can say that the champion is idle.
    """
    now, days = datetime.now(UTC), _QUIET_AFTER.days
    names = (champion.deployment, champion.deployment.rpartition("/")[2])
    queries = [
        {
            "Id": f"calls{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/Bedrock",
                    "MetricName": "Invocations",
                    "Dimensions": [{"Name": "ModelId", "Value": name}],
                },
                "Period": int(_DAY.total_seconds()),
                "Stat": "Sum",
            },
        }
        for number, name in enumerate(names)
    ]
    since = max(now - _METRICS_KEPT, (champion.made or now) - _DAY)
    try:
        pages = (
            deployed.cloud.client("cloudwatch")
            .get_paginator("get_metric_data")
            .paginate(MetricDataQueries=queries, StartTime=since, EndTime=now)
        )
        by_day = [
            (day, count)
            for page in pages
            for result in page["MetricDataResults"]
            for day, count in zip(result["Timestamps"], result["Values"], strict=True)
        ]
    except Exception as error:
        # Any, as in _Reader; the rest of the row does not depend on it.
        return Calls(days=days, count=None, why=str(error) or type(error).__name__)
    if not by_day:
        return Calls(
            days=days, count=None, why="CloudWatch knows no call of it, not even those it was measured by"
        )
    # A day's value bears the time at which the day began.
    return Calls(
        days=days, count=round(sum(count for day, count in by_day if day > now - _QUIET_AFTER - _DAY))
    )


def _spend(deployed: Deployed, team: Team, platform: Platform) -> Spend:
    """Reads what the cost gate wrote down of this month's runs, and what the month's runs may cost."""
    month = f"{datetime.now(UTC):%Y-%m}"
    entries = [json.loads(deployed.artifact(key) or b"{}") for key in deployed.keys(f"ledger/{month}/")]
    return Spend(
        month=month,
        estimated=sum(float(each.get("high") or 0) for each in entries) if entries else None,
        budget=platform.budget_of(team).per_month,
        currency=platform.prices.currency if platform.prices else None,
    )


def _drift(cloud: Cloud, stack: str, found: Mapping[str, Any]) -> Drift:
    known = found.get("DriftInformation", {})
    drifted = known.get("StackDriftStatus") == "DRIFTED"
    return Drift(
        checked=known.get("LastCheckTimestamp"), findings=cloud.differences(stack) if drifted else ()
    )


def _approvals(deployed: Deployed, runs: Sequence[Run]) -> Iterator[Approval]:
    for run in runs:
        asked = deployed.document(run, "approval.json") if run.status == "RUNNING" else None
        # What waits can still be answered, which takes the token.
        if asked and asked.get("token"):
            yield Approval(run=run.name, until=asked.get("until"))


def _idle(deployed: Deployed, champion: str | None, running: set[str]) -> Iterator[Idle]:
    """Finds deployments by the name the workflow gives them: reading their tags would take a call each."""
    ours = re.compile(re.escape(deployed.stack) + r"-(run-[0-9a-f]{16})")
    pages = (
        deployed.cloud.client("bedrock")
        .get_paginator("list_custom_model_deployments")
        .paginate(nameContains=deployed.stack)
    )
    for each in (each for page in pages for each in page["modelDeploymentSummaries"]):
        name = ours.fullmatch(each["customModelDeploymentName"])
        if name is None or each["customModelDeploymentArn"] == champion or name[1] in running:
            continue
        if each["createdAt"] < datetime.now(UTC) - _IDLE_AFTER:
            yield Idle(
                name=each["customModelDeploymentName"],
                arn=each["customModelDeploymentArn"],
                since=each["createdAt"],
            )


def _expiring(cloud: Cloud, team: Team, stage: str) -> list[Expiry]:
    found = []
    # A throw-away stage may have been given a day to end on.
    if expires := team.stages[stage].expires:
        found.append(Expiry(what=f"stage {stage}", when=expires))
    lifecycle = (
        cloud.client("bedrock")
        .get_foundation_model(modelIdentifier=team.model.base)["modelDetails"]
        .get("modelLifecycle", {})
    )
    end = lifecycle.get("endOfLifeTime")
    if lifecycle.get("status") == "LEGACY" or (end and end - datetime.now(UTC) < _SOON):
        found.append(Expiry(what=f"base model {team.model.base}", when=end.date() if end else None))
    return found


def _needs(row: Row) -> Iterator[str]:
    yield from (f"cannot be read: {trouble}" for trouble in row.troubles)
    if row.status and not row.status.endswith("_COMPLETE"):
        yield f"the stack is {row.status}"
    elif row.status and "ROLLBACK" in row.status:
        yield f"the last deployment failed: {row.status}"
    for approval in row.approvals:
        yield f"{approval.run} waits for approval" + (
            f" until {_day(approval.until)}" if approval.until else ""
        )
    if row.run and row.run.status in ("FAILED", "TIMED_OUT"):
        yield f"{row.run.name} failed: {row.run.sentence or 'it left no reason'}"
    if row.spend and row.spend.budget and (row.spend.estimated or 0) > 0.8 * row.spend.budget:
        yield f"{money(row.spend)} spent this month"
    if row.drift:
        yield from (f"changed by hand: {finding}" for finding in row.drift.findings)
    for idle in row.idle:
        yield f"deployment {idle.name} serves nobody since {idle.since:%Y-%m-%d}"
    if row.calls and row.calls.count == 0 and row.champion and _older(row.champion.since, _QUIET_AFTER):
        yield f"nobody has called the champion for {row.calls.days} days: {row.champion.deployment}"
    for expiry in row.expiring:
        yield f"{expiry.what} ends" + (f" on {expiry.when}" if expiry.when else " (legacy, no date yet)")
    if row.version and row.version.state == "behind":
        yield f"is behind the repository: {row.version.why}"


def _older(when: datetime | None, age: timedelta) -> bool:
    return when is not None and when < datetime.now(UTC) - age


def _day(moment: str) -> str:
    """Returns a moment of a document for a person."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return moment


def _is_current(root: Path, assembly: Path) -> bool:
    """Says whether a synthesis is younger than everything it was made of."""
    manifest = assembly / "manifest.json"
    if not manifest.is_file():
        return False
    made = manifest.stat().st_mtime
    files = (
        path
        for name in _SOURCES
        for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))
    )
    return all(
        path.stat().st_mtime <= made for path in files if path.is_file() and "__pycache__" not in path.parts
    )


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
