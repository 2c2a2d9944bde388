"""The Bedrock of the embedded AWS: customization jobs, custom models, their deployments, and inference.

Requests are checked against the AWS service model and refused with the service's own error codes. A job
really reads its dataset from S3 and really asks the deployed reward function, as the role it was given.
Only the model is not real: a miniature policy (rft.embedded.policy) trains and answers. Its scores say
nothing about a language model, but reward curves, collapse and reward hacking are the reward function's own
doing.

Known differences from the service: a job takes seconds; its metrics are in S3 from the first step on, to be
watched; everything is forgotten when the process ends; only what this project uses is offered.
"""

import base64
import json
import shutil
import sys
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from threading import RLock, Thread
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from rft.embedded.customization import (
    Document,
    Job,
    JobFailedError,
    JobStoppedError,
    Training,
    code,
    place,
    said,
    timestamp,
)
from rft.embedded.faults import doom
from rft.embedded.policy import Completion, Policy, text_of, tokens
from rft.embedded.service_model import Api, Refusal

# The one model that reinforcement fine-tuning is offered for here, and where.
_MODEL = "amazon.nova-2-lite-v1:0:256k"
_REGIONS = ("us-east-1",)
# How its base is invoked: as with the service, an inference profile is and the bare model is not.
_PROFILES = ("us.amazon.nova-2-lite-v1:0", "global.amazon.nova-2-lite-v1:0")
_BARE = ("amazon.nova-2-lite-v1:0", _MODEL)

_MOST_TAGS = 200
# What an event tells of a job by the names of GetModelCustomizationJob.
_EVENT = (
    *("jobName", "jobArn", "outputModelName", "outputModelArn", "roleArn", "baseModelArn", "failureMessage"),
    *("creationTime", "lastModifiedTime", "endTime", "trainingDataConfig", "outputDataConfig"),
)
_NOTICE = "Answered by the miniature policy of the embedded AWS, not by a language model."


class Clients(Protocol):
    """Makes boto3 clients: of Bedrock itself or, with a role, of a job that Bedrock assumes the role for.

    Raises ClientError AccessDenied when the role's trust policy does not let Bedrock assume it.
    """

    def __call__(self, service: str, role_arn: str | None = None, /) -> Any:
        """Returns the client of a service."""


@dataclass(slots=True)
class _Deployment:
    """A deployment: what GetCustomModelDeployment says of it, and when what is under way will be done."""

    document: Document
    settles: float
    # Why it will not come up, if that is so.
    trouble: str = ""

    @property
    def updating(self) -> bool:
        """Whether another model is on its way in."""
        return bool(self.document.get("updateDetails", {}).get("updateStatus") == "Updating")

    @property
    def models(self) -> set[str]:
        """The ARNs of the models it cannot do without."""
        return {self.document["modelArn"]} | (
            {self.document["updateDetails"]["modelArn"]} if self.updating else set()
        )

    def settle(self) -> None:
        """Finishes what is under way, when its time has come."""
        if time.monotonic() < self.settles:
            return
        if self.trouble:
            self.document.update(status="Failed", failureMessage=self.trouble)
            return
        self.document["status"] = "Active"
        if self.updating:
            self.document["updateDetails"]["updateStatus"] = "UpdateCompleted"
            self.document["modelArn"] = self.document["updateDetails"]["modelArn"]


class Bedrock:
    """Bedrock of one account and region.

    client: makes its boto3 clients, see `Clients`. data_dir: where it keeps the weights of models.
    pause: seconds that each phase of a job and each change of a deployment takes.
    """

    def __init__(
        self, *, client: Clients, account: str, region: str, data_dir: Path, pause: float = 0.2
    ) -> None:
        self._client = client
        self._account = account
        self._region = region
        self._models_dir = data_dir / "models"
        # Left by an earlier process, whose models nobody can name any more.
        shutil.rmtree(self._models_dir, ignore_errors=True)
        self._pause = pause
        self._lock = RLock()
        self._jobs: dict[str, Job] = {}
        self._models: dict[str, Document] = {}
        self._deployments: dict[str, _Deployment] = {}
        self._tags: dict[str, dict[str, str]] = {}
        # A name stays taken when its model is gone; jobs never go.
        self._model_names: set[str] = set()
        # The ARN that each clientRequestToken made.
        self._made: dict[tuple[str, str], str] = {}
        # A model's policy and what names its content.
        self._policies: dict[str, tuple[Policy, str]] = {}
        # How often each model was asked each question: asked again, it answers with another sample.
        self._asked: Counter[tuple[str, str]] = Counter()
        self._operations: Mapping[str, Callable[[Document], Document]] = {
            "CreateModelCustomizationJob": self._create_job,
            "GetModelCustomizationJob": self._get_job,
            "ListModelCustomizationJobs": self._list_jobs,
            "StopModelCustomizationJob": self._stop_job,
            "GetCustomModel": self._get_model,
            "ListCustomModels": self._list_models,
            "DeleteCustomModel": self._delete_model,
            "CreateCustomModelDeployment": self._create_deployment,
            "GetCustomModelDeployment": self._get_deployment,
            "ListCustomModelDeployments": self._list_deployments,
            "UpdateCustomModelDeployment": self._update_deployment,
            "DeleteCustomModelDeployment": self._delete_deployment,
            "ListProvisionedModelThroughputs": self._list_provisioned,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsForResource": self._list_tags,
            "GetFoundationModel": self._get_foundation_model,
            "Converse": self._converse,
            "InvokeModel": self._invoke_model,
        }
        self._api = Api(("bedrock", "bedrock-runtime"), self._operations)

    def handle(
        self, method: str, path: str, query: Mapping[str, Any], body: bytes, _caller: str | None = None
    ) -> tuple[int, Document]:
        """Answers one HTTP request of the services bedrock and bedrock-runtime: (status, JSON body).

        An error is {"__type": the service's error code, "message"}. Who may call is the emulator's to check.
        """
        try:
            found = self._api.request(method, path, query, body)
            if found is None:
                offered = ", ".join(self._operations)
                message = f"The embedded Bedrock does not offer {method} {path}. It offers {offered}."
                return 404, {"__type": "UnknownOperationException", "message": message}
            operation, request = found
            with self._lock:
                for deployment in self._deployments.values():
                    deployment.settle()
            answer = self._operations[operation](request)
            with self._lock:
                # A copy, because a job goes on changing what it says of itself.
                return self._api.success(operation), deepcopy(answer)
        except Refusal as refusal:
            return self._api.status(refusal.code), {"__type": refusal.code, "message": str(refusal)}
        except Exception as error:
            # Whatever goes wrong here, the caller gets an answer, and the log says where.
            traceback.print_exc()
            return 500, {"__type": "InternalServerException", "message": f"{type(error).__name__}: {error}"}

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:aws:bedrock:{self._region}:{self._account}:{kind}/{name}"

    def _part(self, document: Mapping[str, Any], shape: str) -> Document:
        """Returns what of a document belongs into a structure of the service model."""
        return {name: document[name] for name in self._api.members("bedrock", shape) if name in document}

    # --- Customization jobs

    def _create_job(self, request: Document) -> Document:
        token = ("job", request.get("clientRequestToken", ""))
        with self._lock:
            if token in self._made:
                return {"jobArn": self._made[token]}
        self._check_model(request["baseModelIdentifier"])
        _check_customization(request)
        arn, made = self._arn("model-customization-job", f"{_MODEL}/{_new_id()}"), timestamp()
        document = {
            **self._part(request, "GetModelCustomizationJobResponse"),
            "jobArn": arn,
            "outputModelName": request["customModelName"],
            "baseModelArn": f"arn:aws:bedrock:{self._region}::foundation-model/{_MODEL}",
            "status": "InProgress",
            "statusDetails": {
                phase: {"status": "NotStarted", "creationTime": made, "lastModifiedTime": made}
                for phase in ("validationDetails", "dataProcessingDetails", "trainingDetails")
            },
            "creationTime": made,
            "lastModifiedTime": made,
        }
        document.setdefault("validationDataConfig", {"validators": []})
        if key := request.get("customModelKmsKeyId"):
            document["outputModelKmsKeyArn"] = self._check_key(key)
        job = Job(document, doom.get())
        s3, function = self._check_access(job)
        with self._lock:
            # The same request may have come a second time while this one was looked at.
            if token in self._made:
                return {"jobArn": self._made[token]}
            if any(other.document["jobName"] == request["jobName"] for other in self._jobs.values()):
                raise Refusal(
                    "ConflictException",
                    f"The job name {request['jobName']} is taken. The name of a job can never be used again.",
                )
            if request["customModelName"] in self._model_names:
                raise Refusal(
                    "ConflictException",
                    f"The model name {request['customModelName']} is taken. The name of a model can never be"
                    " used again, even when the model is deleted.",
                )
            self._model_names.add(request["customModelName"])
            self._jobs[arn] = job
            self._tags[arn] = _tags(request.get("jobTags"))
            if token[1]:
                self._made[token] = arn
        tags = _tags(request.get("customModelTags"))
        Thread(target=self._work, args=(job, s3, function, tags), name=arn, daemon=True).start()
        return {"jobArn": arn}

    def _check_model(self, identifier: str) -> None:
        """Raises Refusal unless the model can be tuned by reinforcement in this region."""
        name = identifier.removeprefix(f"arn:aws:bedrock:{self._region}::foundation-model/")
        if name != _MODEL or self._region not in _REGIONS:
            raise Refusal(
                "ValidationException",
                f"REINFORCEMENT_FINE_TUNING of {identifier} is not offered in {self._region}."
                f" It is for the base model {_MODEL}, in {', '.join(_REGIONS)}.",
            )

    def _check_key(self, key: str) -> str:
        """Returns the ARN of the KMS key for the model. Raises Refusal when it cannot be used."""
        try:
            found = self._client("kms").describe_key(KeyId=key)["KeyMetadata"]
        except ClientError as error:
            raise Refusal(
                "ValidationException", f"The KMS key {key} cannot be used: {said(error)}."
            ) from error
        if found["KeyState"] != "Enabled":
            raise Refusal("ValidationException", f"The KMS key {key} is {found['KeyState']}, not Enabled.")
        return str(found["Arn"])

    def _check_access(self, job: Job) -> tuple[Any, Any]:
        """Returns clients of S3 and Lambda as the job's role. Raises Refusal when it could not start."""
        role = job.document["roleArn"]
        try:
            s3, function = self._client("s3", role), self._client("lambda", role)
        except ClientError as error:
            raise Refusal(
                "ValidationException",
                f"Could not assume provided IAM role {role}. It must exist, and its trust policy must let"
                f" bedrock.amazonaws.com assume it for aws:SourceAccount {self._account} and aws:SourceArn"
                f" {self._arn('model-customization-job', '*')}.",
            ) from error
        for uri in (job.document["trainingDataConfig"]["s3Uri"], *job.validators):
            try:
                s3.get_object(**place(uri))["Body"].close()
            except ClientError as error:
                raise Refusal(
                    "ValidationException", f"Could not read {uri} as the role {role}: {said(error)}."
                ) from error
        try:
            function.invoke(FunctionName=job.reward_function, InvocationType="DryRun")
        except ClientError as error:
            # A missing permission is left to the job to find, as the service does.
            if code(error) == "ResourceNotFoundException":
                raise Refusal(
                    "ValidationException",
                    f"The reward function {job.reward_function} does not exist: {said(error)}.",
                ) from error
        return s3, function

    def _work(self, job: Job, s3: Any, function: Any, tags: dict[str, str]) -> None:
        """Runs a job to its end, on a thread of its own."""
        self._publish(job)
        training = Training(job=job, lock=self._lock, s3=s3, function=function, pause=self._pause)
        outcome: Document
        try:
            model = self._add_model(job, training.run(), tags)
            outcome = {"status": "Completed", "outputModelArn": model}
            outcome["trainingMetrics"] = {"trainingLoss": training.loss}
        except JobStoppedError:
            outcome = {"status": "Stopped"}
        except JobFailedError as failure:
            outcome = {"status": "Failed", "failureMessage": str(failure)[:2048]}
        except Exception as error:
            # A job must not stay InProgress for ever.
            traceback.print_exc()
            reason = f"The embedded Bedrock itself failed: {type(error).__name__}: {error}"
            outcome = {"status": "Failed", "failureMessage": reason[:2048]}
        ended = timestamp()
        with self._lock:
            job.document.update(outcome, lastModifiedTime=ended, endTime=ended)
        self._publish(job)

    def _publish(self, job: Job) -> None:
        """Tells EventBridge the state of a job; as with the service, the event may get lost."""
        with self._lock:
            detail = {name: job.document[name] for name in _EVENT if name in job.document}
            detail |= {"version": "0.0", "jobStatus": job.document["status"], "hyperParameters": {}}
        if job.validators:
            detail["validationDataConfig"] = {"s3Uri": job.validators[0]}
        entry = {
            "Source": "aws.bedrock",
            "DetailType": "Model Customization Job State Change",
            "Detail": json.dumps(detail),
            "Resources": [detail["jobArn"]],
        }
        try:
            self._client("events").put_events(Entries=[entry])
        except (BotoCoreError, ClientError) as error:
            sys.stderr.write(f"{detail['jobArn']}: an event was not published: {error}\n")

    def _job(self, identifier: str) -> Job:
        for job in self._jobs.values():
            if identifier in (job.document["jobArn"], job.document["jobName"]):
                return job
        raise Refusal("ResourceNotFoundException", f"There is no model customization job {identifier}.")

    def _get_job(self, request: Document) -> Document:
        with self._lock:
            return self._job(request["jobIdentifier"]).document

    def _list_jobs(self, request: Document) -> Document:
        with self._lock:
            summaries = [
                {
                    **self._part(job.document, "ModelCustomizationJobSummary"),
                    "customModelName": job.document["outputModelName"],
                }
                | (
                    {"customModelArn": job.document["outputModelArn"]}
                    if "outputModelArn" in job.document
                    else {}
                )
                for job in self._jobs.values()
            ]
        page, more = _page(request, summaries, name="jobName", created="creationTime", status="status")
        return {"modelCustomizationJobSummaries": page, **more}

    def _stop_job(self, request: Document) -> Document:
        with self._lock:
            job = self._job(request["jobIdentifier"])
            status = job.document["status"]
            if status not in ("InProgress", "Stopping"):
                raise Refusal(
                    "ConflictException",
                    f"The job {job.document['jobName']} cannot be stopped: it is {status}.",
                )
            job.document.update(status="Stopping", lastModifiedTime=timestamp())
            job.stopping.set()
        self._publish(job)
        return {}

    # --- Custom models

    def _add_model(self, job: Job, policy: Policy, tags: dict[str, str]) -> str:
        """Saves what a job has trained; returns the ARN of the new model."""
        arn = self._arn("custom-model", f"{_MODEL}/{_new_id()}")
        self._models_dir.mkdir(parents=True, exist_ok=True)
        policy.save(self._weights(arn))
        model = self._part(job.document, "GetCustomModelResponse")
        model |= {"modelArn": arn, "modelName": job.document["outputModelName"]}
        model |= {"creationTime": timestamp(), "modelStatus": "Active"}
        if key := job.document.get("outputModelKmsKeyArn"):
            model["modelKmsKeyArn"] = key
        with self._lock:
            self._models[arn] = model
            self._tags[arn] = tags
        return arn

    def _weights(self, model: str) -> Path:
        return self._models_dir / f"{model.rpartition('/')[2]}.npz"

    def _model(self, identifier: str) -> Document:
        for model in self._models.values():
            if identifier in (model["modelArn"], model["modelName"]):
                return model
        raise Refusal("ResourceNotFoundException", f"There is no custom model {identifier}.")

    def _get_model(self, request: Document) -> Document:
        with self._lock:
            return self._model(request["modelIdentifier"])

    def _list_models(self, request: Document) -> Document:
        bases = {
            request[name] for name in ("baseModelArnEquals", "foundationModelArnEquals") if name in request
        }
        with self._lock:
            summaries = [
                {
                    **self._part(model, "CustomModelSummary"),
                    "baseModelName": _MODEL.partition(":")[0],
                    "ownerAccountId": self._account,
                }
                for model in self._models.values()
                if bases <= {model["baseModelArn"]} and request.get("isOwned") != "false"
            ]
        page, more = _page(request, summaries, name="modelName", created="creationTime", status="modelStatus")
        return {"modelSummaries": page, **more}

    def _delete_model(self, request: Document) -> Document:
        with self._lock:
            model = self._model(request["modelIdentifier"])
            arn = model["modelArn"]
            for deployment in self._deployments.values():
                if arn in deployment.models:
                    raise Refusal(
                        "ConflictException",
                        f"The model {model['modelName']} is deployed as"
                        f" {deployment.document['customModelDeploymentArn']}. Delete the deployment first.",
                    )
            del self._models[arn], self._tags[arn]
            self._policies.pop(arn, None)
        self._weights(arn).unlink()
        return {}

    # --- Deployments

    def _create_deployment(self, request: Document) -> Document:
        token = ("deployment", request.get("clientRequestToken", ""))
        with self._lock:
            if token in self._made:
                return {"customModelDeploymentArn": self._made[token]}
            model, name = self._model(request["modelArn"]), request["modelDeploymentName"]
            if any(other.document["modelDeploymentName"] == name for other in self._deployments.values()):
                raise Refusal(
                    "ValidationException", f"There is a custom model deployment named {name} already."
                )
            arn, made = self._arn("custom-model-deployment", _new_id()), timestamp()
            document = {
                **self._part(request, "GetCustomModelDeploymentResponse"),
                "customModelDeploymentArn": arn,
                "modelArn": model["modelArn"],
                "createdAt": made,
                "lastUpdatedAt": made,
                "status": "Creating",
            }
            self._deployments[arn] = _Deployment(document, time.monotonic() + self._pause, doom.get())
            self._tags[arn] = _tags(request.get("tags"))
            if token[1]:
                self._made[token] = arn
        return {"customModelDeploymentArn": arn}

    def _deployment(self, identifier: str) -> _Deployment:
        for deployment in self._deployments.values():
            document = deployment.document
            if identifier in (document["customModelDeploymentArn"], document["modelDeploymentName"]):
                return deployment
        raise Refusal("ResourceNotFoundException", f"There is no custom model deployment {identifier}.")

    def _get_deployment(self, request: Document) -> Document:
        with self._lock:
            return self._deployment(request["customModelDeploymentIdentifier"]).document

    def _list_deployments(self, request: Document) -> Document:
        with self._lock:
            summaries = [
                {
                    **self._part(deployment.document, "CustomModelDeploymentSummary"),
                    "customModelDeploymentName": deployment.document["modelDeploymentName"],
                }
                for deployment in self._deployments.values()
                if request.get("modelArnEquals") in (None, deployment.document["modelArn"])
            ]
        page, more = _page(
            request, summaries, name="customModelDeploymentName", created="createdAt", status="status"
        )
        return {"modelDeploymentSummaries": page, **more}

    def _update_deployment(self, request: Document) -> Document:
        with self._lock:
            deployment = self._deployment(request["customModelDeploymentIdentifier"])
            model, document = self._model(request["modelArn"]), deployment.document
            if document["status"] != "Active" or deployment.updating:
                state = "being updated" if deployment.updating else document["status"]
                raise Refusal(
                    "ValidationException",
                    f"The custom model deployment {document['modelDeploymentName']} is {state}."
                    " It can be updated when it is Active.",
                )
            document["updateDetails"] = {"modelArn": model["modelArn"], "updateStatus": "Updating"}
            document["lastUpdatedAt"] = timestamp()
            deployment.settles = time.monotonic() + self._pause
            return {"customModelDeploymentArn": document["customModelDeploymentArn"]}

    def _delete_deployment(self, request: Document) -> Document:
        with self._lock:
            document = self._deployment(request["customModelDeploymentIdentifier"]).document
            arn = document["customModelDeploymentArn"]
            del self._deployments[arn], self._tags[arn]
            self._made = {token: made for token, made in self._made.items() if made != arn}
        return {}

    def _list_provisioned(self, _request: Document) -> Document:
        # Throughput cannot be bought here, so there is never any.
        return {"provisionedModelSummaries": []}

    # --- Tags and base models

    def _tags_of(self, request: Document) -> dict[str, str]:
        if request["resourceARN"] not in self._tags:
            raise Refusal("ResourceNotFoundException", f"There is no resource {request['resourceARN']}.")
        return self._tags[request["resourceARN"]]

    def _tag(self, request: Document) -> Document:
        with self._lock:
            tags = self._tags_of(request)
            if len(tags | _tags(request["tags"])) > _MOST_TAGS:
                raise Refusal(
                    "TooManyTagsException", f"{request['resourceARN']} would get more than {_MOST_TAGS} tags."
                )
            tags |= _tags(request["tags"])
        return {}

    def _untag(self, request: Document) -> Document:
        with self._lock:
            tags = self._tags_of(request)
            for key in request["tagKeys"]:
                tags.pop(key, None)
        return {}

    def _list_tags(self, request: Document) -> Document:
        with self._lock:
            return {"tags": [{"key": key, "value": value} for key, value in self._tags_of(request).items()]}

    def _get_foundation_model(self, request: Document) -> Document:
        prefix = f"arn:aws:bedrock:{self._region}::foundation-model/"
        name = request["modelIdentifier"].removeprefix(prefix)
        if name not in _BARE or self._region not in _REGIONS:
            raise Refusal(
                "ResourceNotFoundException", f"There is no foundation model {name} in {self._region} here."
            )
        return {
            "modelDetails": {
                "modelArn": prefix + name,
                "modelId": name,
                "modelName": "Miniature policy",
                "providerName": "Embedded AWS",
                "inputModalities": ["TEXT"],
                "outputModalities": ["TEXT"],
                "responseStreamingSupported": False,
                "modelLifecycle": {"status": "ACTIVE"},
            }
        }

    # --- Inference

    def _converse(self, request: Document) -> Document:
        started = time.monotonic()
        system = [{"role": "system", "content": request["system"]}] if request.get("system") else []
        completion, prompt = self._answer(request, [*system, *(request.get("messages") or [])])
        content: list[Document] = [{"text": completion.text}]
        if _reasoning(request).get("type") == "enabled":
            # As Nova 2 does, which says that it has reasoned and not what.
            content.insert(0, {"reasoningContent": {"reasoningText": {"text": "[REDACTED]"}}})
        read, written = tokens(prompt), tokens(completion.text)
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": "max_tokens" if completion.truncated else "end_turn",
            "usage": {"inputTokens": read, "outputTokens": written, "totalTokens": read + written},
            "metrics": {"latencyMs": int((time.monotonic() - started) * 1000)},
            "additionalModelResponseFields": {"notice": _NOTICE},
        }

    def _invoke_model(self, request: Document) -> Document:
        """Answers in the schema of the Nova models, which is Converse's but for where some settings stand."""
        try:
            body = json.loads(base64.b64decode(request.get("body", "")))
        except ValueError as error:
            raise Refusal("ValidationException", f"The body is not JSON: {error}.") from error
        if not isinstance(body, dict) or body.pop("schemaVersion", "messages-v1") != "messages-v1":
            raise Refusal("ValidationException", "The body is no request in the schema messages-v1.")
        if "reasoningConfig" in body:
            body["additionalModelRequestFields"] = {"reasoningConfig": body.pop("reasoningConfig")}
        converse = {**body, "modelId": request["modelId"]}
        self._api.check("Converse", converse)
        answer = self._converse(converse)
        return {name: answer[name] for name in ("output", "stopReason", "usage")} | {"notice": _NOTICE}

    def _answer(self, request: Document, messages: Sequence[Document]) -> tuple[Completion, str]:
        """Returns a completion, and the text that it answers."""
        _check_conversation(messages)
        _check_settings(request)
        policy, identity = self._policy(request["modelId"])
        task = policy.task(messages)
        question = sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
        with self._lock:
            self._asked[request["modelId"], question] += 1
            turn = self._asked[request["modelId"], question]
        settings = request.get("inferenceConfig") or {}
        [completion] = policy.sample(
            task,
            1,
            seed=f"{identity} {question} {turn}",
            temperature=settings.get("temperature", 0.7),
            top_p=settings.get("topP", 0.9),
            max_tokens=settings.get("maxTokens"),
        )
        return completion, task.prompt.text

    def _policy(self, identifier: str) -> tuple[Policy, str]:
        """Returns the policy that a model identifier stands for, and what names its content."""
        model = None
        if identifier.removeprefix(self._arn("inference-profile", "")) in _PROFILES:
            if self._region not in _REGIONS:
                raise Refusal("ValidationException", f"{identifier} is not offered in {self._region} here.")
        elif ":custom-model-deployment/" in identifier:
            with self._lock:
                document = self._deployment(identifier).document
            if document["status"] != "Active":
                raise Refusal(
                    "ModelNotReadyException", f"The deployment {identifier} is {document['status']}."
                )
            model = document["modelArn"]
        elif identifier in _BARE or ":custom-model/" in identifier:
            raise Refusal(
                "ValidationException",
                f"Invocation of model ID {identifier} with on-demand throughput isn't supported. Retry your"
                " request with the ID or ARN of an inference profile that contains this model"
                f" ({' or '.join(_PROFILES)}), or of a custom model deployment.",
            )
        else:
            raise Refusal("ValidationException", f"The provided model identifier {identifier} is invalid.")
        key = model or "base"
        with self._lock:
            if key not in self._policies:
                policy = Policy.load(self._weights(model)) if model else Policy.base()
                self._policies[key] = policy, policy.identity
            return self._policies[key]


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _tags(pairs: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in pairs or ()}


def _check_customization(request: Mapping[str, Any]) -> None:
    """Raises Refusal unless the request is one for reinforcement fine-tuning, and complete."""
    kind = request.get("customizationType")
    if kind != "REINFORCEMENT_FINE_TUNING":
        raise Refusal(
            "ValidationException",
            f"customizationType is {kind or 'missing'}; offered here is REINFORCEMENT_FINE_TUNING.",
        )
    rft = (request.get("customizationConfig") or {}).get("rftConfig") or {}
    if not rft.get("graderConfig"):
        missing = "customizationConfig.rftConfig.graderConfig.lambdaGrader.lambdaArn"
        raise Refusal("ValidationException", f"{kind} needs {missing}.")
    if request.get("hyperParameters"):
        raise Refusal(
            "ValidationException",
            f"{kind} does not take hyperParameters but customizationConfig.rftConfig.hyperParameters.",
        )
    if not request["trainingDataConfig"].get("s3Uri"):
        raise Refusal("ValidationException", "The embedded Bedrock trains on trainingDataConfig.s3Uri only.")
    for name in ("maxPromptLength", "inferenceMaxTokens"):
        # The service model gives these two no bounds.
        if (rft.get("hyperParameters") or {}).get(name, 1) < 1:
            raise Refusal("ValidationException", f"{name} must be at least 1.")


def _check_conversation(messages: Sequence[Document]) -> None:
    """Raises Refusal unless this is a conversation in text that waits for an answer."""
    turns = [message["role"] for message in messages if message["role"] != "system"]
    if not turns or turns[0] != "user" or turns[-1] != "user":
        raise Refusal("ValidationException", "A conversation must start and end with a user message.")
    if any(former == latter for former, latter in pairwise(turns)):
        raise Refusal("ValidationException", "The roles user and assistant must alternate in a conversation.")
    for message in messages:
        if any(set(block) != {"text"} for block in message["content"]):
            raise Refusal(
                "ValidationException", "The embedded Bedrock reads text; a message has something else."
            )
        if not text_of(message["content"]).strip():
            raise Refusal("ValidationException", f"A message of the role {message['role']} has no text.")


def _reasoning(request: Mapping[str, Any]) -> Document:
    extra = request.get("additionalModelRequestFields") or {}
    return dict(extra.get("reasoningConfig") or {})


def _check_settings(request: Mapping[str, Any]) -> None:
    """Raises Refusal for settings that the miniature does not know or that Nova 2 does not take together."""
    for name in ("toolConfig", "guardrailConfig", "promptVariables", "outputConfig"):
        if request.get(name):
            raise Refusal("ValidationException", f"The embedded Bedrock does not offer {name}.")
    if (request.get("inferenceConfig") or {}).get("stopSequences"):
        raise Refusal("ValidationException", "The embedded Bedrock does not offer stopSequences.")
    if unknown := set(request.get("additionalModelRequestFields") or {}) - {"reasoningConfig"}:
        raise Refusal(
            "ValidationException", f"The embedded Bedrock knows no model field {', '.join(sorted(unknown))}."
        )
    reasoning = _reasoning(request)
    kind, effort = reasoning.pop("type", "disabled"), reasoning.pop("maxReasoningEffort", None)
    if kind not in ("enabled", "disabled") or effort not in (None, "low", "medium", "high") or reasoning:
        raise Refusal(
            "ValidationException",
            "reasoningConfig has a type, enabled or disabled, and a maxReasoningEffort, low, medium or high.",
        )
    for name in ("temperature", "topP", "maxTokens"):
        if kind == "enabled" and effort == "high" and name in (request.get("inferenceConfig") or {}):
            raise Refusal("ValidationException", f"{name} cannot be set when maxReasoningEffort is high.")


def _page(
    request: Mapping[str, Any], summaries: Sequence[Document], *, name: str, created: str, status: str
) -> tuple[list[Document], Document]:
    """Returns the summaries that a List request asks for, newest first, and the token of those that follow.

    name, created, status: what the summaries call these.
    """
    after, before = (request.get(f"{created.removesuffix('At')}{side}") for side in ("After", "Before"))
    wanted = request.get("statusEquals", request.get("modelStatus"))
    found = [
        summary
        for summary in summaries
        if request.get("nameContains", "") in summary[name]
        and wanted in (None, summary[status])
        and (after is None or _moment(summary[created]) > _moment(after))
        and (before is None or _moment(summary[created]) < _moment(before))
    ]
    # They come in the order they were made.
    if request.get("sortOrder") != "Ascending":
        found.reverse()
    if not request.get("nextToken", "0").isdecimal():
        raise Refusal("ValidationException", f"The nextToken {request['nextToken']} is invalid.")
    start = int(request.get("nextToken", "0"))
    end = start + request.get("maxResults", 1000)
    return found[start:end], {"nextToken": str(end)} if end < len(found) else {}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
