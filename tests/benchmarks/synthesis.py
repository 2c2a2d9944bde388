"""How long a person waits for a template and for a whole rehearsal, beside an empty CDK app."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.commands import ROOT, Command, measure, show

BASELINE = "an empty CDK app"
EMPTY = "import aws_cdk; aws_cdk.App(outdir='empty', builtin_cloud_formation_validation=False).synth()"
SYNTH_ROUNDS = 5
LOCAL_ROUNDS = 3
TEAMS = (1, 10, 200)


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


def empty_app(folder: Path) -> Command:
    """The baseline: an app without a stack."""
    return Command(name=BASELINE, arguments=[sys.executable, "-c", EMPTY], folder=folder)


def synthesis() -> None:
    """Times the synthesis of one team, however many teams there are."""
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        scratch = Path(name)
        synths = [empty_app(scratch)]
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


def rehearsal() -> None:
    """Times `make local` when everything is installed and packaged."""
    if (ROOT / ".rft" / "embedded" / "embedded.json").exists():
        sys.exit("bench: an embedded AWS is running already: stop it with `rft down`, then run this again")
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        whole = [
            empty_app(Path(name)),
            Command(name="make local, warm", arguments=["make", "local"], folder=ROOT),
        ]
        measure(whole, LOCAL_ROUNDS)
        show(whole, whole[0])
