"""Shows a run while it happens: its steps with their times, and the reward as the reward function sees it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rft.cloud import Deployed, Run

_BARS = "▁▂▃▄▅▆▇█"
_SECONDS_BETWEEN_LOOKS = {"embedded": 0.5, "account": 15.0}


@dataclass(frozen=True)
class Step:
    """One state of the workflow as a person follows it; `ended` is None while it lasts."""

    name: str
    started: datetime
    ended: datetime | None


def steps(entered: Sequence[tuple[str, str, datetime]], stopped: datetime | None) -> list[Step]:
    """Folds the states a run entered (type, name, time) into the steps a person follows.

    Choices take no time and are left out. Waiting for something and looking at it is one step, however often.
    """
    found: list[tuple[str, datetime]] = []
    waiting = False
    for kind, name, at in entered:
        if kind in {"Choice", "Pass", "Fail", "Succeed"}:
            continue
        # What follows a Wait is the look at what was waited for.
        looking, waiting = waiting, kind == "Wait"
        if not looking and not (found and found[-1][0] == name):
            found.append((name, at))
    ends = [*(at for _, at in found[1:]), stopped]
    # A run that has only just begun has entered no state yet, and then there is one end too many.
    return [Step(name=name, started=at, ended=end) for (name, at), end in zip(found, ends, strict=False)]


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """Draws values as one line of bars, scaled to their own range, folded to at most `width` by averaging."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    folded = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(folded), max(folded)
    if high - low < 1e-9:
        return _BARS[3] * len(folded)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in folded)


def duration(span: timedelta) -> str:
    """Writes a time span as 0:07, 12:30 or 3:04:05."""
    seconds = max(0, int(span.total_seconds()))
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Watch:
    """What is known of a run now; renders itself."""

    def __init__(self, deployed: Deployed, run: Run) -> None:
        """Takes the environment and the run to follow."""
        self._deployed = deployed
        self.run = run
        self.steps: list[Step] = []
        self._batches: list[tuple[datetime, Mapping[str, Any]]] = []
        self._spinner = Spinner("dots")

    def look(self) -> None:
        """Reads the run's present state from AWS."""
        self.run = self._deployed.run(self.run.name)
        self.steps = steps(self._deployed.entered(self.run), self.run.stopped)
        since = self._batches[-1][0] if self._batches else self.run.started
        seen = len([1 for at, _ in self._batches if at == since])
        fresh = list(self._deployed.rewards(since))
        # The log is read again from the last millisecond seen, so that no batch of that millisecond is lost.
        self._batches += fresh[seen:] if self._batches else fresh

    @property
    def running(self) -> bool:
        """Tells whether the run still goes on."""
        return self.run.status == "RUNNING"

    def rewards(self, step: Step) -> list[float]:
        """Returns the mean reward of each batch scored during a step."""
        return [
            float(line["reward_mean"])
            for at, line in self._batches
            if at >= step.started and (step.ended is None or at <= step.ended)
        ]

    def _line(self, step: Step) -> tuple[RenderableType, str, str, Text]:
        now = datetime.now(tz=UTC)
        took = duration((step.ended or now) - step.started)
        values = self.rewards(step)
        note = Text()
        if values:
            share = max(1, len(values) // 5)
            first, last = sum(values[:share]) / share, sum(values[-share:]) / share
            note = Text.assemble((sparkline(values), "cyan"), f"  reward {first:.2f} → {last:.2f}")
        if step.ended is None and self.running:
            if step.name == "Wait for approval":
                note = Text("a person has to answer: rft approve, or rft reject", "yellow")
            return self._spinner, step.name, took, note
        failed = step is self.steps[-1] and self.run.status not in {"SUCCEEDED", "RUNNING"}
        return Text("✗", "red") if failed else Text("✓", "green"), step.name, took, note

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        """Renders the run's steps as a table."""
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", style="dim")
        table.add_column(no_wrap=True)
        for step in self.steps:
            table.add_row(*self._line(step))
        yield Group(Text.assemble((self.run.name, "bold"), (f"  {self._deployed.stack}", "dim")), table)

    def follow(self, console: Console) -> Run:
        """Shows the run until it ends and returns it: live on a terminal, a line a step elsewhere."""
        pause = _SECONDS_BETWEEN_LOOKS["embedded" if self._deployed.cloud.endpoint else "account"]
        if console.is_terminal:
            with Live(self, console=console, refresh_per_second=8):
                self._until_ended(pause)
        else:
            told = 0
            for _ in self._looks(pause):
                done = [step for step in self.steps if step.ended is not None]
                for step in done[told:]:
                    _, name, took, note = self._line(step)
                    console.print(f"  {name} ({took}) {note.plain}".rstrip(), highlight=False, soft_wrap=True)
                told = max(told, len(done))
        return self.run

    def _looks(self, pause: float) -> Iterator[None]:
        while True:
            self.look()
            yield
            if not self.running:
                return
            time.sleep(pause)

    def _until_ended(self, pause: float) -> None:
        for _ in self._looks(pause):
            pass
