"""The model card: made from the manifest alone, the same story in both forms, safe against what it quotes."""

import re
from typing import Any

import pytest

from lambdas.workflow import model_card, report
from tests.unit.workflow import test_report as runs

GUARDS = [
    {
        "name": "answer_form", "against": "base", "prompts": 100, "before": 0.9, "candidate": 0.95,
        "change": 0.05, "lower": 0.01, "upper": 0.09, "held": True,
    },
    {
        "name": "politeness", "against": "champion", "prompts": 0, "before": None, "candidate": None,
        "change": None, "lower": None, "upper": None, "held": False,
    },
]  # fmt: skip
RIVAL = {"mean": 0.6, "gain": 0.1, "lower": -0.01, "upper": 0.2, "held": True}
APPROVAL = {"approved": True, "by": "arn:aws:iam::111122223333:user/ann", "why": "good", "at": "2026-11-22"}


def manifest(**changes: Any) -> dict[str, Any]:
    return report.build(runs.synthetic(40, **changes))[1]


def decided(**more: Any) -> dict[str, Any]:
    return runs.decision(runs.measurements(40), **more)


def plain(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    found = manifest(decision=decided(guards=GUARDS, champion=RIVAL, approval=APPROVAL))
    return model_card.pages(found)


@pytest.mark.parametrize("name", list(model_card.FILES))
def test_says_what_a_model_is_and_where_it_comes_from(pages: dict[str, str], name: str) -> None:
    text = runs.Page(pages[name]).text if name.endswith(".html") else plain(pages[name])
    found = manifest()
    for said in (
        "Answers the arithmetic of a sales-quote desk.",
        "amazon.nova-2-lite-v1:0:256k",
        runs.MODEL,
        runs.JOB,
        runs.REWARD,
        "9f" * 32,
        "c0" * 32,
        runs.deployment()["revision"],
        found["sentence"],
        APPROVAL["by"],
        "answer_form",
        "not measured",
        "broken",
        "quotes-ml@example.com",
    ):
        assert said in text, said


def test_both_forms_have_the_same_sections(pages: dict[str, str]) -> None:
    in_markdown = re.findall(r"(?m)^## (.+)$", pages["model-card.md"])
    assert in_markdown == re.findall(r"<h2>(.+?)</h2>", pages["model-card.html"])
    assert in_markdown == [
        "Intended use", "Model", "Data", "Reward", "Results", "Guards", "Checks before training", "Decision",
        "Limits", "Lineage",
    ]  # fmt: skip


def test_every_table_of_the_markdown_is_one(pages: dict[str, str]) -> None:
    blocks = re.findall(r"(?m)(?:^\|.*\n)+", pages["model-card.md"])
    assert len(blocks) == 9
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
        assert set(block.splitlines()[1]) <= set("| -")


def test_the_interval_stands_beside_the_gain(pages: dict[str, str]) -> None:
    found = decided()
    interval = f"{model_card._change(found['lower'])} to {model_card._change(found['upper'])}"
    for text in pages.values():
        assert f"95% interval {interval}" in text


def test_says_miniature_where_no_real_model_was_trained() -> None:
    for text in model_card.pages(manifest(embedded=True)).values():
        assert text.count("Miniature. No real model was trained") == 2
    for text in model_card.pages(manifest()).values():
        assert "Miniature" not in text


def test_says_when_nobody_was_asked_and_what_was_not_recorded() -> None:
    text = model_card.pages(manifest(deployment={"stack_id": "x", "unknown": "AccessDenied"}))[
        "model-card.md"
    ]
    assert "| Approver | nobody was asked |" in text
    assert "| Source revision | not recorded |" in text
    assert "AccessDenied" in text


def test_there_is_none_without_a_model() -> None:
    assert model_card.pages(report.build(runs.failed_at_once())[1]) == {}


def test_hostile_words_stay_words() -> None:
    hostile = runs.HOSTILE + "\n\n# Free models\n| a | b |\n[here](https://evil.example) `x` <b>"
    found = manifest(deployment=runs.deployment() | {"description": hostile})
    pages = model_card.pages(found)
    html, markdown = pages["model-card.html"], pages["model-card.md"]
    assert "<script" not in html
    assert "<img" not in html
    assert "\n# Free" not in markdown
    assert not re.search(r"(?<!\\)[<`\[]", markdown.replace("\n> **", ""))
    for text in (html, markdown):
        assert not re.search("[\x00\x1b\u202e\ud800]", text)


def test_needs_nothing_but_itself(pages: dict[str, str]) -> None:
    html = pages["model-card.html"]
    assert not re.search(r"""(src|href|url)\s*[=(]""", html)
    assert "default-src 'none'" in html
