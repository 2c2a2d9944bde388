"""Brings a team's stack into an AWS with the real CDK CLI, the same way on a laptop and in a pipeline."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rft.changes import revision

# A line of the CLI: stack | 3/56 | 10:12:01 AM | CREATE_COMPLETE | AWS::KMS::Key | Key (Key961B73FD)
_PROGRESS = re.compile(r"\|\s*(\d+)/(\d+)\s*\|[^|]*\|[^|]*\|[^|]*\|\s*(\S+)")

_QUIET = ("--no-notices", "--no-version-reporting", "--ci")
# What has been synthesized needs no packages any more; cdk.json's command would build them, and say so.
_BUILT = ("--build", "true")


class DeliveryError(Exception):
    """The CDK CLI refused or failed; the message ends with what it said last."""


class Cdk:
    """The project's own, pinned CDK CLI, run in the project's folder with a given AWS environment."""

    def __init__(self, root: Path, environment: Mapping[str, str], log: Path) -> None:
        """Takes the project's folder, the environment to run with, and the file to keep the output in."""
        self._root = root
        self._environment = dict(environment)
        # With this set, every synthesis compiles aws_cdk again (+4 s).
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._environment["PATH"] = f"{root / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
        self._log = log

    def bootstrap(self, account: str, region: str) -> None:
        """Prepares an account for CDK; does nothing where that is done already."""
        # --app '' : bootstrapping an account named in full needs no synthesis.
        self._run(["bootstrap", f"aws://{account}/{region}", "--app", ""], "bootstrap")

    def synth(self, context: Mapping[str, str], output: Path) -> None:
        """Synthesizes what the context asks for into a folder, without looking at any account.

        Raises:
            DeliveryError: Synthesis failed.
        """
        self._run(["synth", "--quiet", *self._context(context), "--output", str(output)], "synth")

    def diff(self, stack: str, assembly: Path) -> str:
        """Returns what `cdk diff` says of a synthesized stack beside the deployed one.

        Raises:
            DeliveryError: They cannot be compared.
        """
        said: list[str] = []
        self._run(["diff", stack, "--app", str(assembly), *_BUILT, "--strict"], f"diff {stack}", said.append)
        return "".join(said)

    def deploy_assembly(self, stacks: Sequence[str], assembly: Path) -> None:
        """Deploys stacks exactly as they were synthesized.

        Raises:
            DeliveryError: A deployment failed; CloudFormation has rolled it back.
        """
        never = ["--require-approval", "never"]
        self._run(
            ["deploy", *stacks, "--app", str(assembly), *_BUILT, *never, "--concurrency", "4"],
            f"deploy {' '.join(stacks)}",
        )

    def deploy(
        self,
        stack: str,
        context: Mapping[str, str],
        on_progress: Callable[[int, int, str], None] = lambda _done, _total, _name: None,
    ) -> None:
        """Synthesizes and deploys one stack; `on_progress` hears resources done, in all, and the last name.

        Raises:
            DeliveryError: Synthesis or deployment failed.
        """
        # The packages of the context's target are there already: the caller packaged them.
        arguments = [
            "deploy",
            stack,
            "--require-approval",
            "never",
            "--progress",
            "events",
            *_BUILT,
        ]
        arguments += self._context(context)

        def on_line(line: str) -> None:
            if found := _PROGRESS.search(line):
                on_progress(int(found[1]), int(found[2]), found[3])

        self._run([*arguments, "--output", str(self._log.parent / "cdk.out")], f"deploy {stack}", on_line)

    def _context(self, context: Mapping[str, str]) -> list[str]:
        """The context as arguments, with what the sources are called: synthesis itself does not ask git."""
        called = revision(self._root)
        known = {**context, **({"revision": called} if called else {})}
        return [word for key, value in known.items() for word in ("--context", f"{key}={value}")]

    def _run(
        self, arguments: Sequence[str], what: str, on_line: Callable[[str], None] = lambda _line: None
    ) -> None:
        cli = self._root / "node_modules" / ".bin" / "cdk"
        if not cli.exists():
            raise DeliveryError(
                "the CDK CLI is not installed: run `make install` (it is pinned in package.json)"
            )
        said: list[str] = []
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._log.open("a", encoding="utf-8") as log,
            subprocess.Popen(
                [str(cli), *arguments, *_QUIET],
                cwd=self._root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # Its own group, so that Ctrl-C reaches us first and we end the CLI and the app it runs.
                start_new_session=True,
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    log.write(line)
                    said.append(line.rstrip())
                    on_line(line)
                code = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
        if code != 0:
            tail = "\n".join(f"  {line}" for line in said[-25:])
            raise DeliveryError(
                f"cdk {what} failed (exit code {code}); all it said is in {self._log}:\n{tail}"
            )
