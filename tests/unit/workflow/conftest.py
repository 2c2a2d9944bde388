"""An AWS in memory for the steps of the workflow: real boto3 clients, with state behind them and no network.

Every request is held against the service model that boto3 carries, also in what boto3 leaves to the service
(enums, patterns, upper bounds); every answer against the shape a caller may rely on.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import botocore.client
import pytest
from botocore import xform_name
from botocore.response import StreamingBody
from botocore.validate import validate_parameters

from lambdas.workflow import runs

STACK = "rft-quotes-dev"
DATASETS = "datasets-bucket"
ARTIFACTS = "artifacts-bucket"
RUN = "run-0123456789abcdef"
NAME = f"{STACK}-{RUN}"
ACCOUNT = "arn:aws:bedrock:us-east-1:111122223333"
JOB_ARN = f"{ACCOUNT}:model-customization-job/amazon.nova-2-lite-v1:0:256k/abcdefghijkl"
STATE_MACHINE = "arn:aws:states:us-east-1:111122223333:stateMachine:Workflow"
REWARD = "arn:aws:lambda:us-east-1:111122223333:function:Reward:3"
TOPIC = "arn:aws:sns:us-east-1:111122223333:Topic"


class RefusedError(Exception):
    """What a fake service says no with: a code of the service, and words."""

    def __init__(self, code: str, message: str = "no", status: int = 400) -> None:
        super().__init__(code, message)
        self.code, self.message, self.status = code, message, status


@dataclass
class Stored:
    body: bytes
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'


@dataclass
class Aws:
    """The state, and what was asked for; `refusals` and the hooks let a test bring trouble in."""

    objects: dict[tuple[str, str], Stored] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    published: list[dict[str, str]] = field(default_factory=list)
    # Each is a time in milliseconds, a log stream and a message.
    logged: list[tuple[int, str, str]] = field(default_factory=list)
    refusals: dict[str, list[RefusedError | None]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    model: Callable[[dict[str, Any]], dict[str, Any]] = lambda _asked: {"content": [{"text": "42"}]}
    reward: Callable[[Any], Any] = lambda _batch: []
    before_write: Callable[[tuple[str, str]], None] = lambda _place: None

    # --- for tests ---

    def put(self, bucket: str, key: str, body: bytes) -> str:
        self.objects[bucket, key] = Stored(body)
        return f"s3://{bucket}/{key}"

    def document(self, path: str, run: str = RUN) -> Any:
        return json.loads(self.objects[ARTIFACTS, f"runs/{run}/{path}"].body)

    def write(self, path: str, content: Any, run: str = RUN) -> None:
        self.put(ARTIFACTS, f"runs/{run}/{path}", json.dumps(content).encode())

    def called(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == operation]

    def deploy(self, letter: str, *, name: str, model: str = "m") -> str:
        arn = f"{ACCOUNT}:custom-model-deployment/{letter * 12}"
        self.deployments[arn] = {
            "customModelDeploymentArn": arn,
            "modelDeploymentName": name,
            "modelArn": model_arn(model),
            "status": "Active",
            "createdAt": datetime(2026, 1, 1, tzinfo=UTC),
        }
        return arn

    def train(self, letter: str, *, run: str = RUN, day: int = 1, name: str = "") -> str:
        """Makes the custom model of a run, as if its job had ended on that day of January 2026."""
        arn = model_arn(letter)
        self.models[arn] = {
            "modelArn": arn,
            "modelName": name or f"{STACK}-{run}",
            "creationTime": datetime(2026, 1, day, tzinfo=UTC),
            "baseModelArn": "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-lite-v1:0:256k",
            "baseModelName": "amazon.nova-2-lite-v1",
        }
        return arn

    def crown(self, letter: str, *, run: str = RUN) -> str:
        """Makes a deployment of a model the champion's; returns the deployment's ARN."""
        self.train(letter, run=run)
        arn = self.deploy("z", name=f"{STACK}-run-eeeeeeeeeeeeeeee", model=letter)
        self.parameters["/champion"] = arn
        return arn

    def arrive(self) -> None:
        """Ends whatever deployment is on its way to another model."""
        for deployment in self.deployments.values():
            if update := deployment.get("updateDetails"):
                update["updateStatus"] = "UpdateCompleted"
                deployment["modelArn"] = update["modelArn"]

    def entries(self) -> list[dict[str, Any]]:
        """The history of the champion."""
        keys = sorted(
            key for bucket, key in self.objects if bucket == ARTIFACTS and key.startswith("history/")
        )
        return [json.loads(self.objects[ARTIFACTS, key].body) for key in keys]

    # --- the services: one method for each operation, which takes its parameters ---

    def call(self, client: Any, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        model = client.meta.service_model.operation_model(operation)
        sent = dict(params)
        if source := sent.get("CopySource"):
            # boto3 takes this apart, and sends a string.
            sent["CopySource"] = "{Bucket}/{Key}".format(**source)
        validate_parameters(sent, model.input_shape)
        hold_to(model.input_shape, sent, operation)
        self.calls.append((operation, params))
        waiting = self.refusals.get(operation)
        refusal = waiting.pop(0) if waiting else None
        try:
            if refusal is not None:
                raise refusal
            answer: dict[str, Any] = getattr(self, xform_name(operation))(params)
        except RefusedError as refused:
            error = {
                "Error": {"Code": refused.code, "Message": refused.message},
                "ResponseMetadata": {"HTTPStatusCode": refused.status},
            }
            raise client.exceptions.from_code(refused.code)(error, operation) from None
        checked = {key: value for key, value in answer.items() if key not in ("Body", "Payload")}
        validate_parameters(checked, model.output_shape)
        return answer

    def _stored(self, place: Any, missing: str = "NoSuchKey") -> Stored:
        try:
            return self.objects[place["Bucket"], place["Key"]]
        except KeyError:
            raise RefusedError(missing, "The specified key does not exist.", 404) from None

    def get_object(self, asked: Any) -> dict[str, Any]:
        found = self._stored(asked)
        return {
            "Body": StreamingBody(io.BytesIO(found.body), len(found.body)),
            "ContentLength": len(found.body),
            "ETag": found.etag,
        }

    def head_object(self, asked: Any) -> dict[str, Any]:
        found = self._stored(asked, "404")
        return {"ETag": found.etag, "Metadata": found.metadata}

    def put_object(self, asked: Any) -> dict[str, Any]:
        place = asked["Bucket"], asked["Key"]
        self.before_write(place)
        held = self.objects.get(place)
        if asked.get("IfNoneMatch") == "*" and held:
            raise RefusedError("PreconditionFailed", "At least one pre-condition did not hold", 412)
        if wanted := asked.get("IfMatch"):
            if not held:
                raise RefusedError("NoSuchKey", "The specified key does not exist.", 404)
            if held.etag != wanted:
                raise RefusedError("PreconditionFailed", "At least one pre-condition did not hold", 412)
        # An upload hands over something to read.
        body = asked["Body"]
        self.put(*place, body if isinstance(body, bytes) else body.read())
        return {}

    def copy_object(self, asked: Any) -> dict[str, Any]:
        found = self._stored(asked["CopySource"])
        if found.etag != asked["CopySourceIfMatch"]:
            raise RefusedError("PreconditionFailed", "A pre-condition did not hold", 412)
        assert asked["MetadataDirective"] == "REPLACE"
        self.objects[asked["Bucket"], asked["Key"]] = Stored(found.body, asked["Metadata"])
        return {}

    def list_objects_v2(self, asked: Any) -> dict[str, Any]:
        keys = [
            key
            for bucket, key in self.objects
            if bucket == asked["Bucket"] and key.startswith(asked["Prefix"])
        ]
        # Pages of three, so that who reads the first page only is found out.
        start = int(asked.get("ContinuationToken", 0))
        more = {"NextContinuationToken": str(start + 3)} if len(keys) > start + 3 else {}
        return {
            "Contents": [{"Key": key} for key in sorted(keys)[start : start + 3]],
            "IsTruncated": bool(more),
            **more,
        }

    def start_execution(self, asked: Any) -> dict[str, Any]:
        # As Step Functions does: the same name with the same input is the same start.
        if self.executions.setdefault(asked["name"], asked["input"]) != asked["input"]:
            raise RefusedError("ExecutionAlreadyExists", f"Execution Already Exists: '{asked['name']}'")
        machine = asked["stateMachineArn"].replace(":stateMachine:", ":execution:")
        return {"executionArn": f"{machine}:{asked['name']}", "startDate": datetime.now(UTC)}

    def describe_execution(self, asked: Any) -> dict[str, Any]:
        """Knows the executions that a test has given a status."""
        arn = asked["executionArn"]
        if arn not in self.statuses:
            raise RefusedError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        return {
            "executionArn": arn,
            "stateMachineArn": STATE_MACHINE,
            "status": self.statuses[arn],
            "startDate": datetime.now(UTC),
        }

    def list_tags_for_resource(self, asked: Any) -> dict[str, Any]:
        assert asked["resourceArn"] == STATE_MACHINE
        return {"tags": [{"key": key, "value": value} for key, value in self.tags.items()]}

    def create_model_customization_job(self, asked: Any) -> dict[str, Any]:
        name = asked["jobName"]
        if name in self.jobs:
            raise RefusedError("ConflictException", f"The provided job name {name} is in use", 409)
        self.jobs[name] = {
            "jobArn": JOB_ARN,
            "jobName": name,
            "outputModelName": asked["customModelName"],
            "status": "InProgress",
            "creationTime": datetime(2026, 1, 1, tzinfo=UTC),
            "baseModelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{asked['baseModelIdentifier']}",
            "validationDataConfig": {"validators": []},
            **{
                key: asked[key]
                for key in ("roleArn", "trainingDataConfig", "outputDataConfig", "customizationConfig")
            },
        }
        return {"jobArn": JOB_ARN}

    def _job(self, identifier: str) -> dict[str, Any]:
        for job in self.jobs.values():
            if identifier in (job["jobName"], job["jobArn"]):
                return job
        raise RefusedError("ResourceNotFoundException", "The provided job is not found", 404)

    def get_model_customization_job(self, asked: Any) -> dict[str, Any]:
        return dict(self._job(asked["jobIdentifier"]))

    def stop_model_customization_job(self, asked: Any) -> dict[str, Any]:
        job = self._job(asked["jobIdentifier"])
        if job["status"] != "InProgress":
            raise RefusedError("ConflictException", "The job is not running", 409)
        job["status"] = "Stopping"
        return {}

    def _deployment(self, asked: Any) -> dict[str, Any]:
        identifier = asked["customModelDeploymentIdentifier"]
        for deployment in self.deployments.values():
            if identifier in (deployment["customModelDeploymentArn"], deployment["modelDeploymentName"]):
                return deployment
        raise RefusedError("ResourceNotFoundException", "The deployment is not found", 404)

    def get_custom_model_deployment(self, asked: Any) -> dict[str, Any]:
        return dict(self._deployment(asked))

    def update_custom_model_deployment(self, asked: Any) -> dict[str, Any]:
        deployment = self._deployment(asked)
        deployment["updateDetails"] = {"modelArn": asked["modelArn"], "updateStatus": "Updating"}
        return {"customModelDeploymentArn": deployment["customModelDeploymentArn"]}

    def delete_custom_model_deployment(self, asked: Any) -> dict[str, Any]:
        del self.deployments[self._deployment(asked)["customModelDeploymentArn"]]
        return {}

    def list_custom_model_deployments(self, asked: Any) -> dict[str, Any]:
        names = ("customModelDeploymentArn", "modelArn", "createdAt", "status")
        found = [
            {**{name: each[name] for name in names}, "customModelDeploymentName": each["modelDeploymentName"]}
            for each in self.deployments.values()
            if asked["nameContains"] in each["modelDeploymentName"]
        ]
        return {"modelDeploymentSummaries": found}

    def list_custom_models(self, asked: Any) -> dict[str, Any]:
        found = [each for each in self.models.values() if asked["nameContains"] in each["modelName"]]
        # Pages of three, as above.
        start = int(asked.get("nextToken", 0))
        more = {"nextToken": str(start + 3)} if len(found) > start + 3 else {}
        return {"modelSummaries": found[start : start + 3], **more}

    def _model(self, identifier: str) -> dict[str, Any]:
        for model in self.models.values():
            if identifier in (model["modelName"], model["modelArn"]):
                return model
        raise RefusedError("ResourceNotFoundException", "The model is not found", 404)

    def get_custom_model(self, asked: Any) -> dict[str, Any]:
        found = self._model(asked["modelIdentifier"])
        return {key: found[key] for key in ("modelArn", "modelName", "creationTime", "baseModelArn")}

    def delete_custom_model(self, asked: Any) -> dict[str, Any]:
        arn = self._model(asked["modelIdentifier"])["modelArn"]
        if any(arn == deployment["modelArn"] for deployment in self.deployments.values()):
            raise RefusedError("ConflictException", "The model is deployed", 400)
        del self.models[arn]
        return {}

    def send_task_success(self, asked: Any) -> dict[str, Any]:
        if self.waiting.get(asked["taskToken"], {}) is not None:
            raise RefusedError("TaskDoesNotExist", "Task token not found")
        self.waiting[asked["taskToken"]] = json.loads(asked["output"])
        return {}

    def get_parameter(self, asked: Any) -> dict[str, Any]:
        if asked["Name"] not in self.parameters:
            raise RefusedError("ParameterNotFound")
        return {"Parameter": {"Name": asked["Name"], "Value": self.parameters[asked["Name"]]}}

    def put_parameter(self, asked: Any) -> dict[str, Any]:
        if asked["Name"] in self.parameters and not asked.get("Overwrite"):
            raise RefusedError("ParameterAlreadyExists")
        self.parameters[asked["Name"]] = asked["Value"]
        return {}

    def publish(self, asked: Any) -> dict[str, Any]:
        subject = asked["Subject"]
        # The service's own rule; its model does not say so.
        if len(subject) > 100 or not subject.isascii() or "\n" in subject:
            raise RefusedError("InvalidParameter", "Invalid parameter: Subject")
        self.published.append(asked)
        return {}

    def filter_log_events(self, asked: Any) -> dict[str, Any]:
        """Searches three events at a time, so that pages without a hit come before others that have one."""
        pattern = asked["filterPattern"].strip('"')
        events = sorted(each for each in self.logged if each[0] >= asked.get("startTime", 0))
        start = int(asked.get("nextToken", 0))
        more = {"nextToken": str(start + 3)} if len(events) > start + 3 else {}
        return {
            "events": [
                {
                    "timestamp": at,
                    "logStreamName": stream,
                    "message": message,
                    "eventId": hashlib.sha256(f"{at} {stream} {message}".encode()).hexdigest(),
                }
                for at, stream, message in events[start : start + 3]
                if pattern in message
            ],
            **more,
        }

    def converse(self, asked: Any) -> dict[str, Any]:
        roles = [message["role"] for message in asked["messages"]]
        if roles[0] != "user" or any(first == second for first, second in pairwise(roles)):
            raise RefusedError("ValidationException", "roles must alternate, beginning with the user")
        answer = self.model(asked)
        return {
            "output": {"message": {"role": "assistant", "content": answer["content"]}},
            "stopReason": answer.get("stop", "end_turn"),
            "usage": {"inputTokens": 5, "outputTokens": answer.get("tokens", 7), "totalTokens": 12},
            "metrics": {"latencyMs": 1},
        }

    def invoke(self, asked: Any) -> dict[str, Any]:
        assert asked["FunctionName"] == REWARD
        failed = {}
        try:
            answer = self.reward(json.loads(asked["Payload"]))
        except Exception as error:
            answer = {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": ["..."]}
            failed = {"FunctionError": "Unhandled"}
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode()), **failed}


def model_arn(letter: str) -> str:
    return f"{ACCOUNT}:custom-model/amazon.nova-2-lite-v1:0:256k/{letter * 12}"


def hold_to(shape: Any, value: Any, where: str) -> None:
    """Fails unless a request obeys what boto3 does not check: patterns, enums and upper bounds."""
    if getattr(shape, "is_document_type", False):
        return
    if shape.type_name == "structure":
        for key, inner in value.items():
            hold_to(shape.members[key], inner, f"{where}.{key}")
    elif shape.type_name == "list":
        for inner in value:
            hold_to(shape.member, inner, where)
    elif shape.type_name in ("string", "integer", "float", "long"):
        size = len(value) if shape.type_name == "string" else value
        assert size <= shape.metadata.get("max", size), f"{where}: {value!r} is over {shape.metadata['max']}"
        assert value in (shape.metadata.get("enum") or [value]), f"{where}: {value!r}"
        if (pattern := shape.metadata.get("pattern")) and isinstance(value, str):
            # The patterns of the models used here mean the same in Python; not all of AWS's do.
            assert re.search(pattern, value), f"{where}: {value!r} does not match {pattern}"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    cloud = Aws(parameters={"/champion": "none"})
    for name, value in {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "STACK": STACK,
        "DATASETS": DATASETS,
        "ARTIFACTS": ARTIFACTS,
        "CHAMPION": "/champion",
        "TOPIC": TOPIC,
        "APPROVAL_SECONDS": "0",
        "KEEP_MODELS": "5",
        "KEEP_DAYS": "0",
        "STATE_MACHINE": STATE_MACHINE,
        "CUSTOMIZATION_ROLE": "arn:aws:iam::111122223333:role/Customization",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        botocore.client.BaseClient,
        "_make_api_call",
        lambda client, operation, params: cloud.call(client, operation, params),
    )
    runs.client.cache_clear()
    return cloud
