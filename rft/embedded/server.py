"""The child process of the embedded AWS: `python -m rft.embedded.server`, started by rft.embedded.aws."""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rft.embedded.aws import ACCOUNT, CALLS_FILE, IDENTITY_PATH, REGION, STATE_FILE
from rft.embedded.faults import FAULTS_PATH, Faults, body_of


def main(arguments: list[str] | None = None) -> None:
    """Serves until it is told to stop (SIGTERM, SIGINT) or, without --keep, its parent is gone."""
    options = _parser().parse_args(arguments)
    # Nothing that is written to a relative path may land in the repository.
    os.chdir(options.data_dir)
    with socket.socket(fileno=os.dup(options.listener)) as listener:
        port = listener.getsockname()[1]
    os.environ.update(_settings(options.data_dir, port, options.wait_scale))
    asyncio.run(_serve(options, port))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--listener", required=True, type=int, help="file descriptor of the bound socket")
    parser.add_argument("--token", required=True, help="by which the parent knows this process")
    parser.add_argument("--wait-scale", required=True, help="real seconds per second of a workflow's waits")
    parser.add_argument("--keep", action="store_true", help="outlive the parent")
    return parser


def _settings(data_dir: Path, port: int, wait_scale: str) -> dict[str, str]:
    """Returns the emulator's settings; it reads them from the environment when it is imported."""
    return {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "test",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        # A measurement leaves some twenty workers of 50 MB each behind.
        "LAMBDA_WARM_TTL_SECONDS": "30",
        "SFN_WAIT_SCALE": wait_scale,
        "STATE_DIR": str(data_dir / "state"),
        "S3_DATA_DIR": str(data_dir / "s3"),
        # With a Docker socket it would sweep the containers of another emulator on this machine.
        "DOCKER_HOST": f"unix://{data_dir}/no-docker",
        # A measurement invokes functions that invoke functions, each on a thread of its own.
        "MINISTACK_WORKER_THREADS": "128",
    }


async def _serve(options: argparse.Namespace, port: int) -> None:
    # Not before: the emulator reads the settings when it is imported.
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    from rft.embedded import emulator
    from rft.embedded.callers import Clients
    from rft.embedded.permissions import Calls

    identity = {
        "token": options.token,
        "pid": os.getpid(),
        "port": port,
        "endpoint": f"http://127.0.0.1:{port}",
    }
    clients, calls, faults = Clients(identity["endpoint"]), Calls(options.data_dir / CALLS_FILE), Faults()
    bedrock = _Bedrocks(clients, options.data_dir).handle
    emulator.install(clients=clients, calls=calls, bedrock=bedrock, faults=faults, data_dir=options.data_dir)
    application = emulator.recorded(emulator.faulty(app, faults), calls)
    application = _with_own_paths(application, identity, faults)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if not options.keep:
        _stop_with_parent(partial(loop.call_soon_threadsafe, stopping.set))

    config = Config()
    config.bind = [f"fd://{options.listener}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 0.5
    state_file = options.data_dir / STATE_FILE
    state_file.write_text(json.dumps(identity))
    try:
        await serve(application, config, shutdown_trigger=stopping.wait)
    finally:
        _end(state_file)


class _Bedrocks:
    """One Bedrock for each account and region that is used, as the emulator has of everything else."""

    def __init__(self, clients: Any, data_dir: Path) -> None:
        self._clients = clients
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}

    def handle(
        self, method: str, path: str, query: dict[str, str], body: bytes, caller: str
    ) -> tuple[int, Mapping[str, Any]]:
        from ministack.core.responses import get_account_id, get_region

        bedrock = self._of(get_account_id(), get_region())
        answer: tuple[int, Mapping[str, Any]] = bedrock.handle(method, path, query, body, caller)
        return answer

    def _of(self, account: str, region: str) -> Any:
        from rft.embedded.bedrock import Bedrock

        with self._lock:
            if (account, region) not in self._made:
                self._made[account, region] = Bedrock(
                    client=partial(self._client, account, region),
                    data_dir=self._data_dir / "bedrock" / account / region,
                    account=account,
                    region=region,
                )
            return self._made[account, region]

    def _client(self, account: str, region: str, service: str, role_arn: str | None = None) -> Any:
        """Returns a boto3 client of Bedrock itself or, with a role, of a customization job of Bedrock."""
        from rft.embedded.callers import BEDROCK

        if role_arn is None:
            return self._clients.of_service(service, principal=BEDROCK, account=account, region=region)
        source = f"arn:aws:bedrock:{region}:{account}:model-customization-job/job"
        return self._clients.of_role(service, role_arn, principal=BEDROCK, source_arn=source)


def _stop_with_parent(stop: Callable[[], object]) -> None:
    """Calls stop when standard input closes: a pipe whose other end only the parent holds."""

    def wait() -> None:
        # Not through sys.stdin: a thread in the middle of that crashes an interpreter that ends.
        while os.read(0, 1024):
            pass
        stop()

    threading.Thread(target=wait, daemon=True).start()


def _end(state_file: Path) -> None:
    """Ends this process and every Lambda worker, without waiting for what is still being worked on."""
    from ministack.core import lambda_runtime

    lambda_runtime.reset()
    state_file.unlink(missing_ok=True)
    # A worker that was started meanwhile belongs to the group that this process leads.
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _with_own_paths(application: Any, identity: Mapping[str, Any], faults: Faults) -> Any:
    """Returns the ASGI application with answers to the parent: who this is, and which faults it has."""

    async def handle(scope: dict[str, Any], receive: Any, send: Any) -> None:
        answer: Mapping[str, Any]
        if scope["type"] == "http" and scope["path"] == IDENTITY_PATH:
            answer = identity
        elif scope["type"] == "http" and scope["path"] == FAULTS_PATH:
            answer = await faults.change(json.loads(await body_of(receive)))
        else:
            await application(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return handle


if __name__ == "__main__":
    main()
