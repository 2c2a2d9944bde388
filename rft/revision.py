"""The project as it was at a git revision: its files in a folder of their own, and its code run on them."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft.changes import ChangesError, git

# All that decides what a team's settings mean and what its reward function does.
_CODE = ("infra", "lambdas", "rft", "requirements", "teams/platform.toml")
# Longer than any reward may take for some thousand completions; a hanging one must not hang CI.
_SECONDS = 600


class OldCodeError(Exception):
    """The code of the revision cannot say it; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A revision's files.

    Attributes:
        name: As somebody wrote it: a branch, a tag, a commit.
        commit: The commit that is compared with: where the history of today's files left that of `name`.
        root: The folder the files are in, laid out like the project.
        team: The team's name.
    """

    name: str
    commit: str
    root: Path
    team: str

    @property
    def folder(self) -> Path:
        """The team's folder, which may not have been there."""
        return self.root / "teams" / self.team

    def settings(self) -> dict[str, Any]:
        """Returns what the code of then made of the settings of then (see `rescore`).

        Raises:
            OldCodeError: It could not be run, or the settings had faults.
        """
        return self._ask()

    def scores(self, events: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], list[float]]:
        """Scores completions with the reward function of then; returns its range, and a score per event.

        Raises:
            OldCodeError: It could not.
        """
        path = self.root / "events.json"
        path.write_text(json.dumps(list(events)), encoding="utf-8")
        found = self._ask(path)
        low, high = found["range"]
        return (low, high), found["scores"]

    def _ask(self, *events: Path) -> dict[str, Any]:
        answer = self.root / "answer.json"
        answer.unlink(missing_ok=True)
        program = Path(__file__).with_name("rescore.py")
        # -P: the folder of the program is full of today's code. -B: nobody reads what is compiled here again.
        command = [sys.executable, "-P", "-B", str(program), str(self.root), self.team, str(answer)]
        try:
            done = subprocess.run(
                [*command, *map(str, events)],
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": str(self.root)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OldCodeError(f"it took longer than {_SECONDS} s") from error
        if not answer.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise OldCodeError(said[-1] if said else f"it ended with exit code {done.returncode}")
        found: dict[str, Any] = json.loads(answer.read_bytes())
        if faults := found.get("faults"):
            raise OldCodeError(f"its settings had faults ({faults[0]})")
        return found


@contextmanager
def revision(root: Path, team: str, name: str) -> Iterator[Revision]:
    """Lays out the project as it was at a revision, for as long as the context lasts.

    What counts is the commit at which today's history left that of the revision: what others have merged
    since is no change of ours.

    Raises:
        ChangesError: There is no such revision, or this is no git checkout.
    """
    commit = merge_base(root, name)
    wanted = [*_CODE, f"teams/{team}"]
    to = f"read the files of {name}"
    there = git(root, "ls-tree", "-z", "--name-only", commit, "--", *wanted, to=to).decode().split("\0")
    with tempfile.TemporaryDirectory(prefix="rft-check-") as folder:
        place = Path(folder).resolve()
        if paths := [path for path in there if path]:
            content = git(root, "archive", "--format=tar", commit, "--", *paths, to=to)
            try:
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(place, filter="data")
            except tarfile.TarError as error:
                raise ChangesError(f"the files of {name} cannot be laid out: {error}") from error
        yield Revision(name=name, commit=commit, root=place, team=team)


def merge_base(root: Path, name: str) -> str:
    """Returns the commit at which the history of today's files left that of a revision.

    Raises:
        ChangesError: There is no such revision, or this is no git checkout.
    """
    to = f"compare with {name}"
    words = ("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    found = git(root, *words, to=to).decode().strip()
    try:
        return git(root, "merge-base", found, "HEAD", to=to).decode().strip()
    except ChangesError:
        # Without a common history, as in a shallow checkout, the revision itself is all there is.
        return found
