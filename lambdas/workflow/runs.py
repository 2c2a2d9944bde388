"""A run: what it is called, where it keeps its files, and the AWS clients its steps share."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types_boto3_stepfunctions import SFNClient

    from lambdas.gate import Verdict

# How many seconds to wait for an answer, and how often to ask. Long completions and slow judges take minutes;
# all attempts together must fit into what the step has, or its own words are lost with it.
_PATIENCE: Final = {"bedrock-runtime": (270, 3), "lambda": (900, 4), "s3": (60, 3)}
_USUAL_PATIENCE: Final = (20, 6)
_READERS: Final = 10


class RunError(Exception):
    """A run cannot go on for a reason a person can act on; the message says what to do, no retry can help."""


@cache
def client(service: str) -> Any:
    """Returns the boto3 client of `service`, made at its first use and once per process."""
    # Here and not above: importing boto3 takes longer than most steps' own work, and validation needs none.
    import boto3
    from botocore.config import Config

    read_timeout, attempts = _PATIENCE.get(service, _USUAL_PATIENCE)
    made = boto3.client(
        service,  # type: ignore[call-overload]  # the hints know names as literals only
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
        ),
    )
    if service == "s3":
        made.meta.events.register("after-call.s3", _name_a_busy_service)
    return made


def _name_a_busy_service(http_response: Any, parsed: Any, model: Any, **_: object) -> None:
    """Raises ServiceBusyError where S3 had no time at any attempt.

    boto3 has no exceptions for S3's SlowDown, InternalError and ServiceUnavailable: as plain ClientErrors,
    which is what a refusal is as well, the workflow could not tell that they are worth a retry.
    """
    from botocore.exceptions import ClientError

    class ServiceBusyError(ClientError):
        """What a step depends on had no time; later it may."""

    # After the last attempt only. A HEAD has no body that names an error, but a status all the same.
    if http_response.status_code >= 500:
        raise ServiceBusyError(parsed, model.name)


def at_work(execution: str) -> bool:
    """Says whether an execution of the workflow is running."""
    states: SFNClient = client("stepfunctions")
    try:
        return states.describe_execution(executionArn=execution)["status"] == "RUNNING"
    except states.exceptions.ExecutionDoesNotExist:
        return False


def name(run: str) -> str:
    """Returns what the run's customization job, model and deployment are called: at most 63 characters."""
    return f"{os.environ['STACK']}-{run}"


def key(run: str, path: str) -> str:
    """Returns the key in the artifact bucket of a run's file."""
    return f"runs/{run}/{path}"


def uri(run: str, path: str) -> str:
    """Returns the s3:// URI of a run's file."""
    return f"s3://{os.environ['ARTIFACTS']}/{key(run, path)}"


def write(run: str, path: str, content: Any) -> None:
    """Writes a run's file: JSON, or bytes as they are."""
    # Escaped to ASCII: a completion may hold half a surrogate pair, which no encoding can write.
    body = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
    client("s3").put_object(
        Bucket=os.environ["ARTIFACTS"],
        Key=key(run, path),
        Body=body,
        ContentType="application/json" if path.endswith(".json") else "application/octet-stream",
    )


def read(run: str, path: str) -> Any:
    """Returns a run's JSON file, None where it was not written."""
    from botocore.exceptions import ClientError

    try:
        body = client("s3").get_object(Bucket=os.environ["ARTIFACTS"], Key=key(run, path))["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
    return json.loads(body)


def paths(run: str, folder: str) -> list[str]:
    """Returns the paths of a run's files below `folder`, sorted."""
    prefix = key(run, f"{folder}/")
    pages = (
        client("s3").get_paginator("list_objects_v2").paginate(Bucket=os.environ["ARTIFACTS"], Prefix=prefix)
    )
    start = len(key(run, ""))
    return sorted(entry["Key"][start:] for page in pages for entry in page.get("Contents", []))


def read_all(run: str, folder: str) -> list[Any]:
    """Returns all JSON files of a run below `folder`, in the order of their paths."""
    found = paths(run, folder)
    # The client is made here: making it in several threads at once is not safe, using it is.
    client("s3")
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda path: read(run, path), found))


def write_verdict(run: str, verdict: "Verdict") -> dict[str, str]:
    """Writes what a gate says of a run; returns the part that the workflow goes by."""
    write(run, f"gates/{verdict.gate}.json", verdict.document())
    return {"verdict": verdict.verdict, "sentence": verdict.sentence}
