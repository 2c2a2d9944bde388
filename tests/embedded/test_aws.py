"""The embedded AWS starts, is found again and stops, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rft.embedded.aws import EmbeddedAws, EmbeddedAwsError

ROOT = Path(__file__).parents[2]
HANDLER = "import time\n\ndef handler(event, context):\n    time.sleep(300)\n"


def processes(data_dir: Path) -> list[str]:
    """The command lines of everything that runs out of a data directory: server and Lambda workers."""
    listing = subprocess.run(["ps", "-ww", "-A", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if str(data_dir) in line and "defunct" not in line]


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing after {seconds} s")


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts an embedded AWS in a process of its own, which then does what the code says."""
    started: list[subprocess.Popen[str]] = []

    def start(then: str, **arguments: object) -> "subprocess.Popen[str]":
        code = (
            "import sys, time\nfrom pathlib import Path\nfrom rft.embedded.aws import EmbeddedAws\n"
            f"aws = EmbeddedAws(Path(sys.argv[1]), **{arguments!r}).start()\n"
            f"print('up', flush=True)\n{then}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if left := EmbeddedAws.find(tmp_path):
        left.stop()


def invoke_a_sleeper(
    aws: EmbeddedAws, clients_of: Callable[[str], Any], zipped: Callable[[str], bytes]
) -> None:
    """Has a Lambda worker busy for minutes."""
    client = clients_of(aws.endpoint)
    trust = {
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    }
    role = client("iam").create_role(RoleName="sleeper", AssumeRolePolicyDocument=json.dumps(trust))["Role"][
        "Arn"
    ]
    client("lambda").create_function(
        FunctionName="sleeper",
        Runtime="python3.14",
        Role=role,
        Handler="index.handler",
        Code={"ZipFile": zipped(HANDLER)},
        Timeout=600,
    )
    client("lambda").invoke(FunctionName="sleeper", InvocationType="Event", Payload=b"{}")
    wait_for(lambda: any("_worker.py" in line for line in processes(aws.data_dir)))


def test_no_process_and_no_file_is_left(
    tmp_path: Path, clients_of: Callable[[str], Any], zipped: Callable[[str], bytes]
) -> None:
    data_dir, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = tracked_files()
    with EmbeddedAws(data_dir) as aws:
        invoke_a_sleeper(aws, clients_of, zipped)
        assert len(processes(data_dir)) >= 2
        started = time.monotonic()
    assert time.monotonic() - started < 8
    assert processes(data_dir) == []
    assert EmbeddedAws.find(data_dir) is None
    assert list((data_dir / "tmp").iterdir()) == []
    assert tracked_files() == before


def tracked_files() -> set[Path]:
    """The files of the repository's top level and of /tmp that could be mistaken for ours."""
    here = {path for path in ROOT.iterdir() if path.name != ".pytest_cache"}
    return here | {path for path in Path("/tmp").iterdir() if "ministack" in path.name}


def test_it_ends_with_a_parent_that_was_killed(
    tmp_path: Path,
    parent: Callable[..., "subprocess.Popen[str]"],
    clients_of: Callable[[str], Any],
    zipped: Callable[[str], bytes],
) -> None:
    process = parent("time.sleep(600)")
    aws = EmbeddedAws.find(tmp_path)
    assert aws is not None
    invoke_a_sleeper(aws, clients_of, zipped)
    process.kill()
    wait_for(lambda: not processes(tmp_path))
    assert not (tmp_path / "embedded.json").exists()


def test_it_ends_on_ctrl_c(tmp_path: Path, parent: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = parent("try:\n    with_aws = time.sleep(600)\nfinally:\n    aws.stop()")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) != 0
    assert processes(tmp_path) == []


def test_a_kept_one_outlives_its_parent_and_is_found(
    tmp_path: Path, parent: Callable[..., "subprocess.Popen[str]"], clients_of: Callable[[str], Any]
) -> None:
    process = parent("", keep=True)
    assert process.wait(20) == 0
    found = EmbeddedAws.find(tmp_path)
    assert found is not None
    assert clients_of(found.endpoint)("sts").get_caller_identity()["Account"] == "000000000000"
    with pytest.raises(EmbeddedAwsError, match=r"already running on .*rft down"):
        EmbeddedAws(tmp_path).start()
    found.stop()
    assert processes(tmp_path) == []
    assert EmbeddedAws.find(tmp_path) is None


def test_a_stale_state_file_points_at_nobody(tmp_path: Path) -> None:
    """The pid is that of a living process, but not of ours."""
    (tmp_path / "embedded.json").write_text(json.dumps({"pid": os.getpid(), "port": 1, "token": "f" * 32}))
    assert EmbeddedAws.find(tmp_path) is None
    (tmp_path / "embedded.json").write_text("{")
    assert EmbeddedAws.find(tmp_path) is None


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            EmbeddedAwsError, match=rf"Port {port} on 127\.0\.0\.1 cannot be used .*another port"
        ):
            EmbeddedAws(tmp_path, port).start()
    assert processes(tmp_path) == []


def test_the_port_asked_for_is_used(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedAws(tmp_path, port) as aws:
        assert aws.endpoint == f"http://127.0.0.1:{port}"


def test_another_version_of_the_emulator_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft.embedded.aws.version", lambda _: "9.9.9")
    with pytest.raises(
        EmbeddedAwsError, match=r"needs ministack 1\.5\.33; here it is 9\.9\.9\. Run `make install`"
    ):
        EmbeddedAws(tmp_path).start()


def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    # Where the child says that it is there is a place that it cannot write to.
    (tmp_path / "embedded.json").symlink_to(tmp_path / "nowhere" / "embedded.json")
    ends = r"(?s)ended while it started:.*FileNotFoundError: .*embedded\.json'\nAll of its log"
    with pytest.raises(EmbeddedAwsError, match=ends):
        EmbeddedAws(tmp_path).start()
    assert processes(tmp_path) == []


def test_its_environment_hides_every_real_account(tmp_path: Path) -> None:
    real = {
        "AWS_PROFILE": "prod",
        "AWS_SESSION_TOKEN": "t",
        "CDK_DEFAULT_ACCOUNT": "1",
        "PATH": "/bin",
        "NO_PROXY": "a",
    }
    environment = EmbeddedAws(tmp_path, 4599).environment(real, account="111122223333")
    assert "AWS_PROFILE" not in environment
    assert "AWS_SESSION_TOKEN" not in environment
    assert environment["PATH"] == "/bin"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4599"
    assert environment["AWS_ACCESS_KEY_ID"] == environment["CDK_DEFAULT_ACCOUNT"] == "111122223333"
    assert environment["NO_PROXY"] == "a,127.0.0.1,localhost"
