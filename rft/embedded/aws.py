"""Starts, finds and stops the embedded AWS: one child process on a loopback port with one data directory."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from rft.embedded.faults import Fault, Injected

# The emulator is changed function by function: another version has to be looked at first.
EMULATOR_VERSION = "1.5.33"
ACCOUNT = "000000000000"
REGION = "us-east-1"
STATE_FILE = "embedded.json"
CALLS_FILE = "calls.jsonl"
LOG_FILE = "embedded.log"
IDENTITY_PATH = "/_embedded/identity"

_PROJECT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


class EmbeddedAwsError(Exception):
    """The embedded AWS cannot be started or stopped; the message says why and what to do."""


class EmbeddedAws:
    """One embedded AWS. As a context manager it runs inside the `with` block and leaves no process behind.

    data_dir: holds everything it writes: log, call record, Lambda code, Bedrock's state.
    port: loopback port, None for a free one.
    keep: it outlives this process and is stopped with `EmbeddedAws.find(data_dir).stop()`.
    wait_scale: how many real seconds one second of a workflow's Wait or retry interval takes.
    """

    def __init__(
        self, data_dir: Path, port: int | None = None, *, keep: bool = False, wait_scale: float = 0.01
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or 0
        self.keep = keep
        self.wait_scale = wait_scale
        self._token = secrets.token_hex(16)
        self._pid = 0
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        """Returns the embedded AWS that is running on this data directory, or None."""
        try:
            state = json.loads((data_dir / STATE_FILE).read_text())
            pid, port, token = int(state["pid"]), int(state["port"]), str(state["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # A pid alone may have been given to another process since; the token is in our child's command line
        # only.
        if token not in _command_line(pid):
            return None
        found = cls(data_dir, port, keep=True)
        found._pid, found._token = pid, token
        return found

    @property
    def endpoint(self) -> str:
        """The endpoint URL of every service."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """What the child process and the emulator in it wrote."""
        return self.data_dir / LOG_FILE

    def environment(
        self, base: Mapping[str, str] | None = None, *, account: str = ACCOUNT, region: str = REGION
    ) -> dict[str, str]:
        """Returns the variables boto3, the AWS CLI and the CDK CLI need to work on this AWS and on no other.

        base: an environment to build on; its own AWS and CDK settings are left out, so no real profile
        shines through.
        account: any 12 digits; the emulator keeps accounts apart by the access key.
        """
        kept = {k: v for k, v in (base or {}).items() if not k.startswith(("AWS_", "CDK_"))}
        no_proxy = ",".join(filter(None, (kept.get("NO_PROXY", kept.get("no_proxy")), "127.0.0.1,localhost")))
        return kept | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": account,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "CDK_DEFAULT_ACCOUNT": account,
            "CDK_DEFAULT_REGION": region,
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def calls(self) -> Iterator[dict[str, Any]]:
        """Yields a record of every permission that was asked for, oldest first.

        Keys: time, principal, service, action, resource, allowed, status.

        principal is the ARN of a role or of the account's root or, for what Bedrock itself does, its service
        name. Most API calls need one permission; one that needs several gives as many records, with the
        HTTP status of the one answer.
        """
        path = self.data_dir / CALLS_FILE
        if path.exists():
            with path.open() as lines:
                # The writer may be in the middle of the last line.
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def give(self, fault: Fault) -> Injected:
        """Gives it a fault, see rft/embedded/faults.py; the fault lasts until it is lifted."""
        return Injected(self.endpoint, secrets.token_hex(8), fault)

    def start(self) -> Self:
        """Starts the child process and returns when it answers.

        Raises:
            EmbeddedAwsError: The port is taken, one runs on this data directory, or it does not come up.
        """
        if found := EmbeddedAws.find(self.data_dir):
            raise EmbeddedAwsError(
                f"An embedded AWS is already running on {self.data_dir} (process {found._pid}, "
                f"{found.endpoint}). Stop it with `rft down`, or use another data directory."
            )
        _check_emulator()
        for folder in ("home", "tmp"):
            (self.data_dir / folder).mkdir(parents=True, exist_ok=True)
        (self.data_dir / CALLS_FILE).unlink(missing_ok=True)
        with _loopback_socket(self.port) as listener:
            self.port = listener.getsockname()[1]
            self._child = self._spawn(listener.fileno())
        self._pid = self._child.pid
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops it and every Lambda worker it started; does nothing when it is not running."""
        if child := self._child:
            _end(child.pid, alive=lambda: child.poll() is None)
            if child.stdin:
                child.stdin.close()
        elif self._pid:
            _end(self._pid, alive=lambda: self._token in _command_line(self._pid))
        self._child, self._pid = None, 0
        (self.data_dir / STATE_FILE).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, listener: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "rft.embedded.server", "--data-dir", str(self.data_dir)]
        command += ["--listener", str(listener), "--token", self._token, "--wait-scale", str(self.wait_scale)]
        command += ["--keep"] if self.keep else []
        with self.log_file.open("wb") as log:
            return subprocess.Popen(
                command,
                # Lambda workers inherit this environment: a real credential in it would reach the functions.
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(self.data_dir / "home"),
                    "TMPDIR": str(self.data_dir / "tmp"),
                    # The miniature's matrices are small: threads that share one only wait for each other.
                    "OPENBLAS_NUM_THREADS": "1",
                },
                cwd=_PROJECT,
                # The child ends when this pipe closes, so it cannot outlive a parent that was killed.
                stdin=subprocess.DEVNULL if self.keep else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(listener,),
                # A process group of its own: Ctrl-C reaches only the parent, which then stops the child in
                # order, and the workers can be ended with the group.
                start_new_session=True,
            )

    def _wait_until_it_answers(self) -> None:
        assert self._child is not None  # noqa: S101 - start() has just set it
        # A proxy from the person's environment must not be asked for a loopback address.
        opener = build_opener(ProxyHandler({}))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise EmbeddedAwsError(f"The embedded AWS ended while it started:\n{self._last_words()}")
            with (
                contextlib.suppress(URLError, OSError, ValueError),
                opener.open(self.endpoint + IDENTITY_PATH, timeout=2) as answer,
            ):
                if json.load(answer)["token"] == self._token:
                    return
            time.sleep(0.05)
        raise EmbeddedAwsError(
            f"The embedded AWS did not answer on {self.endpoint} within {_START_SECONDS:.0f} seconds:\n"
            + self._last_words()
        )

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(f"  {line}" for line in lines) + f"\nAll of its log: {self.log_file}"


def _check_emulator() -> None:
    try:
        installed = version("ministack")
    except PackageNotFoundError:
        installed = "missing"
    if installed != EMULATOR_VERSION:
        raise EmbeddedAwsError(
            f"The embedded AWS needs ministack {EMULATOR_VERSION}; here it is {installed}. "
            "Run `make install` to get the locked version. To move to another one, change EMULATOR_VERSION "
            "in rft/embedded/aws.py; tests/embedded/test_emulator.py then tells what is left to change."
        )


def _loopback_socket(port: int) -> socket.socket:
    """Returns a socket bound to the port: bound here, nobody else can take it before the child is up."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        # On some systems SO_REUSEADDR lets a second one bind; only listening tells whose the port is.
        listener.listen()
    except OSError as error:
        listener.close()
        raise EmbeddedAwsError(
            f"Port {port} on 127.0.0.1 cannot be used ({error.strerror}). Stop what uses it, "
            "give another port, or give none and a free one is chosen."
        ) from error
    return listener


def _command_line(pid: int) -> str:
    """Returns the command line of a process, empty when there is none (or only its exit status is left)."""
    proc = Path("/proc")
    if (proc / "self" / "cmdline").exists():
        try:
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listing = subprocess.run(
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout


def _end(pid: int, *, alive: Callable[[], bool]) -> None:
    """Asks the process to end, then makes it end; its group goes with it, so no Lambda worker survives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    # The child leads its group, so the number stays taken for as long as anything in the group lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    while alive():
        time.sleep(0.02)
