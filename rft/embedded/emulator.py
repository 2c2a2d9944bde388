"""Fits the AWS emulator (ministack) to what AWS does, where the difference matters to this project.

Every function that changes the emulator names the gap it closes; tests/embedded/test_emulator.py tells when
the emulator has closed one itself. Its own tables are extended where it has them, a function of it is
replaced only where it has none. This runs inside the child process only: importing it imports the emulator.

What stays different from AWS, and is not worth a change: functions run on the interpreter that runs this,
on this machine's processor, with its packages in reach and without limits of memory or /tmp; templates and
state machine definitions are hardly checked (cfn-lint does that); a state machine's own TimeoutSeconds is
not kept; log groups of state machines stay empty; what a service does by itself is not asked of key
policies; MetricFilter makes no metric; an alarm looks at one period, however many it asks for.
"""

import asyncio
import contextlib
import contextvars
import hashlib
import itertools
import json
import operator
import re
import secrets
import subprocess
import sys
import threading
import time
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partialmethod
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import botocore.session
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime
from ministack.core.responses import get_account_id, get_region
from ministack.core.router import extract_access_key_id
from ministack.services import (
    budgets,
    cloudwatch,
    eventbridge,
    lambda_svc,
    s3,
    sns,
    stepfunctions,
    tagging,
)
from ministack.services.cloudformation import provisioners

from rft.embedded import workflows
from rft.embedded.callers import (
    LAMBDA,
    SERVICE_HEADER,
    Clients,
    calling_service,
    principal_of,
    service_of,
)
from rft.embedded.faults import Faults, answer_of, body_of, doom
from rft.embedded.nursery import Nursery
from rft.embedded.permissions import (
    BEDROCK_SERVICES,
    BedrockHandler,
    BedrockPermissions,
    Calls,
    Permission,
    action_of,
    authorization,
    may,
    refusal_of,
)


def install(
    *, clients: Clients, calls: Calls, bedrock: BedrockHandler, faults: Faults, data_dir: Path
) -> None:
    """Makes all the changes. Raises RuntimeError when the emulator is not what they were made for."""
    authorization(calls)
    lambda_failures()
    lambda_logs()
    lambda_packages(data_dir / "packages")
    lambda_workers()
    bucket_properties()
    topic_properties()
    parameter_names()
    budget_resources()
    event_targets()
    service_events()
    alarms()
    embedded_metrics()
    workflow_metrics()
    answer_bedrock(bedrock)
    workflows.roles()
    workflows.tasks(clients)
    workflows.task_tokens()
    workflows.distributed_map(clients)
    workflows.parallel()
    workflows.stopped_executions(faults)


def recorded(application: Any, calls: Calls) -> Any:
    """Returns the ASGI application with every request recorded, and known as TLS.

    Gap: the emulator sees plain HTTP, so a bucket policy that denies aws:SecureTransport=false (what every
    CDK bucket with enforce_ssl has) denies everything. Loopback never leaves the machine: it counts as TLS,
    told by the header the emulator reads behind a proxy.
    """

    async def handle(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        calling_service.set(service_of(headers.get(SERVICE_HEADER.encode(), b"").decode()))
        request = calls.begin()

        async def note_and_send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                # Before it is sent: who has the answer finds the record.
                calls.end(request, message["status"])
            await send(message)

        known_as_tls = [*scope["headers"], (b"x-forwarded-proto", b"https")]
        await application({**scope, "headers": known_as_tls}, receive, note_and_send)

    return handle


def faulty(application: Any, faults: Faults) -> Any:
    """Returns the ASGI application whose requests meet the faults that a test gives it."""

    async def handle(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not faults:
            await application(scope, receive, send)
            return
        body = await body_of(receive)
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)

        def caller() -> str:
            return calling_service.get() or principal_of(extract_access_key_id(headers, query) or "")

        action = action_of(scope["method"], scope["path"], headers, body, query)
        text = f"{scope['path']} {body.decode(errors='replace')}"
        fault = await faults.answer(action, text, caller)
        if fault and fault.does == "refuse":
            about, answer = answer_of(fault, action)
            pairs = [(name.encode(), value.encode()) for name, value in about.items()]
            await send({"type": "http.response.start", "status": fault.status, "headers": pairs})
            await send({"type": "http.response.body", "body": answer})
            return
        if fault and fault.does == "doom":
            doom.set(fault.message)
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Any:
            return unread.pop() if unread else await receive()

        await application(scope, receive_again, send)

    return handle


# --- Lambda -------------------------------------------------------------------------------------


_failure: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("failure", default=None)

# What the emulator's worker answers when a handler raises, and what ours answers instead.
_STOCK_REPLY = '{"status": "error", "error": str(e), "trace": traceback.format_exc()}'
_REPLY = """{"status": "ok", "result": None, "failure": {
                "errorMessage": str(e), "errorType": type(e).__name__,
                "stackTrace": traceback.format_tb(e.__traceback__)[1:], "trace": traceback.format_exc()}}"""


def lambda_failures() -> None:
    """Reports an exception as the Lambda runtime does: its class as errorType, and the worker lives on.

    Gaps: errorType is always Runtime.HandlerError, so no Retry or Catch on an exception's name ever
    matches; and the worker is killed, so the next invocation pays for a cold start.
    """
    if lambda_runtime._PYTHON_WORKER_SCRIPT.count(_STOCK_REPLY) != 1:
        raise RuntimeError("The emulator's Lambda worker reports a failure in another way than expected.")
    lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(_STOCK_REPLY, _REPLY)
    stock_invoke, stock_execute = lambda_runtime.Worker.invoke, lambda_svc._execute_function_warm

    def invoke(worker: Any, *arguments: Any, **named: Any) -> Any:
        answer = stock_invoke(worker, *arguments, **named)
        _failure.set(answer.get("failure"))
        return answer

    def execute(function: Any, event: Any, request_id: str) -> Any:
        _failure.set(None)
        result, failure = stock_execute(function, event, request_id), _failure.get()
        if failure is None:
            return result
        kind, message = failure["errorType"], failure["errorMessage"]
        log = f"{result.get('log', '')}\n[ERROR] {kind}: {message}\n{failure['trace']}"
        body = {
            "errorMessage": message,
            "errorType": kind,
            "requestId": request_id,
            "stackTrace": failure["stackTrace"],
        }
        return {"body": body, "error": True, "log": log.strip()}

    lambda_runtime.Worker.invoke, lambda_svc._execute_function_warm = invoke, execute


def lambda_logs() -> None:
    """Writes a function's log only if its role may, as Lambda does.

    Gap: the emulator writes the log whatever the role, so a function without the permission is found out on
    AWS.
    """
    stock = lambda_svc._emit_lambda_logs

    def write(function: Any, *arguments: Any, **named: Any) -> None:
        config = function.get("config") or function
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        stream = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:any"
        actions = ("logs:CreateLogStream", "logs:PutLogEvents")
        if may(config["Role"], LAMBDA, *(Permission(action=action, resource=stream) for action in actions)):
            stock(function, *arguments, **named)

    lambda_svc._emit_lambda_logs = write


def lambda_packages(folder: Path) -> None:
    """Unpacks a package once for all the workers that run it, so that they share its bytecode as well.

    Gap: every worker unpacks its package and compiles it anew, which is most of a cold start. It also waits
    50 ms after each invocation for a log, even though a worker has written it by the time it answers.
    """
    unpacking = threading.Lock()

    class Package(zipfile.ZipFile):
        """A package that is unpacked to a folder of its own, to which the asked-for one becomes a link."""

        def extractall(self, path: Any = None, members: Any = None, pwd: Any = None) -> None:
            content = Path(str(self.filename)).read_bytes()
            shared = folder / hashlib.sha256(content).hexdigest()
            with unpacking:
                if not shared.exists():
                    super().extractall(shared.with_suffix(".part"), members, pwd)
                    shared.with_suffix(".part").rename(shared)
            Path(path).rmdir()
            Path(path).symlink_to(shared)

    lambda_runtime.zipfile = types.SimpleNamespace(**vars(zipfile) | {"ZipFile": Package})
    stock_drain = lambda_runtime.Worker._drain_stderr_bounded
    lambda_runtime.Worker._drain_stderr_bounded = partialmethod(stock_drain, first_line_wait=0.01)


def lambda_workers() -> None:
    """Starts the workers of the workflow's functions from one that has imported boto3 (see nursery.py).

    Gap: every worker imports boto3 anew, which AWS keeps at hand.
    """
    if sys.platform != "linux":
        return
    nursery = Nursery()

    def start(command: list[str], *, cwd: str, env: dict[str, str], **streams: Any) -> Any:
        if command[0] == sys.executable and Path(cwd, "lambdas", "workflow").is_dir():
            return nursery.start(command, cwd, env)
        return subprocess.Popen(command, cwd=cwd, env=env, **streams)

    lambda_runtime.subprocess = types.SimpleNamespace(**vars(subprocess) | {"Popen": start})


# --- CloudFormation -----------------------------------------------------------------------------


def bucket_properties() -> None:
    """Applies tags, encryption, lifecycle and Object Lock of AWS::S3::Bucket, and the stack's tags.

    Gaps: the emulator drops these properties of AWS::S3::Bucket without a word, and does not propagate stack
    tags to buckets; and it deletes a bucket with all that is in it, which on AWS fails the deletion of the
    stack.
    """
    provisioners._STACK_TAG_PROPERTY["AWS::S3::Bucket"] = ("Tags", "list")
    handlers = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    stock_create, stock_update = handlers["create"], handlers["update"]

    def create(logical_id: str, properties: dict[str, Any], stack_name: str) -> Any:
        created = stock_create(logical_id, properties, stack_name)
        _apply_bucket_properties(created[0], properties)
        return created

    def update(physical_id: str, old: dict[str, Any], new: dict[str, Any], stack_name: str) -> Any:
        updated = stock_update(physical_id, old, new, stack_name)
        _apply_bucket_properties(updated[0], new)
        return updated

    def delete(physical_id: str, _properties: Any) -> None:
        status, _, body = s3._delete_bucket(physical_id)
        # One that is gone already is as good as deleted.
        if status not in (204, 404):
            raise ValueError(f"AWS::S3::Bucket {physical_id}: {body!r}")

    provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"] = {
        **handlers,
        "create": create,
        "update": update,
        "delete": delete,
    }


def _apply_bucket_properties(bucket: str, properties: Mapping[str, Any]) -> None:
    if properties.get("Tags"):
        _put_bucket("Tagging", bucket, s3._put_bucket_tagging, {"TagSet": properties["Tags"]})
    if encryption := properties.get("BucketEncryption"):
        rules = [_encryption_rule(rule) for rule in encryption["ServerSideEncryptionConfiguration"]]
        if all(rules):
            _put_bucket("Encryption", bucket, s3._put_bucket_encryption, {"Rules": rules})
    if lifecycle := properties.get("LifecycleConfiguration"):
        rules = [_lifecycle_rule(rule) for rule in lifecycle["Rules"]]
        _put_bucket("LifecycleConfiguration", bucket, s3._put_bucket_lifecycle, {"Rules": rules})
    if properties.get("ObjectLockEnabled"):
        s3._bucket_object_lock.setdefault(bucket, {"enabled": True, "default_retention": None})


@cache
def _s3_model() -> Any:
    return botocore.session.get_session().get_service_model("s3")


def _put_bucket(what: str, bucket: str, put: Callable[[str, bytes], Any], value: Mapping[str, Any]) -> None:
    """Calls an S3 operation of the emulator with the body an SDK would send.

    CloudFormation runs in the thread that answers requests: a request to ourselves would never be answered.
    Raises ValueError, which fails the resource, for a property S3 does not have and for what the emulator
    refuses.
    """
    operation = _s3_model().operation_model(f"PutBucket{what}")
    shape: Any = operation.input_shape
    member = shape.serialization["payload"]
    parameters = {"Bucket": bucket, member: value}
    report = ParamValidator().validate(parameters, shape)
    if report.has_errors():
        raise ValueError(f"AWS::S3::Bucket {member}: {report.generate_report()}")
    request = create_serializer("rest-xml").serialize_to_request(parameters, operation)
    status, _, body = put(bucket, request["body"])
    if status >= 400:
        raise ValueError(f"AWS::S3::Bucket {member}: {body!r}")


def _encryption_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    default = rule.get("ServerSideEncryptionByDefault", {})
    if default.get("SSEAlgorithm") == "aws:kms" and "KMSMasterKeyID" not in default:
        # The CDK staging bucket: AWS uses its own key there, which the emulator does not have; it refuses
        # the PUTs.
        return {}
    renamed = {
        "ApplyServerSideEncryptionByDefault": default,
        "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
    }
    return {name: value for name, value in renamed.items() if value not in ({}, None)}


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a CloudFormation lifecycle rule in the words of the S3 API."""
    api: dict[str, Any] = {"Filter": {"Prefix": rule.get("Prefix", "")}}
    for name, value in rule.items():
        match name:
            case "Id":
                api["ID"] = value
            case "Prefix":
                pass
            case "ExpirationInDays":
                api.setdefault("Expiration", {})["Days"] = int(value)
            case "ExpiredObjectDeleteMarker":
                api.setdefault("Expiration", {})["ExpiredObjectDeleteMarker"] = value
            case "NoncurrentVersionExpirationInDays":
                api["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(value)}
            case "Transitions":
                api["Transitions"] = [
                    {"StorageClass": each["StorageClass"], "Days": int(each["TransitionInDays"])}
                    for each in value
                ]
            case _:
                api[name] = value
    return api


def topic_properties() -> None:
    """Gives a topic of a stack its KMS key, and the default policy the condition it has on AWS.

    Gaps: the emulator forgets KmsMasterKeyId; its default policy lets anybody publish, so a role that may
    not is found out on AWS.
    """
    handlers = provisioners._RESOURCE_HANDLERS["AWS::SNS::Topic"]
    stock_create, stock_update = handlers["create"], handlers["update"]

    def create(logical_id: str, properties: Mapping[str, Any], stack_name: str) -> Any:
        created = stock_create(logical_id, properties, stack_name)
        attributes = sns._topics[created[0]]["attributes"]
        policy = json.loads(attributes["Policy"])
        for statement in policy["Statement"]:
            statement["Condition"] = {"StringEquals": {"AWS:SourceOwner": get_account_id()}}
        attributes["Policy"] = json.dumps(policy)
        _set_topic_key(created[0], properties)
        return created

    def update(physical_id: str, old: Any, new: Mapping[str, Any], *rest: Any, **named: Any) -> Any:
        updated = stock_update(physical_id, old, new, *rest, **named)
        _set_topic_key(updated[0], new)
        return updated

    provisioners._RESOURCE_HANDLERS["AWS::SNS::Topic"] = {**handlers, "create": create, "update": update}


def _set_topic_key(topic_arn: str, properties: Mapping[str, Any]) -> None:
    attributes = sns._topics[topic_arn]["attributes"]
    attributes.pop("KmsMasterKeyId", None)
    if key := properties.get("KmsMasterKeyId"):
        attributes["KmsMasterKeyId"] = key


def parameter_names() -> None:
    """Names an SSM parameter that has no name in the template as CloudFormation does: without a slash.

    Gap: the emulator begins the name with one, and an ARN made of "parameter/" and the name, as CDK makes
    it, is then not that of the parameter.
    """
    handlers = provisioners._RESOURCE_HANDLERS["AWS::SSM::Parameter"]
    stock_create = handlers["create"]

    def create(logical_id: str, properties: Mapping[str, Any], stack_name: str) -> Any:
        name = f"CFN-{logical_id}-{secrets.token_hex(6)}"
        return stock_create(logical_id, {"Name": name, **properties}, stack_name)

    provisioners._RESOURCE_HANDLERS["AWS::SSM::Parameter"] = {**handlers, "create": create}


def budget_resources() -> None:
    """Makes AWS::Budgets::Budget, through the emulator's own API of budgets.

    Gap: the emulator has the API, but CloudFormation knows no resource of it.
    """

    def ask(operation: Callable[[dict[str, Any]], Any], **parameters: Any) -> None:
        status, _, body = operation({"AccountId": get_account_id(), **parameters})
        if status >= 400:
            raise ValueError(f"AWS::Budgets::Budget: {body!r}")

    def spelled(budget: Mapping[str, Any], name: str) -> dict[str, Any]:
        limit = budget["BudgetLimit"]
        # The API has amounts as text, the template as numbers.
        return {**budget, "BudgetName": name, "BudgetLimit": {**limit, "Amount": str(limit["Amount"])}}

    def create(logical_id: str, properties: Mapping[str, Any], stack_name: str) -> Any:
        name = f"{stack_name}-{logical_id}-{secrets.token_hex(6)}"
        notices = properties.get("NotificationsWithSubscribers", [])
        budget = spelled(properties["Budget"], name)
        ask(budgets._create_budget, Budget=budget, NotificationsWithSubscribers=notices)
        return name, {}

    def update(name: str, _old: Any, new: Mapping[str, Any], *_rest: Any) -> Any:
        ask(budgets._update_budget, NewBudget=spelled(new["Budget"], name))
        return name, {}

    def delete(name: str, _properties: Any) -> None:
        ask(budgets._delete_budget, BudgetName=name)

    handlers = {"create": create, "update": update, "delete": delete}
    if "AWS::Budgets::Budget" in provisioners._RESOURCE_HANDLERS:
        raise RuntimeError("The emulator makes budgets by itself.")
    provisioners._RESOURCE_HANDLERS["AWS::Budgets::Budget"] = handlers


# --- events -------------------------------------------------------------------------------------


def event_targets() -> None:
    """Invokes a rule's function as EventBridge does: if its policy allows it, and again if it fails.

    Gaps: the emulator invokes any function, so a forgotten AWS::Lambda::Permission is found out on AWS, in
    silence; and it invokes it once, without retries and without telling the function's failure destination.
    """
    stock = eventbridge._invoke_target

    def invoke(target: Mapping[str, Any], event: Any, rule: Mapping[str, Any], view: Any = None) -> None:
        if ":function:" in target["Arn"] and not _lets_rule_invoke(target["Arn"], rule["Arn"]):
            eventbridge.logger.warning(
                "%s may not be invoked by %s: no permission", target["Arn"], rule["Arn"]
            )
            return
        stock(target, event, rule, view)

    def dispatch(function_arn: str, payload: str) -> None:
        function, config, _ = lambda_svc._get_func_record_for_ref(function_arn)
        if function and config:
            record = lambda_svc._execution_record_for_config(function, config)
            lambda_svc.invoke_async_with_retry(record, json.loads(payload))

    eventbridge._invoke_target, eventbridge._dispatch_to_lambda = invoke, dispatch


def _lets_rule_invoke(function_arn: str, rule_arn: str) -> bool:
    policy, _ = lambda_svc.function_policy_for_arn(function_arn) or ({}, "")
    question = iam_evaluator.EvalContext(
        principal_arn="",
        principal_type="Service",
        principal_account="",
        action="lambda:InvokeFunction",
        resource_arn=function_arn,
        region=get_region(),
        secure_transport=True,
        service_context={"aws:sourcearn": rule_arn, "aws:sourceaccount": get_account_id()},
    )
    answer = iam_evaluator.evaluate_resource_policy(policy, question, service="events.amazonaws.com")
    return bool(answer.decision == "Allow")


def service_events() -> None:
    """Lets our Bedrock publish events of the source aws.bedrock.

    Gap: PutEvents refuses every source that begins with "aws.", as AWS does to customers; our Bedrock is
    the service.
    """
    stock = eventbridge._put_events

    def put(data: Any, allow_aws_source: bool = False) -> Any:
        return stock(data, allow_aws_source=allow_aws_source or calling_service.get() is not None)

    eventbridge._put_events = put


# --- CloudWatch ---------------------------------------------------------------------------------


def alarms() -> None:
    """Looks at an alarm whenever its metric is measured, and only at what has its dimensions.

    Gaps: the emulator looks at alarms when one is described or a metric is put by hand, not when a service
    measures one; and it takes a metric of that name for the alarm's, whatever its dimensions.
    """
    stock = cloudwatch.record_metric

    def record(
        namespace: str, metric_name: str, value: float, unit: str = "None", dimensions: Any = None
    ) -> None:
        stock(namespace, metric_name, value, unit, dimensions)
        measured = cloudwatch._dims_key(dimensions or {})
        for alarm in list(cloudwatch._alarms.values()):
            named = (alarm.get("Namespace"), alarm.get("MetricName"))
            if named == (namespace, metric_name) and _dimensions_of(alarm) == measured:
                _evaluate(alarm)

    cloudwatch.record_metric, cloudwatch._evaluate_alarm = record, _evaluate


_BREACHES = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le,
    "LessThanThreshold": operator.lt,
}


def _dimensions_of(alarm: Mapping[str, Any]) -> str:
    key: str = cloudwatch._dims_key({each["Name"]: each["Value"] for each in alarm.get("Dimensions") or ()})
    return key


def _evaluate(alarm: dict[str, Any]) -> None:
    """Looks at what the alarm's metric was in its last period, and tells when that is news."""
    key = (alarm.get("Namespace"), alarm.get("MetricName"), _dimensions_of(alarm))
    since = time.time() - alarm.get("Period", 60)
    # The newest are last, and a long rehearsal has many that are older.
    points = list(
        itertools.takewhile(
            lambda point: point["Timestamp"] >= since, reversed(list(cloudwatch._metrics.get(key) or ()))
        )
    )
    if not points:
        return
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic", "Average")
    value = cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points)
    breaches = _BREACHES[alarm["ComparisonOperator"]](value, alarm["Threshold"])
    before, after = alarm["StateValue"], "ALARM" if breaches else "OK"
    if before != after:
        reason = f"Threshold Crossed: {statistic} {value} in one period, threshold {alarm['Threshold']}"
        alarm |= {"StateValue": after, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
        cloudwatch._record_history(alarm["AlarmName"], before, after, reason)
        cloudwatch._dispatch_alarm_actions(alarm, before, after, reason)


def embedded_metrics() -> None:
    """Makes metrics of what a function prints in the embedded metric format.

    Gap: for the emulator such a line is a line of a log like any other.
    """
    stock = lambda_svc._emit_lambda_logs

    def write(function: Any, request_id: str, log_text: str, *arguments: Any, **named: Any) -> None:
        stock(function, request_id, log_text, *arguments, **named)
        for line in _metric_lines(log_text):
            for directive in line["_aws"]["CloudWatchMetrics"]:
                for names in directive["Dimensions"]:
                    dimensions = {name: line[name] for name in names}
                    for metric in directive["Metrics"]:
                        name, unit = metric["Name"], metric.get("Unit", "None")
                        cloudwatch.record_metric(directive["Namespace"], name, line[name], unit, dimensions)

    lambda_svc._emit_lambda_logs = write


def _metric_lines(log_text: str) -> Iterator[dict[str, Any]]:
    for text in log_text.splitlines():
        if '"_aws"' in text:
            with contextlib.suppress(ValueError):
                yield json.loads(text)


def workflow_metrics() -> None:
    """Counts how executions end, as Step Functions does.

    Gap: the emulator has no metrics of the namespace AWS/States.
    """
    stock = stepfunctions._emit_execution_status_event
    counted = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "TIMED_OUT": "TimedOut", "ABORTED": "Aborted"}

    def emit(execution: Mapping[str, Any]) -> None:
        stock(execution)
        if end := counted.get(execution["status"]):
            dimensions = {"StateMachineArn": execution["stateMachineArn"]}
            cloudwatch.record_metric("AWS/States", f"Executions{end}", 1, "Count", dimensions)

    stepfunctions._emit_execution_status_event = emit


# --- Bedrock ------------------------------------------------------------------------------------

_INVOCATION = re.compile(r"/model/(.+)/(?:converse|invoke)")


def answer_bedrock(handle: BedrockHandler) -> None:
    """Answers both Bedrock services with ours: handle(method, path, query, body, caller's ARN).

    handle returns the HTTP status and the document, with "__type" naming an error.
    Gaps: in the emulator a customization job never ends, knows no reward function and leaves no model to
    deploy; it names Converse an IAM action (AWS asks for bedrock:InvokeModel), takes no job and no
    deployment for a resource, knows no tags of them, so a policy's aws:ResourceTag never holds, and asks
    for no iam:PassRole, tagging or KMS key, and measures no calls of models in AWS/Bedrock.
    """
    permissions = BedrockPermissions(handle)

    def authorized(
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        query: Mapping[str, Any],
    ) -> Any:
        access_key = extract_access_key_id(headers, query)
        refusal = refusal_of(access_key, permissions.needed(service, method, path, body))
        if refusal is not None:
            explicit = refusal.decision == "Deny"
            return iam_actions.access_denied_response(
                service, "", refusal.principal_arn, "", headers=headers, explicit_deny=explicit
            )
        flat = {name: values[0] for name, values in query.items()}
        status, document = handle(method, path, flat, body, iam_evaluator.caller_arn())
        called = _INVOCATION.fullmatch(path)
        if called and status == HTTPStatus.OK:
            dimensions = {"ModelId": unquote(called[1])}
            cloudwatch.record_metric("AWS/Bedrock", "Invocations", 1, "Count", dimensions)
        error = {"x-amzn-ErrorType": str(document["__type"])} if "__type" in document else {}
        return status, {"Content-Type": "application/json", **error}, json.dumps(document).encode()

    def answering(service: str) -> Any:
        async def answer(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
            # In a thread: Bedrock calls other services, which this one answers.
            return await asyncio.to_thread(authorized, service, method, path, headers, body, query)

        return answer

    for service in BEDROCK_SERVICES:
        app.SERVICE_HANDLERS[service] = answering(service)
    stock_tags = tagging.resource_tags

    def tags_of(arn: str) -> dict[str, str] | None:
        return permissions.tags(arn) if arn.startswith("arn:aws:bedrock:") else stock_tags(arn)

    tagging.resource_tags = tags_of
