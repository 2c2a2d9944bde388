"""The `rft` command as a person uses it: its verbs on the embedded AWS, and what it says to mistakes."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.conftest import package_repository, shorten

REPOSITORY = Path(__file__).resolve().parents[2]


class Command:
    """The command in a copy of the project, so that its data directory is not the real one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("infra", "lambdas", "rft", "requirements", "teams"):
            shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
        for name in ("app.py", "cdk.json"):
            shutil.copy(REPOSITORY / name, root / name)
        for name in (".venv", "node_modules"):
            (root / name).symlink_to(REPOSITORY / name)
        shutil.copytree(package_repository(), root / "build" / "embedded")
        shorten(root / "teams/quotes/team.toml")

    def __call__(self, *words: str, seconds: float = 240, **variables: str) -> tuple[int, str]:
        """Runs `rft` with these words; returns its exit code and all it said, on one line's width."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
        environment |= {"PYTHONPATH": str(self.root), "COLUMNS": "200", "AWS_EC2_METADATA_DISABLED": "true"}
        environment |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        done = subprocess.run(
            [sys.executable, "-m", "rft", *words],
            cwd=self.root,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def processes(self) -> list[str]:
        """The command lines of all processes that know this copy's folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.root) in line:
                    found.append(line)
        return found


@pytest.fixture(scope="module")
def rft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("command"))
    yield command
    command("down")


def test_a_rehearsal_that_is_kept_answers_every_verb_until_it_is_down(rft: Command):
    code, said = rft("up", "quotes", "--keep")
    assert code == 0, said
    [report] = (rft.root / ".rft/reports").rglob("report.html")
    assert str(report) in said

    code, said = rft("status")
    assert code == 0, said
    assert re.search(r"quotes +dev +CREATE_COMPLETE +run-[0-9a-f]{16}", said)
    assert re.search(r"support +prod +not deployed", said)

    code, said = rft("run", "quotes")
    assert code == 0, said
    assert "nothing was started" in said

    report.unlink()
    code, said = rft("report", "quotes")
    assert (code, report.exists()) == (0, True), said

    code, said = rft("watch", "quotes")
    assert code == 0, said
    assert "Decide" in said

    code, said = rft("run", "quotes", "--set", "epochCount=51")
    assert code == 1
    assert "epochCount" in said
    assert "Traceback" not in said

    code, said = rft("up", "quotes", "--port", "1")
    assert code == 1
    assert "rft down" in said

    assert rft("down")[0] == 0
    assert rft.processes() == []
    assert sorted(path.name for path in (rft.root / ".rft").iterdir()) == ["reports"]


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        (["up", "nobody"], {}, "teams/nobody"),
        (["up", "quotes", "--stage", "moon"], {}, "has no stage 'moon' (stages: dev, prod)"),
        (["up", "quotes"], {"PATH": "/nowhere"}, "node is not on the PATH"),
        (["run", "quotes", "--set", "epochCount"], {}, "expected NAME=VALUE"),
        (["run", "quotes"], {}, "set AWS_REGION"),
        (["run", "quotes"], {"AWS_REGION": "us-east-1"}, "no usable AWS credentials"),
    ],
)
def test_fails_with_one_clear_message(
    rft: Command, words: list[str], variables: dict[str, str], expected: str
):
    code, said = rft(*words, **variables)
    assert code == 1
    assert expected in said
    assert "Traceback" not in said


def test_fails_when_the_port_is_taken(rft: Command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = rft("up", "quotes", "--port", str(port))
    assert code == 1
    assert str(port) in said
    assert "Traceback" not in said
    assert rft.processes() == []
