"""A customization job at work: reinforcement fine-tuning of the miniature by a deployed reward function.

Group-relative policy optimization as far as it goes in small: several completions of each prompt, the
advantage of each over its group, and one step up the policy gradient for each batch of prompts. Of the
hyperparameters only reasoningEffort changes nothing, since the miniature does not reason.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from threading import Event
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError

from rft.embedded.policy import AnswerSpace, Completion, Policy, Prompt, Task, advantages, text_of, tokens
from rft.embedded.service_model import is_number

Document = dict[str, Any]

_FEWEST_ROWS, _MOST_ROWS = 100, 20_000
_ROLES = ("system", "user", "assistant", "tool", "bot", "developer")
# For hyperparameters that a job leaves out. AWS documents none; its SDK's templates have these.
_DEFAULTS: Mapping[str, Any] = {
    "epochCount": 1,
    "batchSize": 128,
    "learningRate": 1e-5,
    "maxPromptLength": 8192,
    "trainingSamplePerPrompt": 8,
    "inferenceMaxTokens": 2048,
    "reasoningEffort": "medium",
    "evalInterval": 10,
}
_SAMPLES_PER_INVOCATION = 64
_INVOCATIONS_AT_A_TIME = 4
_RETRIES = 3
# Asking again changes nothing about these.
_PERMANENT = (
    "AccessDenied",
    "AccessDeniedException",
    "ResourceNotFoundException",
    "KMSAccessDeniedException",
)


class JobFailedError(Exception):
    """A job cannot go on; the message becomes its failureMessage."""


class JobStoppedError(Exception):
    """A job was told to stop."""


@dataclass(slots=True)
class Job:
    """A customization job: what GetModelCustomizationJob says of it, and whether it was told to stop.

    trouble: why it will fail in the end, if a test has it fail.
    """

    document: Document
    trouble: str = ""
    stopping: Event = field(default_factory=Event)

    @property
    def reward_function(self) -> str:
        """The ARN of its reward function."""
        rft = self.document["customizationConfig"]["rftConfig"]
        return str(rft["graderConfig"]["lambdaGrader"]["lambdaArn"])

    @property
    def validators(self) -> list[str]:
        """The S3 URIs of its validation datasets."""
        return [each["s3Uri"] for each in self.document["validationDataConfig"]["validators"]]


def timestamp() -> str:
    """Returns the time as the service writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def place(uri: str) -> dict[str, str]:
    """Returns the Bucket and Key of an S3 URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def code(error: ClientError) -> str:
    """Returns the error code of a service."""
    return str(error.response["Error"]["Code"])


def said(error: ClientError) -> str:
    """Returns what a service says of an error, to stand within a sentence."""
    return f"{code(error)}: {error.response['Error'].get('Message', '')}".rstrip(". ")


# --- Training ---

_PROGRESS_FILE = "training_artifacts/step_wise_training_metrics.csv"
_VALIDATION_FILE = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
_VALIDATION_COLUMNS = ("step_number", "epoch_number", "val-score/rewards/mean@1")
# The generic columns that AWS documents, then the names of the console's charts for this kind of job.
_PROGRESS_COLUMNS = (
    "step_number",
    "epoch_number",
    "training_loss",
    "perplexity",
    *(f"critic/rewards/{name}" for name in ("mean", "max", "min")),
    *(f"critic/advantages/{name}" for name in ("mean", "max", "min")),
    "actor/entropy",
    "actor/pg_loss",
    "actor/grad_norm",
    *(f"response_length/{name}" for name in ("mean", "max", "min")),
    "response/aborted_ratio",
    *(f"prompt_length/{name}" for name in ("mean", "max", "min")),
    "val-score/rewards/mean@1",
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a dataset; metadata is all but id and messages, and reaches the reward function as is."""

    id: str
    messages: list[Document]
    metadata: Document


class Training:
    """One customization job at work. `loss` is that of the last step."""

    def __init__(
        self, *, job: Job, lock: AbstractContextManager[object], s3: Any, function: Any, pause: float
    ) -> None:
        self._job = job
        self._document = job.document
        self._lock = lock
        self._s3 = s3
        self._function = function
        self._pause = pause
        given = self._document["customizationConfig"]["rftConfig"].get("hyperParameters") or {}
        self._settings = {**_DEFAULTS, **{name: value for name, value in given.items() if value is not None}}
        self._reward_function = job.reward_function
        self.loss = 0.0

    def run(self) -> Policy:
        """Validates, prepares, trains; returns the trained policy.

        Raises:
            JobFailedError: It cannot, and why.
            JobStoppedError: It was told to stop.
        """
        with self._phase("validationDetails"):
            body = self._read(self._document["trainingDataConfig"]["s3Uri"])
            rows = _rows(body, self._document["trainingDataConfig"]["s3Uri"], at_least=_FEWEST_ROWS)
            held_out = [
                row for uri in self._job.validators for row in _rows(self._read(uri), uri, at_least=1)
            ]
            # Shows before the work, not after it, whether results can be written.
            self._write(_PROGRESS_FILE, _PROGRESS_COLUMNS, [])
        with self._phase("dataProcessingDetails"):
            longest = self._settings["maxPromptLength"]
            kept = [row for row in rows if tokens(Prompt.of(row.messages).text) <= longest]
            if not kept:
                raise JobFailedError(
                    f"All {len(rows)} prompts are longer than maxPromptLength, {longest} tokens."
                )
        with self._phase("trainingDetails"):
            # Equal data and settings make equal runs, whatever they are called.
            content = f"{json.dumps(self._settings, sort_keys=True)} {sha256(body).hexdigest()}"
            policy = self._train(kept, held_out, seed=sha256(content.encode()).hexdigest())
            if self._job.trouble:
                raise JobFailedError(self._job.trouble)
            return policy

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Keeps the job's statusDetails while one of its phases lasts."""
        self._set_phase(name, "InProgress")
        try:
            self._wait(self._pause)
            yield
        except JobStoppedError:
            self._set_phase(name, "Stopped")
            raise
        except Exception:
            self._set_phase(name, "Failed")
            raise
        self._set_phase(name, "Completed")

    def _set_phase(self, name: str, status: str) -> None:
        with self._lock:
            self._document["statusDetails"][name].update(status=status, lastModifiedTime=timestamp())
            self._document["lastModifiedTime"] = timestamp()

    def _wait(self, seconds: float) -> None:
        """Waits, and raises JobStoppedError as soon as the job is told to stop."""
        if self._job.stopping.wait(seconds):
            raise JobStoppedError

    def _read(self, uri: str) -> bytes:
        try:
            body: bytes = self._s3.get_object(**place(uri))["Body"].read()
        except ClientError as error:
            raise JobFailedError(
                f"Could not read {uri} as {self._document['roleArn']}: {said(error)}."
            ) from error
        return body

    def _write(self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> None:
        """Writes a table below the job's output location."""
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({key: round(value, 6) for key, value in row.items()} for row in rows)
        folder = f"model-customization-job-{self._document['jobArn'].rpartition('/')[2]}"
        uri = f"{self._document['outputDataConfig']['s3Uri'].rstrip('/')}/{folder}/{name}"
        try:
            self._s3.put_object(**place(uri), Body=text.getvalue().encode(), ContentType="text/csv")
        except ClientError as error:
            raise JobFailedError(
                f"Could not write {uri} as {self._document['roleArn']}: {said(error)}."
            ) from error

    def _train(self, rows: Sequence[_Row], held_out: Sequence[_Row], *, seed: str) -> Policy:
        size, interval = self._settings["batchSize"], self._settings["evalInterval"]
        policy = Policy.base(AnswerSpace.of(row.metadata.get("reference_answer") for row in rows))
        random = np.random.default_rng(int(seed[:16], 16))
        # Epochs, each in an order of its own, follow without a gap: only the very last batch may be short.
        epochs = [random.permutation(len(rows)) for _ in range(self._settings["epochCount"])]
        order = [rows[int(index)] for epoch in epochs for index in epoch]
        starts = range(0, len(order), size)
        progress: list[dict[str, float]] = []
        validated: list[dict[str, float]] = []
        for number, start in enumerate(starts, 1):
            measured: dict[str, float] = {"step_number": number, "epoch_number": 1 + start // len(rows)}
            measured |= self._step(policy, order[start : start + size], seed=f"{seed} {number}")
            if held_out and (number % interval == 0 or number == len(starts)):
                score = self._validate(policy, held_out, seed=f"{seed} validation {number}")
                measured["val-score/rewards/mean@1"] = score
                validated.append({name: measured[name] for name in _VALIDATION_COLUMNS})
            progress.append(measured)
            self._write(_PROGRESS_FILE, _PROGRESS_COLUMNS, progress)
        if validated:
            self._write(_VALIDATION_FILE, _VALIDATION_COLUMNS, validated)
        self._wait(0)
        return policy

    def _sample(
        self, policy: Policy, rows: Sequence[_Row], count: int, *, seed: str
    ) -> list[tuple[Task, list[Completion]]]:
        """Samples completions of each row's prompt, at temperature 1: the distribution that is trained."""
        tasks = [policy.task(row.messages) for row in rows]
        longest = self._settings["inferenceMaxTokens"]
        return [
            (task, policy.sample(task, count, seed=f"{seed} {position}", max_tokens=longest))
            for position, task in enumerate(tasks)
        ]

    def _step(self, policy: Policy, rows: Sequence[_Row], *, seed: str) -> dict[str, float]:
        """Samples, scores and learns from one batch of prompts; returns what the metrics file says of it."""
        count = self._settings["trainingSamplePerPrompt"]
        sampled = self._sample(policy, rows, count, seed=seed)
        rewards = self._score(
            [
                _sample_document(f"{row.id}-{position}-{number}", row, completion)
                for position, (row, (_, completions)) in enumerate(zip(rows, sampled, strict=True))
                for number, completion in enumerate(completions)
            ]
        )
        gains = [advantages(rewards[start : start + count]) for start in range(0, len(rewards), count)]
        groups = [(task, completions, gain) for (task, completions), gain in zip(sampled, gains, strict=True)]
        update = policy.learn(groups, self._settings["learningRate"])
        self.loss = update.loss
        completions = [completion for _, group in sampled for completion in group]
        return {
            "training_loss": update.loss,
            "perplexity": update.perplexity,
            "actor/entropy": update.entropy,
            "actor/pg_loss": update.loss,
            "actor/grad_norm": update.gradient_norm,
            "response/aborted_ratio": sum(one.truncated for one in completions) / len(completions),
            **_spread("critic/rewards", rewards),
            **_spread("critic/advantages", [gain for group in gains for gain in group]),
            **_spread("response_length", [tokens(one.text) for one in completions]),
            **_spread("prompt_length", [tokens(task.prompt.text) for task, _ in sampled]),
        }

    def _validate(self, policy: Policy, rows: Sequence[_Row], *, seed: str) -> float:
        """Returns the mean reward of one completion for each held-out prompt."""
        sampled = self._sample(policy, rows, 1, seed=seed)
        documents = [
            _sample_document(f"{row.id}-{position}", row, completions[0])
            for position, (row, (_, completions)) in enumerate(zip(rows, sampled, strict=True))
        ]
        return float(np.mean(self._score(documents)))

    # --- The reward function

    def _score(self, samples: Sequence[Document]) -> list[float]:
        """Returns the reward of each sample, from the deployed reward function."""
        size = _SAMPLES_PER_INVOCATION
        batches = [samples[start : start + size] for start in range(0, len(samples), size)]
        pool = ThreadPoolExecutor(_INVOCATIONS_AT_A_TIME, thread_name_prefix="reward")
        try:
            pending = {pool.submit(self._ask, batch) for batch in batches}
            asked, open_ = [*pending], pending
            while open_:
                # A function may take minutes; a job that is told to stop does not wait for it.
                self._wait(0)
                done, open_ = wait(open_, timeout=0.1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        scores: dict[str, float] = {}
        for future in asked:
            scores |= future.result()
        return [scores[sample["id"]] for sample in samples]

    def _ask(self, samples: Sequence[Document]) -> dict[str, float]:
        """Returns the rewards of one batch by sample id; when the function fails, asks again."""
        payload = json.dumps(samples).encode()
        problem = ""
        for attempt in range(1 + _RETRIES):
            if attempt:
                self._wait(self._pause * 2 ** (attempt - 1))
            try:
                answer = self._function.invoke(FunctionName=self._reward_function, Payload=payload)
                body = answer["Payload"].read()
            except ClientError as error:
                if code(error) in _PERMANENT:
                    raise JobFailedError(
                        f"Could not invoke the reward function {self._reward_function} as"
                        f" {self._document['roleArn']}: {said(error)}."
                    ) from error
                problem = said(error)
            except BotoCoreError as error:
                problem = str(error)
            else:
                if not answer.get("FunctionError"):
                    return self._rewards(body, samples)
                problem = _function_error(body)
        raise JobFailedError(
            f"The reward function {self._reward_function} failed {1 + _RETRIES} times on a batch of"
            f" {len(samples)} samples. Its last error was {problem}"
        )

    def _rewards(self, body: bytes, samples: Sequence[Document]) -> dict[str, float]:
        """Returns the rewards that the function gave. Raises JobFailedError when they cannot be used."""
        try:
            return _read_rewards(body, [sample["id"] for sample in samples])
        except ValueError as error:
            raise JobFailedError(
                f"The reward function {self._reward_function} returned something unusable for a batch of"
                f" {len(samples)} samples: {error}. It must return a list with one item for each sample:"
                ' {"id": the id it was given, "aggregate_reward_score": a finite number}.'
            ) from error


def _sample_document(name: str, row: _Row, completion: Completion) -> Document:
    """Returns a sample as the reward function gets it: the completion is the conversation's last turn."""
    turn = {"role": "assistant", "content": completion.text}
    return {"id": name, "messages": [*row.messages, turn], "metadata": row.metadata}


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    return {
        f"{name}/mean": float(np.mean(values)),
        f"{name}/max": float(np.max(values)),
        f"{name}/min": float(np.min(values)),
    }


def _function_error(body: bytes) -> str:
    """Returns what a failed invocation says, for a person."""
    try:
        error = json.loads(body)
        return f"{error.get('errorType', 'an error')}: {error['errorMessage']}"
    except (ValueError, KeyError, AttributeError, TypeError):
        return body.decode(errors="replace")[:1000]


def _read_rewards(body: bytes, ids: Sequence[str]) -> dict[str, float]:
    """Returns the scores by id. Raises ValueError, saying what is wrong, unless each id has exactly one."""
    answer = json.loads(body)
    if not isinstance(answer, list):
        raise ValueError(f"{json.dumps(answer)[:200]} is not a list")  # noqa: TRY004 - one kind for all
    scores: dict[str, float] = {}
    for position, item in enumerate(answer, 1):
        name = item.get("id") if isinstance(item, dict) else None
        if not isinstance(name, str) or name not in ids:
            raise ValueError(f"item {position} has the id {json.dumps(name)}, which no sample has")
        if name in scores:
            raise ValueError(f"item {position} has the id {json.dumps(name)} of an item before it")
        score = item.get("aggregate_reward_score")
        if not is_number(score):
            raise ValueError(f"the aggregate_reward_score of {name} is {json.dumps(score)}")
        for metric in item.get("metrics_list") or ():
            if not isinstance(metric, dict) or not is_number(metric.get("value")):
                raise ValueError(f"{name} has a metric without a finite value: {json.dumps(metric)}")
            if not isinstance(metric.get("name"), str) or metric.get("type") not in ("Reward", "Metric"):
                raise ValueError(
                    f'{name} has a metric without a name, or a type that is not "Reward" or "Metric"'
                )
        scores[name] = float(score)
    if missing := [name for name in ids if name not in scores]:
        raise ValueError(f"{len(missing)} of {len(ids)} samples have no item, {missing[0]} among them")
    return scores


# --- The dataset ---


def _rows(body: bytes, uri: str, *, at_least: int) -> list[_Row]:
    """Reads a dataset in JSON lines.

    Raises:
        JobFailedError: It has rows that cannot be used, or too few or too many of them.
    """
    try:
        # Not splitlines: a text in JSON may hold a line separator of Unicode as it is.
        lines = body.decode().split("\n")
    except UnicodeDecodeError as error:
        raise JobFailedError(f"{uri} is not UTF-8: {error}.") from error
    rows, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, number))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f" and {len(problems) - 5} more lines" if len(problems) > 5 else ""
        raise JobFailedError(f"{uri} has rows that cannot be used: {'; '.join(problems[:5])}{more}.")
    if not at_least <= len(rows) <= _MOST_ROWS:
        raise JobFailedError(f"{uri} has {len(rows)} rows. It must have {at_least} to {_MOST_ROWS}.")
    return rows


def _row(line: str, number: int) -> _Row:
    """Reads one row. Raises ValueError, saying what is wrong with it."""

    def no_number(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    row = json.loads(line, parse_constant=no_number)
    if not isinstance(row, dict):
        raise ValueError("the row is not a JSON object")  # noqa: TRY004 - one kind for all bad rows
    messages = row.pop("messages", None)
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list with at least one message")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"the role of a message must be one of {', '.join(_ROLES)}")
        if not text_of(message.get("content")).strip() and not message.get("tool_calls"):
            raise ValueError("the content of a message must be a text, or a list of text parts")
    if all(message["role"] != "user" for message in messages):
        raise ValueError("there is no user message")
    name = row.pop("id", str(number))
    if not isinstance(name, str) or not name:
        raise ValueError("id must be a text that is not empty")
    if not isinstance(row.get("reference_answer", ""), str | dict):
        raise ValueError("reference_answer must be a string or an object")  # noqa: TRY004 - one kind for all
    return _Row(id=name, messages=messages, metadata=row)
