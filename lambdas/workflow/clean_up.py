"""Stops what a broken run left running, keeps the evidence and tells the team in plain words.

Event: {"run", "step"?, "error": {"Error", "Cause"}} from a Catch, or EventBridge's "Step Functions Execution
    Status Change" of an execution that was ABORTED, TIMED_OUT or FAILED (then mostly cleaned up already).
Returns: {"sentence"}, fit for the Cause of the Fail state.
Writes: runs/<run>/failure.json = {"step", "error", "cause", "done", "left", "notified", "sentence"}; and
    publishes to TOPIC, once per run.
Errors: `CleanUpError` at the very end, naming all that could not be cleaned up. It is worth a retry: every
    action may be repeated.
Environment: STACK, ARTIFACTS, CHAMPION, TOPIC.
IAM:
    - bedrock:GetModelCustomizationJob, bedrock:StopModelCustomizationJob on model-customization-job/*, and
      bedrock:GetCustomModelDeployment, bedrock:DeleteCustomModelDeployment on custom-model-deployment/*
      (the service makes the ids; both are found by the run's name);
    - ssm:GetParameter on CHAMPION;
    - s3:GetObject, s3:PutObject on ARTIFACTS/lock.json;
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*/failure.json, promotion.json and failed/*,
      s3:PutObject on ARTIFACTS/runs/*/failure.json;
    - sns:Publish on TOPIC;
    - kms:Decrypt, kms:GenerateDataKey on the keys of ARTIFACTS and TOPIC.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambdas.workflow import lock, runs
from lambdas.workflow.promote import champion

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_sns import SNSClient

# A sentence is also the Cause of the Fail state, which Step Functions limits to 32 KiB.
_LONGEST_CAUSE = 6_000
_PLAIN = {
    "States.Timeout": "it took longer than the time it is given",
    "States.HeartbeatTimeout": "it gave no sign of life",
    "States.ExceedToleratedFailureThreshold": "not every prompt could be measured",
}


class CleanUpError(Exception):
    """Something of a broken run could not be cleaned up; the message says what, and how to do it by hand."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What went wrong with a run."""

    run: str
    step: str | None
    error: str
    cause: str


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Cleans up after a run, as far as it can be done (see the module)."""
    trouble = _trouble(event)
    run = trouble.run
    before = _before(run)
    # A second attempt knows no better what went wrong: the first one has written it down.
    trouble = (
        _Trouble(run, before["step"], before["error"], before["cause"]) if before else _explained(trouble)
    )
    done: list[str] = [*before.get("done", [])]
    left: list[str] = []
    actions: tuple[Callable[[str], str | None], ...] = (_stop_job, _delete_deployment, _release_lock)
    for action in actions:
        try:
            if (said := action(run)) and said not in done:
                done.append(said)
        except Exception as error:
            # Any: what is wrong with one of them must not keep the others from being done.
            left.append(f"{action.__name__.strip('_').replace('_', ' ')} {runs.name(run)} ({error})")
    sentence = _sentence(trouble, done, left)
    notified = before.get("notified", False)
    if not notified:
        try:
            _notify(sentence)
            notified = True
        except Exception as error:
            left.append(f"notify the team ({error})")
    record = {
        "step": trouble.step,
        "error": trouble.error,
        "cause": trouble.cause,
        "done": done,
        "left": left,
        "notified": notified,
        "sentence": sentence,
    }
    if record != before:
        try:
            runs.write(run, "failure.json", record)
        except Exception as error:
            left.append(f"write {runs.uri(run, 'failure.json')} ({error})")
    if left:
        raise CleanUpError(f"{sentence} Still to be done by hand: {'; '.join(left)}.")
    return {"sentence": sentence}


def _trouble(event: Mapping[str, Any]) -> _Trouble:
    if detail := event.get("detail"):
        status = detail["status"]
        error = detail.get("error") or ("States.Timeout" if status == "TIMED_OUT" else "Aborted")
        cause = detail.get("cause") or ("" if status == "TIMED_OUT" else "it was stopped by hand")
        return _Trouble(detail["name"], None, error, _said(cause))
    error = event.get("error") or {}
    return _Trouble(
        event["run"], event.get("step"), error.get("Error") or "error", _said(error.get("Cause") or "")
    )


def _said(cause: str) -> str:
    """Returns the words of a cause: that of a failed Lambda function is JSON with a stack trace."""
    try:
        said = json.loads(cause)["errorMessage"]
    except (ValueError, KeyError, TypeError):
        return cause
    return str(said)


def _explained(trouble: _Trouble) -> _Trouble:
    """Returns the trouble in plain words, with what is known of prompts that could not be measured."""
    cause = _PLAIN.get(trouble.error) or trouble.cause or trouble.error
    try:
        if unmeasured := _unmeasured(trouble.run):
            cause = f"{cause}: {unmeasured}"
    except Exception as error:
        cause = f"{cause} (why single prompts failed could not be read: {error})"
    return _Trouble(trouble.run, trouble.step, trouble.error, cause[:_LONGEST_CAUSE])


def _unmeasured(run: str) -> str | None:
    """Returns how many prompts failed and why the first one did, None if none did."""
    # A prompt that failed and was measured at another attempt did not fail.
    measured = {path.removeprefix("measured/") for path in runs.paths(run, "measured")}
    failed = [path for path in runs.paths(run, "failed") if path.removeprefix("failed/") not in measured]
    if not failed:
        return None
    first = runs.read(run, failed[0])
    return f"{len(failed)} failed, the first because {first['cause'] or first['error']}"


def _stop_job(run: str) -> str | None:
    """Stops the run's customization job if it is under way."""
    bedrock: BedrockClient = runs.client("bedrock")
    name = runs.name(run)
    try:
        job = bedrock.get_model_customization_job(jobIdentifier=name)
    except bedrock.exceptions.ResourceNotFoundException:
        return None
    if job.get("status") != "InProgress":
        return None
    try:
        bedrock.stop_model_customization_job(jobIdentifier=job["jobArn"])
    except bedrock.exceptions.ConflictException:
        # It ended by itself in between.
        return None
    return f"customization job {name} was stopped"


def _delete_deployment(run: str) -> str | None:
    """Deletes the candidate's deployment, unless applications call it or soon will."""
    bedrock: BedrockClient = runs.client("bedrock")
    name = runs.name(run)
    try:
        deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=name)
    except bedrock.exceptions.ResourceNotFoundException:
        return None
    arn = deployment["customModelDeploymentArn"]
    # Asked for every time, and an error if it cannot be known: to delete the champion would be far worse.
    if arn == champion():
        return None
    # A promotion in the middle has written that this deployment becomes the champion's. It either gets there
    # by itself or is made good by the next start, which writes the record of the champion from the history.
    if (runs.read(run, "promotion.json") or {}).get("champion_arn") == arn:
        return f"deployment {name} was kept, because it was about to become the champion's"
    try:
        bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    except bedrock.exceptions.ResourceNotFoundException:
        return None
    return f"deployment {name} was deleted"


def _release_lock(run: str) -> str | None:
    """Gives the environment's lock back if the run has it."""
    return "the lock was given back" if lock.release(run) else None


def _sentence(trouble: _Trouble, done: list[str], left: list[str]) -> str:
    happened = "was stopped" if trouble.error in ("Aborted", "GateClosed") else "failed"
    where = f" at {trouble.step}" if trouble.step else ""
    cleaned = "; ".join(done) or ("nothing" if left else "nothing of it was running")
    return (
        f"Run {trouble.run} of {os.environ['STACK']} {happened}{where}: {trouble.cause.rstrip('.')}."
        f" Cleaned up: {cleaned}. Evidence: {runs.uri(trouble.run, '')}."
        " Mend the cause and start again; the same content needs another attempt number."
    )


def _before(run: str) -> dict[str, Any]:
    """Returns what an earlier attempt to clean up wrote, nothing if there was none or it cannot be read."""
    try:
        return runs.read(run, "failure.json") or {}
    except Exception:
        return {}


def _notify(sentence: str) -> None:
    sns: SNSClient = runs.client("sns")
    sns.publish(
        TopicArn=os.environ["TOPIC"],
        # SNS wants at most 100 characters of ASCII here.
        Subject=f"{os.environ['STACK']}: a training run failed"[:100],
        Message=sentence,
    )
