"""Each rule of `rft doctor` is shown by a run that has what it looks for; a healthy run has none of it."""

import io
import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from rich.console import Console

from lambdas.contract import Reward, Sample
from lambdas.tripwires import Batch
from rft.doctor import Evidence, document, examine, shown
from tests.unit import test_tripwires as built
from tests.unit.miniature import Row, measure, reward_of, rows_of, train, training_of

SHORT: dict[str, Any] = {"epochCount": 4, "trainingSamplePerPrompt": 4}
Score = Callable[[Sample], Reward]


def evidence(
    rows: Sequence[Row],
    score: Score,
    *,
    held_out: Sequence[Row] | None = None,
    shadow: str | None = None,
    max_tokens: int = 1024,
    train_it: bool = True,
    measure_by: Score | None = None,
    team: str = "quotes",
    **training: Any,
) -> Evidence:
    """Runs a whole run in miniature: measures the base model, trains, and measures what came of it."""
    used = training_of(team) | SHORT | training
    asked = (held_out or rows_of(team, "evaluation"))[: 40 if train_it else 100]
    measured = {"base": measure(None, asked, measure_by or score, max_tokens=max_tokens)}
    batches: list[Batch] = []
    steps: Sequence[Any] = ()
    if train_it:
        trained = train(rows, score, **used)
        batches = [batch for number, line in enumerate(trained.lines) if (batch := Batch.of(line, number))]
        steps = trained.steps
        measured["candidate"] = measure(trained.policy, asked, measure_by or score)
    gates = {"tripwires": {"range": [0.0, 1.0], "shadow": shadow}}
    return Evidence(
        run="run-0123456789abcdef",
        status="SUCCEEDED",
        document={"training": used, "gates": gates, "measurement": {"temperature": 0.7}},
        measured=measured,
        steps=steps,
        batches=batches,
    )


def pays_by_the_prompt(sample: Sample) -> Reward:
    return Reward(float(len(str(sample.reference_answer)) % 2))


def pays_for_any_object(sample: Sample) -> Reward:
    try:
        return Reward(float("billing" in str(json.loads(sample.completion))))
    except ValueError:
        return Reward(0.0)


def pays_for_the_box(sample: Sample) -> Reward:
    return Reward(float("boxed" in sample.completion))


def pays_for_the_unusual(sample: Sample) -> Reward:
    echo = sample.completion == sample.messages[-1]["content"]
    return Reward(float(echo or not sample.completion or len(sample.completion) > 400))


def misanswered(rows: Sequence[Row]) -> list[Row]:
    """The rows with each other's answers: there is no task in them, only rows to learn by heart."""
    answers = [row["reference_answer"] for row in rows]
    random.Random(5).shuffle(answers)
    return [{**row, "reference_answer": answer} for row, answer in zip(rows, answers, strict=True)]


@cache
def run(rule: str) -> Evidence:
    quotes, support = rows_of("quotes")[:160], rows_of("support")[:120]
    fields, _ = reward_of("support")
    match rule:
        case "healthy":
            return evidence(quotes, reward_of("quotes")[0])
        case "unsolved":
            return evidence(quotes, built.pays_for_what_no_model_writes, train_it=False)
        case "sparse":
            return evidence(
                quotes,
                pays_for_the_unusual,
                train_it=False,
            )
        case "flat":
            return evidence(quotes, pays_by_the_prompt, train_it=False)
        case "needless":
            return evidence(quotes, built.pays_for_any_digit, train_it=False)
        case "cut":
            return evidence(quotes, reward_of("quotes")[0], train_it=False, max_tokens=4)
        case "hardly-moved":
            return evidence(quotes, reward_of("quotes")[0], learningRate=1e-7)
        case "spread-collapse":
            return evidence(rows_of("quotes"), built.pays_for_the_form_alone, learningRate=1e-3, epochCount=8)
        case "reward-collapse":
            return evidence(quotes, built.Tires(after=1500))
        case "error-share":
            return evidence(quotes, built.breaks_on_working, measure_by=reward_of("quotes")[0])
        case "length-explosion":
            return evidence(quotes, built.pays_for_length, learningRate=1e-3)
        case "jump":
            return evidence(quotes, pays_for_the_box, learningRate=1e-3)
        case "shadow-gap":
            return evidence(quotes, built.pays_for_looking_worked_out, shadow="truth")
        case "reward-saturation":
            return evidence(quotes, built.pays_for_any_digit, learningRate=4e-4)
        case "worse-held-out":
            return evidence(misanswered(support), fields, team="support", epochCount=12, learningRate=1e-3)
        case "one-answer":
            return evidence(support, pays_for_any_object, team="support", epochCount=8, learningRate=1e-3)
    raise AssertionError(rule)


@pytest.mark.parametrize(
    ("rule", "sign", "sees"),
    [
        ("unsolved", "flat", "Not one of 400 completions"),
        ("sparse", "flat", "too sparse a reward"),
        ("flat", "flat", "all completions score the same"),
        ("needless", "flat", "needs no training"),
        ("cut", "flat", "were cut at"),
        ("hardly-moved", "flat", "the steps are too small, or too few"),
        ("spread-collapse", "flat", "All completions earn nearly the same"),
        ("reward-collapse", "falling", "The reward fell from"),
        ("error-share", "falling", "The reward function failed on"),
        ("length-explosion", "spiking", "times as long as at the start"),
        ("jump", "spiking", "a shortcut is found at once"),
        ("shadow-gap", "perfect", "away from `truth`"),
        ("reward-saturation", "perfect", "nothing is left to learn"),
        ("worse-held-out", "perfect", "the model knows the rows and not the task"),
        ("one-answer", "perfect", "says the same"),
    ],
)
def test_a_rule_finds_the_run_that_shows_it(rule: str, sign: str, sees: str) -> None:
    found = {each.rule: each for each in examine(run(rule))}
    assert rule in found, list(found)
    assert found[rule].sign == sign
    assert sees in found[rule].sees
    assert found[rule].tries


def test_finds_nothing_wrong_with_a_healthy_run() -> None:
    healthy = run("healthy")
    assert examine(healthy) == []
    assert len(healthy.windows) > 5
    assert "No rule finds anything wrong" in printed(healthy)


def test_says_so_when_there_is_nothing_to_look_at() -> None:
    nothing = Evidence(run="run-0123456789abcdef", status="RUNNING")
    assert examine(nothing) == []
    assert "has not measured or trained enough" in printed(nothing)


def printed(of: Evidence) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(shown(of, examine(of)), highlight=False)
    return console.export_text()


def test_a_person_reads_what_is_seen_and_what_to_try() -> None:
    text = printed(run("length-explosion"))
    assert "spiking  length-explosion" in text
    assert "a limit in the prompt" in text
    assert any(bar in text for bar in "▁▂▃▄▅▆▇█")


def test_a_machine_reads_the_same() -> None:
    of = run("length-explosion")
    read = json.loads(json.dumps(document(of, examine(of))))
    assert [each["rule"] for each in read["diagnoses"]] == [each.rule for each in examine(of)]
    assert len(read["reward"]) == len(of.windows)
    assert read["stopped_by"] == []


def test_what_a_model_wrote_cannot_steer_the_terminal() -> None:
    of = run("one-answer")
    hostile = "\x1b[2J\u202egnillib"
    for each in of.measured["candidate"]:
        for one in each["completions"]:
            one["text"] = hostile
    text = printed(of)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "gnillib" in text
