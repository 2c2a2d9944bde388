"""Samples a model on one prompt and has the deployed reward function score every completion.

Event: {"run", "subject": "base" | "candidate" | "champion" | "training", "model_id", "reward_version",
    "measurement": {"samples_per_prompt", "temperature", ...}, "samples": completions in all, "max_tokens",
    "reasoning_effort": "low" | "medium" | "high" | null,
    "item": {"index", "id", "part"?, "messages", "reference_answer", "metadata"}}. "training" is the base
    model on training prompts, for `filter_prompts`; "part" says which file a held-out prompt is from.
Returns: {"index"}.
Writes: runs/<run>/measured/<subject>/<index in five digits>.json = {"index", "id", "part"?, "messages",
    "reference_answer", "completions": [{"text", "score", "components", "metrics", "output_tokens",
    "stop_reason"}], "mean", "more": [the same], "input_tokens", "reward_seconds"}. `completions` are as many
    as `measurement` says, and `mean` is theirs: that is what models are compared by. `more` are those beyond
    them, which only `signal` and `estimate` look at. The tokens are those of the prompt; the seconds passed
    while the reward function scored all of them. After a failure runs/<run>/failed/<subject>/<index>.json =
    {"error", "cause"}, which `clean_up` reads, because all that a Map state says is that an item failed.
Errors: `RunError` when the reward function is broken or answers nonsense. `RewardUnavailableError` when it
    says that what it depends on is down, or when it times out (worth a retry). botocore's own errors by their
    own names.
Environment: STACK, ARTIFACTS.
IAM:
    - bedrock:InvokeModel (Converse) on the base model or its inference profile (what `model_id` names), and
      on custom-model-deployment/* of this account (the service makes the id of the candidate's);
    - lambda:InvokeFunction on the reward function's versions;
    - s3:PutObject on ARTIFACTS/runs/*/measured/* and ARTIFACTS/runs/*/failed/*;
    - kms:GenerateDataKey on the key of ARTIFACTS.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lambdas.workflow import runs
from lambdas.workflow.runs import RunError

if TYPE_CHECKING:
    from types_boto3_bedrock_runtime import BedrockRuntimeClient
    from types_boto3_lambda import LambdaClient

# Endings of a Lambda function that are not the fault of its code.
_UNAVAILABLE = frozenset(
    {"InfrastructureError", "Sandbox.Timedout", "Runtime.ExitError", "Runtime.ExtensionError"}
)


class RewardUnavailableError(Exception):
    """The reward function could not score now; later it may."""


def handler(event: Mapping[str, Any], _context: object) -> dict[str, int]:
    """Measures one prompt (see the module)."""
    run, index = event["run"], event["item"]["index"]
    place = f"{event['subject']}/{index:05}.json"
    try:
        measured = _measure(event)
    except Exception as error:
        runs.write(run, f"failed/{place}", {"error": type(error).__name__, "cause": str(error)})
        raise
    runs.write(run, f"measured/{place}", measured)
    return {"index": index}


def _measure(event: Mapping[str, Any]) -> dict[str, Any]:
    item = event["item"]
    request = converse_request(
        event["model_id"],
        item["messages"],
        max_tokens=event["max_tokens"],
        temperature=event["measurement"]["temperature"],
        reasoning_effort=event.get("reasoning_effort"),
    )
    # One after the other: the Map state's concurrency is the one number that says how busy the model gets.
    compared = event["measurement"]["samples_per_prompt"]
    samples = [_sample(request) for _ in range(max(compared, event["samples"]))]
    completions = [completion for completion, _ in samples]
    batch = [
        {
            "id": f"{item['id']}-{number}",
            "messages": [*item["messages"], {"role": "assistant", "content": completion["text"]}],
            "metadata": {**item["metadata"], "reference_answer": item["reference_answer"]},
        }
        for number, completion in enumerate(completions)
    ]
    began = time.monotonic()
    rewards = score(event["reward_version"], batch)
    took = time.monotonic() - began
    for completion, reward in zip(completions, rewards, strict=True):
        completion.update(reward)
    return {
        **{key: item[key] for key in ("index", "id", "part") if key in item},
        "messages": item["messages"],
        "reference_answer": item["reference_answer"],
        "completions": completions[:compared],
        "mean": fmean(completion["score"] for completion in completions[:compared]),
        "more": completions[compared:],
        "input_tokens": samples[0][1],
        "reward_seconds": round(took, 3),
    }


def converse_request(
    model_id: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    max_tokens: int,
    temperature: float,
    reasoning_effort: str | None,
) -> dict[str, Any]:
    """Returns the Converse request for a prompt of a dataset."""
    request: dict[str, Any] = {"modelId": model_id, "messages": []}
    for message in messages:
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        blocks = [{"text": text} for text in texts]
        if message["role"] == "system":
            request["system"] = blocks
        elif request["messages"] and request["messages"][-1]["role"] == message["role"]:
            # Converse wants the roles to alternate; a dataset may have two messages of one in a row.
            request["messages"][-1]["content"] += blocks
        else:
            request["messages"].append({"role": message["role"], "content": blocks})
    # Nova 2 takes {"type": "enabled", "maxReasoningEffort": low|medium|high} here, and at high it refuses
    # temperature, topP and maxTokens: so say AWS's user guide of Nova 2 (Converse) and users of the API. Not
    # verified, for want of an account: that a model tuned with an effort expects the same field at inference,
    # and what is the service's cap on tokens at high, where ours cannot be given.
    if reasoning_effort:
        request["additionalModelRequestFields"] = {
            "reasoningConfig": {"type": "enabled", "maxReasoningEffort": reasoning_effort}
        }
    if reasoning_effort != "high":
        request["inferenceConfig"] = {"maxTokens": max_tokens, "temperature": temperature}
    return request


def _sample(request: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Returns one completion and the tokens of its prompt; what the model only thought is no part of it."""
    bedrock: BedrockRuntimeClient = runs.client("bedrock-runtime")
    answer = bedrock.converse(**request)
    content = answer["output"]["message"]["content"]
    completion = {
        "text": "".join(block["text"] for block in content if "text" in block),
        "output_tokens": answer["usage"]["outputTokens"],
        "stop_reason": answer["stopReason"],
    }
    return completion, answer["usage"]["inputTokens"]


def score(version: str, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the reward of every sample of a batch, in its order, as Bedrock would get it.

    Raises:
        RunError: The reward function is broken, or answers nonsense.
        RewardUnavailableError: It could not score in its time, or what it depends on is down.
    """
    function: LambdaClient = runs.client("lambda")
    answer = function.invoke(FunctionName=version, Payload=json.dumps(batch).encode())
    body = answer["Payload"].read()
    if answer.get("FunctionError"):
        raise _failure(body)
    try:
        return read_rewards(json.loads(body), [sample["id"] for sample in batch])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"the reward function answered what Bedrock cannot use ({error}): it must return a list with one"
            ' {"id", "aggregate_reward_score"} for every sample, which lambdas/contract.py does'
        ) from error


def read_rewards(answer: Any, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns {"score", "components", "metrics"} for each of `ids`, in their order.

    Raises:
        ValueError: The answer is not what the contract says; also TypeError, KeyError, AttributeError.
    """
    if not isinstance(answer, list):
        raise TypeError(f"a {type(answer).__name__} instead of a list")
    found = {entry["id"]: entry for entry in answer}
    if len(answer) != len(ids) or set(found) != set(ids):
        raise ValueError(f"ids {_some(entry['id'] for entry in answer)} for the samples {_some(ids)}")
    rewards = []
    for sample in ids:
        entry = found[sample]
        listed = entry.get("metrics_list") or []
        rewards.append(
            {
                "score": _number(entry["aggregate_reward_score"], f"the score of {sample}"),
                **{
                    key: {
                        metric["name"]: _number(metric["value"], f"{metric['name']} of {sample}")
                        for metric in listed
                        if metric["type"] == kind
                    }
                    for key, kind in (("components", "Reward"), ("metrics", "Metric"))
                },
            }
        )
    return rewards


def _number(value: Any, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{what} is {value!r}, no finite number")
    return float(value)


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(map(repr, listed[:4])) + (", …" if len(listed) > 4 else "") if listed else "of nothing"


def _failure(body: bytes) -> Exception:
    """Returns the error for what Lambda says of a function that failed."""
    try:
        said = json.loads(body)
        kind, message = said.get("errorType", "error"), said.get("errorMessage", "")
    except (ValueError, AttributeError):
        kind, message = "error", body.decode("utf-8", "replace")[:500]
    log = f"read the log of the reward function of {os.environ['STACK']}"
    # A time-out is told by its text only.
    if kind in _UNAVAILABLE or "Task timed out" in message:
        return RewardUnavailableError(f"the reward function could not score: {kind}: {message} ({log})")
    return RunError(f"the reward function is broken: {kind}: {message} ({log})")
