"""Runs hostile Python beside a reward function, and lets it answer questions but never judge.

Four processes, each of which knows less than the one before:

- The *reward function* has the row, the credentials and the network. It starts the warden, hands over a
  completion with its tests, and reads verdicts (``Sandbox``).
- The *warden* is a program of its own, started with an empty environment and no inherited descriptor. It
  forks the other two, times them and ends them. It never reads a byte that is meant for either, so every
  process it forks starts from the same memory, in which there is nothing to find.
- The *examiner* is forked once per completion. It knows the tests and what they expect, and runs none of
  the completion's code (``examination.py``).
- The *candidate* is forked once per test. It runs the completion's code (``candidate.py``), and is told
  nothing but what to call with which arguments, or what stands on its standard input. Before it is given any
  code it gives up what ``confinement.py`` says.

``docs/sandbox.md`` says what that is worth.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lambdas.confinement import CallFilter

# What the reward function waits beyond the time a completion has, before it takes the warden for broken.
_GRACE_SECONDS = 10.0

# A candidate that waits (for what, with nothing around it?) gets this many times its processor time: as much
# as one that computes needs by the clock on the third of a processor that a small Lambda function has. That a
# busy machine lets it stand in line counts up to the second factor only.
_WAIT_FACTOR = 5.0
_WALL_FACTOR = 20.0

# Characters of verdicts that are read.
_LONGEST_REPORT = 4_000_000

# Loaded once, in the warden, so that a candidate that imports them finds them there and pays nothing; the
# second part is what the first loads lazily, which a candidate could not.
_LOADED = """
    abc array base64 binascii bisect calendar cmath codecs collections.abc contextlib copy csv dataclasses
    difflib enum functools hashlib heapq html inspect io keyword locale numbers pprint queue random secrets
    statistics string textwrap timeit traceback typing unicodedata urllib.parse uuid warnings weakref zlib
    _strptime encodings.ascii encodings.idna encodings.latin_1 encodings.punycode encodings.rot_13
    encodings.hex_codec encodings.base64_codec encodings.unicode_escape encodings.raw_unicode_escape
    encodings.utf_16 encodings.utf_32 encodings.cp1252 linecache tokenize
"""
# The same of newer interpreters only: long numbers as text, annotations, tracebacks.
_LOADED_IF_THERE = "_pylong annotationlib _colorize"

# The warden's first words: nothing but this package is to be found on its way.
_START = """
import sys
_, package, control, filtered = sys.argv
sys.path.insert(0, package)
from lambdas.sandbox import keep
sys.path.remove(package)
keep(int(control), filtered == "filtered")
"""


class SandboxError(RuntimeError):
    """The sandbox cannot run here, or broke."""


class Sandbox:
    """A running warden, and the way to have completions examined.

    Calls from several threads take turns. A process that was forked with a sandbox in it has to make its
    own.

    Attributes:
        filtered: Whether the kernel took the system-call filter.
        owner: The process that may use it.

    Args:
        filtered: False leaves the filter out where the kernel would take it, as some systems do.

    Raises:
        SandboxError: The limits do not hold on this system.
    """

    def __init__(self, *, filtered: bool = True) -> None:
        self._lock = threading.Lock()
        self.owner = os.getpid()
        self._control, theirs = socket.socketpair()
        # Nothing of our environment: the loader's path is what an interpreter in an unusual place needs, a
        # fixed hash seed makes sets come out in the same order every time.
        environment = {
            "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib",
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "PYTHON_DISABLE_REMOTE_DEBUG": "1",
            "TZ": "UTC",
        }
        package = str(Path(__file__).resolve().parent.parent)
        arguments = [package, str(theirs.fileno()), "filtered" if filtered else "unfiltered"]
        try:
            with theirs:
                self._warden = subprocess.Popen(
                    [sys.executable, "-P", "-s", "-S", "-B", "-c", _START, *arguments],
                    env=environment,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            self._control.close()
            raise SandboxError(f"Python cannot be started in a process of its own: {error}") from error
        atexit.register(self.close)
        try:
            self._control.settimeout(30.0)
            state = _message(self._control)
        except (OSError, ValueError) as error:
            self.close()
            raise SandboxError(f"the sandbox did not start: {error}") from error
        if not state["held"]:
            self.close()
            raise SandboxError(
                "the limits that hold model-written code do not hold here: it could start processes or open "
                "files. Run as a user other than root, or where root can become another user"
            )
        self.filtered = bool(state["filtered"])

    def examine(
        self,
        job: Mapping[str, Any],
        *,
        test_seconds: float,
        total_seconds: float,
        memory_bytes: int,
    ) -> list[dict[str, Any]]:
        """Has one completion examined.

        Args:
            job: What the examiner is told: ``code``, ``tests`` and the rules of comparison.
            test_seconds: Processor time one test may take.
            total_seconds: Processor time after which no further test is begun.
            memory_bytes: Address space of a process.

        Returns:
            A verdict (``passed``, ``reason``, ``late``, ``broken``) per test, in order; fewer when the time
            was up by the clock.

        Raises:
            SandboxError: The warden does not answer any more; this sandbox is closed then.
        """
        with self._lock:
            finished = False
            wall = _WALL_FACTOR * (test_seconds + total_seconds)
            ours, theirs = socket.socketpair()
            try:
                with ours:
                    with theirs:
                        limits = {
                            "test": test_seconds,
                            "total": total_seconds,
                            "wall": wall,
                            "memory": memory_bytes,
                        }
                        socket.send_fds(self._control, [json.dumps(limits).encode()], [theirs.fileno()])
                    verdicts = _verdicts(ours, job, time.monotonic() + wall + _GRACE_SECONDS)
                self._control.settimeout(_GRACE_SECONDS)
                _message(self._control)
                finished = True
            except (OSError, ValueError) as error:
                raise SandboxError(f"the sandbox broke: {error}") from error
            finally:
                # Also when a time limit of the caller's interrupts: what is in flight belongs to nobody then.
                if not finished:
                    self.close()
            return verdicts

    def close(self) -> None:
        """Ends the warden and everything it started."""
        atexit.unregister(self.close)
        self._control.close()
        if self.owner != os.getpid() or self._warden.returncode is not None:
            return
        # It leads the group that all of them are in, and they cannot leave.
        with suppress(ProcessLookupError):
            os.killpg(self._warden.pid, signal.SIGKILL)
        self._warden.wait()

    @property
    def closed(self) -> bool:
        """Whether this sandbox can be used no more."""
        return self._control.fileno() < 0


def _verdicts(examiner: socket.socket, job: Mapping[str, Any], deadline: float) -> list[dict[str, Any]]:
    received = bytearray()
    # An examiner that ended early has said what it had to say.
    with suppress(BrokenPipeError, ConnectionResetError):
        examiner.settimeout(max(0.1, deadline - time.monotonic()))
        examiner.sendall(json.dumps(job).encode() + b"\n")
        while len(received) <= _LONGEST_REPORT:
            examiner.settimeout(max(0.1, deadline - time.monotonic()))
            piece = examiner.recv(65536)
            if not piece:
                break
            received += piece
    whole = received[: received.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


def _message(control: socket.socket) -> dict[str, Any]:
    text = control.recv(4096)
    if not text:
        raise ConnectionResetError("it ended")
    value: dict[str, Any] = json.loads(text)
    return value


def keep(control: int, filtered: bool) -> NoReturn:
    """Is the warden: serves until the reward function is gone.

    Args:
        control: The descriptor of the reward function's socket.
        filtered: Whether to use the system-call filter where the kernel takes it.
    """
    _Warden(socket.socket(fileno=control), filtered=filtered).run()


class _Warden:
    """Forks examiners and candidates for one reward function, and lets neither outlive its time."""

    def __init__(self, control: socket.socket, *, filtered: bool) -> None:
        import gc
        import importlib
        import random

        from lambdas import candidate, examination
        from lambdas.confinement import CallFilter, probe

        self._control = control
        self._run_candidate = candidate.run_candidate
        self._run_examiner = examination.run_examiner
        self._requests = examination.NEXT, examination.END
        self._null = os.open("/dev/null", os.O_RDWR)
        for name in _LOADED.split():
            importlib.import_module(name)
        for name in _LOADED_IF_THERE.split():
            with suppress(ImportError):
                importlib.import_module(name)
        # The same numbers in every candidate: a score should not depend on luck.
        random.seed(0)
        time.tzset()
        self._filter: CallFilter | None = CallFilter() if filtered and sys.platform == "linux" else None
        held, with_filter = probe(self._filter)
        if not with_filter or self._filter is None or not self._filter.prepare():
            self._filter = None
        self._wake, waker = socket.socketpair()
        for end in (self._wake, waker):
            end.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        # What is loaded now stays, and is shared by all forks as long as nobody writes to it.
        gc.collect()
        gc.freeze()
        self._say({"held": held, "filtered": self._filter is not None})

    def run(self) -> NoReturn:
        """Serves until the reward function is gone."""
        while True:
            text, descriptors, _, _ = socket.recv_fds(self._control, 4096, 1)
            if not text:
                os._exit(0)
            self._examination(json.loads(text), descriptors[0])
            self._say({})

    def _examination(self, limits: dict[str, float], channel: int) -> None:
        end = time.monotonic() + limits["wall"]
        ours, theirs = socket.socketpair()
        examiner = self._fork(
            [self._null, self._null, self._null, channel, theirs.fileno()],
            lambda: self._run_examiner(limits),
        )
        os.close(channel)
        theirs.close()
        candidate: _Running | None = None
        status: dict[str, Any] = {}
        asked = False
        begin, finish = self._requests
        with ours:
            while (now := time.monotonic()) < end:
                if candidate is not None and candidate.ended(now):
                    status, candidate = candidate.status, None
                if candidate is None and asked:
                    ours.sendall(json.dumps(status).encode())
                    asked = False
                until = end if candidate is None else min(end, candidate.next_look(now))
                readable, _, _ = select.select(
                    [ours, self._control, self._wake], [], [], max(0.0, until - now)
                )
                if self._wake in readable:
                    self._wake.recv(4096)
                if self._control in readable:
                    # It says nothing meanwhile, so it is gone.
                    os.killpg(0, signal.SIGKILL)
                if ours in readable:
                    request, descriptors, _, _ = socket.recv_fds(ours, 1, 2)
                    if not request:
                        break
                    if request == begin:
                        candidate = self._candidate(ours, descriptors, limits, end)
                    else:
                        asked = True
                        if request == finish and candidate is not None:
                            candidate.kill("")
        if candidate is not None:
            candidate.kill("")
            candidate.wait()
        os.kill(examiner, signal.SIGKILL)
        os.waitpid(examiner, 0)

    def _candidate(
        self, examiner: socket.socket, descriptors: list[int], limits: dict[str, float], end: float
    ) -> _Running:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = self._fork(
                [*descriptors, self._null, theirs.fileno()],
                lambda: self._run_candidate(limits, self._filter),
            )
            socket.send_fds(examiner, [b"C"], [ours.fileno()])
        for descriptor in descriptors:
            os.close(descriptor)
        return _Running(pid, limits["test"], end)

    def _fork(self, descriptors: Sequence[int], run: Callable[[], None]) -> int:
        """Forks a process that has these descriptors as 0, 1, 2 ... and no other, and ends after `run`."""
        import fcntl

        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Out of the way first, because a target may be another one's source.
            high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in descriptors]
            for target, source in enumerate(high):
                os.dup2(source, target)
            os.closerange(len(descriptors), max(high) + 1)
            run()
        except BaseException:
            os._exit(99)
        os._exit(0)

    def _say(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode())


class _Running:
    """A candidate, as the warden sees it: a process and its time."""

    def __init__(self, pid: int, seconds: float, end: float) -> None:
        self._pid = pid
        self._seconds = seconds
        self._started = time.monotonic()
        self._end = min(end, self._started + _WALL_FACTOR * seconds)
        self._late = ""
        self._killed = False
        self.status: dict[str, Any] = {}

    def ended(self, now: float) -> bool:
        """Looks whether it ended, and ends it when its time is up."""
        if self._reap(os.WNOHANG):
            return True
        if now >= self._end:
            self.kill("wait")
        elif min(left := self._left(now)) <= 0:
            self.kill("cpu" if left[0] <= 0 else "wait")
        return False

    def next_look(self, now: float) -> float:
        """When its time can be up at the earliest."""
        return min(self._end, now + max(0.005, min(self._left(now))))

    def kill(self, late: str) -> None:
        """Ends it, for being late or because it is not needed any more."""
        self._late = self._late or late
        self._killed = True
        os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        """Waits for its end."""
        self._reap(0)

    def _reap(self, options: int) -> bool:
        pid, code, usage = os.wait4(self._pid, options)
        if pid == 0:
            return False
        spent = usage.ru_utime + usage.ru_stime
        if spent > self._seconds:
            self._late = self._late or "cpu"
        ending = os.waitstatus_to_exitcode(code)
        self.status = {
            # How it ended by itself.
            "code": None if self._killed and ending == -signal.SIGKILL else ending,
            "late": self._late,
            # Who waits too long has used up a test's time as well.
            "seconds": self._seconds if self._late else spent,
        }
        return True

    def _left(self, now: float) -> tuple[float, float]:
        """The seconds it may still compute, and wait."""
        computed, stood = 0.0, 0.0
        # Another system, or a kernel that does not count this, leaves the rest to the limit of the kernel.
        with suppress(OSError, ValueError):
            numbers = Path(f"/proc/{self._pid}/schedstat").read_text().split()
            computed, stood = int(numbers[0]) / 1e9, int(numbers[1]) / 1e9
        waited = now - self._started - computed - stood
        return self._seconds - computed, _WAIT_FACTOR * self._seconds - waited
