"""The history of the champion: one object per change, written before the change is made and never again.

An entry is {"when": ISO 8601 in UTC, "who": ARN, "why", "change": "promoted by a run" | "promoted by hand" |
"rolled back", "run", "model", "previous_model": ARN | null, "deployment", "metrics": {...}}; model and
previous model are ARNs of custom models. Entries lie below history/ in the artifact bucket, named so that
their order is that of time, and outside runs/, whose files expire in throwaway stages.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

Entry = Mapping[str, Any]

PREFIX: Final = "history/"
ROLLED_BACK: Final = "rolled back"
_READERS = 10


def now() -> str:
    """Returns the time as entries have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def append(entry: Entry) -> None:
    """Writes an entry; the same one a second time changes nothing."""
    from botocore.exceptions import ClientError

    s3: S3Client = runs.client("s3")
    try:
        s3.put_object(
            Bucket=os.environ["ARTIFACTS"],
            # To the microsecond, and without the characters that a key had better not have.
            Key=f"{PREFIX}{entry['when'][:26].replace(':', '')}-{entry['run']}.json",
            Body=json.dumps(entry, indent=1).encode(),
            ContentType="application/json",
            # An entry is never written over.
            IfNoneMatch="*",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "PreconditionFailed":
            raise


def entries(most: int | None = None) -> list[dict[str, Any]]:
    """Returns the last `most` changes, all of them without it; the oldest first."""
    s3: S3Client = runs.client("s3")
    bucket = os.environ["ARTIFACTS"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
    keys = sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(
            lambda key: s3.get_object(Bucket=bucket, Key=key)["Body"].read(), keys[-most:] if most else keys
        )
        return [json.loads(body) for body in found]


def standing(changes: Sequence[Entry], serving: str | None) -> list[Entry]:
    """Returns the changes that led to the model now serving, the last one being its own.

    A promotion adds to them; a rollback takes away what it undid, so that rolling back twice goes back two
    promotions. A change that was written down but never took effect is none of them.
    """
    stand: list[Entry] = []
    for change in changes:
        models = [each["model"] for each in stand]
        if change["change"] == ROLLED_BACK and change["model"] in models:
            # The last of the same model: it may have been promoted twice.
            stand = stand[: len(models) - models[::-1].index(change["model"])]
        else:
            stand.append(change)
    while stand and stand[-1]["model"] != serving:
        stand.pop()
    return stand


def metrics(decision: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the numbers of a run's decision that an entry keeps."""
    kept = ("base_mean", "candidate_mean", "gain", "lower", "upper", "confidence", "prompts")
    return {name: decision[name] for name in kept if name in decision} if decision else {}
