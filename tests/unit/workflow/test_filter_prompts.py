"""Training prompts that show training nothing are left out where a team asks for it, and never too many."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from lambdas.workflow import filter_prompts
from lambdas.workflow.runs import RunError
from tests.unit.workflow.conftest import ARTIFACTS, DATASETS, RUN, Aws

TRAIN = f"s3://{DATASETS}/datasets/{'d' * 64}/train.jsonl"
FILTER: dict[str, Any] = {"drop": "flat", "prompts": 200, "max_dropped": 0.5, "range": [0.0, 1.0]}
SOLVED: dict[str, Any] = {**FILTER, "drop": "solved", "passing": 0.5}

FAILED, MIXED, PARTLY, PASSED = [0.0] * 4, [0.0, 1.0, 0.0, 0.0], [0.3] * 4, [1.0] * 4


def rows(count: int) -> list[bytes]:
    """Rows whose bytes no JSON library would write again as they are."""
    return [
        b'{"messages":  [{"role": "user", "content": "Caf\xc3\xa9 %d?"}], "reference_answer": "%d"}\r'
        % (n, n)
        for n in range(count)
    ]


def tried(aws: Aws, *groups: Sequence[float], of: int = 120) -> None:
    """The first prompts of a training file and what the base model earned with each."""
    aws.put(DATASETS, TRAIN.removeprefix(f"s3://{DATASETS}/"), b"\n".join(rows(of)) + b"\n")
    items = [{"index": index, "line": index + 1, "id": f"q-{index}"} for index in range(len(groups))]
    lines = b"".join(json.dumps(item).encode() + b"\n" for item in items)
    aws.put(ARTIFACTS, f"runs/{RUN}/training-prompts.jsonl", lines)
    for index, scores in enumerate(groups):
        completions = [{"text": "…", "score": score} for score in scores]
        path = f"measured/training/{index:05}.json"
        aws.write(path, {"index": index, "id": f"q-{index}", "completions": completions, "more": []})


def run(**settings: Any) -> dict[str, str]:
    return filter_prompts.handler({"run": RUN, "filter": {**FILTER, **settings}, "train": TRAIN}, None)


def test_the_job_trains_on_the_other_rows_byte_by_byte(aws: Aws) -> None:
    tried(aws, FAILED, MIXED, PASSED)
    answer = run()
    kept = b"".join(row + b"\n" for number, row in enumerate(rows(120)) if number not in (0, 2))
    path = f"runs/{RUN}/filtered/{hashlib.sha256(kept).hexdigest()}.jsonl"
    assert aws.objects[ARTIFACTS, path].body == kept
    assert answer["train"] == f"s3://{ARTIFACTS}/{path}"
    assert answer["verdict"] == "pass"
    written = aws.document("gates/filter.json")
    assert written["facts"] == {
        "drop": "flat",
        "tried": 3,
        "flat": 2,
        "rows": 120,
        "left_out": 2,
        "kept": 118,
        "lines": [1, 3],
        "sha256": hashlib.sha256(kept).hexdigest(),
        "uri": answer["train"],
    }
    [finding] = written["findings"]
    assert (finding["rule"], finding["level"], finding["examples"]) == ("left-out", "info", ["q-0", "q-2"])
    assert finding["sentence"] == (
        "Of 3 training prompts that the base model was tried on, the completions of 2 all earn the same: the"
        " job trains on the other 118 rows."
    )
    # Once more is the same once more.
    assert run() == answer


def test_what_the_base_model_fails_may_teach_most_later_and_can_stay(aws: Aws) -> None:
    tried(aws, FAILED, MIXED, PARTLY, PASSED)
    assert run(**SOLVED)["verdict"] == "pass"
    facts = aws.document("gates/filter.json")["facts"]
    assert (facts["flat"], facts["left_out"], facts["lines"]) == (3, 1, [4])
    # What passes is the team's to say, and is measured up from the lowest score.
    run(**{**SOLVED, "passing": 0.3})
    assert aws.document("gates/filter.json")["facts"]["lines"] == [3, 4]
    run(**{**SOLVED, "range": [-1.0, 1.0]})
    assert aws.document("gates/filter.json")["facts"]["lines"] == [1, 3, 4]


def test_rounding_makes_no_difference(aws: Aws) -> None:
    tried(aws, [0.1 + 0.2, 0.3], [0.3, 0.30001])
    run()
    assert aws.document("gates/filter.json")["facts"]["lines"] == [1]


def test_where_nothing_is_left_out_the_file_stays_what_it_is(aws: Aws) -> None:
    tried(aws, MIXED, MIXED)
    answer = run()
    assert (answer["train"], answer["verdict"]) == (TRAIN, "pass")
    assert not [key for _, key in aws.objects if "filtered" in key]
    written = aws.document("gates/filter.json")
    assert written["findings"][0]["sentence"].endswith("of 0 all earn the same: the job trains on all rows.")
    assert (written["facts"]["sha256"], written["facts"]["uri"]) == (None, None)


@pytest.mark.parametrize(("flat", "stopped"), [(20, False), (21, True)])
def test_fails_when_the_service_would_get_too_few_rows(aws: Aws, flat: int, stopped: bool) -> None:
    tried(aws, *[FAILED] * flat, of=120)
    answer = run(max_dropped=1.0)
    assert (answer["verdict"] == "stop") is stopped
    if stopped:
        assert answer["train"] == TRAIN
        assert not [key for _, key in aws.objects if "filtered" in key]
        assert answer["sentence"] == (
            "Filter: stops the run. Of 21 training prompts that the base model was tried on, the completions"
            " of 21 all earn the same: without them 99 rows are left, and the service trains on no fewer than"
            " 100. Choose prompts that the model answers right sometimes, let the reward tell better from"
            ' worse answers, try fewer (prompts of [gates.filter]), or leave nothing out (drop = "none").'
        )


@pytest.mark.parametrize(("flat", "stopped"), [(20, False), (21, True)])
def test_fails_when_hardly_anything_would_be_left(aws: Aws, flat: int, stopped: bool) -> None:
    tried(aws, *[PASSED] * flat, of=200)
    answer = run(max_dropped=0.1)
    assert (answer["verdict"] == "stop") is stopped
    if stopped:
        said = "that is 10.5% of the 200 rows, more than 10%, and what is left would be another dataset"
        assert said in answer["sentence"]
        assert aws.document("gates/filter.json")["findings"][0]["rule"] == "too-many-dropped"


def test_an_upload_reads_as_much_at_a_time_as_it_asks_for() -> None:
    joined = filter_prompts._Joined(iter([b"ab", b"cdef", b"g"]))
    assert [joined.read(3) for _ in range(5)] == [b"ab", b"cde", b"f", b"g", b""]


def test_fails_when_nothing_was_tried(aws: Aws) -> None:
    tried(aws)
    with pytest.raises(RunError, match="start the run with another `attempt`"):
        run()
