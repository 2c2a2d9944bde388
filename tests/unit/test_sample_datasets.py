"""The datasets of the sample teams: made by their scripts to the byte, and right in every row."""

import importlib.util
import json
import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from infra.config import load_teams
from lambdas.composition import compose
from lambdas.contract import Sample

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "evaluation")


def data(team: str) -> Path:
    return ROOT / "teams" / team / "data"


def rows(team: str, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data(team) / f"{split}.jsonl").read_text().splitlines()]


def prompt(row: dict[str, Any]) -> str:
    return row["messages"][-1]["content"]


def generator(team: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"generate_{team}", data(team) / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("team", ["quotes", "support"])
def test_the_script_writes_the_committed_files(team: str, tmp_path: Path) -> None:
    generator(team).write(tmp_path)
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (data(team) / f"{split}.jsonl").read_bytes()


@pytest.mark.parametrize("team", ["quotes", "support"])
def test_rows_are_what_the_service_takes(team: str) -> None:
    assert len(rows(team, "train")) >= 300
    assert len(rows(team, "evaluation")) >= 100
    every = [row for split in SPLITS for row in rows(team, split)]
    assert len({row["id"] for row in every}) == len(every)
    for row in every:
        assert [message["role"] for message in row["messages"]] == ["system", "user"]
        assert all(message["content"].strip() for message in row["messages"])
        assert isinstance(row["reference_answer"], str | dict)


@pytest.mark.parametrize("team", ["quotes", "support"])
def test_no_prompt_comes_twice(team: str) -> None:
    every = [prompt(row) for split in SPLITS for row in rows(team, split)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("team", ["quotes", "support"])
def test_half_of_evaluation_is_worded_as_training_never_is(team: str) -> None:
    assert {row["wording"] for row in rows(team, "train")} == {"shared"}
    held_out = [row for row in rows(team, "evaluation") if row["wording"] == "held-out"]
    assert len(held_out) * 2 == len(rows(team, "evaluation"))


@pytest.mark.parametrize("team", ["quotes", "support"])
def test_the_data_is_called_synthetic_where_people_look(team: str) -> None:
    assert "synthetic" in (data(team) / "README.md").read_text()
    assert "synthetic" in (ROOT / "teams" / team / "team.toml").read_text()
    for split in SPLITS:
        assert f"`{split}.jsonl` has {len(rows(team, split))}" in (data(team) / "README.md").read_text()


def stated(reference: str | dict[str, Any]) -> str:
    """A completion that gives the reference in the form the prompt asks for."""
    return f"Step by step.\n#### {reference}" if isinstance(reference, str) else json.dumps(reference)


@pytest.mark.parametrize("name", ["quotes", "support"])
def test_every_reference_earns_full_marks_from_the_teams_own_reward_and_its_neighbours_do_not(
    name: str,
) -> None:
    (team,) = load_teams(ROOT, [name])
    score = compose(team.reward.document())
    for split in SPLITS:
        every = rows(name, split)
        for row, other in zip(every, [*every[1:], every[0]], strict=True):
            sample = Sample(
                id=row["id"],
                messages=tuple(row["messages"]),
                completion=stated(row["reference_answer"]),
                tool_calls=(),
                reference_answer=row["reference_answer"],
                metadata={},
            )
            assert score(sample).score == 1.0, row["id"]
            if other["reference_answer"] != row["reference_answer"]:
                wrong = replace(sample, completion=stated(other["reference_answer"]))
                assert score(wrong).score < 1.0, row["id"]


# The script computes answers from numbers it drew; here they are read back from the prompt.
def two(numbers: list[Decimal]) -> set[Decimal]:
    """Every value that one operation makes of two numbers."""
    a, b = numbers
    return {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())


def reachable(numbers: list[Decimal]) -> set[Decimal]:
    """Every value that uses each number once, by whatever operations."""
    if len(numbers) == 1:
        return set(numbers)
    values = set()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers[i + 1 :], i + 1):
            rest = [number for k, number in enumerate(numbers) if k not in {i, j}]
            for value in two([a, b]):
                values |= reachable([*rest, value])
    return values


def numbers_of(text: str) -> list[Decimal]:
    return [Decimal(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_quotes_ask_for_the_form_that_is_scored() -> None:
    assert {row["messages"][0]["content"] for split in SPLITS for row in rows("quotes", split)} == {
        generator("quotes").SYSTEM
    }
    assert "#### <number>" in generator("quotes").SYSTEM


@pytest.mark.parametrize("split", SPLITS)
def test_answers_of_quotes_follow_from_the_numbers_in_the_prompt(split: str) -> None:
    for row in rows("quotes", split):
        numbers = numbers_of(prompt(row))
        if "%" in prompt(row):
            (percent,) = numbers_of(re.search(r"\d+%", prompt(row))[0])
            numbers.remove(percent)
            sign = 1 if row["template"] == "with_tax" else -1
            numbers.append(1 + sign * percent / 100)
        answer = Decimal(row["reference_answer"])
        assert answer > 0
        assert re.fullmatch(r"\d+(\.\d\d)?", row["reference_answer"]), row["id"]
        assert any(abs(value - answer) < Decimal("1e-9") for value in reachable(numbers)), row["id"]


# Worked by hand from the texts, one of every kind.
WORKED = {
    "Fern Dental orders 51 extension cords at $75.75 each. What is the total?": "3863.25",
    "A quote over 30 barcode scanners for Iris Motors comes to $495. What is the unit price?": "16.50",
    "After a credit of $25, what does Cedar Schools owe on whiteboards quoted at $775?": "750",
    "Freight to Kelp Marine adds $67 to 20 label printers of $42.25 each. What is the sum?": "912",
    "A credit of $30 goes against 19 safety vests at $73 apiece. What does Juniper Farms pay?": "1357",
    "Out of $1710, Linden Library pays for 30 whiteboards of $44.50 each. What remains?": "375",
    "Delivery takes $30 of the $310 that Gingko Studios has. How many water filters at $7 fit?": "40",
    "By paying $37 in place of $44.50 for 44 safety vests, how much does Hazel Foods keep?": "330",
    "At $3.75 apiece, what does Cedar Schools pay for 9 cartons with 18 desk lamps in each?": "607.50",
    "Add up for Fern Dental: 26 times extension cords at $5.25, 29 times safety vests at $8.": "368.50",
    "As a regular, Hazel Foods gets 35% off. What do 28 monitor arms at $25 come to?": "455",
    "Tax of 4% comes on top of 28 water filters at $70. What does Juniper Farms transfer?": "2038.40",
}


def test_answers_of_quotes_are_those_worked_by_hand() -> None:
    evaluation = {prompt(row): row for row in rows("quotes", "evaluation")}
    assert {text: evaluation[text]["reference_answer"] for text in WORKED} == WORKED
    assert len({evaluation[text]["template"] for text in WORKED}) == len(generator("quotes").KINDS)


def test_support_states_keys_and_values_line_by_line() -> None:
    (system,) = {row["messages"][0]["content"] for split in SPLITS for row in rows("support", split)}
    stated = dict(re.findall(r"^- (\w+): (.*)$", system, flags=re.MULTILINE))
    allowed = {
        key: {True, False} if values == "true or false" else set(values.removeprefix("one of ").split(", "))
        for key, values in stated.items()
    }
    for split in SPLITS:
        for row in rows("support", split):
            assert row["reference_answer"].keys() == allowed.keys()
            for key, value in row["reference_answer"].items():
                assert value in allowed[key], row["id"]


# Words a reader goes by; each ticket has those of exactly one category.
CATEGORY_WORDS = {
    "billing": r"charged|invoice|bill\b|fee\b",
    "technical": r"error|does not connect|freezes",
    "account": r"log in|account\b|login",
    "shipping": r"parcel|tracking|courier|shipped",
}


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_support_follow_from_the_words_of_the_ticket(split: str) -> None:
    for row in rows("support", split):
        ticket, label = prompt(row).lower(), row["reference_answer"]
        assert [name for name, words in CATEGORY_WORDS.items() if re.search(words, ticket)] == [
            label["category"]
        ]
        assert re.findall(r"router|camera|thermostat|doorbell", ticket) == [label["product"]]
        urgent = re.search(r"(?<!not )urgent|immediately", ticket)
        easy = re.search(r"no hurry|no rush|not urgent", ticket)
        assert label["priority"] == ("high" if urgent else "low" if easy else "normal"), ticket
        asks = re.search(r"refund|money back", ticket) and not re.search(
            r"not (need|want) a refund|not asking", ticket
        )
        assert label["refund_requested"] is bool(asks), ticket


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_support_are_balanced(split: str) -> None:
    labels = [row["reference_answer"] for row in rows("support", split)]
    for key in ("category", "priority", "product", "refund_requested"):
        counts = Counter(label[key] for label in labels)
        assert max(counts.values()) == min(counts.values()), key
