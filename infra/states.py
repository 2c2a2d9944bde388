"""The training workflow as Step Functions runs it, in JSONata.

Input: the run document that `lambdas/workflow/start.py` makes; every state reads it as the execution's input.
Variables: `prepared`, `tags`, `job`, `model_arn`, `candidate_arn`, `compared` (the champion as it was
    measured), `decision`, `champion` (what promoting did), `retired`, `polls`.
Output: {"run", "promoted", "sentence", "report", "champion_arn"}.
Error: "RunStopped", with a cause for people; whatever goes wrong passes through "Clean up".

Names in `${...}` are filled in by CloudFormation. No state reads the result of a Map: its items write to S3.
"""

from typing import Any

State = dict[str, Any]

# The standard partition: the models of this project exist in no other.
_LAMBDA = "arn:aws:states:::lambda:invoke"
_BEDROCK = "arn:aws:states:::aws-sdk:bedrock:"

_RUN = "$states.context.Execution.Input"

# An execution's history holds 25,000 events. A look at the job makes 14: five for each of its two tasks, and
# two for each other state. So 48 hours of waiting for a job are 13,440; a look at a deployment makes 9.
_JOB_POLL_SECONDS, _JOB_POLLS = 180, 960
_DEPLOYMENT_POLL_SECONDS, _DEPLOYMENT_POLLS = 30, 240

_REASON = "{% $exists($states.result.FailureMessage) ? $states.result.FailureMessage : 'no reason given' %}"

_MINUTE = 60
_DAY = 24 * 60 * _MINUTE
# Two days for the job, two weeks for a person to approve, and the rest.
_LONGEST = 18 * _DAY


def _retry(*errors: str) -> list[State]:
    """Six more attempts within some two minutes, spread so that many executions do not come back together."""
    return [
        {
            "ErrorEquals": list(errors),
            "IntervalSeconds": 2,
            "BackoffRate": 2,
            "MaxDelaySeconds": 60,
            "MaxAttempts": 6,
            "JitterStrategy": "FULL",
        }
    ]


_RETRY_LAMBDA = _retry(
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.TooManyRequestsException",
    # What the functions raise: their own errors that are worth a retry, and botocore's names for throttling
    # and for a service in trouble.
    "CleanUpError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "InternalServerException",
    "LockContestedError",
    "ModelErrorException",
    "ModelNotReadyException",
    "ModelTimeoutException",
    "ReadTimeoutError",
    "RewardUnavailableError",
    "ServiceBusyError",
    "ServiceUnavailableException",
    "ThrottlingException",
    "TooManyRequestsException",
)
_RETRY_BEDROCK = _retry(
    "Bedrock.InternalServerException", "Bedrock.SdkClientException", "Bedrock.ThrottlingException"
)


def _task(resource: str, arguments: State, *, seconds: int | str, retry: list[State], **fields: Any) -> State:
    return {
        "Type": "Task",
        "Resource": resource,
        "Arguments": arguments,
        "TimeoutSeconds": seconds,
        "Retry": retry,
        **fields,
    }


def _function(name: str, payload: State | str, *, seconds: int, **fields: Any) -> State:
    """A step that one of our functions takes; a little longer than the function's own timeout."""
    return _task(_LAMBDA, _invoked(name, payload), seconds=seconds + 30, retry=_RETRY_LAMBDA, **fields)


def _invoked(name: str, payload: State | str) -> State:
    return {"FunctionName": f"${{{name}}}", "Payload": payload}


def _bedrock(action: str, arguments: State, **fields: Any) -> State:
    return _task(_BEDROCK + action, arguments, seconds=_MINUTE, retry=_RETRY_BEDROCK, **fields)


def _wait(seconds: int, then: str) -> State:
    return {"Type": "Wait", "Seconds": seconds, "Assign": {"polls": "{% $polls + 1 %}"}, "Next": then}


def _either(condition: str, then: str, **fields: Any) -> State:
    return {"Condition": f"{{% {condition} %}}", "Next": then, **fields}


def _stop(condition: str, step: str, error: str, cause: str) -> State:
    """A branch that ends the run: what went wrong, in words, goes to "Clean up"."""
    failure = {"step": step, "error": {"Error": error, "Cause": f"{{% {cause} %}}"}}
    return _either(condition, "Clean up", Output=failure)


def _verdict(step: str, then: str, *before: State) -> State:
    """Lets a run go on unless the gate before says "stop"; its sentence is then the reason.

    before: other ways to go on, which are looked at first.
    """
    return {
        "Type": "Choice",
        "Choices": [
            *before,
            _either("$states.input.verdict != 'stop'", then),
            _stop("true", step, "GateClosed", "$states.input.sentence"),
        ],
    }


def _catch_all(then: str, **fields: Any) -> State:
    return {"ErrorEquals": ["States.ALL"], "Next": then, **fields}


def _failed_at(name: str) -> State:
    """What "Clean up" is told of a state whose work failed."""
    return {"step": name, "error": "{% $states.errorOutput %}"}


def _lock(*, take: bool, **fields: Any) -> State:
    payload = {
        "run": f"{{% {_RUN}.run %}}",
        "execution": "{% $states.context.Execution.Id %}",
        "take": take,
        # After that nobody can hold it any more.
        "seconds": _LONGEST,
    }
    return _function("Lock", payload, seconds=_MINUTE, **fields)


# The base model answers the first prompts as often as training would have it: "Check signal" looks at those.
# Regression prompts come after them; nothing is to be learned from these.
_SAMPLES_OF_BASE = (
    f"{{% $states.context.Map.Item.Index < {_RUN}.gates.signal.prompts"
    " and $states.context.Map.Item.Value.part = 'evaluation'"
    f" ? $max([{_RUN}.measurement.samples_per_prompt, {_RUN}.training.trainingSamplePerPrompt])"
    f" : {_RUN}.measurement.samples_per_prompt %}}"
)
_SAMPLES = f"{{% {_RUN}.measurement.samples_per_prompt %}}"
_SAMPLES_OF_TRAINING = f"{{% {_RUN}.training.trainingSamplePerPrompt %}}"
_MEASUREMENT_OF_TRAINING = (
    f"{{% $merge([{_RUN}.measurement, {{'samples_per_prompt': {_RUN}.training.trainingSamplePerPrompt}}]) %}}"
)


def _measure(
    subject: str,
    model_id: str,
    then: str,
    *,
    prompts: str = "$prepared.prompts",
    samples: str = _SAMPLES,
    measurement: str = f"{{% {_RUN}.measurement %}}",
) -> State:
    """Samples a model on each of these prompts and scores it, many prompts at a time."""
    return {
        "Type": "Map",
        "Label": f"Measure{subject.capitalize()}",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Arguments": {
                "Bucket": f"{{% {prompts}.bucket %}}",
                "Key": f"{{% {prompts}.key %}}",
            },
        },
        "MaxConcurrency": f"{{% {_RUN}.measurement.concurrency %}}",
        "ItemSelector": {
            "run": f"{{% {_RUN}.run %}}",
            "subject": subject,
            "model_id": model_id,
            "reward_version": f"{{% {_RUN}.reward_version %}}",
            "measurement": measurement,
            "samples": samples,
            "max_tokens": f"{{% {_RUN}.training.inferenceMaxTokens %}}",
            "reasoning_effort": f"{{% {_RUN}.training.reasoningEffort %}}",
            "item": "{% $states.context.Map.Item.Value %}",
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Measure prompt",
            "States": {
                "Measure prompt": _function(
                    "Measure",
                    "{% $states.input %}",
                    seconds=15 * _MINUTE,
                    Output="{% $states.result.Payload %}",
                    End=True,
                )
            },
        },
        "Next": then,
    }


_STATES: dict[str, State] = {
    "Prepare dataset": _function(
        "Prepare",
        "{% $states.input %}",
        seconds=15 * _MINUTE,
        Assign={"prepared": "{% $states.result.Payload %}"},
        Next="Rehearse reward",
    ),
    "Rehearse reward": _function(
        "Rehearse",
        {
            "run": f"{{% {_RUN}.run %}}",
            "reward_version": f"{{% {_RUN}.reward_version %}}",
            "rehearsal": f"{{% {_RUN}.gates.rehearsal %}}",
            "train": "{% $prepared.train %}",
        },
        seconds=15 * _MINUTE,
        Output="{% $states.result.Payload %}",
        Next="Reward withstood?",
    ),
    "Reward withstood?": _verdict("Rehearse reward", "Measure base model"),
    "Measure base model": _measure(
        "base", "${BaseModelForInference}", "Check signal", samples=_SAMPLES_OF_BASE
    ),
    "Check signal": _function(
        "Signal",
        {
            "run": f"{{% {_RUN}.run %}}",
            "gates": f"{{% {_RUN}.gates %}}",
            "training": f"{{% {_RUN}.training %}}",
            "measurement": f"{{% {_RUN}.measurement %}}",
        },
        seconds=5 * _MINUTE,
        Output="{% $states.result.Payload %}",
        Next="Signal found?",
    ),
    "Signal found?": _verdict("Check signal", "Take lock"),
    # Before the estimate: of two runs that ask what is left of the budget, both would be told the same.
    "Take lock": _lock(take=True, Output="{% $states.result.Payload %}", Next="Lock taken?"),
    "Lock taken?": _verdict("Take lock", "Estimate cost"),
    "Estimate cost": _function(
        "Estimate",
        {
            "run": f"{{% {_RUN}.run %}}",
            "base_model": f"{{% {_RUN}.base_model %}}",
            "training": f"{{% {_RUN}.training %}}",
            "measurement": f"{{% {_RUN}.measurement %}}",
            "gates": f"{{% {_RUN}.gates %}}",
            "train_rows": "{% $prepared.dataset.train_rows %}",
            "prompts": "{% $prepared.prompts.count %}",
            "tried": "{% $prepared.training_prompts.count %}",
        },
        seconds=5 * _MINUTE,
        Output="{% $states.result.Payload %}",
        Next="Within budget?",
    ),
    # A run that leaves no prompts out goes straight on; the estimate has the samples of one that may.
    "Within budget?": _verdict(
        "Estimate cost",
        "Read tags",
        _either(
            "$states.input.verdict != 'stop' and $prepared.training_prompts.count > 0",
            "Measure training prompts",
        ),
    ),
    "Measure training prompts": _measure(
        "training",
        "${BaseModelForInference}",
        "Filter prompts",
        prompts="$prepared.training_prompts",
        samples=_SAMPLES_OF_TRAINING,
        measurement=_MEASUREMENT_OF_TRAINING,
    ),
    "Filter prompts": _function(
        "Filter",
        {
            "run": f"{{% {_RUN}.run %}}",
            "filter": f"{{% $merge([{_RUN}.filter, {_RUN}.gates.filter]) %}}",
            "train": "{% $prepared.train %}",
        },
        seconds=15 * _MINUTE,
        Assign={"prepared": "{% $merge([$prepared, {'train': $states.result.Payload.train}]) %}"},
        Output="{% $states.result.Payload %}",
        Next="Enough prompts left?",
    ),
    "Enough prompts left?": _verdict("Filter prompts", "Read tags"),
    # The tags of the stack are on the state machine: everything a run makes in Bedrock carries them on.
    "Read tags": _task(
        "arn:aws:states:::aws-sdk:sfn:listTagsForResource",
        {"ResourceArn": "{% $states.context.StateMachine.Id %}"},
        seconds=_MINUTE,
        retry=_retry("Sfn.SdkClientException", "Sfn.ThrottlingException"),
        Assign={
            "tags": "{% $append($states.result.Tags[$substring(Key, 0, 4) != 'aws:'],"
            f" [{{'Key': 'run', 'Value': {_RUN}.run}}]) %}}"
        },
        Next="Start customization job",
    ),
    "Start customization job": _function(
        "Train",
        {
            "run": f"{{% {_RUN}.run %}}",
            "base_model": f"{{% {_RUN}.base_model %}}",
            "reward_version": f"{{% {_RUN}.reward_version %}}",
            "training": f"{{% {_RUN}.training %}}",
            "train": "{% $prepared.train %}",
            "state_machine": "{% $states.context.StateMachine.Id %}",
            "execution": "{% $states.context.Execution.Id %}",
        },
        seconds=_MINUTE,
        Assign={"job": "{% $states.result.Payload %}", "polls": 0},
        Next="Wait for job",
    ),
    "Wait for job": _wait(_JOB_POLL_SECONDS, "Check job"),
    "Check job": _bedrock(
        "getModelCustomizationJob",
        {"JobIdentifier": "{% $job.job_arn %}"},
        Assign={
            "model_arn": "{% $exists($states.result.OutputModelArn) ? $states.result.OutputModelArn : '' %}"
        },
        Output={
            "status": "{% $states.result.Status %}",
            "reason": _REASON,
            "created": "{% $states.result.CreationTime %}",
        },
        Next="Check tripwires",
    ),
    # Also when the job has ended: what it did since the last look counts as well.
    "Check tripwires": _function(
        "Watch",
        {
            "run": f"{{% {_RUN}.run %}}",
            "reward_version": f"{{% {_RUN}.reward_version %}}",
            "training": f"{{% {_RUN}.training %}}",
            "tripwires": f"{{% {_RUN}.gates.tripwires %}}",
            "job": "{% $states.input %}",
        },
        seconds=2 * _MINUTE,
        Output="{% $merge([$states.input, $states.result.Payload]) %}",
        # A job of many hours is not stopped for a look that failed: the next one sees what this one missed.
        Catch=[
            {
                "ErrorEquals": ["States.ALL"],
                "Output": "{% $merge([$states.input, {'verdict': 'unknown'}]) %}",
                "Next": "Job ended?",
            }
        ],
        Next="Job ended?",
    ),
    "Job ended?": {
        "Type": "Choice",
        "Choices": [
            _stop(
                "$states.input.verdict = 'stop' and $states.input.status in ['InProgress', 'Completed']",
                "Check tripwires",
                "GateClosed",
                "$states.input.sentence",
            ),
            _either("$states.input.status = 'Completed' and $model_arn != ''", "Deploy candidate"),
            _either(
                f"$states.input.status in ['InProgress', 'Stopping'] and $polls < {_JOB_POLLS}",
                "Wait for job",
            ),
            _stop(
                "$states.input.status in ['InProgress', 'Stopping']",
                "Wait for job",
                "JobTookTooLong",
                f"'The customization job has not ended in {_JOB_POLL_SECONDS * _JOB_POLLS // 3600} hours.'",
            ),
            _stop(
                "$states.input.status = 'Stopped'",
                "Wait for job",
                "JobDidNotComplete",
                "'Somebody stopped the customization job, and not through this workflow.'",
            ),
            _stop(
                "true",
                "Wait for job",
                "JobDidNotComplete",
                "'The customization job ended as ' & $states.input.status & ': ' & $states.input.reason",
            ),
        ],
    },
    "Deploy candidate": _bedrock(
        "createCustomModelDeployment",
        {
            "ModelDeploymentName": "{% $job.job_name %}",
            "ModelArn": "{% $model_arn %}",
            "Description": "Candidate of a training run",
            "Tags": "{% $tags %}",
            "ClientRequestToken": f"{{% {_RUN}.run %}}",
        },
        Assign={"candidate_arn": "{% $states.result.CustomModelDeploymentArn %}", "polls": 0},
        Next="Wait for candidate",
    ),
    "Wait for candidate": _wait(_DEPLOYMENT_POLL_SECONDS, "Check candidate"),
    "Check candidate": _bedrock(
        "getCustomModelDeployment",
        {"CustomModelDeploymentIdentifier": "{% $candidate_arn %}"},
        Output={
            "status": "{% $states.result.Status %}",
            "reason": _REASON,
        },
        Next="Candidate ready?",
    ),
    "Candidate ready?": {
        "Type": "Choice",
        "Choices": [
            _either("$states.input.status = 'Active'", "Measure candidate"),
            _either(
                f"$states.input.status = 'Creating' and $polls < {_DEPLOYMENT_POLLS}", "Wait for candidate"
            ),
            _stop(
                "true",
                "Wait for candidate",
                "DeploymentDidNotSucceed",
                "'The deployment of the candidate is ' & $states.input.status & ': ' & $states.input.reason",
            ),
        ],
    },
    "Measure candidate": _measure("candidate", "{% $candidate_arn %}", "Find champion"),
    "Find champion": _task(
        "arn:aws:states:::aws-sdk:ssm:getParameter",
        {"Name": "${Champion}"},
        seconds=_MINUTE,
        retry=_retry("Ssm.InternalServerErrorException", "Ssm.SdkClientException", "Ssm.ThrottlingException"),
        Assign={"compared": None},
        Output="{% $states.result.Parameter.Value %}",
        Next="Is there a champion?",
    ),
    "Is there a champion?": {
        "Type": "Choice",
        "Choices": [_either("$states.input = 'none'", "Decide")],
        "Default": "Look at champion",
    },
    "Look at champion": _bedrock(
        "getCustomModelDeployment",
        {"CustomModelDeploymentIdentifier": "{% $states.input %}"},
        Assign={
            "compared": {
                "deployment_arn": "{% $states.result.CustomModelDeploymentArn %}",
                "model_arn": "{% $states.result.ModelArn %}",
            }
        },
        Catch=[
            # Somebody deleted it: there is nothing to compare with, and the candidate takes its place.
            {"ErrorEquals": ["Bedrock.ResourceNotFoundException"], "Next": "Decide"},
            _catch_all("Clean up", Output=_failed_at("Look at champion")),
        ],
        Next="Measure champion",
    ),
    # Anew, on the prompts of this run: an old measurement may be of other prompts or another reward.
    "Measure champion": _measure("champion", "{% $compared.deployment_arn %}", "Decide"),
    "Decide": _function(
        "Decide",
        {
            "run": f"{{% {_RUN}.run %}}",
            "promotion": f"{{% {_RUN}.promotion %}}",
            "compared": "{% $compared %}",
        },
        seconds=5 * _MINUTE,
        Assign={"decision": "{% $states.result.Payload %}", "champion": None},
        Next="Promote?",
    ),
    "Promote?": {
        "Type": "Choice",
        "Choices": [
            _either("$decision.promote and $decision.approval_seconds > 0", "Report for approval"),
            _either("$decision.promote", "Promote"),
        ],
        "Default": "Delete candidate",
    },
    "Report for approval": _function(
        "Report",
        {
            "run": f"{{% {_RUN}.run %}}",
            "document": f"{{% {_RUN} %}}",
            "job_arn": "{% $job.job_arn %}",
            "model_arn": "{% $model_arn %}",
            "decision": "{% $decision %}",
        },
        seconds=5 * _MINUTE,
        Output="{% $states.result.Payload %}",
        Next="Wait for approval",
    ),
    # The function writes the token down and tells the team; `rft approve` or `rft reject` answers with it.
    "Wait for approval": _task(
        f"{_LAMBDA}.waitForTaskToken",
        _invoked(
            "Approval",
            {
                "run": f"{{% {_RUN}.run %}}",
                "decision": "{% $decision %}",
                "report": "{% $states.input.report %}",
                "token": "{% $states.context.Task.Token %}",
                "answer": None,
            },
        ),
        seconds="{% $decision.approval_seconds %}",
        retry=_RETRY_LAMBDA,
        Catch=[
            {
                "ErrorEquals": ["States.Timeout"],
                "Output": {"approved": False, "by": None, "why": "nobody answered in time"},
                "Next": "Record approval",
            },
            _catch_all("Clean up", Output=_failed_at("Wait for approval")),
        ],
        Next="Record approval",
    ),
    "Record approval": _function(
        "Approval",
        {
            "run": f"{{% {_RUN}.run %}}",
            "decision": "{% $decision %}",
            "report": None,
            "token": None,
            "answer": "{% $states.input %}",
        },
        seconds=_MINUTE,
        Assign={"decision": "{% $states.result.Payload %}"},
        Next="Approved?",
    ),
    "Approved?": {
        "Type": "Choice",
        "Choices": [_either("$decision.promote", "Promote")],
        "Default": "Delete candidate",
    },
    "Promote": _function(
        "Promote",
        {
            "run": f"{{% {_RUN}.run %}}",
            "model_arn": "{% $model_arn %}",
            "deployment_arn": "{% $candidate_arn %}",
            "decision": "{% $decision %}",
            "execution": "{% $states.context.Execution.Id %}",
        },
        seconds=_MINUTE,
        Assign={"champion": "{% $states.result.Payload %}", "polls": 0},
        Next="Candidate became champion?",
    ),
    "Candidate became champion?": {
        "Type": "Choice",
        "Choices": [_either("$champion.adopted", "Retire old models")],
        "Default": "Wait for champion",
    },
    "Wait for champion": _wait(_DEPLOYMENT_POLL_SECONDS, "Check champion"),
    "Check champion": _bedrock(
        "getCustomModelDeployment",
        {"CustomModelDeploymentIdentifier": "{% $champion.champion_arn %}"},
        # Until the update shows, it has not begun.
        Output={
            "status": "{% $exists($states.result.UpdateDetails.UpdateStatus)"
            " ? $states.result.UpdateDetails.UpdateStatus : 'Updating' %}"
        },
        Next="Champion updated?",
    ),
    "Champion updated?": {
        "Type": "Choice",
        "Choices": [
            _either("$states.input.status = 'UpdateCompleted'", "Delete candidate"),
            _either(
                f"$states.input.status = 'Updating' and $polls < {_DEPLOYMENT_POLLS}", "Wait for champion"
            ),
            _stop(
                "true",
                "Wait for champion",
                "ChampionNotUpdated",
                "'The champion still serves its previous model: moving it is ' & $states.input.status",
            ),
        ],
    },
    "Delete candidate": _bedrock(
        "deleteCustomModelDeployment",
        {"CustomModelDeploymentIdentifier": "{% $candidate_arn %}"},
        Next="Retire old models",
    ),
    # What the run is about is settled by now: it is no less so for models that are still there.
    "Retire old models": _function(
        "RetireOld",
        {"run": f"{{% {_RUN}.run %}}"},
        seconds=5 * _MINUTE,
        Assign={"retired": "{% $states.result.Payload.sentence %}"},
        Catch=[
            _catch_all(
                "Write report",
                Assign={"retired": "{% 'Old models were not deleted: ' & $states.errorOutput.Cause %}"},
            )
        ],
        Next="Write report",
    ),
    "Write report": _function(
        "Report",
        {
            "run": f"{{% {_RUN}.run %}}",
            "document": f"{{% {_RUN} %}}",
            "job_arn": "{% $job.job_arn %}",
            "model_arn": "{% $model_arn %}",
            "decision": "{% $decision %}",
            "champion": "{% $champion %}",
        },
        seconds=5 * _MINUTE,
        Output="{% $states.result.Payload %}",
        Next="Notify",
    ),
    "Notify": _task(
        "arn:aws:states:::sns:publish",
        {
            "TopicArn": "${Topic}",
            "Subject": "{% '${Stack}: ' & ($decision.promote ? 'promoted' : 'not promoted') %}",
            "Message": "{% $decision.sentence & '\\n\\nReport: ' & $states.input.report"
            " & ($retired = '' ? '' : '\\n\\n' & $retired) %}",
        },
        seconds=_MINUTE,
        retry=_retry("States.TaskFailed"),
        Output={
            "run": f"{{% {_RUN}.run %}}",
            "promoted": "{% $decision.promote %}",
            "sentence": "{% $decision.sentence %}",
            "report": "{% $states.input.report %}",
            "champion_arn": "{% $champion ? $champion.champion_arn : null %}",
        },
        Next="Release lock",
    ),
    "Release lock": _lock(
        take=False,
        Output="{% $states.input %}",
        # A run that has ended holds no lock: the next one takes it over.
        Catch=[{"ErrorEquals": ["States.ALL"], "Output": "{% $states.input %}", "Next": "Done"}],
        Next="Done",
    ),
    "Done": {"Type": "Succeed"},
    "Clean up": _function(
        "CleanUp",
        {
            "run": f"{{% {_RUN}.run %}}",
            "step": "{% $states.input.step %}",
            "error": "{% $states.input.error %}",
        },
        seconds=5 * _MINUTE,
        Output="{% $states.result.Payload %}",
        Catch=[
            _catch_all(
                "Run stopped",
                Output={
                    "sentence": "{% 'Cleaning up after a failure failed: ' & $states.errorOutput.Cause %}"
                },
            )
        ],
        Next="Report failure",
    ),
    "Report failure": _function(
        "Report",
        {"run": f"{{% {_RUN}.run %}}", "document": f"{{% {_RUN} %}}"},
        seconds=5 * _MINUTE,
        Output="{% $states.input %}",
        # The evidence is written by now: a run is not less stopped for want of a page about it.
        Catch=[_catch_all("Run stopped", Output="{% $states.input %}")],
        Next="Run stopped",
    ),
    "Run stopped": {"Type": "Fail", "Error": "RunStopped", "Cause": "{% $states.input.sentence %}"},
}


def _caught(name: str, state: State) -> State:
    """The state, with every failure of its work sent to "Clean up"."""
    if state["Type"] not in ("Task", "Map") or "Catch" in state:
        return state
    return {**state, "Catch": [_catch_all("Clean up", Output=_failed_at(name))]}


WORKFLOW: State = {
    "Comment": "Trains a model, measures it against its base, and promotes it if it is better",
    "QueryLanguage": "JSONata",
    "StartAt": "Prepare dataset",
    "TimeoutSeconds": _LONGEST,
    "States": {name: _caught(name, state) for name, state in _STATES.items()},
}
