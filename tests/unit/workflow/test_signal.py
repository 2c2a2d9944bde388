"""A run goes on where there is something to learn, and says in words what to do where there is not."""

from collections.abc import Sequence
from typing import Any

import pytest

from lambdas.gate import Verdict
from lambdas.workflow import signal
from lambdas.workflow.runs import RunError
from lambdas.workflow.signal import ENOUGH_COMPLETIONS, SignalSettings
from tests.unit.workflow.conftest import RUN, Aws

SETTINGS: dict[str, Any] = {
    "prompts": 50,
    "passing": 0.5,
    "failing": [0.1, 0.7],
    "needless": 0.95,
    "sparse": 0.05,
    "flat": 0.9,
    "range": [0.0, 1.0],
}


def prompt(index: int, scores: Sequence[float], compared: int = 4, **completion: Any) -> dict[str, Any]:
    """What `measure` writes of a prompt: the first few completions, and more of them beside."""
    said = [
        {"text": "…", "score": score, "output_tokens": 100, "stop_reason": "end_turn", **completion}
        for score in scores
    ]
    return {"index": index, "id": f"q-{index}", "completions": said[:compared], "more": said[compared:]}


def prompts(*groups: Sequence[float], **completion: Any) -> list[dict[str, Any]]:
    return [prompt(index, scores, **completion) for index, scores in enumerate(groups)]


def spread(right: int, of: int, groups: int = 10, size: int = 8) -> list[dict[str, Any]]:
    """`right` of `of` completions are right, dealt out over the prompts one by one."""
    assert of == groups * size
    dealt: list[list[float]] = [[0.0] * size for _ in range(groups)]
    for number in range(right):
        dealt[number % groups][number // groups] = 1.0
    return prompts(*dealt)


def judge(measured: list[dict[str, Any]], samples: int = 8, **settings: Any) -> Verdict:
    return signal.judge(
        measured,
        settings=SignalSettings(**{**SETTINGS, **settings}),
        samples=samples,
        max_tokens=1024,
        temperature=0.7,
    )


def rules(verdict: Verdict) -> dict[str, str]:
    return {finding.rule: finding.level for finding in verdict.findings}


def test_a_model_that_is_right_sometimes_is_worth_training() -> None:
    verdict = judge(spread(48, 80))
    assert (verdict.verdict, rules(verdict)) == ("pass", {"train": "info"})
    assert verdict.findings[0].sentence == (
        "Train with reinforcement fine-tuning: 60% of 80 completions pass, and the completions of 100% of 10"
        " prompts differ in their reward."
    )
    facts = verdict.facts
    assert facts["advice"] == "train"
    assert (facts["prompts"], facts["completions"], facts["pass_rate"]) == (10, 80, 0.6)
    assert (facts["flat_share"], facts["all_pass"], facts["all_fail"]) == (0.0, 0, 0)
    assert facts["prompts_by_passes"] == [0, 0, 0, 0, 2, 8, 0, 0, 0]
    assert facts["temperature"] == 0.7


@pytest.mark.parametrize(("right", "stopped"), [(76, False), (77, True), (80, True)])
def test_fails_when_the_base_model_is_good_enough_already(right: int, stopped: bool) -> None:
    # 76 of 80 are exactly 95 %.
    verdict = judge(spread(right, 80))
    assert ("needless" in rules(verdict)) is stopped
    assert (verdict.verdict == "stop") is stopped
    if stopped:
        assert verdict.facts["advice"] == "needless"
        assert "it needs no training. Ask harder questions" in verdict.sentence


def test_fails_when_nothing_is_ever_right() -> None:
    verdict = judge(spread(0, 80))
    assert verdict.verdict == "stop"
    assert rules(verdict) == {"unsolved": "stop", "flat": "stop"}
    assert verdict.facts["advice"] == "unsolved"
    assert verdict.sentence.startswith(
        "Signal: stops the run. Not one of 80 completions earns more than the lowest reward, so there is"
        " nothing to reinforce: fine-tune the model with examples of good answers first"
    )


@pytest.mark.parametrize(("right", "stopped"), [(1, True), (3, True), (4, False), (5, False)])
def test_fails_when_the_reward_is_too_sparse(right: int, stopped: bool) -> None:
    # 4 of 80 are exactly 5 %.
    verdict = judge(spread(right, 80))
    assert ("sparse" in rules(verdict)) is stopped
    assert "unsolved" not in rules(verdict)
    if stopped:
        assert verdict.verdict == "stop"
        assert verdict.facts["advice"] == "sparse"


@pytest.mark.parametrize(("flat", "stopped"), [(17, False), (18, False), (19, True), (20, True)])
def test_fails_when_completions_of_a_prompt_do_not_differ(flat: int, stopped: bool) -> None:
    # 18 of 20 are exactly 90 %. Half of the flat prompts pass and half fail, so nothing else is wrong.
    alike: list[list[float]] = [[float(number % 2)] * 8 for number in range(flat)]
    verdict = judge(prompts(*alike, *[[0.0, 1.0] * 4] * (20 - flat)))
    assert (verdict.verdict == "stop") is stopped
    assert ("flat" in rules(verdict)) is stopped
    if stopped:
        assert verdict.facts["advice"] == "flat"
        assert verdict.findings[0].count == flat
        assert verdict.findings[0].examples == ("q-0", "q-1", "q-2")
    assert verdict.facts["all_pass"] == flat // 2
    assert verdict.facts["all_fail"] == flat - flat // 2


def test_a_bonus_that_everybody_gets_is_no_signal() -> None:
    verdict = judge(prompts(*[[0.2] * 8] * 10))
    assert rules(verdict) == {"flat": "stop", "too-hard": "info"}


@pytest.mark.parametrize(
    ("right", "rule"),
    [
        (22, "too-hard"),
        (23, "too-hard"),
        (24, None),
        (40, None),
        (72, None),
        (73, "too-easy"),
        (75, "too-easy"),
    ],
)
def test_difficulty_that_is_off_is_said_and_stops_nothing(right: int, rule: str | None) -> None:
    # 24 of 80 right are 70 % that fail, 72 are 10 %.
    verdict = judge(spread(right, 80))
    assert rules(verdict) == ({rule: "info"} if rule else {}) | {"train": "info"}
    assert (verdict.verdict, verdict.facts["advice"]) == ("pass", "train")
    said = verdict.findings[0].sentence
    assert ("Lower the difficulty" in said) is (rule == "too-hard")
    assert ("Raise the difficulty" in said) is (rule == "too-easy")


@pytest.mark.parametrize("groups", [7, 8])
def test_few_completions_are_a_suspicion_only(groups: int) -> None:
    verdict = judge(prompts(*[[0.0] * 8] * groups))
    enough = groups * 8 >= ENOUGH_COMPLETIONS
    assert verdict.verdict == ("stop" if enough else "warn")
    assert ("On 56 completions that is no more than a suspicion." in verdict.sentence) is not enough


@pytest.mark.parametrize(("cut", "warned"), [(8, False), (9, True)])
def test_warns_when_completions_are_cut(cut: int, warned: bool) -> None:
    measured = spread(48, 80)
    ends = [completion for each in measured for completion in [*each["completions"], *each["more"]]]
    for completion in ends[:cut]:
        completion["stop_reason"] = "max_tokens"
    verdict = judge(measured)
    assert ("cut" in rules(verdict)) is warned
    if warned:
        assert "11% of the completions were cut at 1,024 tokens" in verdict.sentence


def test_scores_are_seen_in_the_range_of_the_reward() -> None:
    # From -1 to 1: a score of 0 is half way up and passes, -1 earns nothing.
    scores = [[-1.0, 0.0] * 4] * 10
    assert rules(judge(prompts(*scores), range=[-1.0, 1.0])) == {"train": "info"}
    facts = judge(prompts(*scores), range=[-1.0, 1.0]).facts
    assert (facts["mean"], facts["level"], facts["pass_rate"], facts["earning_share"]) == (
        -0.5,
        0.25,
        0.5,
        0.5,
    )
    assert "unsolved" in rules(judge(prompts(*[[-1.0] * 8] * 10), range=[-1.0, 1.0]))


def test_a_graded_reward_that_never_passes_still_has_signal() -> None:
    verdict = judge(prompts(*[[0.1, 0.2, 0.3, 0.4] * 2] * 10))
    assert (verdict.verdict, rules(verdict)) == ("pass", {"too-hard": "info", "train": "info"})


def test_only_as_many_completions_count_as_training_compares() -> None:
    # The ninth is the only one that differs: in training, where eight are compared, it would not be there.
    assert judge(prompts(*[[0.0] * 8 + [1.0]] * 10)).facts["flat_share"] == 1.0
    # Prompts that were answered less often say nothing of groups of eight.
    facts = judge([*spread(40, 80), prompt(10, [1.0] * 4)]).facts
    assert (facts["prompts"], facts["completions"]) == (10, 80)


def test_fails_when_no_prompt_was_answered_often_enough() -> None:
    with pytest.raises(RunError, match="no prompt was answered 8 times"):
        judge([prompt(0, [1.0] * 4)])


@pytest.mark.parametrize(
    ("settings", "right"),
    [
        ({"needless": 1.0, "failing": [0.0, 1.0], "flat": 1.0}, 80),
        ({"sparse": 0.0, "failing": [0.0, 1.0]}, 1),
    ],
)
def test_a_team_may_set_the_bars_aside(settings: dict[str, Any], right: int) -> None:
    assert (
        judge(spread(right, 80), flat=1.0, **{k: v for k, v in settings.items() if k != "flat"}).verdict
        == "pass"
    )


def test_the_verdict_is_made_of_what_was_measured_and_written(aws: Aws) -> None:
    for each in spread(80, 80):
        aws.write(f"measured/base/{each['index']:05}.json", each)
    aws.write("measured/candidate/00000.json", prompt(0, [0.0] * 8))
    # Nothing is to be learned from regression prompts.
    aws.write("measured/base/00010.json", {**prompt(10, [0.0] * 8), "part": "regression"})
    event = {
        "run": RUN,
        "gates": {"signal": SETTINGS},
        "training": {"trainingSamplePerPrompt": 8, "inferenceMaxTokens": 512},
        "measurement": {"temperature": 0.7},
    }
    answer = signal.handler(event, None)
    written = aws.document("gates/signal.json")
    assert answer == {"verdict": "stop", "sentence": written["sentence"]}
    assert (written["gate"], written["verdict"]) == ("signal", "stop")
    assert written["facts"]["completions"] == 80
    assert "The base model already earns 100.0% of the highest reward, more than 95%" in answer["sentence"]
