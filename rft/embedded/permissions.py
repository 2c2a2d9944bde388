"""Which permissions an API call of the embedded AWS needs, and the record of every answer."""

import contextvars
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.session
from ministack import app
from ministack.core import iam_actions, iam_evaluator, router
from ministack.core.responses import get_account_id, get_region
from ministack.services import kms, s3, sns

from rft.embedded.callers import BEDROCK, calling_service, principal_of, session_of

BEDROCK_SERVICES = ("bedrock", "bedrock-runtime")
# The state machine that waits for each task token, or waited: what answering it is asked for.
MACHINE_OF_TOKEN: dict[str, str] = {}

Conditions = tuple[tuple[str, Any], ...]
BedrockHandler = Callable[[str, str, dict[str, str], bytes, str], tuple[int, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """An IAM action on a resource, with the condition keys that are its own."""

    action: str
    resource: str
    conditions: Conditions = ()

    @property
    def service(self) -> str:
        """The service whose resource policy has a say."""
        return self.action.split(":")[0]


# --- The record ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Request:
    calls: list[dict[str, Any]] = field(default_factory=list)
    answered: bool = False


class Calls:
    """Writes one JSON line for each permission that an API call needed.

    Keys: time (epoch seconds), principal, service, action, resource, allowed, status (HTTP; None outside of a
    request).
    """

    def __init__(self, path: Path) -> None:
        self._lines = path.open("a", buffering=1)
        self._lock = threading.Lock()
        # What the request in hand needed waits here for its HTTP status.
        self._request: contextvars.ContextVar[_Request | None] = contextvars.ContextVar(
            "request", default=None
        )

    def begin(self) -> _Request:
        """Opens the record of a request."""
        request = _Request()
        self._request.set(request)
        return request

    def end(self, request: _Request, status: int) -> None:
        """Writes the record of a request that is answered."""
        request.answered = True
        self._write({**call, "status": status} for call in request.calls)

    def add(self, permission: Permission, *, principal: str, service: str, allowed: bool) -> None:
        """Records a permission that was asked for, and the answer."""
        call = {
            "time": round(time.time(), 3),
            "principal": principal,
            "service": service,
            "action": permission.action,
            "resource": permission.resource,
            "allowed": allowed,
            "status": None,
        }
        request = self._request.get()
        # The threads of a workflow inherit the request that started it, which is answered by then.
        if request is None or request.answered:
            self._write([call])
        else:
            request.calls.append(call)

    def _write(self, calls: Iterable[Mapping[str, Any]]) -> None:
        with self._lock:
            self._lines.writelines(json.dumps(call) + "\n" for call in calls)


def action_of(
    method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> str:
    """Returns the IAM action of a request, "" for what has none."""
    parameters = app._routing_params(method, path, headers, body, query)
    service = router.detect_service(method, path, headers, parameters)
    if service in BEDROCK_SERVICES:
        found = _bedrock_operation(service, method, path)
        return _bedrock_action(found[0]) if found else ""
    return iam_actions.extract_iam_action(service, method, path, headers, body, parameters) or ""


# --- Asking -------------------------------------------------------------------------------------


# What the request in hand needs besides its own action, and what was refused.
_further: contextvars.ContextVar[tuple[Permission, ...]] = contextvars.ContextVar("further", default=())
_refused: contextvars.ContextVar[Permission | None] = contextvars.ContextVar("refused", default=None)


def authorization(calls: Calls) -> None:
    """Makes the emulator ask for every permission AWS asks for, and records each answer.

    Gaps: it leaves out the qualifier of an invoked function, the resource of a workflow's tag calls, the
    state machine that waits for a task token and what IAM has after a log group's name, and never asks for
    what a call needs besides its own action: the KMS key of an object or topic, s3:ListBucket to be told that
    an object does not exist. A refusal names action and resource, as AWS does.
    """
    _name_actions_and_resources()
    _ask_for_all(calls)
    _name_what_was_refused()


def _name_actions_and_resources() -> None:
    stock_action, stock_resource = iam_actions.extract_iam_action, iam_actions.extract_resource_arn

    def action_of(
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        query: Mapping[str, Any],
    ) -> str | None:
        _refused.set(None)
        if service in BEDROCK_SERVICES:
            # Asked where the request is answered: what it needs depends on what our Bedrock knows.
            return None
        action: str | None = stock_action(service, method, path, headers, body, query)
        _further.set(tuple(_needed_besides(action, method, path, headers, query)))
        return action

    def resource_of(
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        query: Mapping[str, Any],
        *where: str,
    ) -> str:
        resource: str = stock_resource(service, method, path, headers, body, query, *where)
        if service == "logs" and ":log-group:" in resource and not resource.endswith(":*"):
            # As IAM names a log group for everything but its tags.
            return f"{resource}:*"
        if service == "states" and resource == "*":
            request = _json_object(body)
            return str(MACHINE_OF_TOKEN.get(request.get("taskToken", "")) or request.get("resourceArn", "*"))
        qualifier = (query.get("Qualifier") or [""])[0]
        if service == "lambda" and qualifier and path.endswith(("/invocations", "/configuration")):
            return f"{resource}:{qualifier}"
        return resource

    iam_actions.extract_iam_action, iam_actions.extract_resource_arn = action_of, resource_of


def _ask_for_all(calls: Calls) -> None:
    stock = iam_evaluator.enforce

    def enforce(
        access_key: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        own, further = Permission(action=action, resource=resource_arn), _further.get()
        _further.set(())
        if action == "sns:Publish":
            further += tuple(_topic_key(resource_arn))
        for permission in (own, *further):
            policy_of = service if permission is own else permission.service
            context = {**(service_context or {}), **dict(permission.conditions)}
            refusal = stock(access_key, permission.action, policy_of, region, permission.resource, context)
            principal = calling_service.get() or principal_of(access_key)
            calls.add(permission, principal=principal, service=service, allowed=refusal is None)
            if refusal is not None:
                _refused.set(permission)
                return refusal
        return None

    iam_evaluator.enforce = enforce


def _name_what_was_refused() -> None:
    stock = iam_actions.access_denied_response

    def refusal(service: str, action: str, principal: str, request_id: str, **details: Any) -> Any:
        refused = _refused.get()
        if refused is None or details.get("error_code") or details.get("resource_policy_arn"):
            return stock(service, action, principal, request_id, **details)
        explicit = bool(details.get("explicit_deny"))
        details["resource_arn"] = refused.resource
        details["message"] = iam_actions.identity_denial_message(
            refused.action, principal, refused.resource, explicit
        )
        return stock(service, refused.action, principal, request_id, **details)

    iam_actions.access_denied_response = refusal


def refusal_of(access_key: str, permissions: Iterable[Permission]) -> Any:
    """Asks for permissions one by one; returns the refusal of the first that is missing, None without one."""
    for each in permissions:
        refusal = iam_evaluator.enforce(
            access_key, each.action, each.service, get_region(), each.resource, dict(each.conditions)
        )
        if refusal is not None:
            return refusal
    return None


def may(role_arn: str, principal: str, *permissions: Permission) -> bool:
    """Returns whether a role that a service assumed has the permissions; for what is no request."""
    return refusal_of(session_of(role_arn, principal)["aws_access_key_id"], permissions) is None


# --- S3, KMS and SNS ----------------------------------------------------------------------------


def _needed_besides(
    action: str | None, method: str, path: str, headers: Mapping[str, str], query: Mapping[str, Any]
) -> list[Permission]:
    """Returns what an S3 request needs of KMS, and to be told that an object does not exist."""
    bucket, _, key = path.lstrip("/").partition("/")
    if action == "s3:PutObject" and key:
        written = _key_to_write(bucket, headers)
        needed = _use_of_key(written, bucket, "kms:GenerateDataKey")
        if "uploads" in query or "uploadId" in query:
            needed += _use_of_key(written, bucket, "kms:Decrypt")
        source = _copied_object(headers)
        return needed + _use_of_key(_key_of_object(*source), source[0], "kms:Decrypt")
    if action in ("s3:GetObject", "s3:GetObjectVersion"):
        if _object(bucket, key) is None:
            return [Permission(action="s3:ListBucket", resource=f"arn:aws:s3:::{bucket}")]
        # Only the content is encrypted: HEAD needs no key.
        return _use_of_key(_key_of_object(bucket, key), bucket, "kms:Decrypt") if method == "GET" else []
    return []


def _copied_object(headers: Mapping[str, str]) -> tuple[str, str]:
    """Returns bucket and key of the object that a copy reads; empty for what is no copy."""
    source = iam_actions._s3_source_object(headers)
    bucket, _, key = str(source[0]).removeprefix("arn:aws:s3:::").partition("/") if source else ("", "", "")
    return bucket, key


def _object(bucket: str, key: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (s3._buckets.get(bucket) or {}).get("objects", {}).get(key)
    return found


_ENCRYPTION, _ENCRYPTION_KEY = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"


def _key_to_write(bucket: str, headers: Mapping[str, str]) -> str:
    asked = headers if headers.get(_ENCRYPTION) else s3._bucket_default_sse_headers(bucket)
    return str(asked.get(_ENCRYPTION_KEY, "")) if asked.get(_ENCRYPTION) == "aws:kms" else ""


def _key_of_object(bucket: str, key: str) -> str:
    return str(s3._stored_sse_headers(_object(bucket, key) or {}).get(_ENCRYPTION_KEY, ""))


def _use_of_key(key: str, bucket: str, action: str) -> list[Permission]:
    # With a bucket key, which every bucket here has, the context is the bucket and not the object.
    context = (("kms:EncryptionContext:aws:s3:arn", f"arn:aws:s3:::{bucket}"),)
    return [_key_permission(key, action, "s3", context)] if key else []


def _topic_key(topic_arn: str) -> list[Permission]:
    key = (sns._topics.get(topic_arn) or {}).get("attributes", {}).get("KmsMasterKeyId", "")
    actions = ("kms:GenerateDataKey", "kms:Decrypt")
    return [_key_permission(key, action, "sns") for action in actions] if key else []


def _key_permission(key: str, action: str, via: str, conditions: Conditions = ()) -> Permission:
    record = kms._resolve_key(key)
    caller = (
        ("kms:ViaService", f"{via}.{get_region()}.amazonaws.com"),
        ("kms:CallerAccount", get_account_id()),
    )
    arn = str(record["Arn"]) if record else key
    return Permission(action=action, resource=arn, conditions=(*caller, *conditions))


# --- Bedrock ------------------------------------------------------------------------------------


# Operations without an IAM action of their own.
_ACTION_OF = {"Converse": "InvokeModel", "ConverseStream": "InvokeModelWithResponseStream"}
# The resource type that the service authorization reference names for what an operation's path identifies.
_TYPE_OF = {
    "GetModelCustomizationJob": "model-customization-job",
    "StopModelCustomizationJob": "model-customization-job",
    "GetCustomModel": "custom-model",
    "DeleteCustomModel": "custom-model",
    "GetCustomModelDeployment": "custom-model-deployment",
    "UpdateCustomModelDeployment": "custom-model-deployment",
    "DeleteCustomModelDeployment": "custom-model-deployment",
    "GetFoundationModel": "foundation-model",
}
_ON_MODEL = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")
_TYPE_OF |= dict.fromkeys(_ON_MODEL, "foundation-model")
# The regions an inference profile may route to, all of which its caller needs the model in; "" is everywhere.
_ROUTES = {"us": ("us-east-1", "us-east-2", "us-west-2"), "global": ("us-east-1", "")}
# Where something that has a name is found, and the member its ARN is in.
_PLACE_OF = {
    "model-customization-job": ("/model-customization-jobs", "jobArn"),
    "custom-model": ("/custom-models", "modelArn"),
    "custom-model-deployment": ("/model-customization/custom-model-deployments", "customModelDeploymentArn"),
}


def _bedrock_action(operation: str) -> str:
    return f"bedrock:{_ACTION_OF.get(operation, operation)}"


class BedrockPermissions:
    """What a Bedrock request needs, which depends on what Bedrock knows: names, tags, the keys of models.

    handle: answers requests, see emulator.answer_bedrock. Not to be used in the thread that answers
    requests: Bedrock may be waiting for an answer of it.
    """

    def __init__(self, handle: BedrockHandler) -> None:
        self._handle = handle

    def needed(self, service: str, method: str, path: str, body: bytes) -> list[Permission]:
        """Returns the permissions a request needs, its own first; none when it is no operation."""
        found = _bedrock_operation(service, method, path)
        if found is None:
            return []
        operation, identifier = found
        request = _json_object(body)
        action = _bedrock_action(operation)
        resources = self._resources(operation, identifier, request)
        conditions = _tags_set(request, "jobTags", "tags")
        if ":inference-profile/" in resources[0]:
            conditions = (("bedrock:InferenceProfileArn", resources[0]),)
        own = [Permission(action=action, resource=arn, conditions=conditions) for arn in resources]
        if operation == "CreateModelCustomizationJob":
            tagged = {"jobTags": "model-customization-job", "customModelTags": "custom-model"}
            return [*own, *_role_and_key(request), *_tagging(request, tagged)]
        if operation == "CreateCustomModelDeployment":
            return [*own, *_tagging(request, {"tags": "custom-model-deployment"})]
        if service == "bedrock-runtime" and (key := self._key_of(resources[0])):
            return [*own, _key_permission(key, "kms:Decrypt", "bedrock")]
        return own

    def tags(self, arn: str) -> dict[str, str]:
        """Returns the tags of something in Bedrock; none when it does not exist."""
        body = json.dumps({"resourceARN": arn}).encode()
        status, document = self._handle("POST", "/listTagsForResource", {}, body, "")
        return {tag["key"]: tag["value"] for tag in document["tags"]} if status == 200 else {}

    def _resources(self, operation: str, identifier: str, request: Mapping[str, Any]) -> list[str]:
        if operation == "CreateModelCustomizationJob":
            # The service names the job and the model: a policy can only speak of all of them.
            return [
                _bedrock_arn("foundation-model", str(request.get("baseModelIdentifier", "*"))),
                _bedrock_arn("custom-model", "*"),
                _bedrock_arn("model-customization-job", "*"),
            ]
        model = _bedrock_arn("custom-model", str(request.get("modelArn", "*")))
        if operation == "CreateCustomModelDeployment":
            return [model]
        if operation == "UpdateCustomModelDeployment":
            return [self._arn("custom-model-deployment", identifier), model]
        if "resourceARN" in request:
            return [str(request["resourceARN"])]
        if operation in _ON_MODEL and (routed := _routed(identifier)):
            return routed
        return [self._arn(_TYPE_OF[operation], identifier)] if operation in _TYPE_OF else ["*"]

    def _arn(self, kind: str, identifier: str) -> str:
        """Returns the ARN of what is identified by its ARN or by its name."""
        named = kind in _PLACE_OF and not identifier.startswith("arn:")
        known = self._get(kind, identifier) if named else {}
        return str(known[_PLACE_OF[kind][1]]) if known else _bedrock_arn(kind, identifier)

    def _key_of(self, arn: str) -> str:
        """Returns the KMS key of the model behind a deployment, "" when there is none."""
        if ":custom-model-deployment/" not in arn:
            return ""
        model = str(self._get("custom-model-deployment", arn).get("modelArn", ""))
        return str(self._get("custom-model", model).get("modelKmsKeyArn", "")) if model else ""

    def _get(self, kind: str, identifier: str) -> Mapping[str, Any]:
        path = f"{_PLACE_OF[kind][0]}/{quote(identifier, safe='')}"
        status, document = self._handle("GET", path, {}, b"", "")
        return document if status == 200 else {}


def _bedrock_operation(service: str, method: str, path: str) -> tuple[str, str] | None:
    """Returns the operation of a request, by the service model's URIs, and the identifier in its path."""
    for route_method, pattern, name in _bedrock_routes(service):
        match = pattern.fullmatch(path.rstrip("/")) if route_method == method else None
        if match:
            return name, match.group(1) if match.groups() else ""
    return None


@cache
def _bedrock_routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    model = botocore.session.get_session().get_service_model(service)
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        literal = re.split(r"\{\w+\+?\}", http["requestUri"].partition("?")[0])
        # An identifier may be an ARN, with slashes in it.
        pattern = re.compile("(.+)".join(re.escape(part) for part in literal))
        routes.append((len("".join(literal)), http["method"], pattern, name))
    # The more of a URI is literal, the more specific it is.
    return [route[1:] for route in sorted(routes, key=lambda route: -route[0])]


def _bedrock_arn(kind: str, name: str) -> str:
    owner = "" if kind == "foundation-model" else get_account_id()
    return name if name.startswith("arn:") else f"arn:aws:bedrock:{get_region()}:{owner}:{kind}/{name}"


def _routed(identifier: str) -> list[str]:
    """Returns the ARNs of an inference profile and the models behind it; nothing for what is no profile."""
    place, _, model = identifier.rpartition("/")[2].partition(".")
    if place not in _ROUTES:
        return []
    models = [f"arn:aws:bedrock:{region}::foundation-model/{model}" for region in _ROUTES[place]]
    return [_bedrock_arn("inference-profile", identifier), *models]


def _role_and_key(request: Mapping[str, Any]) -> list[Permission]:
    passed = (("iam:PassedToService", BEDROCK),)
    role = str(request.get("roleArn", "*"))
    needed = [Permission(action="iam:PassRole", resource=role, conditions=passed)]
    if key := request.get("customModelKmsKeyId"):
        actions = ("kms:DescribeKey", "kms:CreateGrant", "kms:GenerateDataKey", "kms:Decrypt")
        needed += [_key_permission(str(key), action, "bedrock") for action in actions]
    return needed


def _tagging(request: Mapping[str, Any], kinds: Mapping[str, str]) -> list[Permission]:
    return [
        Permission(
            action="bedrock:TagResource",
            resource=_bedrock_arn(kind, "*"),
            conditions=_tags_set(request, member),
        )
        for member, kind in kinds.items()
        if request.get(member)
    ]


def _tags_set(request: Mapping[str, Any], *members: str) -> Conditions:
    """Returns the condition keys for the tags that a request sets."""
    tags = [tag for member in members for tag in request.get(member) or []]
    if not tags:
        return ()
    values = [(f"aws:RequestTag/{tag.get('key')}", str(tag.get("value"))) for tag in tags]
    return (("aws:TagKeys", [str(tag.get("key")) for tag in tags]), *values)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
