"""Runs workflows as Step Functions does: in the name of a role, with the API of any service."""

import contextvars
import copy
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError, UnknownServiceError
from ministack.services import stepfunctions as states

from rft.embedded.callers import STEP_FUNCTIONS, Clients, calling_service
from rft.embedded.faults import Faults
from rft.embedded.permissions import MACHINE_OF_TOKEN, Permission, may


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workflow:
    """The state machine on whose behalf a thread of the emulator works."""

    arn: str
    role_arn: str


_workflow: contextvars.ContextVar[_Workflow | None] = contextvars.ContextVar("workflow", default=None)


def roles() -> None:
    """Runs every execution in the name of its state machine's role.

    Gap: the emulator calls services for a workflow as the account's root, so a missing permission never
    shows.
    """
    stock = states._run_execution

    def run(execution_arn: str) -> None:
        execution = states._executions.get(execution_arn)
        machine = states._state_machines.get(execution["stateMachineArn"]) if execution else None
        if machine:
            # This thread has a context of its own, which the threads of Map and Parallel copy.
            calling_service.set(None)
            _workflow.set(_Workflow(arn=machine["stateMachineArn"], role_arn=machine["roleArn"]))
        stock(execution_arn)

    states._run_execution = run


def tasks(clients: Clients) -> None:
    """Runs a workflow's tasks as API calls with the credentials of its role.

    Gaps: aws-sdk tasks know only a few services (Bedrock is not one of them) and none of the tasks is
    authorized. Here any service botocore knows works, and an error is named as Step Functions names it:
    Bedrock.XxxException.
    """
    stock = states._invoke_resource

    def invoke(resource: str, arguments: Any) -> Any:
        workflow = _workflow.get()
        if workflow is None:
            return stock(resource, arguments)

        def client(service: str) -> Any:
            try:
                return clients.of_role(
                    service, workflow.role_arn, principal=STEP_FUNCTIONS, source_arn=workflow.arn
                )
            except ClientError as error:
                raise states._ExecutionError("States.Permissions", _message(error)) from None

        if ":function:" in resource:
            answer = _invoke_function(client("lambda"), {"FunctionName": resource, "Payload": arguments})
            return answer["Payload"]
        if resource == "arn:aws:states:::lambda:invoke":
            return _invoke_function(client("lambda"), arguments)
        if resource == "arn:aws:states:::sns:publish":
            return sdk_call(client("sns"), "sns", "publish", arguments)
        sdk = re.fullmatch(r"arn:aws:states:::aws-sdk:(\w+):(\w+)", resource)
        if sdk:
            try:
                return sdk_call(client(_boto_name(sdk[1])), sdk[1], sdk[2], arguments)
            except UnknownServiceError:
                raise _runtime_error(f"The service '{sdk[1]}' of {resource} does not exist") from None
        raise _runtime_error(
            f"{resource} does not run on the embedded AWS. "
            "It runs lambda:invoke, sns:publish and every aws-sdk:<service>:<action>."
        )

    states._invoke_resource = invoke


_execution: contextvars.ContextVar[Mapping[str, Any] | None] = contextvars.ContextVar(
    "execution", default=None
)


def task_tokens() -> None:
    """Waits for a task token as Step Functions does.

    Gaps: the emulator takes no expression for TimeoutSeconds, calls the function of a waiting task as the
    account's root and goes on waiting when it fails; and a stopped execution waits for ever.
    """
    stock = states._execute_task

    def execute(state: dict[str, Any], given: Any, execution: Any, ctx: dict[str, Any]) -> Any:
        if isinstance(state.get("TimeoutSeconds"), str):
            seconds = states._apply_jsonata_template(state["TimeoutSeconds"], given, ctx)
            state = {**state, "TimeoutSeconds": seconds}
        _execution.set(execution)
        return stock(state, given, execution, ctx)

    def wait(resource: str, arguments: Any, token: str, state: Mapping[str, Any]) -> Any:
        workflow, execution = _workflow.get(), _execution.get()
        answered = threading.Event()
        task: dict[str, Any] = {"event": answered, "result": None, "error": None, "heartbeat": None}
        states._task_tokens[token] = task
        if workflow:
            MACHINE_OF_TOKEN[token] = workflow.arn
        try:
            states._invoke_resource(resource.removesuffix(".waitForTaskToken"), arguments)
            deadline = time.monotonic() + state.get("TimeoutSeconds", 99_999_999)
            while not answered.wait(0.1):
                if time.monotonic() > deadline:
                    raise states._ExecutionError("States.Timeout", "")
                if execution and execution["status"] != "RUNNING":
                    # Ends this thread: an error would make a stopped execution a failed one.
                    raise SystemExit
        finally:
            states._task_tokens.pop(token, None)
        if task["error"]:
            raise states._ExecutionError(task["error"]["Error"], task["error"]["Cause"])
        return json.loads(task["result"])

    states._execute_task, states._invoke_with_callback = execute, wait


def _invoke_function(client: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {name: value for name, value in arguments.items() if name != "Payload"}
    try:
        answer = client.invoke(**parameters, Payload=json.dumps(arguments.get("Payload", {})))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        # Step Functions has no error name of its own for a refused invocation.
        name = "AWSLambdaException" if code.startswith("AccessDenied") else code
        raise states._ExecutionError(f"Lambda.{name}", _message(error)) from None
    except ParamValidationError as error:
        raise _runtime_error(str(error)) from None
    payload = json.loads(answer["Payload"].read() or b"null")
    if answer.get("FunctionError"):
        raise states._ExecutionError(str(payload.get("errorType", "Lambda.Unknown")), json.dumps(payload))
    return {
        "ExecutedVersion": answer.get("ExecutedVersion", "$LATEST"),
        "Payload": payload,
        "StatusCode": answer["StatusCode"],
    }


def sdk_call(client: Any, service: str, action: str, arguments: Mapping[str, Any]) -> Any:
    """Makes the API call of an aws-sdk task; names in and out are those of Step Functions (PascalCase)."""
    model = client.meta.service_model
    name = action[:1].upper() + action[1:]
    if name not in model.operation_names:
        raise _runtime_error(f"The action '{action}' does not exist in {service}")
    operation = model.operation_model(name)
    try:
        answer = getattr(client, xform_name(name))(**_to_api(operation.input_shape, arguments))
    except ClientError as error:
        prefix = error_prefix(service, model.service_id)
        shape = model.shape_for_error_code(error.response["Error"]["Code"])
        # An error the service model does not list has the service's name.
        code = shape.name if shape else f"{prefix}Exception"
        code = code if code.endswith("Exception") else f"{code}Exception"
        raise states._ExecutionError(f"{prefix}.{code}", _message(error, prefix)) from None
    except ParamValidationError as error:
        raise _runtime_error(str(error)) from None
    answer.pop("ResponseMetadata", None)
    return _from_api(operation.output_shape, answer) if operation.output_shape else {}


def error_prefix(service: str, service_id: str) -> str:
    """Returns what Step Functions puts before a service's errors, as in Bedrock.ValidationException."""
    known = states._AWS_SDK_ERROR_PREFIX.get(service)
    return str(known) if known else "".join(word[:1].upper() + word[1:] for word in service_id.split())


_BOTO_NAMES = {
    "bedrockruntime": "bedrock-runtime",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "sfn": "stepfunctions",
}


def _boto_name(service: str) -> str:
    return _BOTO_NAMES.get(service, service)


def _to_api(shape: Any, value: Any) -> Any:
    """Renames Step Functions' parameters to the API's; a name it does not know is refused, as on AWS."""
    if (
        shape.type_name == "structure"
        and isinstance(value, Mapping)
        and not getattr(shape, "document", False)
    ):
        names = {states._api_name_to_sfn_key(name): name for name in shape.members}
        for name in value:
            if name not in names:
                raise _runtime_error(f"The field '{name}' is not supported by Step Functions")
        return {names[name]: _to_api(shape.members[names[name]], item) for name, item in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_to_api(shape.member, item) for item in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {name: _to_api(shape.value, item) for name, item in value.items()}
    return value


def _from_api(shape: Any, value: Any) -> Any:
    """Renames what the API returned to Step Functions' names, with times as text and streams read."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        return {
            states._api_name_to_sfn_key(name): _from_api(shape.members[name], item)
            for name, item in value.items()
            if name in shape.members
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_from_api(shape.member, item) for item in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {name: _from_api(shape.value, item) for name, item in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    if hasattr(value, "read"):
        value = value.read()
    return value.decode() if isinstance(value, bytes) else value


def _runtime_error(cause: str) -> Exception:
    error: Exception = states._ExecutionError("States.Runtime", cause)
    return error


def _message(error: ClientError, service: str = "") -> str:
    text, meta = error.response["Error"].get("Message", ""), error.response.get("ResponseMetadata", {})
    if not service:
        return text
    status, request = meta.get("HTTPStatusCode"), meta.get("RequestId")
    return f"{text} (Service: {service}, Status Code: {status}, Request ID: {request})"


def distributed_map(clients: Clients) -> None:
    """Runs a Distributed Map in JSONata, under the workflow's role.

    Gaps: JSONata in ItemReader, ItemSelector, MaxConcurrency and the tolerated failures is not evaluated;
    Output and Assign are dropped; the reader reads any object without a permission; nobody asks for
    states:StartExecution, which the workflow needs on itself to start the children. ItemBatcher and
    ResultWriter, which are ignored in silence, are refused. Children do not see the variables of the
    workflow, as on AWS.
    """
    stock_map, stock_read = states._run_distributed_map, states._s3_object_text

    def run(
        state: dict[str, Any], given: Any, effective: Any, iterator: Any, execution: Any, ctx: dict[str, Any]
    ) -> Any:
        if states._state_query_language(state, ctx) != "JSONata":
            raise _runtime_error("The embedded AWS runs a Distributed Map in JSONata only")
        for field in ("ItemBatcher", "ResultWriter"):
            if field in state:
                raise _runtime_error(f"{field} of a Distributed Map does not run on the embedded AWS")
        _check_start_of_children()

        def evaluated(field: str, context: dict[str, Any]) -> Any:
            return states._apply_jsonata_template(state[field], given, context)

        if "ItemReader" in state:
            items = states._read_map_items(evaluated("ItemReader", ctx), effective, ctx)
        else:
            items = evaluated("Items", ctx) if "Items" in state else given
        items = items if isinstance(items, list) else [items]
        if "ItemSelector" in state:
            items = [
                evaluated("ItemSelector", {**ctx, "Map": {"Item": {"Index": index, "Value": item}}})
                for index, item in enumerate(items)
            ]
        plain: dict[str, Any] = {
            name: state[name] for name in ("Type", "Label", "End", "Next") if name in state
        }
        for field in ("MaxConcurrency", "ToleratedFailureCount", "ToleratedFailurePercentage"):
            if field in state:
                plain[field] = evaluated(field, ctx)
        children = {**copy.copy(ctx), "variables": {}}
        results, following = stock_map(plain, given, items, iterator, execution, children)
        output = states._apply_jsonata_output(state, given, ctx, result=results, default=results)
        states._apply_state_assign(state, given, ctx, result=results)
        return output, following

    def read(bucket: str, key: str) -> str:
        workflow = _workflow.get()
        if workflow is None:
            text: str = stock_read(bucket, key)
            return text
        try:
            client = clients.of_role(
                "s3", workflow.role_arn, principal=STEP_FUNCTIONS, source_arn=workflow.arn
            )
            return str(client.get_object(Bucket=bucket, Key=key)["Body"].read().decode())
        except ClientError as error:
            where = f"(Bucket: {bucket}, Key: {key})"
            raise states._ExecutionError("States.ItemReaderFailed", f"{_message(error)} {where}") from None

    states._run_distributed_map, states._s3_object_text = run, read


def parallel() -> None:
    """Runs a Parallel in JSONata.

    Gap: Arguments, Output and Assign are dropped in silence, so the next state works on the wrong data.
    """
    stock = states._run_parallel_branches

    def run(state: dict[str, Any], given: Any, execution: Any, ctx: dict[str, Any]) -> Any:
        if states._state_query_language(state, ctx) != "JSONata":
            return stock(state, given, execution, ctx)
        plain = {name: state[name] for name in ("Type", "Branches", "End", "Next") if name in state}
        arguments = states._apply_jsonata_arguments(state, given, ctx)
        results, following = stock(plain, arguments, execution, ctx)
        output = states._apply_jsonata_output(state, given, ctx, result=results, default=results)
        states._apply_state_assign(state, given, ctx, result=results)
        return output, following

    states._run_parallel_branches = run


def stopped_executions(faults: Faults) -> None:
    """Ends the thread of an execution that was stopped, and holds an execution in a state for a test.

    Gap: in the emulator an execution that was stopped goes on with the state it is in, with every retry, and
    the children of a Distributed Map with all that is left of theirs.
    """
    stock = states._add_event

    def add(execution: dict[str, Any], kind: str, details: Mapping[str, Any] | None = None) -> Any:
        if kind == "TaskScheduled" and _stopped(execution):
            raise SystemExit
        event = stock(execution, kind, details)
        if kind.endswith("StateEntered"):
            faults.enter(execution["name"], event["stateEnteredEventDetails"]["name"])
            if _stopped(execution):
                # Ends this thread: an error would make a stopped execution a failed one.
                raise SystemExit
        return event

    states._add_event = add


def _stopped(execution: Mapping[str, Any]) -> bool:
    parent = states._map_runs.get(execution.get("mapRunArn"))
    whole = states._executions.get(parent["executionArn"]) if parent else execution
    return bool(whole) and whole["status"] != "RUNNING"


def _check_start_of_children() -> None:
    """Raises States.Permissions unless the workflow's role may start executions of the workflow itself."""
    workflow = _workflow.get()
    if workflow is None:
        return
    needed = Permission(action="states:StartExecution", resource=workflow.arn)
    if not may(workflow.role_arn, STEP_FUNCTIONS, needed):
        cause = f"{workflow.role_arn} is not authorized to perform: {needed.action} on: {needed.resource}"
        raise states._ExecutionError("States.Permissions", cause)
