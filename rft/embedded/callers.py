"""Who calls an API of the embedded AWS: a service, a role that a service assumed, or the account's root."""

import contextvars
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id
from ministack.services import iam, sts

BEDROCK = "bedrock.amazonaws.com"
LAMBDA = "lambda.amazonaws.com"
STEP_FUNCTIONS = "states.amazonaws.com"

# A request an AWS service makes by itself carries its name, and a value that only this process knows.
SERVICE_HEADER = "x-embedded-service"
_SECRET = secrets.token_hex(16)

# The service whose own request is in hand, None for everybody else's.
calling_service: contextvars.ContextVar[str | None] = contextvars.ContextVar("calling_service", default=None)

_CLIENT = Config(
    # The caller decides what to retry: a workflow by its Retry, Bedrock by its own documented number.
    retries={"total_max_attempts": 1},
    read_timeout=900,
    max_pool_connections=64,
    inject_host_prefix=False,
    proxies={},
    s3={"addressing_style": "path"},
)


class Clients:
    """Makes boto3 clients on the embedded AWS, one for each service and identity."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._session = botocore.session.Session()
        # Making a client is not thread-safe; using one is.
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str, str], Any] = {}

    def of_service(self, service: str, *, principal: str, account: str, region: str) -> Any:
        """Returns a client for what an AWS service (its principal's name) does by itself."""

        def make() -> Any:
            keys = {"aws_access_key_id": account, "aws_secret_access_key": "test"}
            client = self._make(service, region, keys)
            client.meta.events.register("before-call", _naming(principal))
            return client

        return self._known((service, region, f"{principal} in {account}"), make)

    def of_role(self, service: str, role_arn: str, *, principal: str, source_arn: str) -> Any:
        """Returns a client with temporary credentials of the role, which the service `principal` assumes.

        Raises ClientError AccessDenied when there is no such role or its trust policy does not let the
        service assume it for this source.
        """
        check_trust(role_arn, principal=principal, source_arn=source_arn)
        region = source_arn.split(":")[3]

        def make() -> Any:
            return self._make(service, region, session_of(role_arn, principal))

        return self._known((service, region, f"{principal} as {role_arn}"), make)

    def _known(self, key: tuple[str, str, str], make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]

    def _make(self, service: str, region: str, keys: Mapping[str, Any]) -> Any:
        return self._session.create_client(
            service, region_name=region, endpoint_url=self._endpoint, config=_CLIENT, **keys
        )


def _naming(principal: str) -> Callable[..., None]:
    def add_header(params: dict[str, Any], **_: object) -> None:
        params["headers"][SERVICE_HEADER] = f"{principal} {_SECRET}"

    return add_header


def service_of(header: str) -> str | None:
    """Returns the service that made a request by its header, or None when no service of ours did."""
    principal, _, secret = header.partition(" ")
    return principal if secret == _SECRET else None


def check_trust(role_arn: str, *, principal: str, source_arn: str) -> None:
    """Raises ClientError AccessDenied unless the role lets the service assume it for this source."""
    account = role_arn.split(":")[4]
    role = iam._roles.get_scoped(account, None, role_arn.rsplit("/", 1)[-1])
    trust = json.loads(role["AssumeRolePolicyDocument"]) if role else {}
    question = iam_evaluator.EvalContext(
        principal_arn="",
        principal_type="Service",
        principal_account="",
        action="sts:AssumeRole",
        resource_arn=role_arn,
        region=source_arn.split(":")[3],
        secure_transport=True,
        service_context={"aws:sourceaccount": source_arn.split(":")[4], "aws:sourcearn": source_arn},
    )
    if iam_evaluator.evaluate_resource_policy(trust, question, service=principal).decision != "Allow":
        message = f"{principal} is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "AssumeRole")


@cache
def session_of(role_arn: str, principal: str) -> dict[str, str]:
    """Opens the session of a service under a role, once, and returns its credentials as boto3 takes them."""
    account, role_name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    session_name = principal.split(".")[0]
    key, secret, token = f"ASIA{secrets.token_hex(8).upper()}", secrets.token_hex(20), secrets.token_hex(32)
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}",
            "UserId": f"{role_name}:{session_name}",
            "SecretAccessKey": secret,
            "SessionToken": token,
        },
    )
    return {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}


def principal_of(access_key: str) -> str:
    """Returns the ARN of the role, user or account root behind an access key."""
    found = iam_evaluator.resolve_principal(access_key, get_account_id())
    arn = str(getattr(found, "arn", "")) or "unknown"
    assumed = re.fullmatch(r"arn:aws:sts::(\d+):assumed-role/([^/]+)/.+", arn)
    if not assumed:
        return arn
    role = iam._roles.get_scoped(assumed[1], None, assumed[2])
    return str(role["Arn"]) if role else f"arn:aws:iam::{assumed[1]}:role/{assumed[2]}"
