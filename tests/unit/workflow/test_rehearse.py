"""The deployed reward function is rehearsed before the run pays for anything."""

import json
import re
from typing import Any

import pytest

from lambdas.contract import InfrastructureError, Reward, Sample, reward_handler
from lambdas.rehearsal import CasesError
from lambdas.workflow import charts, rehearse
from lambdas.workflow.measure import RewardUnavailableError
from tests.unit.workflow.conftest import DATASETS, REWARD, RUN, Aws

ROWS = [
    {
        "id": f"q-{at}",
        "messages": [{"role": "user", "content": f"How much is {at} plus nine?"}],
        "reference_answer": str(at + 9),
        "topic": "sums",
    }
    for at in range(300)
]
SETTINGS: dict[str, Any] = {
    "rows": 40,
    "max_hackability": 0.5,
    "min_reference_share": 1.0,
    "max_latency_share": 0.5,
    "range": [0.0, 1.0],
    "timeout_seconds": 60,
    "functions": ["reward.py"],
    "names": [],
    "sections": [],
}


def honest(sample: Sample) -> Reward:
    right = sample.completion == f"#### {sample.reference_answer}" and sample.metadata["topic"] == "sums"
    return Reward(float(right), components={"answer": float(right)})


def anywhere(sample: Sample) -> Reward:
    return Reward(float(sample.reference_answer in sample.completion))


@pytest.fixture
def event(aws: Aws) -> dict[str, Any]:
    rows = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    train = aws.put(DATASETS, "datasets/0123/train.jsonl", rows)
    return {"run": RUN, "reward_version": REWARD, "rehearsal": SETTINGS, "train": train}


def deploy(aws: Aws, score: Any) -> None:
    handler = reward_handler(score)
    aws.reward = lambda batch: handler(batch, None)


def test_an_honest_reward_passes(aws: Aws, event: dict[str, Any]) -> None:
    deploy(aws, honest)
    assert rehearse.handler(event, None) == {
        "verdict": "pass",
        "sentence": "Rehearsal: nothing to object to.",
    }
    written = aws.document("gates/rehearsal.json")
    assert (written["gate"], written["verdict"], written["findings"]) == ("rehearsal", "pass", [])
    assert written["facts"]["form"] == "####"
    assert (written["facts"]["references"]["rows"], written["facts"]["references"]["of"]) == (40, 300)


def test_an_exploitable_reward_stops_the_run_in_words(aws: Aws, event: dict[str, Any]) -> None:
    deploy(aws, anywhere)
    answer = rehearse.handler(event, None)
    assert answer["verdict"] == "stop"
    assert "the answer inside a denial earns 100% of what a right answer does" in answer["sentence"]
    written = aws.document("gates/rehearsal.json")
    assert written["sentence"] == answer["sentence"]
    assert written["facts"]["hackability"] == 1.0


def test_batches_have_the_documented_shape_and_go_to_the_pinned_version(
    aws: Aws, event: dict[str, Any]
) -> None:
    deploy(aws, honest)
    rehearse.handler(event, None)
    calls = aws.called("Invoke")
    assert {call["FunctionName"] for call in calls} == {REWARD}
    batches = [json.loads(call["Payload"]) for call in calls]
    assert {1, 16, 64} <= {len(batch) for batch in batches}
    assert max(len(batch) for batch in batches) == 64
    for batch in batches:
        assert len({sample["id"] for sample in batch}) == len(batch)
        for sample in batch:
            assert set(sample) == {"id", "messages", "metadata"}
            assert set(sample["metadata"]) == {"reference_answer", "topic"}
            assert sample["messages"][-1]["role"] == "assistant"


def test_the_cases_of_the_team_are_tried(aws: Aws, event: dict[str, Any]) -> None:
    deploy(aws, honest)
    lines = [
        {"row": "q-7", "completion": "16", "at_most": 0.0, "name": "no form"},
        {"row": 8, "completion": "It is 16.", "at_least": 0.5, "name": "in words"},
    ]
    cases = aws.put("assets", "cases.jsonl", "\n".join(map(json.dumps, lines)).encode())
    answer = rehearse.handler({**event, "rehearsal": {**SETTINGS, "cases": cases}}, None)
    assert answer["verdict"] == "stop"
    assert "rehearsal.jsonl:2 (in words): the completion earned 0" in answer["sentence"]
    assert aws.document("gates/rehearsal.json")["facts"]["cases"] == {"given": 2, "failed": 1}


def test_fails_with_file_and_line_for_cases_that_make_no_sense(aws: Aws, event: dict[str, Any]) -> None:
    deploy(aws, honest)
    cases = aws.put("assets", "cases.jsonl", b'{"row": "q-7"}\n')
    with pytest.raises(CasesError, match=r"^rehearsal\.jsonl:1: needs one of"):
        rehearse.handler({**event, "rehearsal": {**SETTINGS, "cases": cases}}, None)


def test_a_broken_reward_is_a_verdict(aws: Aws, event: dict[str, Any]) -> None:
    deploy(aws, lambda sample: Reward(sample.metadata["no such field"]))
    answer = rehearse.handler(event, None)
    assert answer["verdict"] == "stop"
    assert "KeyError at test_rehearse.py" in answer["sentence"]


@pytest.mark.parametrize(
    "error",
    [
        InfrastructureError("the batch does not fit into the function's time: 3 of 64 samples are scored"),
        RuntimeError("2026-01-01T00:00:00Z 0123 Task timed out after 60.00 seconds"),
    ],
)
def test_a_reward_that_is_too_slow_is_a_verdict(aws: Aws, event: dict[str, Any], error: Exception) -> None:
    handler = reward_handler(honest)

    def reward(batch: Any) -> Any:
        if len(batch) > 60:
            raise error
        return handler(batch, None)

    aws.reward = reward
    answer = rehearse.handler(event, None)
    assert answer["verdict"] == "stop"
    assert "did not answer within its 60 s: a batch of 64 was too much for it" in answer["sentence"]
    assert aws.document("gates/rehearsal.json")["verdict"] == "stop"


def test_fails_for_a_retry_when_a_judge_is_down(aws: Aws, event: dict[str, Any]) -> None:
    def reward(_batch: Any) -> Any:
        raise InfrastructureError("the judge is throttled")

    aws.reward = reward
    with pytest.raises(RewardUnavailableError, match="the judge is throttled"):
        rehearse.handler(event, None)


def test_what_is_found_is_drawn(aws: Aws, event: dict[str, Any]) -> None:
    deploy(aws, anywhere)
    rehearse.handler(event, None)
    facts = aws.document("gates/rehearsal.json")["facts"]
    drawn = charts.rehearsal(facts)
    worse = re.findall(r'<g class="series worse">(.*?)</g></g></g>', drawn)
    stopped = [each for each in facts["exploits"] if each["gain"] >= 0.5]
    assert len(re.findall(r"<title>[\w ]+: \d+%</title>", worse[0])) == len(stopped) > 0
    assert 'class="limit"' in drawn
    assert "denial: 100%" in drawn
    assert "http" not in drawn
    assert charts.alone(drawn).startswith('<svg xmlns="http://www.w3.org/2000/svg" ')
    assert charts.rehearsal({}) == ""
