"""Rows on which AWS's published sample rewards pay wrong answers, refuse right ones or break, scored by ours.

What the samples give was observed by running them; it stands beside what we give, so that a reader sees the
point of each row. None means that the sample raised, which takes the whole batch with it.
"""

import pytest

from lambdas.composition import compose
from lambdas.contract import TROUBLES, reward_handler

FINQA = {
    "function": "numeric_answer",
    "form": "label",
    "label": "ANSWER",
    "relative_tolerance": 0.01,
    "words": ["yes", "no"],
}
GSM8K = {"function": "numeric_answer", "form": "hashes"}


def handler(component):
    return reward_handler(compose({"components": {"answer": component}}))


def sample(completion, reference, role="assistant"):
    messages = [{"role": "user", "content": "?"}, {"role": role, "content": completion}]
    return {"id": "a", "messages": messages, "reference_answer": reference}


# reward, completion, reference, what the sample gives, what we give, why
SCORES = [
    (FINQA, "ANSWER: 1", {"answer": "100"}, 1.0, 0.0, "a hundredth of the truth"),
    (FINQA, "ANSWER: 666", {"answer": "6.66"}, 1.0, 0.0, "a hundred times the truth"),
    (FINQA, "ANSWER: 3.9", {"answer": "3.1"}, 0.95, 0.0, "26 % off"),
    (FINQA, "ANSWER: 0.05", {"answer": "0.149"}, 0.95, 0.0, "a third of the truth"),
    (FINQA, "no idea, 42", {"answer": "42"}, 1.0, 0.0, "a number somewhere is no answer"),
    (FINQA, "ANSWER: **yes**", {"answer": "yes"}, 0.0, 1.0, "emphasis"),
    (FINQA, "ANSWER: (5.2)", {"answer": "-5.2"}, 0.0, 1.0, "accounting negatives"),
    (GSM8K, "#### 72.", {"answer": "72"}, 0.0, 1.0, "a full stop"),
    (GSM8K, "#### 72.00", {"answer": "72"}, 0.0, 1.0, "the same number"),
    (GSM8K, "#### 72", "72", None, 1.0, "a reference that is text"),
    (GSM8K, [{"type": "text", "text": "#### 72"}], {"answer": "72"}, None, 1.0, "content in parts"),
    (GSM8K, "#### 72", "6 * 12 = 72\n#### 72", None, 1.0, "a worked solution, as the data set has it"),
]


@pytest.mark.parametrize(
    ("component", "completion", "reference", "official", "ours"),
    [row[:5] for row in SCORES],
    ids=[f"{row[5]}: official {row[3]}, ours {row[4]}" for row in SCORES],
)
def test_rows_the_samples_get_wrong(component, completion, reference, official, ours):
    (response,) = handler(component)([sample(completion, reference)], None)
    assert response["aggregate_reward_score"] == ours
    assert ours != official


@pytest.mark.parametrize("reference", [{"answer": "100"}, {"answer": 100}, "100", "$100.00", 100])
def test_what_the_finqa_sample_is_meant_to_pay_is_paid(reference):
    for completion in ("ANSWER: 100", "so\nANSWER: $100.00.", "**ANSWER:** 100.5", "ANSWER: 1e2"):
        (response,) = handler(FINQA)([sample(completion, reference)], None)
        assert response["aggregate_reward_score"] == 1.0


def test_a_row_without_a_reference_takes_no_neighbour_with_it():
    """The FinQA sample raises KeyError, and the batch of a training step is lost."""
    batch = [sample("ANSWER: 5", "5"), {**sample("ANSWER: 5", "5"), "reference_answer": None}]
    first, second = handler(FINQA)(batch, None)
    assert (first["aggregate_reward_score"], second["aggregate_reward_score"]) == (1.0, 0.0)
    assert {"name": "unscorable", "value": 1.0, "type": "Metric"} in second["metrics_list"]


def test_the_reference_is_found_where_bedrock_documents_it():
    """The FinQA sample raises KeyError for the one shape the Bedrock user guide shows."""
    row = sample("ANSWER: 5", "5")
    row["metadata"] = {"reference_answer": {"answer": row.pop("reference_answer")}, "task_id": "b"}
    (response,) = handler(FINQA)([row], None)
    assert (response["id"], response["aggregate_reward_score"]) == ("a", 1.0)


def test_the_id_of_a_row_without_messages_comes_back():
    """The FinQA sample answers with its position, so the service cannot tell whose reward that is."""
    (response,) = handler(FINQA)([{"id": "zz"}], None)
    assert (response["id"], response["aggregate_reward_score"]) == ("zz", 0.0)


def test_text_references_do_not_silently_score_nothing():
    """The GPT-OSS sample gives every sample 0.0 for the form its own data set has."""
    batch = [
        sample("#### 72", "72"),
        sample("#### 72", {"text": "72"}),
        sample("#### 72", "72", "nova_assistant"),
    ]
    for response in handler(GSM8K)(batch, None):
        assert response["aggregate_reward_score"] == 1.0
        assert not any(m["value"] for m in response["metrics_list"] if m["name"] in TROUBLES)
