"""`make bench`: how long a person waits, beside an empty CDK app that is timed in the same rounds.

Seconds differ from machine to machine and from hour to hour; the ratio to the empty app is what to compare.
Each round runs every command once, so that a busy moment of the machine falls on all of them alike.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "an empty CDK app"
SYNTH_ROUNDS = 5
LOCAL_ROUNDS = 3
TEAMS = (1, 10, 100)


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


def with_teams(folder: Path, count: int) -> Path:
    """A copy of the project in which the first sample team stands `count` times and no other does."""
    for name in ("infra", "lambdas", "rft", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "cdk.json", "pyproject.toml", "package.json"):
        shutil.copy2(ROOT / name, folder / name)
    for name in (".venv", "node_modules"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(
        ROOT / "teams",
        folder / "teams",
        ignore=lambda _folder, names: {n for n in names if (ROOT / "teams" / n).is_dir()},
    )
    for number in range(count):
        shutil.copytree(ROOT / "teams" / "quotes", folder / "teams" / f"team-{number:03}")
    return folder


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
    print(f"{'':44}{'median':>9}{'fastest':>9}{'slowest':>9}   times {BASELINE}")
    for command in commands:
        middle = statistics.median(command.seconds)
        low, high = min(command.seconds), max(command.seconds)
        print(f"{command.name:44}{middle:7.2f} s{low:7.2f} s{high:7.2f} s{middle / unit:8.2f}")
    print()


def main() -> None:
    """Times synthesis first, then the whole rehearsal, each beside its own runs of the empty app."""
    empty = "import aws_cdk; aws_cdk.App(outdir='empty', builtin_cloud_formation_validation=False).synth()"
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        scratch = Path(name)

        def baseline() -> Command:
            arguments = [sys.executable, "-c", empty]
            return Command(name=BASELINE, arguments=arguments, folder=scratch)

        synths = [baseline()]
        for count in TEAMS:
            synth = [
                "node_modules/.bin/cdk",
                "synth",
                "--quiet",
                "--no-notices",
                "--context",
                "team=team-000",
            ]
            one = f"cdk synth of one team among {count}"
            synths.append(Command(name=one, arguments=synth, folder=with_teams(scratch / str(count), count)))
        measure(synths, SYNTH_ROUNDS)
        show(synths, synths[0])

        if (ROOT / ".rft" / "embedded" / "embedded.json").exists():
            sys.exit(
                "bench: an embedded AWS is running already: stop it with `rft down`, then run this again"
            )
        whole = [baseline(), Command(name="make local, warm", arguments=["make", "local"], folder=ROOT)]
        measure(whole, LOCAL_ROUNDS)
        show(whole, whole[0])


if __name__ == "__main__":
    main()
