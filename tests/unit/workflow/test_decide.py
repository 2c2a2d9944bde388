"""A model is promoted when it is better by more than chance, and the decision says why in words."""

import random
from statistics import NormalDist, fmean, stdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.workflow import decide
from lambdas.workflow.decide import MINIMUM_PROMPTS, Bar, Measured, interval
from lambdas.workflow.runs import RunError
from tests.unit.workflow.conftest import RUN, Aws

Scores = dict[int, float]


def judge(
    base: Scores, candidate: Scores, minimum_gain: float = 0.0, confidence: float = 0.95, seed: str = RUN
) -> dict[str, Any]:
    bar = Bar(minimum_gain=minimum_gain, confidence=confidence)
    return decide.decide(Measured(scores=base), Measured(scores=candidate), bar=bar, seed=seed)


def flat(value: float, count: int = 100) -> Scores:
    return dict.fromkeys(range(count), value)


def noisy(mean: float, count: int, seed: int) -> Scores:
    chance = random.Random(seed)
    return {index: chance.gauss(mean, 0.2) for index in range(count)}


def alternating(base: float, first: float, second: float, count: int = 100) -> tuple[Scores, Scores]:
    """Scores that differ by `first` and by `second` in turn."""
    return flat(base, count), {index: base + (second if index % 2 else first) for index in range(count)}


def test_a_clear_gain_is_promoted_and_says_so() -> None:
    decision = judge(*alternating(0.5, 0.1, 0.3))
    assert decision["promote"] is True
    assert decision["gain"] == pytest.approx(0.2)
    assert (decision["base_mean"], decision["candidate_mean"]) == (0.5, pytest.approx(0.7))
    # Half of 100 prompts at 0.1 above and half at 0.1 below the mean: a standard error of 0.01.
    assert decision["lower"] == pytest.approx(0.2 - 0.0196, abs=0.002)
    assert decision["upper"] == pytest.approx(0.2 + 0.0196, abs=0.002)
    assert decision["sentence"] == (
        "Promoted: on 100 held-out prompts the tuned model scores 0.700 and its base 0.500, a gain of +0.200"
        f" (95 % interval {decision['lower']:+.3f} to {decision['upper']:+.3f}); even the lower end is above"
        " the bar of +0.000."
    )


def test_a_gain_that_may_be_chance_is_not_promoted_and_says_so() -> None:
    decision = judge(*alternating(0.5, 0.5, -0.4, 20))
    assert decision["promote"] is False
    assert decision["gain"] == pytest.approx(0.05)
    assert decision["sentence"] == (
        "Not promoted: on 20 held-out prompts the tuned model scores 0.550 and its base 0.500, a gain of"
        f" +0.050 (95 % interval {decision['lower']:+.3f} to {decision['upper']:+.3f}); the lower end is not"
        " above the bar of +0.000, it may be chance."
    )
    assert decision["lower"] < 0


def test_a_loss_is_not_promoted_and_says_so() -> None:
    decision = judge(noisy(0.5, 100, 1), noisy(0.3, 100, 2))
    assert decision["promote"] is False
    assert decision["sentence"].endswith("; that is not above the bar of +0.000.")


def test_a_bar_holds_back_a_gain_that_is_real_but_small() -> None:
    base, better = flat(0.5), flat(0.55)
    assert judge(base, better)["promote"] is True
    assert judge(base, better, minimum_gain=0.1)["promote"] is False


def test_no_difference_at_all_is_not_promoted() -> None:
    decision = judge(flat(0.5), flat(0.5))
    assert (decision["promote"], decision["gain"], decision["lower"], decision["upper"]) == (False, 0, 0, 0)


def test_the_bar_itself_is_not_enough() -> None:
    assert judge(flat(0.0), flat(0.5), minimum_gain=0.5)["promote"] is False


def test_pairing_finds_a_gain_that_the_spread_of_prompts_hides() -> None:
    # Prompts from hopeless to trivial; the tuned model is a little better on each of them.
    base = {index: index / 100 for index in range(100)}
    better = {index: score + 0.01 + 0.005 * (index % 3) for index, score in base.items()}
    decision = judge(base, better)
    assert decision["promote"] is True
    # The difference of two independent means would be lost in this spread.
    assert decision["gain"] < stdev(base.values()) / 10


@pytest.mark.parametrize("count", [1, 2, MINIMUM_PROMPTS - 1])
def test_few_prompts_prove_nothing(count: int) -> None:
    decision = judge(flat(0.0, count), flat(1.0, count))
    assert decision["promote"] is False
    assert decision["sentence"].endswith("; fewer than 10 prompts prove nothing.")


def test_enough_prompts_are_enough() -> None:
    assert judge(flat(0.0, MINIMUM_PROMPTS), flat(1.0, MINIMUM_PROMPTS))["promote"] is True


def test_the_same_measurements_decide_the_same() -> None:
    base, better = noisy(0.4, 50, 1), noisy(0.45, 50, 2)
    assert judge(base, better) == judge(dict(reversed(base.items())), better)
    assert judge(base, better, seed="run-b")["lower"] != judge(base, better)["lower"]


def test_the_interval_is_the_one_known_for_a_normal_mean() -> None:
    gains = list(noisy(0.1, 400, 5).values())
    low, high = interval(gains, 0.95, RUN)
    half = NormalDist().inv_cdf(0.975) * stdev(gains) / 20
    assert low == pytest.approx(fmean(gains) - half, abs=half / 20)
    assert high == pytest.approx(fmean(gains) + half, abs=half / 20)


def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fewer resamples, for speed. Skewed, like rewards are: 30 % of the prompts gain 1. Seeded, so that this
    # does not fail by chance.
    monkeypatch.setattr(decide, "RESAMPLES", 1000)
    chance = random.Random(11)
    held = 0
    for attempt in range(100):
        gains = [float(chance.random() < 0.3) for _ in range(100)]
        low, high = interval(gains, 0.9, str(attempt))
        held += low <= 0.3 <= high
    assert 84 <= held <= 96


# An interval takes ten thousand resamples, twice: a few examples are enough.
@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_lies_within_the_gains_and_widens_with_confidence(
    gains: list[float], confidence: float
) -> None:
    low, high = interval(gains, confidence, RUN)
    assert min(gains) - 1e-12 <= low <= high <= max(gains) + 1e-12
    wider = interval(gains, 0.999, RUN)
    assert wider[0] <= low
    assert wider[1] >= high


@pytest.mark.parametrize(
    ("base", "candidate", "said"),
    [
        ({}, {}, "the base was measured on 0 prompts, the tuned model on 0; start"),
        ({1: 0.5}, {}, "on 1 prompts, the tuned model on 0, and only one of them on 1; start"),
        ({1: 0.5, 2: 0.5}, {1: 0.5, 3: 0.5}, "and only one of them on 2, 3; start"),
    ],
)
def test_measurements_of_different_prompts_are_not_compared(
    base: Scores, candidate: Scores, said: str
) -> None:
    with pytest.raises(RunError) as caught:
        judge(base, candidate)
    assert said in str(caught.value)


def test_the_decision_is_made_of_what_was_measured_and_written(aws: Aws) -> None:
    measured(aws, base=0.25, candidate=0.75)
    aws.write("measured/base/00012.json", prompt(12, 0.0), run="run-ffffffffffffffff")
    event = {"run": RUN, "promotion": {"minimum_gain": 0.1, "confidence": 0.95}, "compared": None}
    decision = decide.handler(event, None)
    assert decision == aws.document("decision.json")
    assert decision["promote"] is True
    assert (decision["base_mean"], decision["candidate_mean"], decision["gain"]) == (0.25, 0.75, 0.5)
    assert (decision["prompts"], decision["confidence"], decision["minimum_gain"]) == (12, 0.95, 0.1)


def test_a_prompt_that_was_not_measured_stops_the_decision(aws: Aws) -> None:
    measured(aws, base=0.25, candidate=0.75)
    del aws.objects["artifacts-bucket", f"runs/{RUN}/measured/candidate/00004.json"]
    with pytest.raises(RunError, match="only one of them on 4;"):
        decide.handler({"run": RUN, "promotion": {"minimum_gain": 0}, "compared": None}, None)


def prompt(index: int, score: float, **parts: float) -> dict[str, Any]:
    completion = {"score": score, "components": {"answer": score}, "metrics": parts}
    return {"index": index, "mean": score, "completions": [completion, completion]}


def measured(aws: Aws, **scores: float) -> None:
    for subject, score in scores.items():
        for index in range(12):
            aws.write(f"measured/{subject}/{index:05}.json", prompt(index, score, answered=score))


# The regression prompts


def with_regression(
    base: float,
    candidate: float,
    *,
    tolerated_drop: float = 0.0,
    count: int = 20,
    champion: float | None = None,
) -> dict[str, Any]:
    """A candidate that beats its base by far, and what both score on the regression prompts."""
    scores = {"base": base, "candidate": candidate} | ({} if champion is None else {"champion": champion})
    return decide.decide(
        Measured(scores=flat(0.2)),
        Measured(scores=flat(0.8)),
        None if champion is None else Measured(scores=flat(0.3)),
        bar=Bar(tolerated_drop=tolerated_drop),
        seed=RUN,
        regression={name: Measured(scores=flat(score, count)) for name, score in scores.items()},
    )


def test_a_candidate_that_keeps_what_the_base_knows_is_promoted() -> None:
    decision = with_regression(0.75, 0.75)
    assert decision["promote"] is True
    assert decision["sentence"].endswith("; the score on the regression prompts held on all 20.")
    [found] = decision["regression"]
    assert (found["against"], found["prompts"], found["held"]) == ("base", 20, True)
    # They count in nothing else.
    assert (decision["prompts"], decision["base_mean"], decision["gain"]) == (100, 0.2, pytest.approx(0.6))


def test_fails_when_a_candidate_has_unlearned_something() -> None:
    decision = with_regression(0.75, 0.5)
    assert decision["promote"] is False
    assert decision["sentence"].endswith(
        "which is above the bar of +0.000; but the score on the regression prompts goes from 0.750 of the"
        " base to 0.500, a change of -0.250 (-0.250 to -0.250), and the lower end may not be below +0.000."
    )
    assert with_regression(0.75, 0.5, tolerated_drop=0.25)["promote"] is True
    assert with_regression(0.75, 0.5, tolerated_drop=0.2)["promote"] is False


def test_fails_when_the_champion_knows_more() -> None:
    decision = with_regression(0.5, 0.5, champion=0.75)
    assert [(each["against"], each["held"]) for each in decision["regression"]] == [
        ("base", True),
        ("champion", False),
    ]
    assert "from 0.750 of the champion to 0.500" in decision["sentence"]


def test_fails_when_regression_prompts_are_too_few_to_prove_anything() -> None:
    decision = with_regression(0.5, 0.75, count=9)
    assert decision["promote"] is False
    assert "on 9 prompts, and fewer than 10 prove nothing" in decision["sentence"]


def test_fails_when_regression_prompts_were_not_measured_for_all() -> None:
    scores = {"base": Measured(scores=flat(0.5)), "candidate": Measured(scores={})}
    with pytest.raises(RunError, match="the base was measured on 100 prompts, the tuned model on 0"):
        decide.decide(
            Measured(scores=flat(0.2)), Measured(scores=flat(0.8)), bar=Bar(), seed=RUN, regression=scores
        )


def test_regression_prompts_are_told_from_the_others_by_their_mark(aws: Aws) -> None:
    measured(aws, base=0.25, candidate=0.75)
    for subject, score in (("base", 1.0), ("candidate", 0.0)):
        for index in range(12, 24):
            path = f"measured/{subject}/{index:05}.json"
            aws.write(path, {**prompt(index, score), "part": "regression"})
    event = {"run": RUN, "promotion": {"minimum_gain": 0.1, "confidence": 0.95}, "compared": None}
    decision = decide.handler(event, None)
    assert (decision["prompts"], decision["gain"], decision["promote"]) == (12, 0.5, False)
    assert [(each["change"], each["held"]) for each in decision["regression"]] == [(-1.0, False)]
    assert decision["parts"][0]["prompts"] == 12


# The champion


def crowned(candidate: Scores, champion: Scores, tolerated_drop: float = 0.0) -> dict[str, Any]:
    """A candidate that beats its base by far, against a champion."""
    bar = Bar(tolerated_drop=tolerated_drop)
    base = Measured(scores=flat(0.0, len(candidate)))
    return decide.decide(base, Measured(scores=candidate), Measured(scores=champion), bar=bar, seed=RUN)


def test_a_candidate_better_than_the_champion_is_promoted_and_says_so() -> None:
    champion, candidate = alternating(0.5, 0.1, 0.3)
    decision = crowned(candidate, champion)
    assert decision["promote"] is True
    assert decision["champion"]["held"] is True
    assert decision["champion"]["gain"] == pytest.approx(0.2)
    assert "; against the champion, which scores 0.500, the gain is +0.200 (" in decision["sentence"]


def test_a_candidate_that_may_be_worse_than_the_champion_is_not_promoted_and_says_so() -> None:
    champion, candidate = alternating(0.5, 0.3, -0.2, 20)
    decision = crowned(candidate, champion)
    # On average it is better, and better than its base by far.
    assert decision["champion"]["gain"] > 0
    assert decision["lower"] > 0
    assert decision["promote"] is False
    assert decision["sentence"].startswith("Not promoted: on 20 held-out prompts")
    assert ", which is above the bar of +0.000; but against the champion" in decision["sentence"]
    assert decision["sentence"].endswith(", and the lower end may not be below +0.000.")


def test_a_candidate_just_as_good_as_the_champion_is_promoted() -> None:
    assert crowned(flat(0.5), flat(0.5))["promote"] is True
    assert crowned(flat(0.499), flat(0.5))["promote"] is False


@pytest.mark.parametrize(("drop", "promoted"), [(0.009, True), (0.011, False)])
def test_a_drop_below_the_champion_is_tolerated_as_far_as_the_team_says(drop: float, promoted: bool) -> None:
    assert crowned(flat(0.5 - drop), flat(0.5), tolerated_drop=0.01)["promote"] is promoted


def test_a_champion_measured_on_other_prompts_is_not_compared() -> None:
    with pytest.raises(RunError, match="the champion was measured on 99 prompts, the tuned model on 100"):
        crowned(flat(0.5), flat(0.5, 99))


# The guards


def guarded(before: Scores, after: Scores, *, champion: Scores | None = None, **bar: Any) -> dict[str, Any]:
    """A candidate that beats everything by far in its score, with one part that is guarded."""
    return decide.decide(
        Measured(scores=flat(0.1), parts={"safe": before}),
        Measured(scores=flat(0.9), parts={"safe": after}),
        None if champion is None else Measured(scores=flat(0.2), parts={"safe": champion}),
        bar=Bar(guards=("safe",), **bar),
        seed=RUN,
    )


@pytest.mark.parametrize(
    ("before", "after", "held"),
    [
        (flat(0.8), flat(0.8), True),
        (flat(0.8), flat(0.9), True),
        (flat(0.8), flat(0.79), False),
        # A drop of a few prompts that may be chance is a drop that is not ruled out.
        (flat(0.8), {**flat(0.8), 3: 0.7}, False),
    ],
    ids=["the same", "better", "worse", "perhaps worse"],
)
def test_a_guard_must_not_drop(before: Scores, after: Scores, held: bool) -> None:
    decision = guarded(before, after)
    assert [guard["held"] for guard in decision["guards"]] == [held]
    assert decision["promote"] is held
    if held:
        assert decision["sentence"].endswith("; every guard held: safe.")


@pytest.mark.parametrize(("drop", "held"), [(0.049, True), (0.051, False)])
def test_a_guard_may_drop_as_far_as_the_team_says(drop: float, held: bool) -> None:
    assert guarded(flat(0.8), flat(0.8 - drop), tolerated_drop=0.05)["promote"] is held


def test_a_guard_whose_drop_is_small_on_average_has_held_only_if_its_lower_end_has() -> None:
    before, after = alternating(0.8, 0.0, -0.08)
    assert guarded(before, after, tolerated_drop=0.06)["promote"] is True
    decision = guarded(before, after, tolerated_drop=0.045)
    assert decision["guards"][0]["change"] > -0.045
    assert decision["promote"] is False


def test_a_guard_that_drops_is_told_with_its_numbers() -> None:
    assert guarded(flat(0.8), flat(0.7))["sentence"].endswith(
        ", which is above the bar of +0.000; but the guard safe goes from 0.800 of the base to 0.700, a"
        " change of -0.100 (-0.100 to -0.100), and the lower end may not be below +0.000."
    )


def test_a_guard_must_not_drop_below_the_champion_either() -> None:
    decision = guarded(flat(0.5), flat(0.7), champion=flat(0.8))
    assert [(guard["against"], guard["held"]) for guard in decision["guards"]] == [
        ("base", True),
        ("champion", False),
    ]
    assert decision["promote"] is False
    assert "0.800 of the champion to 0.700" in decision["sentence"]


@pytest.mark.parametrize("count", [0, MINIMUM_PROMPTS - 1])
def test_a_guard_that_was_hardly_measured_has_not_held(count: int) -> None:
    decision = guarded(flat(0.8), flat(0.9, count))
    assert decision["promote"] is False
    assert decision["guards"][0]["prompts"] == count


def test_parts_that_are_no_guards_are_shown_and_decide_nothing() -> None:
    decision = decide.decide(
        Measured(scores=flat(0.1), parts={"short": flat(0.9), "old": flat(1.0)}),
        Measured(scores=flat(0.9), parts={"short": flat(0.2), "new": flat(1.0)}),
        bar=Bar(),
        seed=RUN,
    )
    assert decision["promote"] is True
    (part,) = decision["parts"]
    assert (part["name"], part["base"], part["candidate"]) == ("short", 0.9, 0.2)
    assert part["lower"] == part["upper"] == pytest.approx(-0.7)


def test_interval_of_a_part_holds_its_change() -> None:
    before, after = alternating(0.5, 0.1, 0.3)
    (guard,) = guarded(before, after)["guards"]
    assert guard["lower"] == pytest.approx(0.2 - 0.0196, abs=0.003)
    assert guard["upper"] == pytest.approx(0.2 + 0.0196, abs=0.003)


def test_champion_and_guards_are_read_from_what_was_measured(aws: Aws) -> None:
    measured(aws, base=0.25, candidate=0.75, champion=0.5)
    compared = {"deployment_arn": "arn:d", "model_arn": "arn:m"}
    promotion = {"minimum_gain": 0.1, "confidence": 0.95, "guards": ["answered"], "tolerated_drop": 0.0}
    decision = decide.handler({"run": RUN, "promotion": promotion, "compared": compared}, None)
    assert decision["promote"] is True
    assert decision["champion"] == {
        **compared,
        "mean": 0.5,
        "gain": 0.25,
        "lower": 0.25,
        "upper": 0.25,
        "held": True,
    }
    assert [(each["against"], each["before"]) for each in decision["guards"]] == [
        ("base", 0.25),
        ("champion", 0.5),
    ]
    assert [part["name"] for part in decision["parts"]] == ["answer", "answered"]


def test_what_a_person_has_to_approve_is_not_called_promoted(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPROVAL_SECONDS", "3600")
    measured(aws, base=0.25, candidate=0.75)
    decision = decide.handler({"run": RUN, "promotion": {}, "compared": None}, None)
    assert (decision["promote"], decision["approval_seconds"]) == (True, 3600)
    assert decision["sentence"].startswith("Cleared for promotion: on 12 held-out prompts")
    measured(aws, candidate=0.0)
    decision = decide.handler({"run": RUN, "promotion": {}, "compared": None}, None)
    assert decision["sentence"].startswith("Not promoted: ")
