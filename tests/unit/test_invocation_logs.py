"""Invocation logs become rows: by the filters of the service, from every shape of a chat, always the same."""

import gzip
import io
import json
from collections.abc import Mapping
from typing import Any

import botocore.session
import pytest
from botocore.validate import validate_parameters
from hypothesis import given
from hypothesis import strategies as st

from lambdas import dataset
from lambdas.invocation_logs import FilterError, LogError, MetadataFilter, harvest, records, row

CONVERSE: dict[str, Any] = {
    "schemaType": "ModelInvocationLog",
    "schemaVersion": "1.0",
    "timestamp": "2026-11-01T10:00:00Z",
    "accountId": "111122223333",
    "requestId": "r-1",
    "operation": "Converse",
    "modelId": "amazon.nova-2-lite-v1:0",
    "input": {
        "inputContentType": "application/json",
        "inputBodyJson": {
            "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
            "messages": [
                {"role": "user", "content": [{"text": "Hello"}]},
                {"role": "assistant", "content": [{"text": "Hi"}]},
                {"role": "user", "content": [{"text": "How much are "}, {"text": "3 desks?"}]},
            ],
        },
        "inputTokenCount": 12,
    },
    "output": {
        "outputContentType": "application/json",
        "outputBodyJson": {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                        {"text": "15 dollars"},
                    ],
                }
            },
            "stopReason": "end_turn",
        },
    },
    "requestMetadata": {"project": "desk", "tier": "gold"},
}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def record(
    body: Any = CHAT, answer: Any = None, *, metadata: Mapping[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "requestId": "r",
        "modelId": "m",
        "operation": "InvokeModel",
        "input": {"inputBodyJson": body},
        "output": {"outputBodyJson": answer},
        **({"requestMetadata": metadata} if metadata is not None else {}),
        **more,
    }


def test_a_record_of_converse_becomes_a_row_without_its_answer() -> None:
    assert row(CONVERSE) == {
        "id": "r-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "How much are 3 desks?"},
        ],
        "model": "amazon.nova-2-lite-v1:0",
        "request_metadata": {"project": "desk", "tier": "gold"},
    }


def test_the_answer_becomes_the_reference_where_that_is_asked_for_and_the_thoughts_do_not() -> None:
    made = row(CONVERSE, reference=True)
    assert isinstance(made, dict)
    assert made["reference_answer"] == "15 dollars"
    content = json.dumps(made).encode() + b"\n"
    assert dataset.check(io.BytesIO(content), "made", rows=(1, 1)).rows == 1


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (  # Nova by InvokeModel
            {
                "schemaVersion": "messages-v1",
                "system": [{"text": "S"}],
                "messages": [{"role": "user", "content": [{"text": "Q"}]}],
            },
            {
                "output": {"message": {"content": [{"text": "A"}], "role": "assistant"}},
                "stopReason": "end_turn",
            },
        ),
        (  # Nova, streamed
            {"system": [{"text": "S"}], "messages": [{"role": "user", "content": [{"text": "Q"}]}]},
            [
                {"messageStart": {"role": "assistant"}},
                {"contentBlockDelta": {"delta": {"text": "A"}, "contentBlockIndex": 0}},
                {"messageStop": {"stopReason": "end_turn"}},
            ],
        ),
        (  # Anthropic
            {
                "anthropic_version": "bedrock-2023-05-31",
                "system": "S",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}],
            },
            {"content": [{"type": "thinking", "thinking": "?"}, {"type": "text", "text": "A"}]},
        ),
        (  # Anthropic, streamed
            {"system": "S", "messages": [{"role": "user", "content": "Q"}]},
            [
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "A"}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            ],
        ),
        (  # OpenAI
            {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]},
            {"choices": [{"message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}]},
        ),
        (  # A body as text
            json.dumps({"system": "S", "messages": [{"role": "user", "content": "Q"}]}),
            json.dumps({"choices": [{"message": {"content": "A"}}]}),
        ),
        (  # The beginning of the answer in the model's mouth
            {
                "system": "S",
                "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "{"}],
            },
            {"content": [{"type": "text", "text": "A"}]},
        ),
    ],
)
def test_every_shape_of_a_chat_becomes_the_same_row(body: Any, answer: Any) -> None:
    assert row(record(body, answer), reference=True) == {
        "id": "r",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "reference_answer": "A",
        "model": "m",
        "request_metadata": {},
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (record(errorCode="ThrottlingException"), "records a call that failed"),
        (record({"prompt": "<|user|>Hi"}), "has no messages but one text, or another shape"),
        (record({"inputText": "Hi"}), "has no messages but one text, or another shape"),
        (
            record(input={"inputBodyS3Path": "s3://b/k"}),
            "keeps a body in an object of its own, because it is",
        ),
        (
            record(output={"outputBodyS3Path": "s3://b/k"}),
            "keeps a body in an object of its own, because it is",
        ),
        (record({"messages": [{"role": "user", "content": [{"image": {}}]}]}), "holds more than text"),
        (record({"messages": [{"role": "tool", "content": "x"}]}), "has a message of another role"),
        (
            record({"messages": [{"role": "assistant", "content": "x"}]}),
            "has no message of the user's first and",
        ),
        (
            record({"messages": [{"role": "user", "content": " "}]}),
            "has no message of the user's first and last",
        ),
        (
            record({"messages": [*CHAT["messages"], {"role": "system", "content": "x"}]}),
            "has a system message",
        ),
        (record(CHAT, {"content": []}), "has no answer in text"),
        (record(CHAT, None), "has no answer in text"),
        (
            record(CHAT, {"content": [{"text": "A"}], "stop_reason": "max_tokens"}),
            "has an answer that was cut off at the token limit",
        ),
    ],
)
def test_what_makes_no_row_is_told_by_its_reason(changed: dict[str, Any], reason: str) -> None:
    made = row(changed, reference=True)
    assert isinstance(made, str)
    assert made.startswith(reason)


def chats(count: int) -> list[dict[str, Any]]:
    return [
        record({"messages": [{"role": "user", "content": f"Question {number}"}]}, requestId=f"r-{number}")
        for number in range(count)
    ]


def test_a_sample_is_the_same_whatever_the_order_and_never_has_a_prompt_twice() -> None:
    logs = chats(200)
    some = harvest(logs + logs[:50], 20)
    assert (len(some.rows), some.records, some.usable) == (20, 250, 200)
    assert some.skipped == {"has the prompt of an earlier record": 50}
    ids = [made["id"] for made in some.rows]
    assert {made["id"] for made in harvest(reversed(logs), 20).rows} == set(ids)
    # In the order of the logs, and not merely the first of them.
    assert ids == sorted(ids, key=lambda name: int(name[2:]))
    assert ids != [f"r-{number}" for number in range(20)]
    # A larger sample keeps the smaller one.
    assert set(ids) < {made["id"] for made in harvest(logs, 40).rows}


def test_only_what_passes_the_filter_is_converted() -> None:
    logs = [
        record({"messages": [{"role": "user", "content": text}]}, metadata={"project": text})
        for text in ("a", "b", "c")
    ]
    kept = harvest(logs, 10, only=MetadataFilter.parse({"notEquals": {"project": "b"}}))
    assert [made["messages"][0]["content"] for made in kept.rows] == ["a", "c"]
    assert kept.skipped == {"does not pass the filter": 1}


A, B, NOT_A = {"equals": {"a": "1"}}, {"equals": {"b": "2"}}, {"notEquals": {"a": "1"}}


@pytest.mark.parametrize(
    ("document", "accepted", "refused"),
    [
        (None, [{}, {"a": "1"}], []),
        (A, [{"a": "1"}, {"a": "1", "b": "3"}], [{}, {"a": "2"}, {"b": "1"}]),
        (NOT_A, [{}, {"a": "2"}], [{"a": "1"}]),
        ({"andAll": [A, B]}, [{"a": "1", "b": "2"}], [{}, {"a": "1"}, {"b": "2"}]),
        ({"orAll": [A, B]}, [{"a": "1"}, {"b": "2"}], [{}, {"a": "2", "b": "1"}]),
        ({"orAll": [NOT_A, B]}, [{}, {"a": "1", "b": "2"}], [{"a": "1"}]),
    ],
)
def test_filters_mean_what_the_service_says(
    document: Any, accepted: list[dict[str, str]], refused: list[dict[str, str]]
) -> None:
    only = MetadataFilter.parse(document)
    assert [only.accepts(metadata) for metadata in accepted] == [True] * len(accepted)
    assert [only.accepts(metadata) for metadata in refused] == [False] * len(refused)
    if document is not None:
        model = botocore.session.get_session().get_service_model("bedrock")
        validate_parameters(document, model.shape_for("RequestMetadataFilters"))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "the filter must have exactly one of equals, notEquals, andAll, orAll"),
        ({**A, **NOT_A}, "the filter must have exactly one of"),
        ({"andAll": [A], "orAll": [B]}, "the filter must have exactly one of"),
        ({"equal": {"a": "1"}}, "the filter must have exactly one of"),
        ({"equals": {"a": "1", "b": "2"}}, "equals must hold exactly one pair"),
        ({"equals": {}}, "equals must hold exactly one pair"),
        ({"equals": {"a": 1}}, "equals: the value 1 must be a text of at most 256 letters"),
        ({"equals": {"": "1"}}, "equals: the key '' must be a text"),
        ({"equals": {"a": "x" * 257}}, "must be a text of at most 256"),
        ({"equals": {"a;": "1"}}, "equals: the key 'a;' must be a text"),
        ({"andAll": []}, "andAll must be a list of 1 to 16 filters"),
        ({"orAll": [A] * 17}, "orAll must be a list of 1 to 16 filters"),
        ({"andAll": [{"orAll": [A]}]}, r"andAll\[0\] must have exactly one of equals, notEquals"),
        ({"andAll": [A, {**A, **NOT_A}]}, r"andAll\[1\] must have exactly one of equals, notEquals"),
        ({"orAll": [A, {"equals": {}}]}, r"orAll\[1\]\.equals must hold exactly one pair"),
    ],
)
def test_a_filter_the_service_would_refuse_is_refused_in_words(document: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        MetadataFilter.parse(document)


def test_logs_are_read_packed_or_not_and_in_whatever_pieces() -> None:
    logs = chats(300)
    halves = [
        b"".join(json.dumps(each).encode() + b"\n" for each in part) for part in (logs[:150], logs[150:])
    ]

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 7, 7))

    for stored in (
        b"".join(halves),
        b"\n\n".join(halves).rstrip(),
        gzip.compress(b"".join(halves)),
        gzip.compress(halves[0]) + gzip.compress(halves[1]),
    ):
        assert list(records(io.BytesIO(stored), "log")) == logs
        assert list(records(Slow(stored), "log")) == logs


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (gzip.compress(b"{}\n" * 1000)[:-10], "log is a gzip file without its end"),
        (gzip.compress(b"{}\n" * 9)[:14] + b"\x00" * 40, "log is a broken gzip file"),
        (b"{}\n[1]\n", "log: line 2 is no JSON object"),
        (b"{}\n{\n", "log: line 2 is no JSON object"),
        (gzip.compress(b"x" * 5_000_000), "log: line 1 is longer than 4,000,000 bytes"),
    ],
)
def test_what_is_no_log_is_refused_by_its_name(stored: bytes, said: str) -> None:
    with pytest.raises(LogError, match=said):
        list(records(io.BytesIO(stored), "log"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *("input", "output", "inputBodyJson", "outputBodyJson", "messages", "system", "role"),
                        *("content", "text", "message", "choices", "delta", "contentBlockDelta", "type"),
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_whatever_a_record_holds_the_answer_is_a_row_or_a_reason(value: Any) -> None:
    assert row({"input": {"inputBodyJson": value}, "output": {"outputBodyJson": value}}, reference=True)
    assert row({"input": value, "output": value, "requestMetadata": value}, reference=True)
    body = {"messages": [{"role": "user", "content": "Q"}]}
    assert row({"input": {"inputBodyJson": body}, "output": {"outputBodyJson": value}}, reference=True)
