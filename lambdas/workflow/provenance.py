"""Where a run's model comes from, beyond what the run itself writes down: the deployed stack and the reward.

What it takes to read and to lock it all stands with the step that does so, see `report`.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import runs

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_s3 import S3Client

# What the stack's tags say of an environment; the others are the platform's and the team's own.
_TAGS: Final = ("team", "stage", "owner", "description")


def template_sha256(template: Any) -> str:
    """Returns the hash of a template, as text or as data, without its metadata and whatever its spaces."""
    data = {key: each for key, each in _parsed(template).items() if key != "Metadata"}
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def revision_of(template: Any) -> str | None:
    """Returns what the sources of a template were called, None where nobody said."""
    found = (_parsed(template).get("Metadata") or {}).get("revision")
    return None if found is None else str(found)


def _parsed(template: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(template) if isinstance(template, str) else template
    return data


def deployment(requested: str | None) -> dict[str, Any]:
    """Returns what of the stack made this run possible.

    {"stack_id", "team", "stage", "owner", "description", "revision", "template_sha256", "deployed_at",
    "changed_during_run"}; `changed_during_run` is true where the stack was deployed again after the run was
    requested: then the run began under another template. Where CloudFormation does not answer it is
    {"stack_id", "unknown": why}: a run is not lost for want of a line about it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    stack_id = os.environ["STACK_ID"]
    formation: CloudFormationClient = runs.client("cloudformation")
    try:
        [stack] = formation.describe_stacks(StackName=stack_id)["Stacks"]
        template = formation.get_template(StackName=stack_id, TemplateStage="Original")["TemplateBody"]
    except (BotoCoreError, ClientError) as error:
        return {"stack_id": stack_id, "unknown": str(error)}
    tags = {tag["Key"]: _said(tag["Value"]) for tag in stack.get("Tags", [])}
    deployed_at = stack.get("LastUpdatedTime") or stack["CreationTime"]
    return {
        "stack_id": stack_id,
        **{name: tags.get(name) for name in _TAGS},
        "revision": revision_of(template),
        "template_sha256": template_sha256(template),
        "deployed_at": deployed_at,
        "changed_during_run": deployed_at > datetime.fromisoformat(requested) if requested else None,
    }


def _said(tag: str) -> str:
    """Turns a tag's value back into the text it was made of (see infra/environment.py)."""
    return re.sub(
        "(?:=[0-9A-F]{2})+",
        lambda found: bytes.fromhex(found[0].replace("=", "")).decode("utf-8", errors="replace"),
        tag,
    )


def reward_sha256(version_arn: str | None) -> str | None:
    """Returns what Lambda hashed of a version's package (SHA-256 in base64), None where it does not say."""
    from botocore.exceptions import BotoCoreError, ClientError

    function, _, version = (version_arn or "").rpartition(":")
    if not version.isdigit():
        return None
    functions: LambdaClient = runs.client("lambda")
    try:
        return functions.get_function_configuration(FunctionName=function, Qualifier=version)["CodeSha256"]
    except (BotoCoreError, ClientError):
        return None


def locked_until() -> datetime | None:
    """Returns until when what is written now is to be locked, None where the stage does not ask for that."""
    days = os.environ.get("LOCK_DAYS")
    return (datetime.now(UTC) + timedelta(days=int(days))).replace(microsecond=0) if days else None


def lock(run: str, paths: Iterable[str], until: datetime) -> None:
    """Locks these files of a run in their present version."""
    s3: S3Client = runs.client("s3")
    # Governance or compliance, by the stage's settings.
    mode: Any = os.environ.get("LOCK_MODE")
    for path in paths:
        s3.put_object_retention(
            Bucket=os.environ["ARTIFACTS"],
            Key=runs.key(run, path),
            Retention={"Mode": mode, "RetainUntilDate": until},
        )
