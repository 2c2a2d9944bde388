r"""Compares formulas by computer algebra, in a process of its own, because no time limit holds in this one.

Math-Verify reads LaTeX into SymPy and decides whether two formulas are the same. Both can be made to run for
hours by ten characters (``9^{9^{9^9}}``), partly inside one C call that no signal handler ever interrupts,
and Math-Verify's own limits are signals, which the main thread alone can have. So a child process imports the
libraries once, and then forks for each comparison: the fork has hard limits on processor time and memory,
set by the kernel, and is killed at either. A kill costs nothing but the comparison: the libraries stay
imported, and every comparison starts from the very same state, so its verdict depends on nothing but itself.

Requests and answers are lines on two pipes; there are no queues, semaphores or shared memory, which Lambda
does not have.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Literal, cast

from lambdas.contract import InfrastructureError

Verdict = Literal["equal", "different", "unreadable", "over"]
Percent = Literal["fraction", "points"]

# Waiting for the child: to import the libraries (on a slow machine, without compiled files), and for a
# verdict, for each second of processor time, which may come in small slices.
_START_SECONDS = 120.0
_PATIENCE = 30.0


class Algebra:
    """The child process, started by the first comparison and again whenever it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def compare(
        self,
        expected: str,
        answers: Sequence[str],
        *,
        percent: Percent = "fraction",
        absolute_tolerance: float = 0.0,
        relative_tolerance: float = 0.0,
        seconds: int = 2,
    ) -> Verdict:
        """Tells whether every answer is the expected formula.

        Args:
            expected: The right formula, in LaTeX.
            answers: The formulas to judge. The order matters: ``x = 5`` expected and ``5`` given is right.
            percent: What ``12%`` is: 12 hundredths, or 12 points.
            absolute_tolerance: How far off one number may be.
            relative_tolerance: The same, as a share of the expected number.
            seconds: Processor time for all of it.

        Returns:
            ``equal``, ``different``, ``unreadable`` (the expected one is no formula) or ``over`` (a limit was
            passed, so nobody knows).

        Raises:
            InfrastructureError: The child cannot be started, or does not answer.
        """
        request = {
            "expected": expected,
            "answers": list(answers),
            "percent": percent,
            "absolute_tolerance": absolute_tolerance,
            "relative_tolerance": relative_tolerance,
            "seconds": seconds,
        }
        with self._lock:
            try:
                said = self._ask(json.dumps(request), seconds * _PATIENCE)
            # Whatever ends this call, also from outside, leaves an answer in the pipe that nobody asked for.
            except BaseException:
                self.close()
                raise
        return cast("Verdict", said)

    def close(self) -> None:
        """Ends the child, if there is one."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            # Its session, so that a fork at work ends as well.
            os.killpg(child.pid, signal.SIGKILL)
        # Closes the pipes and waits, so that nothing is left of it.
        with contextlib.suppress(OSError):
            child.communicate()

    def _ask(self, request: str, seconds: float) -> str:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._start()
        child = cast("subprocess.Popen[bytes]", self._child)
        try:
            to_child = cast("IO[bytes]", child.stdin)
            to_child.write(request.encode() + b"\n")
            to_child.flush()
        except OSError as error:
            raise InfrastructureError(f"the algebra process is gone: {error}") from None
        return self._line(seconds)

    def _start(self) -> None:
        # A clean environment: no credentials, and one order of hashes for every run.
        environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"}
        library_path = os.environ.get("LD_LIBRARY_PATH")
        if library_path is not None:
            environment["LD_LIBRARY_PATH"] = library_path
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "lambdas.algebra"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        said = self._line(_START_SECONDS)
        if said != "ready":
            raise InfrastructureError(
                f"the algebra process cannot start: {said}. It needs the packages of "
                "requirements/rewards/math_answer.txt beside the project's code."
            )

    def _line(self, seconds: float) -> str:
        from_child = cast("IO[bytes]", cast("subprocess.Popen[bytes]", self._child).stdout)
        ready, _, _ = select.select([from_child], [], [], seconds)
        if not ready:
            raise InfrastructureError(f"the algebra process has not answered for {seconds:g} s")
        # One line is one write, and shorter than what a pipe takes at once.
        line = os.read(from_child.fileno(), 4096)
        if not line:
            raise InfrastructureError("the algebra process ended without an answer")
        return line.decode("utf-8", "replace").strip()


def _main() -> None:
    """Runs the child."""
    # Answers have a pipe of their own: whatever a library prints would be read as one.
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        from lambdas.equivalence import serve, warm_up

        warm_up()
    except Exception as error:
        os.write(answers, f"{type(error).__name__}: {error}"[:1000].encode("utf-8", "replace"))
        return
    os.write(answers, b"ready\n")
    serve(answers)


if __name__ == "__main__":
    _main()
