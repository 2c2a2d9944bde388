"""Commands that are timed in rounds, each beside a baseline that is timed in the same rounds.

Seconds differ from machine to machine and from hour to hour; the ratio to the baseline is what to compare.
Each round runs every command once, so that a busy moment of the machine falls on all of them alike.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(kw_only=True)
class Command:
    """One thing to time, and its seconds, round by round."""

    name: str
    arguments: Sequence[str]
    folder: Path
    seconds: list[float] = field(default_factory=list)

    def run(self, environment: Mapping[str, str]) -> float:
        """Runs it once and returns its seconds; a failure ends the benchmark with the last words said."""
        start = time.perf_counter()
        done = subprocess.run(
            self.arguments,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = "\n".join(done.stdout.splitlines()[-25:])
            sys.exit(f"bench: {self.name} failed (exit code {done.returncode}):\n{said}")
        return time.perf_counter() - start


def environment() -> dict[str, str]:
    """This shell's environment: the project's programs first, no AWS account, bytecode files allowed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | {
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "us-east-1",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
    }


def measure(commands: Sequence[Command], rounds: int) -> None:
    """Runs all commands in turn, once to warm up and then `rounds` times to count."""
    for number in range(rounds + 1):
        for command in commands:
            what = "warming up" if number == 0 else f"round {number} of {rounds}"
            progress(f"{what}: {command.name}")
            seconds = command.run(environment())
            if number:
                command.seconds.append(seconds)
    progress("")


def progress(text: str) -> None:
    """Replaces the line that a terminal shows meanwhile; nothing where the output is kept."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def show(commands: Sequence[Command], baseline: Command) -> None:
    """Prints a line per command: median, fastest, slowest, and the median as a multiple of the baseline's."""
    unit = statistics.median(baseline.seconds)
    print(f"{'':44}{'median':>9}{'fastest':>9}{'slowest':>9}   times {baseline.name}")
    for command in commands:
        middle = statistics.median(command.seconds)
        low, high = min(command.seconds), max(command.seconds)
        print(f"{command.name:44}{middle:7.2f} s{low:7.2f} s{high:7.2f} s{middle / unit:8.2f}")
    print()
