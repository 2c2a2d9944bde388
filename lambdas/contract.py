"""The one module that knows Bedrock's reward JSON: events in, samples out, rewards in, responses out.

Three kinds of trouble are never mixed. A *bad completion* is the reward function's business: it earns its
honest low score. A *bad row* (no usable reference answer, an unreadable item) gets the floor, is counted as
``unscorable`` and leaves its neighbours alone. *Infrastructure trouble* raises out of the handler, so that
Bedrock retries the batch; it never becomes a number.

A fourth kind is a bug in a reward function. A sample that makes it raise gets the floor and is counted as
``error``; when every sample of a batch does, the function is broken, not the row, and the invocation fails.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

ASSISTANT_ROLES = ("assistant", "nova_assistant")

# What the contract itself counts: on every sample, always under the same names, so that a mean of them is a
# share.
TROUBLES = ("unscorable", "error", "over_time", "over_length")

_ID_FALLBACKS = ("id", "task_id", "my_key")
_OWN_FIELDS = frozenset({"id", "messages", "metadata", "reference_answer"})

_LARGEST = 1e100

# Time kept back to build, log and return the response.
_RESERVE_MILLISECONDS = 500

# Troubled samples are logged whatever the sampling rate is, but a broken function must not flood the log.
_LOGGED_TROUBLES = 10

# CloudWatch reads at most 100 metrics from one embedded-metric line; the rest stays free for ours.
_COMPONENT_METRICS = 80


class ContractError(ValueError):
    """The event is not a batch of samples at all, so there is nothing to answer one by one."""


class UnscorableError(ValueError):
    """This row cannot be scored, whatever the model wrote: its reference answer is missing or unusable.

    The sample gets the floor score and the metric ``unscorable``. The text is logged, so it names the row's
    fault and quotes nothing the model wrote.
    """


class InfrastructureError(RuntimeError):
    """Something the score depends on is down or too slow; Bedrock is to retry the whole batch."""


class BrokenRewardError(RuntimeError):
    """The reward function raised on every sample of a batch; ``outcomes`` has what it raised on each."""

    def __init__(self, message: str, outcomes: Sequence[Outcome] = ()) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion to score, with everything the row says about it.

    Attributes:
        id: The sample's id as text.
        messages: The prompt: every message before the completion.
        completion: The text the model wrote; the text parts of a multi-part message are joined.
        tool_calls: The tool calls of the completion, as they came.
        reference_answer: The row's truth; None when the row has none.
        metadata: Every other field of the row.
        unreadable: Why the item holds nothing to score; empty for every sample a reward function gets to see.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    completion: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    reference_answer: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Reward:
    """What a completion earned, and why.

    Attributes:
        score: The reward, a finite number.
        components: Parts of the score the training optimizes, by name.
        metrics: Numbers that are only watched, by name.
        extracted: The answer that was read out of the completion, for people.
        reason: The verdict in words, for people.
    """

    score: float
    components: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    extracted: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A sample, what it earned, and what that cost.

    Attributes:
        sample: The sample.
        reward: The checked reward, with one metric (0 or 1) per kind of trouble.
        trouble: Empty, or one of ``TROUBLES``.
        seconds: Processor time the reward function took.
        error: What the reward function raised, when ``trouble`` is ``error``.
    """

    sample: Sample
    reward: Reward
    trouble: str = ""
    seconds: float = 0.0
    error: Exception | None = None


def parse_event(event: object) -> list[Sample]:
    """Turns any documented event into samples, one per item and in the same order.

    Takes a bare list, or an object with a list under ``trajectories``. The reference answer may stand in
    ``metadata`` or beside ``messages``; ``{"text": "..."}``, the form the service wraps a string in, is
    read as that string. An item without an id is known by its ``task_id``, its ``my_key`` (there or in
    ``metadata``) or its position. An item that cannot be read is a sample too, with ``unreadable`` saying
    why.

    Raises:
        ContractError: The event is neither of the two.
    """
    return [_sample(item, position) for position, item in enumerate(_items(event))]


def respond(ids: Sequence[str | int], rewards: Sequence[Reward]) -> list[dict[str, Any]]:
    """Builds the response: a bare list, one object per id in the order given, with finite numbers only.

    Raises:
        ValueError: There are more or fewer rewards than ids, or a number is not finite.
    """
    return [
        {
            "id": identity,
            "aggregate_reward_score": _finite("score", reward.score),
            "metrics_list": [
                {"name": name, "value": _finite(name, value), "type": kind}
                for kind, values in (("Reward", reward.components), ("Metric", reward.metrics))
                for name, value in values.items()
            ],
        }
        for identity, reward in zip(ids, rewards, strict=True)
    ]


def checked(reward: object) -> Reward:
    """Holds a reward function to its word, and returns what it gave with plain, finite floats.

    Raises:
        TypeError: It is no Reward, a number is none, or a name is missing.
        ValueError: A number is not finite, or a name stands for two things.
    """
    if not isinstance(reward, Reward):
        raise TypeError(f"score() has to return a Reward, not {type(reward).__name__}")
    names = [*reward.components, *reward.metrics]
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"a component or metric needs a name, got {name!r}")
        if name in TROUBLES:
            raise ValueError(f"the metric name {name!r} is the contract's own ({', '.join(TROUBLES)})")
    if len(set(names)) != len(names):
        raise ValueError("a name stands for both a component and a metric")
    # Made anew and not by `replace`, which takes as long as some reward functions do.
    return Reward(
        score=_finite("score", reward.score),
        components={name: _finite(name, value) for name, value in reward.components.items()},
        metrics={name: _finite(name, value) for name, value in reward.metrics.items()},
        extracted=reward.extracted,
        reason=reward.reason,
    )


def prepared(
    score: Callable[[Sample], Reward], samples: Sequence[Sample], deadline: Callable[[], float]
) -> Callable[[Sample], Reward]:
    """Lets a reward function that waits for others do so for the whole batch at once, before it scores.

    Such a function is the ``score`` method of an object that has a second method,
    ``prepare(samples, deadline)``. It returns the function that scores exactly these samples, and a sample
    gets the same reward from that one as from ``score``. Its time counts for no sample.

    Args:
        score: The reward function; any other function than such a method is returned as it is.
        samples: The samples that will be scored.
        deadline: Says by when they have to be, by ``time.monotonic()``.

    Raises:
        InfrastructureError: What the reward function waits for is down, or the time is up.
    """
    prepare = getattr(getattr(score, "__self__", None), "prepare", None)
    if prepare is None or not samples:
        return score
    ready: Callable[[Sample], Reward] = prepare(samples, deadline)
    return ready


def score_samples(
    score: Callable[[Sample], Reward],
    samples: Sequence[Sample],
    *,
    floor: float = 0.0,
    seconds_per_sample: float = 2.0,
    completion_limit: int = 400_000,
    remaining_milliseconds: Callable[[], float] | None = None,
) -> list[Outcome]:
    """Scores each sample by itself and sorts the trouble: a sample gets the same reward in any batch.

    The cost is bounded three times. A completion longer than ``completion_limit`` characters gets the floor
    and counts as ``over_length``; it is not clipped, because a clipped text would be graded as if the model
    had written something else. A sample that takes more than ``seconds_per_sample`` of *processor* time
    gets the floor and counts as ``over_time``; processor time, because computing is what a completion can
    make expensive, while waiting (for a judge, for a neighbour on the machine) is not its fault and must
    never cost it points. And the whole batch ends before the Lambda does, or fails.

    The time limit interrupts Python code and the standard library's regular expressions by a processor-time
    signal. Signals reach the main thread only, which is where Lambda, its emulators and the command line
    call a handler. In any other thread, and inside a C call that does not come back to the interpreter, the
    limit is measured after the fact; so the library's rewards are bounded by construction as well and do
    not rely on it.

    Args:
        score: The reward function.
        samples: The batch.
        floor: The score of a sample that cannot be scored: the lower end of the reward's range.
        seconds_per_sample: Processor seconds one sample may take.
        completion_limit: Characters a completion may have.
        remaining_milliseconds: Time left before the process is stopped; None when nothing stops it.

    Raises:
        InfrastructureError: The reward function raised it, or the batch cannot end in time.
        BrokenRewardError: The reward function raised on every sample it was given.
    """
    outcomes: list[Outcome] = []
    scorable = [each for each in samples if not each.unreadable and len(each.completion) <= completion_limit]

    def deadline() -> float:
        if remaining_milliseconds is None:
            return math.inf
        return time.monotonic() + (remaining_milliseconds() - _RESERVE_MILLISECONDS) / 1000

    score = prepared(score, scorable, deadline)
    with _time_limit(seconds_per_sample) as limited:
        for sample in samples:
            if remaining_milliseconds is not None and remaining_milliseconds() < _RESERVE_MILLISECONDS:
                raise InfrastructureError(
                    f"the batch does not fit into the function's time: {len(outcomes)} of {len(samples)} "
                    "samples are scored and the time is up. Raise `timeout_seconds` or `memory_mb` (which "
                    "also buys processor) under [reward] in team.toml, or make the reward function faster."
                )
            outcomes.append(_outcome(score, sample, floor, completion_limit, seconds_per_sample, limited))
    tried = [outcome for outcome in outcomes if outcome.trouble not in {"unscorable", "over_length"}]
    if tried and all(outcome.error is not None for outcome in tried):
        first = tried[0].error
        raise BrokenRewardError(
            f"the reward function raised on every one of {len(tried)} samples; the first: {_place(first)}: "
            f"{_clip(str(first))}. Run `rft score` to see it on the team's own rows.",
            outcomes,
        ) from first
    return outcomes


def reward_handler(
    score: Callable[[Sample], Reward],
    *,
    floor: float = 0.0,
    seconds_per_sample: float = 2.0,
    completion_limit: int = 400_000,
    log_sampling_rate: float = 0.0,
    log_completions: bool = False,
    environment: str | None = None,
) -> Callable[[object, object], list[dict[str, Any]]]:
    """Makes the Lambda handler of a reward function.

    Every batch prints one embedded-metric line. A sample prints one line when its id falls into the
    sampling rate (the same id always does or never does) or when it is in trouble. Lines carry ids, numbers
    and the row's faults; what the model wrote appears only when ``log_completions`` says so, because it may
    be personal data.

    Args:
        score: The reward function.
        floor: See ``score_samples``.
        seconds_per_sample: See ``score_samples``.
        completion_limit: See ``score_samples``.
        log_sampling_rate: Share of the samples to log, 0 to 1.
        log_completions: Whether lines may carry the completion, what was extracted from it and the reason.
        environment: The metrics' dimension; None to print nothing.
    """

    def handler(event: object, context: object) -> list[dict[str, Any]]:
        started = time.perf_counter()
        items = _items(event)
        outcomes = score_samples(
            score,
            parse_event(items),
            floor=floor,
            seconds_per_sample=seconds_per_sample,
            completion_limit=completion_limit,
            remaining_milliseconds=getattr(context, "get_remaining_time_in_millis", None),
        )
        if environment is not None and outcomes:
            lines = [*_sample_lines(outcomes, log_sampling_rate, log_completions)]
            lines.append(_metric_line(outcomes, environment, floor, time.perf_counter() - started))
            sys.stdout.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
            sys.stdout.flush()
        ids = [_identity(item, position) for position, item in enumerate(items)]
        return respond(ids, [outcome.reward for outcome in outcomes])

    return handler


def _items(event: object) -> list[object]:
    batch = event.get("trajectories") if isinstance(event, dict) else event
    if isinstance(batch, (list, tuple)):
        return list(batch)
    found = type(event).__name__
    if isinstance(event, dict):
        found = f"an object with the keys {_clip(', '.join(map(str, event)))}"
    raise ContractError(
        "a reward function expects a JSON array of samples, or an object with such an array under "
        f"`trajectories`, but got {found}. Send "
        '[{"id": "...", "messages": [...], "metadata": {"reference_answer": ...}}].'
    )


def _identity(item: object, position: int) -> str | int:
    """Finds the id to echo, exactly as it came; a position only where the item has none."""
    if isinstance(item, dict):
        metadata = item.get("metadata")
        for place in (item, metadata if isinstance(metadata, dict) else {}):
            for key in _ID_FALLBACKS:
                found = place.get(key)
                if isinstance(found, str):
                    # Newer Lambda runtimes send the response as UTF-8: half a surrogate pair would fail the
                    # batch.
                    return found.encode("utf-8", "replace").decode("utf-8")
                # An integer of more than 4300 digits cannot be written as JSON; nothing that long is an id.
                if isinstance(found, int) and not isinstance(found, bool) and found.bit_length() <= 64:
                    return found
    return str(position)


def _sample(item: object, position: int) -> Sample:
    identity = str(_identity(item, position))
    if not isinstance(item, dict):
        return Sample(identity, (), "", unreadable=f"the item is not an object but {type(item).__name__}")
    metadata = item.get("metadata")
    inner = metadata if isinstance(metadata, dict) else {}
    reference = inner.get("reference_answer")
    if reference is None:
        reference = item.get("reference_answer")
    # The service wraps a plain string; an object with further keys is the team's own.
    if isinstance(reference, dict) and len(reference) == 1 and isinstance(reference.get("text"), str):
        reference = reference["text"]
    row = {key: value for key, value in item.items() if key not in _OWN_FIELDS}
    row.update((key, value) for key, value in inner.items() if key != "reference_answer")
    try:
        messages = _messages(item.get("messages"))
        completion, tool_calls = _completion(messages[-1])
    except UnscorableError as error:
        return Sample(identity, (), "", (), reference, row, str(error))
    return Sample(identity, messages[:-1], completion, tool_calls, reference, row)


def _messages(messages: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(messages, (list, tuple)) or not messages:
        raise UnscorableError("the item has no messages")
    if not all(isinstance(message, dict) for message in messages):
        raise UnscorableError("a message of the item is not an object")
    return tuple(messages)


def _completion(message: dict[str, Any]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    role = message.get("role")
    if role not in ASSISTANT_ROLES:
        kind = repr(_clip(role)) if isinstance(role, str) else type(role).__name__
        raise UnscorableError(f"the last message has the role {kind}, not {' or '.join(ASSISTANT_ROLES)}")
    content = message.get("content")
    texts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        # No content at all is an empty answer, and a part of another kind (reasoning, an image) is not
        # answer text.
        elif text is not None:
            raise UnscorableError(
                f"the completion's content is {type(text).__name__}, not text or text parts"
            )
    calls = message.get("tool_calls")
    kept = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return "".join(texts), tuple(kept)


def _outcome(
    score: Callable[[Sample], Reward],
    sample: Sample,
    floor: float,
    completion_limit: int,
    seconds_per_sample: float,
    limited: Callable[[Callable[[Sample], Reward], Sample], Reward],
) -> Outcome:
    if sample.unreadable:
        return _floored(sample, "unscorable", floor, sample.unreadable)
    if len(sample.completion) > completion_limit:
        reason = f"the completion has {len(sample.completion)} characters; {completion_limit} are allowed"
        return _floored(sample, "over_length", floor, reason)
    late = f"scoring took more than {seconds_per_sample:g} s of processor time"
    started = time.thread_time()
    try:
        reward = checked(limited(score, sample))
    except UnscorableError as error:
        return _floored(sample, "unscorable", floor, str(error), time.thread_time() - started)
    except InfrastructureError:
        raise
    except _OverTimeError:
        return _floored(sample, "over_time", floor, late, time.thread_time() - started)
    # A reward function may be anyone's code: whatever it raises belongs to this sample alone.
    except Exception as error:
        spent = time.thread_time() - started
        reason = f"the reward function raised {_place(error)}: {_clip(str(error))}"
        return replace(_floored(sample, "error", floor, reason, spent), error=error)
    seconds = time.thread_time() - started
    if seconds > seconds_per_sample:
        return _floored(sample, "over_time", floor, late, seconds)
    metrics = {**reward.metrics, **dict.fromkeys(TROUBLES, 0.0)}
    known = Reward(reward.score, reward.components, metrics, reward.extracted, reward.reason)
    return Outcome(sample, known, seconds=seconds)


def _floored(sample: Sample, trouble: str, floor: float, reason: str, seconds: float = 0.0) -> Outcome:
    metrics = {name: float(name == trouble) for name in TROUBLES}
    return Outcome(sample, Reward(floor, metrics=metrics, reason=reason), trouble, seconds)


def _finite(name: str, value: Any) -> float:
    if type(value) is float and abs(value) <= _LARGEST:
        return value
    # Text has no __float__, so "0.5" is refused, while the numbers of numpy, Decimal and Fraction are
    # welcome.
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name} has to be a number, not {type(value).__name__}")
    number = float(value)
    # Larger than any real reward, and small enough that no mean or deviation over a batch overflows.
    if not abs(number) <= _LARGEST:
        raise ValueError(f"{name} has to be a finite number of at most {_LARGEST:g}, not {number}")
    return number


class _OverTimeError(BaseException):
    """Ends a score that takes too long; no Exception, so that no handler of a reward function keeps it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[Callable[[Callable[[Sample], Reward], Sample], Reward]]:
    """Yields a way to call a reward function that ends it when its processor time is used up."""
    over = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal over
        over = True
        raise _OverTimeError

    def limited(score: Callable[[Sample], Reward], sample: Sample) -> Reward:
        nonlocal over
        over = False
        try:
            # The signal repeats, for a reward function that swallows even this.
            signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
            return score(sample)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            # C code that calls Python back, such as SQLite's, keeps what is raised there to itself.
            if over:
                raise _OverTimeError

    try:
        previous = signal.signal(signal.SIGPROF, interrupt)
    # Not the main thread, or a system without this signal: the limit is measured only.
    except (ValueError, AttributeError):
        yield lambda score, sample: score(sample)
        return
    try:
        yield limited
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, previous)


def _place(error: BaseException | None) -> str:
    """Names an exception and the line that raised it, without its text, which may quote the completion."""
    if error is None or error.__traceback__ is None:
        return type(error).__name__
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    file = last.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{type(error).__name__} at {file}:{last.tb_lineno}"


def _clip(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _sample_lines(
    outcomes: Sequence[Outcome], rate: float, log_completions: bool
) -> Iterator[dict[str, Any]]:
    troubled = 0
    for outcome in outcomes:
        sample, reward = outcome.sample, outcome.reward
        troubled += bool(outcome.trouble)
        sampled = zlib.crc32(sample.id.encode("utf-8", "replace")) < rate * 2**32
        if not sampled and not (outcome.trouble and troubled <= _LOGGED_TROUBLES):
            continue
        line: dict[str, Any] = {
            "level": "WARNING" if outcome.trouble else "INFO",
            "message": outcome.trouble or "scored",
            "id": sample.id,
            "score": reward.score,
            "components": dict(reward.components),
            "metrics": dict(reward.metrics),
            "completion_length": len(sample.completion),
            "seconds": round(outcome.seconds, 6),
        }
        if outcome.error is not None:
            line["error"] = _place(outcome.error)
        elif outcome.trouble:
            line["reason"] = _clip(reward.reason)
        if log_completions:
            line.update(completion=sample.completion, extracted=reward.extracted, reason=reward.reason)
        yield line


def _metric_line(
    outcomes: Sequence[Outcome], environment: str, floor: float, seconds: float
) -> dict[str, Any]:
    """Sums a batch up in one line that CloudWatch turns into metrics and a person's query reads as it is."""
    count = len(outcomes)
    scores = [outcome.reward.score for outcome in outcomes]
    mean = math.fsum(scores) / count
    values: dict[str, float] = {
        "samples": count,
        "reward_mean": mean,
        "reward_std": math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / count),
        "zero_share": sum(score <= floor for score in scores) / count,
        **{
            f"{name}_share": sum(outcome.trouble == name for outcome in outcomes) / count for name in TROUBLES
        },
        "completion_length": sum(len(outcome.sample.completion) for outcome in outcomes) / count,
        "seconds": round(seconds, 6),
        "seconds_per_sample": round(seconds / count, 6),
    }
    components = _means([outcome.reward.components for outcome in outcomes])
    values.update((f"component_{name}", value) for name, value in [*components.items()][:_COMPONENT_METRICS])
    units = {"samples": "Count", "seconds": "Seconds", "seconds_per_sample": "Seconds"}
    return {
        "_aws": {
            "Timestamp": time.time_ns() // 1_000_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "RFT",
                    "Dimensions": [["Environment"]],
                    "Metrics": [{"Name": name, "Unit": units.get(name, "None")} for name in values],
                }
            ],
        },
        "Environment": environment,
        **values,
        # Watched numbers stay in the log, where reading them is free; as metrics each would be billed.
        "metrics": _means([outcome.reward.metrics for outcome in outcomes]),
    }


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Averages each name over the samples that have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}
