"""A model is sampled as the service samples it, and scored by the deployed reward function."""

import io
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.contract import InfrastructureError, Reward, Sample, UnscorableError, reward_handler
from lambdas.workflow import measure
from lambdas.workflow.runs import RunError
from tests.unit.workflow.conftest import REWARD, RUN, Aws, RefusedError

ITEM: dict[str, Any] = {
    "index": 7,
    "id": "q-7",
    "messages": [
        {"role": "system", "content": "Answer with a number."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "6 desks at $"}, {"type": "text", "text": "7?"}],
        },
    ],
    "reference_answer": "42",
    "metadata": {"topic": "desks"},
}


def event(**changes: Any) -> dict[str, Any]:
    return {
        "run": RUN,
        "subject": "base",
        "model_id": "amazon.nova-2-lite-v1:0:256k",
        "reward_version": REWARD,
        "measurement": {"prompts": 100, "samples_per_prompt": 3, "temperature": 0.7, "concurrency": 10},
        "max_tokens": 512,
        "samples": 3,
        "reasoning_effort": "low",
        "item": ITEM,
        **changes,
    }


def score(sample: Sample) -> Reward:
    """Pays for the right number, and a little for being short."""
    right, short = float(sample.completion == sample.reference_answer), float(len(sample.completion) < 4)
    return Reward(
        0.8 * right + 0.2 * short,
        components={"answer": right, "brevity": short},
        metrics={"topical": float(sample.metadata["topic"] == "desks")},
    )


@pytest.fixture(autouse=True)
def _deployed(aws: Aws) -> None:
    texts = iter(["42", "41", "It is 42."] * 2)
    aws.model = lambda _asked: {"content": [{"text": next(texts)}], "tokens": 9}
    handler = reward_handler(score)
    aws.reward = lambda batch: handler(batch, None)


def test_every_completion_is_scored_by_the_deployed_function(aws: Aws) -> None:
    assert measure.handler(event(), None) == {"index": 7}
    measured = aws.document("measured/base/00007.json")
    completions = measured.pop("completions")
    assert (measured.pop("more"), measured.pop("input_tokens")) == ([], 5)
    assert 0 <= measured.pop("reward_seconds") < 5
    assert measured.pop("mean") == pytest.approx((1.0 + 0.2 + 0.0) / 3)
    assert measured == {key: ITEM[key] for key in ("index", "id", "messages", "reference_answer")}
    assert [(each["text"], each["score"]) for each in completions] == [
        ("42", 1.0),
        ("41", 0.2),
        ("It is 42.", 0.0),
    ]
    assert completions[1]["components"] == {"answer": 0.0, "brevity": 1.0}
    assert completions[1]["metrics"]["topical"] == 1.0
    assert (completions[1]["output_tokens"], completions[1]["stop_reason"]) == (9, "end_turn")


def test_samples_beyond_those_that_are_compared_are_kept_apart(aws: Aws) -> None:
    measure.handler(event(samples=5), None)
    measured = aws.document("measured/base/00007.json")
    assert [each["text"] for each in measured["completions"]] == ["42", "41", "It is 42."]
    assert [(each["text"], each["score"]) for each in measured["more"]] == [("42", 1.0), ("41", 0.2)]
    # Models are compared by equally many samples, whatever else was looked at.
    assert measured["mean"] == pytest.approx((1.0 + 0.2 + 0.0) / 3)
    assert len(aws.called("Invoke")) == 1


def test_the_batch_has_the_documented_shape(aws: Aws) -> None:
    measure.handler(event(), None)
    (call,) = aws.called("Invoke")
    batch = json.loads(call["Payload"])
    assert batch[1] == {
        "id": "q-7-1",
        "messages": [*ITEM["messages"], {"role": "assistant", "content": "41"}],
        "metadata": {"topic": "desks", "reference_answer": "42"},
    }
    assert len({sample["id"] for sample in batch}) == 3


def test_the_model_is_asked_with_the_settings_of_training(aws: Aws) -> None:
    measure.handler(event(), None)
    asked = aws.called("Converse")
    assert len(asked) == 3
    assert asked[0] == {
        "modelId": "amazon.nova-2-lite-v1:0:256k",
        "system": [{"text": "Answer with a number."}],
        "messages": [{"role": "user", "content": [{"text": "6 desks at $"}, {"text": "7?"}]}],
        "inferenceConfig": {"maxTokens": 512, "temperature": 0.7},
        "additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
    }


def test_at_high_effort_nothing_is_sent_that_nova_refuses_there(aws: Aws) -> None:
    measure.handler(event(reasoning_effort="high"), None)
    asked = aws.called("Converse")[0]
    assert "inferenceConfig" not in asked
    assert asked["additionalModelRequestFields"]["reasoningConfig"]["maxReasoningEffort"] == "high"


def test_a_model_without_efforts_is_asked_without(aws: Aws) -> None:
    measure.handler(event(reasoning_effort=None), None)
    assert "additionalModelRequestFields" not in aws.called("Converse")[0]


def test_messages_of_one_role_in_a_row_become_one(aws: Aws) -> None:
    turns = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e")]
    messages = [{"role": role, "content": text} for role, text in turns]
    measure.handler(event(item={**ITEM, "messages": messages}), None)
    assert aws.called("Converse")[0]["messages"] == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "content": [{"text": "e"}]},
    ]


@given(st.lists(st.sampled_from(["user", "assistant"]), max_size=6))
def test_whatever_the_conversation_roles_alternate_and_no_text_is_lost(roles: list[str]) -> None:
    messages = [{"role": role, "content": f"{at}."} for at, role in enumerate(["user", *roles])]
    request = measure.converse_request("m", messages, max_tokens=1, temperature=0, reasoning_effort=None)
    asked = request["messages"]
    assert all(first["role"] != second["role"] for first, second in pairwise(asked))
    texts = [block["text"] for message in asked for block in message["content"]]
    assert texts == [message["content"] for message in messages]


def test_what_the_model_only_thought_is_no_part_of_its_answer(aws: Aws) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "[REDACTED]"}}}
    aws.model = lambda _asked: {"content": [thought, {"text": "4"}, {"text": "2"}]}
    measure.handler(event(), None)
    assert [each["text"] for each in aws.document("measured/base/00007.json")["completions"]] == ["42"] * 3


def test_a_model_that_thought_until_its_tokens_were_gone_is_scored_for_saying_nothing(aws: Aws) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "[REDACTED]"}}}
    aws.model = lambda _asked: {"content": [thought], "stop": "max_tokens", "tokens": 512}
    measure.handler(event(), None)
    completion = aws.document("measured/base/00007.json")["completions"][0]
    assert (completion["text"], completion["stop_reason"], completion["score"]) == ("", "max_tokens", 0.2)


def test_a_broken_reward_function_fails_in_its_own_words_and_leaves_evidence(aws: Aws) -> None:
    def broken(_sample: Sample) -> Reward:
        raise KeyError("total")

    handler = reward_handler(broken)
    aws.reward = lambda batch: handler(batch, None)
    with pytest.raises(RunError) as caught:
        measure.handler(event(subject="candidate"), None)
    assert str(caught.value).startswith("the reward function is broken: BrokenRewardError: ")
    assert str(caught.value).endswith("(read the log of the reward function of rft-quotes-dev)")
    assert aws.document("failed/candidate/00007.json") == {"error": "RunError", "cause": str(caught.value)}
    assert not any("measured" in key for _, key in aws.objects)


def test_a_judge_that_is_down_is_worth_another_try(aws: Aws) -> None:
    def down(_sample: Sample) -> Reward:
        raise InfrastructureError("the judge model answers 503")

    handler = reward_handler(down)
    aws.reward = lambda batch: handler(batch, None)
    with pytest.raises(measure.RewardUnavailableError, match="the judge model answers 503"):
        measure.handler(event(), None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"errorMessage": "2026-11-28T10:00:00Z 1234 Task timed out after 60.00 seconds"}', "unavailable"),
        (
            b'{"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: 1 Error: Task timed out"}',
            "unavailable",
        ),
        (b'{"errorType": "Runtime.ExitError", "errorMessage": "signal: killed"}', "unavailable"),
        (b'{"errorType": "Runtime.ImportModuleError", "errorMessage": "No module"}', "broken"),
        (b"<html>", "broken"),
        (b"[]", "broken"),
    ],
)
def test_endings_of_a_function_are_told_apart(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, body: bytes, error: str
) -> None:
    monkeypatch.setattr(
        aws,
        "invoke",
        lambda _asked: {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": io.BytesIO(body)},
        raising=True,
    )
    kind = measure.RewardUnavailableError if error == "unavailable" else RunError
    with pytest.raises(kind):
        measure.handler(event(), None)


def test_a_row_without_a_usable_reference_is_scored_as_the_contract_says(aws: Aws) -> None:
    def picky(_sample: Sample) -> Reward:
        raise UnscorableError("no reference")

    handler = reward_handler(picky)
    aws.reward = lambda batch: handler(batch, None)
    measure.handler(event(), None)
    completion = aws.document("measured/base/00007.json")["completions"][0]
    assert (completion["score"], completion["metrics"]["unscorable"]) == (0.0, 1.0)


GOOD = [{"id": "s-0", "aggregate_reward_score": 1}, {"id": "s-1", "aggregate_reward_score": 0.5}]


def with_metric(**metric: Any) -> list[dict[str, Any]]:
    return [{**GOOD[0], "metrics_list": [metric]}, GOOD[1]]


def with_score(value: Any) -> list[dict[str, Any]]:
    return [GOOD[0], {"id": "s-1", "aggregate_reward_score": value}]


def test_rewards_are_matched_by_their_id() -> None:
    read = measure.read_rewards(list(reversed(GOOD)), ["s-0", "s-1"])
    assert [reward["score"] for reward in read] == [1.0, 0.5]
    assert read[0] == {"score": 1.0, "components": {}, "metrics": {}}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "a NoneType instead of a list"),
        ({"statusCode": 200, "body": "[]"}, "a dict instead of a list"),
        ([], "ids of nothing for the samples 's-0', 's-1'"),
        (GOOD[:1], "ids 's-0' for the samples 's-0', 's-1'"),
        ([*GOOD, {"id": "c", "aggregate_reward_score": 1}], "ids 's-0', 's-1', 'c' for the samples"),
        ([GOOD[0], GOOD[0]], "ids 's-0', 's-0' for the samples"),
        ([*GOOD, GOOD[0]], "ids 's-0', 's-1', 's-0' for the samples"),
        ([{"aggregate_reward_score": 1}] * 2, "'id'"),
        ([GOOD[0], {"id": "s-1"}], "'aggregate_reward_score'"),
        (with_score(None), "the score of s-1 is None, no finite number"),
        (with_score("1"), "the score of s-1 is '1', no finite number"),
        (with_score(True), "the score of s-1 is True, no finite number"),
        (with_score(float("nan")), "the score of s-1 is nan, no finite number"),
        (with_score(float("inf")), "the score of s-1 is inf, no finite number"),
        ([1, 2], "'int' object is not subscriptable"),
        (with_metric(name="x", value=None, type="Metric"), "x of s-0 is None, no finite number"),
        (with_metric(name="x", value=1), "'type'"),
    ],
)
def test_an_answer_bedrock_could_not_use_fails_the_run_in_words(aws: Aws, answer: Any, said: str) -> None:
    aws.reward = lambda _batch: answer
    two = {"samples_per_prompt": 2, "temperature": 0.7}
    with pytest.raises(RunError) as caught:
        measure.handler(event(item={**ITEM, "id": "s"}, measurement=two, samples=2), None)
    assert said in str(caught.value)
    assert "it must return a list" in str(caught.value)


def test_trouble_of_the_service_keeps_its_name_for_the_retry(aws: Aws) -> None:
    aws.refusals["Converse"] = [RefusedError("ThrottlingException", "Too many tokens", 429)]
    with pytest.raises(Exception, match="Too many tokens") as caught:
        measure.handler(event(), None)
    assert type(caught.value).__name__ == "ThrottlingException"
    assert aws.document("failed/base/00007.json")["error"] == "ThrottlingException"
