"""Starts the workers of the workflow's functions sooner: `python -m rft.embedded.nursery`, by emulator.py.

On AWS the runtime brings boto3 along; here importing it was half of a worker's start. One process imports it,
and is forked for each worker. Only on Linux: elsewhere a process that was forked without a new program may
not use all of the system. Only for functions of the workflow: what is forked shares the seed of its hashes,
and two workers of a reward function must be free to disagree.

A request is one message with the worker's standard streams and a pipe, of which the worker keeps the end; the
answer is its process number.
"""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Linux takes about 200 KiB in one message; a function's environment has 4 KB at most.
_LONGEST = 1 << 17


class Child:
    """A worker that was forked, as much of a `subprocess.Popen` as the emulator uses."""

    def __init__(self, pid: int, streams: Sequence[int], alive: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = os.fdopen(streams[0], "w", buffering=1, encoding="utf-8")
        self.stdout = os.fdopen(streams[1], encoding="utf-8")
        self.stderr = os.fdopen(streams[2], encoding="utf-8")
        # Readable when the worker is gone: only it has the other end.
        self._alive = alive

    def __del__(self) -> None:
        os.close(self._alive)

    def poll(self) -> int | None:
        """Returns None while it runs; how it ended nobody knows, so 0 afterwards."""
        if self.returncode is None and self._gone(within=0):
            self.returncode = 0
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns when it has ended; raises subprocess.TimeoutExpired as the original does."""
        if not self._gone(within=timeout):
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        self.returncode = 0
        return 0

    def terminate(self) -> None:
        """Asks it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self._signal(signal.SIGKILL)

    def _gone(self, *, within: float | None) -> bool:
        # Not select(), which knows numbers below 1024 only.
        watch = select.poll()
        watch.register(self._alive, select.POLLIN)
        return bool(watch.poll(within and within * 1000))

    def _signal(self, number: int) -> None:
        # A number is given away again only when its process is gone.
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Nursery:
    """The process that is forked, started with the first worker; it ends with the process that holds this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def start(self, command: Sequence[str], cwd: str, env: Mapping[str, str]) -> Child:
        """Starts a worker: `command` is a Python and a script."""
        pipes = [os.pipe() for _ in range(4)]
        (stdin, to), (of, stdout), (errors, stderr), (alive, held) = pipes
        request = json.dumps({"script": command[1], "cwd": cwd, "env": dict(env)}).encode()
        with self._lock:
            self._socket = self._socket or _started()
            socket.send_fds(self._socket, [request], [stdin, stdout, stderr, held])
            pid = int(self._socket.recv(64))
        for theirs in (stdin, stdout, stderr, held):
            os.close(theirs)
        return Child(pid, (to, of, errors), alive)


def _started() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "rft.embedded.nursery", str(theirs.fileno())],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours


def main() -> None:
    """Forks a worker for each request, until nobody is left to ask for one."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    _import_boto3()
    # Nobody waits for the workers, so the system is told to forget them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _LONGEST, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


def _import_boto3() -> None:
    import boto3
    import botocore.session

    # What clients are made from is read once for all; credentials and region are read when one is made.
    session = botocore.session.Session()
    boto3.setup_default_session(botocore_session=session)
    loader = session.get_component("data_loader")
    loader.load_data("endpoints")
    for service in ("bedrock", "bedrock-runtime", "lambda", "logs", "s3", "ssm"):
        loader.load_service_model(service, "service-2")
        loader.load_service_model(service, "endpoint-rule-set-1")


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Runs a worker's script in this process, as a new Python would, and ends with it."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The fourth one stays open for as long as this process lives.
        for place, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, place)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        time.tzset()
        sys.argv = [request["script"]]
        sys.path[0] = str(Path(request["script"]).parent)
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
