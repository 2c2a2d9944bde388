"""A gate's verdict is its gravest finding, in one shape for machines and one sentence for people."""

import json

import pytest

from lambdas.gate import Finding, Level, Verdict


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ([], "pass"),
        (["info"], "pass"),
        (["warn", "info"], "warn"),
        (["info", "stop", "warn"], "stop"),
    ],
)
def test_the_gravest_finding_makes_the_verdict(levels: list[Level], verdict: str) -> None:
    found = Verdict("dataset", tuple(Finding("rule", level, "It is so.") for level in levels))
    assert found.verdict == verdict


def test_the_sentence_tells_what_the_verdict_rests_on_and_leaves_the_rest_to_the_list() -> None:
    mild = Finding("mild", "warn", "Mild.")
    assert Verdict("signal").sentence == "Signal: nothing to object to."
    assert Verdict("cost", (mild,)).sentence == "Cost: goes on with a warning. Mild."
    graves = tuple(Finding("grave", "stop", f"Grave {number}.") for number in range(5))
    assert (
        Verdict("cost", (mild, *graves)).sentence
        == "Cost: stops the run. Grave 0. Grave 1. Grave 2. And 2 more."
    )


def test_the_document_is_what_every_gate_writes() -> None:
    finding = Finding("near-duplicates", "warn", "Two are alike.", count=2, lines=(3, 8), examples=("é",))
    found = Verdict("dataset", (finding,), {"rows": 120})
    assert found.document() == {
        "gate": "dataset",
        "verdict": "warn",
        "sentence": "Dataset: goes on with a warning. Two are alike.",
        "findings": [
            {
                "gate": "dataset",
                "rule": "near-duplicates",
                "level": "warn",
                "sentence": "Two are alike.",
                "count": 2,
                "lines": [3, 8],
                "examples": ["é"],
            }
        ],
        "facts": {"rows": 120},
    }
    assert found.to_json().isascii()
    assert json.loads(found.to_json()) == found.document()
