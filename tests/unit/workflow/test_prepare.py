"""What a run trains and is measured on is checked, copied under the name of its content, and profiled."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas import dataset
from lambdas.dataset import DatasetError
from lambdas.workflow import prepare
from tests.unit.workflow.conftest import ARTIFACTS, DATASETS, RUN, Aws, RefusedError, Stored

DOCUMENT: dict[str, Any] = {
    "run": RUN,
    "trigger": "manual",
    "source": {"train": "s3://assets/train.jsonl", "evaluation": "s3://assets/evaluation.jsonl"},
    "base_model": "amazon.nova-2-lite-v1:0:256k",
    "reward_version": "arn:aws:lambda:us-east-1:111122223333:function:Reward:3",
    "training": {"epochCount": 2, "maxPromptLength": 10},
    "measurement": {"prompts": 15, "samples_per_prompt": 4, "temperature": 0.7, "concurrency": 10},
    "promotion": {"minimum_gain": 0.0, "confidence": 0.95},
}


def rows(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [{"role": "user", "content": f"Question {number}" + "?" * (number % 60)}],
            "reference_answer": str(number),
            "topic": "café",
        }
        for number in range(start, start + count)
    ]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture(autouse=True)
def _sources(aws: Aws) -> None:
    aws.put("assets", "train.jsonl", jsonl(rows(0, 120)))
    aws.put("assets", "evaluation.jsonl", jsonl(rows(110, 40)))


def run(**changes: Any) -> dict[str, Any]:
    return prepare.handler({**DOCUMENT, **changes}, None)


def test_the_files_are_where_the_job_reads_them(aws: Aws) -> None:
    answer = run()
    sha256 = answer["dataset"]["sha256"]
    assert answer["train"] == f"s3://{DATASETS}/datasets/{sha256}/train.jsonl"
    assert answer["evaluation"] == f"s3://{DATASETS}/datasets/{sha256}/evaluation.jsonl"
    assert answer["dataset"] == {"sha256": sha256, "train_rows": 120, "evaluation_rows": 40}
    for file in ("train", "evaluation"):
        copied = aws.objects[DATASETS, f"datasets/{sha256}/{file}.jsonl"]
        assert copied.body == aws.objects["assets", f"{file}.jsonl"].body


def test_the_prompts_to_measure_are_held_out_ones(aws: Aws) -> None:
    answer = run()
    assert answer["prompts"] == {"bucket": ARTIFACTS, "key": f"runs/{RUN}/prompts.jsonl", "count": 15}
    body = aws.objects[ARTIFACTS, answer["prompts"]["key"]].body
    items = [json.loads(line) for line in body.splitlines()]
    assert [item["index"] for item in items] == list(range(15))
    # Rows 110 to 119 are in the training file as well.
    assert all(120 <= int(item["reference_answer"]) < 150 for item in items)
    assert items[0].keys() == {"index", "part", "id", "messages", "reference_answer", "metadata"}
    assert items[0]["metadata"] == {"topic": "café"}
    assert {item["part"] for item in items} == {"evaluation"}


def test_no_prompt_is_tried_unless_some_may_be_left_out(aws: Aws) -> None:
    place = {"bucket": ARTIFACTS, "key": f"runs/{RUN}/training-prompts.jsonl"}
    assert run()["training_prompts"] == {**place, "count": 0}
    assert (ARTIFACTS, place["key"]) not in aws.objects
    answer = run(filter={"drop": "flat", "prompts": 30})
    assert answer["training_prompts"] == {**place, "count": 30}
    items = [json.loads(line) for line in aws.objects[ARTIFACTS, place["key"]].body.splitlines()]
    assert [item["index"] for item in items] == list(range(30))
    # The first row, whose answer is 0, is on line 1.
    assert all(item["line"] == int(item["reference_answer"]) + 1 for item in items)


def test_regression_prompts_are_measured_behind_the_others(aws: Aws) -> None:
    aws.put("assets", "regression.jsonl", jsonl(rows(115, 5) + rows(500, 12)))
    source = {**DOCUMENT["source"], "regression": "s3://assets/regression.jsonl"}
    answer = run(source=source)
    sha256 = answer["dataset"]["sha256"]
    assert sha256 != run()["dataset"]["sha256"]
    assert answer["regression"] == f"s3://{DATASETS}/datasets/{sha256}/regression.jsonl"
    assert run(source=source)["prompts"]["count"] == 15 + 12
    body = aws.objects[ARTIFACTS, answer["prompts"]["key"]].body
    items = [json.loads(line) for line in body.splitlines()]
    assert [item["index"] for item in items] == list(range(27))
    assert [item["part"] for item in items] == ["evaluation"] * 15 + ["regression"] * 12
    assert all(int(item["reference_answer"]) >= 500 for item in items[15:])
    profile = aws.document("dataset.json")
    assert (profile["measured"], profile["measured_regression"]) == (15, 12)
    assert (profile["regression"]["rows"], profile["regression"]["leaked"]) == (17, 5)
    assert (profile["leaked"], profile["source"]) == (10, source)


def test_fails_when_there_are_too_few_regression_prompts(aws: Aws) -> None:
    aws.put("assets", "regression.jsonl", jsonl(rows(115, 5) + rows(500, 9)))
    source = {**DOCUMENT["source"], "regression": "s3://assets/regression.jsonl"}
    with pytest.raises(DatasetError, match=r"regression\.jsonl holds 9 different prompts"):
        run(source=source)
    with pytest.raises(DatasetError, match=r"evaluation\.jsonl or s3://assets/regression\.jsonl has changed"):
        run(source={**source, "sha256": "0" * 64})


def test_the_run_keeps_its_document_and_a_profile(aws: Aws) -> None:
    sha256 = run()["dataset"]["sha256"]
    assert aws.document("run.json") == DOCUMENT
    profile = aws.document("dataset.json")
    assert profile["sha256"] == sha256
    assert profile["source"] == DOCUMENT["source"]
    assert (profile["leaked"], profile["measured"]) == (10, 15)
    assert (profile["train"]["rows"], profile["evaluation"]["rows"]) == (120, 40)
    # More than 40 characters: "Question 7" and a tail of up to 59.
    over = sum(len(row["messages"][0]["content"]) > 40 for row in rows(0, 120))
    assert profile["train"]["rows_over_max_prompt_length"] == over > 0


def test_what_is_there_already_is_not_copied_again(aws: Aws) -> None:
    first = run()
    assert len(aws.called("CopyObject")) == 2
    assert run() == first
    assert len(aws.called("CopyObject")) == 2


def test_what_is_there_by_accident_is_copied_over(aws: Aws) -> None:
    key = run()["train"].removeprefix(f"s3://{DATASETS}/")
    good = aws.objects[DATASETS, key]
    aws.objects[DATASETS, key] = Stored(b"something else")
    run()
    assert aws.objects[DATASETS, key] == good


def test_a_copied_dataset_can_be_the_source_of_a_run(aws: Aws) -> None:
    first = run()
    again = run(source={"train": first["train"], "evaluation": first["evaluation"]})
    assert again == first


def test_what_is_wrong_with_both_files_is_said_at_once(aws: Aws) -> None:
    broken = jsonl(rows(0, 120)).replace(b'"7"', b'""').replace(b'"9"', b"nine")
    aws.put("assets", "train.jsonl", broken)
    aws.put("assets", "evaluation.jsonl", jsonl(rows(200, 3)))
    with pytest.raises(DatasetError) as caught:
        run()
    assert str(caught.value).splitlines() == [
        "s3://assets/train.jsonl cannot be used (2 problems):",
        "  - line 8: `reference_answer` is empty: it is what the reward function compares with, a string or"
        " an object",
        "  - line 10: is not valid JSON: put one complete object on each line (invalid character at byte 92,"
        ' near `erence_answer": nine, "topic": "caf\\u00e`)',
        "s3://assets/evaluation.jsonl cannot be used (1 problem):",
        "  - it has 3 rows, and at least 10 are needed: add 7 more",
    ]
    # Nothing was copied, and the document is among the evidence.
    assert not aws.called("CopyObject")
    assert aws.document("run.json") == DOCUMENT


def test_a_missing_file_is_said_in_words() -> None:
    with pytest.raises(DatasetError) as caught:
        run(source={"train": "s3://assets/nothing.jsonl", "evaluation": "s3://assets/evaluation.jsonl"})
    assert str(caught.value) == (
        "s3://assets/nothing.jsonl cannot be read (NoSuchKey: The specified key does not exist.): check that"
        " it exists, that it lies in this region, and that the stack's Prepare function may read and decrypt"
        " it"
    )


def test_a_file_that_may_not_be_read_is_said_in_words(aws: Aws) -> None:
    aws.refusals["GetObject"] = [RefusedError("AccessDenied", "not authorized to perform: s3:GetObject", 403)]
    with pytest.raises(DatasetError, match=r"train\.jsonl cannot be read \(AccessDenied: not authorized"):
        run()


def test_trouble_of_the_service_stays_what_it_is_for_the_retry(aws: Aws) -> None:
    aws.refusals["GetObject"] = [RefusedError("SlowDown", "Reduce your request rate.", 503)]
    with pytest.raises(ClientError, match="SlowDown"):
        run()


def test_a_file_changed_since_the_start_is_not_trained_on(aws: Aws) -> None:
    source = {**DOCUMENT["source"], "sha256": run()["dataset"]["sha256"]}
    assert run(source=source)["dataset"]["sha256"] == source["sha256"]
    aws.put("assets", "train.jsonl", jsonl(rows(1, 120)))
    with pytest.raises(DatasetError, match="has changed since the run was started: start another run"):
        run(source=source)


def test_a_file_changed_while_it_is_checked_is_not_trained_on(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dataset.check

    def check(*args: Any, **rules: Any) -> Any:
        found = real(*args, **rules)
        aws.put("assets", "train.jsonl", jsonl(rows(1, 120)))
        return found

    monkeypatch.setattr(dataset, "check", check)
    with pytest.raises(DatasetError, match=r"train\.jsonl has changed while it was being checked"):
        run()


def test_too_few_prompts_that_are_not_trained_on_are_said(aws: Aws) -> None:
    aws.put("assets", "evaluation.jsonl", jsonl(rows(90, 39)))
    with pytest.raises(
        DatasetError, match=r"holds 9 different prompts that are not in s3://assets/train\.jsonl"
    ):
        run()


def test_a_file_over_what_s3_copies_in_one_go_is_refused(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "FILE_BYTES", 100)
    with pytest.raises(DatasetError, match=r"train\.jsonl is larger than 100 bytes"):
        run()


def test_the_gate_leaves_its_verdict_and_the_facts_behind_it(aws: Aws) -> None:
    run()
    verdict = aws.document("gates/dataset.json")
    assert (verdict["gate"], verdict["verdict"]) == ("dataset", "warn")
    # Rows 110 to 119 are in both files, and maxPromptLength is 10 tokens.
    assert [finding["rule"] for finding in verdict["findings"]] == ["prompt-length", "leak"]
    assert verdict["findings"][1]["lines"] == list(range(1, 11))
    assert verdict["sentence"].startswith("Dataset: goes on with a warning. s3://assets/train.jsonl: ")
    profile = aws.document("dataset.json")
    assert profile["findings"] == verdict["findings"]
    assert profile["train"] == verdict["facts"]["train"]
    assert profile["nearly_leaked"] == 0


def test_a_clean_pair_of_files_passes_the_gate(aws: Aws) -> None:
    aws.put("assets", "evaluation.jsonl", jsonl(rows(200, 40)))
    run(training={"maxPromptLength": 100})
    verdict = aws.document("gates/dataset.json")
    assert (verdict["verdict"], verdict["findings"]) == ("pass", [])


def test_a_run_that_the_gate_stops_has_the_verdict_among_the_evidence(aws: Aws) -> None:
    aws.put("assets", "train.jsonl", jsonl(rows(0, 120)).replace(b'"7"', b'""'))
    aws.put("assets", "evaluation.jsonl", jsonl(rows(200, 3)))
    with pytest.raises(DatasetError):
        run()
    verdict = aws.document("gates/dataset.json")
    assert verdict["verdict"] == "stop"
    assert [(each["rule"], each["level"], each["lines"]) for each in verdict["findings"]] == [
        ("row", "stop", [8]),
        ("file", "stop", []),
    ]
    assert "s3://assets/train.jsonl: line 8: `reference_answer` is empty" in verdict["sentence"]


def test_a_file_that_cannot_be_read_is_a_verdict_as_well(aws: Aws) -> None:
    with pytest.raises(DatasetError):
        run(source={"train": "s3://assets/nothing.jsonl", "evaluation": "s3://assets/evaluation.jsonl"})
    assert aws.document("gates/dataset.json")["verdict"] == "stop"


def test_the_platforms_rules_decide_what_is_looked_at(aws: Aws) -> None:
    personal = [*rows(0, 120), {**rows(120, 1)[0], "customer": "ann@corp.com"}]
    aws.put("assets", "train.jsonl", jsonl(personal))
    quiet = {"training": {}, "source": {**DOCUMENT["source"], "evaluation": "s3://assets/other.jsonl"}}
    aws.put("assets", "other.jsonl", jsonl(rows(200, 40)))
    run(**quiet)
    (finding,) = aws.document("gates/dataset.json")["findings"]
    assert (finding["rule"], finding["lines"]) == ("personal-email", [121])
    run(**quiet, gates={"dataset": {"personal_data": False, "near_duplicates": False}})
    verdict = aws.document("gates/dataset.json")
    assert (verdict["verdict"], verdict["facts"]["train"]["personal_data"]) == ("pass", None)
