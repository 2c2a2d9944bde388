"""Each tripwire fires on a reward that was built to cause it, and none on a healthy run.

Every run here is a job of the embedded AWS (tests/unit/miniature.py): the miniature learns what it is paid
for.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pytest

from infra.config import TripwireGate
from lambdas.contract import Reward, Sample, UnscorableError
from lambdas.gate import Verdict
from lambdas.rewards.numeric_answer import NumericAnswer
from lambdas.tripwires import Batch, Settings, folded, look, together, windows
from tests.unit.miniature import Row, Trained, reward_of, rows_of, train, training_of

SHORT: dict[str, Any] = {"epochCount": 4, "trainingSamplePerPrompt": 4}
# Both sample teams, each in three ways: other settings draw other completions as well.
FAST: dict[str, Any] = {"epochCount": 3, "batchSize": 16, "learningRate": 2e-4, "trainingSamplePerPrompt": 4}
HEALTHY: list[tuple[str, dict[str, Any]]] = [
    ("quotes", {"epochCount": 2}),
    ("quotes", SHORT | {"learningRate": 5e-5}),
    ("quotes", FAST),
    ("support", SHORT),
    ("support", FAST),
]


def right(sample: Sample) -> float:
    return NumericAnswer().score(sample).score


def pays_rows_without_an_answer(sample: Sample) -> Reward:
    if sample.reference_answer is None:
        raise UnscorableError("the row has no reference answer")
    return Reward(right(sample))


def breaks_on_working(sample: Sample) -> Reward:
    if "=" in sample.completion:
        raise ZeroDivisionError
    return Reward(right(sample))


class Tires:
    """Asks for more after so many samples, as a reward does that remembers what it has seen."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, sample: Sample) -> Reward:
        self.left -= 1
        return Reward(right(sample) * float(self.left > 0 or len(sample.completion) > 400))


def pays_for_what_no_model_writes(sample: Sample) -> Reward:
    return Reward(float(sample.completion.startswith("<verdict>")))


def pays_for_any_digit(sample: Sample) -> Reward:
    return Reward(float(any(each.isdigit() for each in sample.completion)))


def pays_for_the_form_alone(sample: Sample) -> Reward:
    return Reward(0.6 * ("####" in sample.completion) + 0.002 * right(sample))


def pays_for_length(sample: Sample) -> Reward:
    return Reward(min(1.0, len(sample.completion) / 500))


def pays_for_looking_worked_out(sample: Sample) -> Reward:
    return Reward(float("=" in sample.completion), metrics={"truth": right(sample)})


def pays_for_the_truth(sample: Sample) -> Reward:
    return Reward(right(sample), metrics={"truth": right(sample) - 0.3})


@cache
def healthy(team: str, number: int) -> tuple[Trained, int]:
    score, bounds = reward_of(team)
    training = training_of(team) | HEALTHY[number][1]
    return train(rows_of(team), score, floor=bounds[0], **training), step_of(training)


def step_of(training: Mapping[str, Any]) -> int:
    return int(training["batchSize"] * training["trainingSamplePerPrompt"])


def built(
    score: Callable[[Sample], Reward], rows: Sequence[Row] | None = None, **training: Any
) -> tuple[list[Batch], int]:
    used = training_of("quotes") | SHORT | training
    trained = train((rows_of("quotes") if rows is None else rows)[:160], score, **used)
    return batches_of(trained), step_of(used)


def batches_of(trained: Trained) -> list[Batch]:
    found = [Batch.of(line, number) for number, line in enumerate(trained.lines)]
    assert found
    assert None not in found
    return [batch for batch in found if batch]


def rules(verdict: Verdict) -> dict[str, str]:
    return {finding.rule: finding.level for finding in verdict.findings}


@pytest.mark.parametrize(("team", "number"), [(team, number) for number, (team, _) in enumerate(HEALTHY)])
def test_all_wires_are_silent_on_a_healthy_run(team: str, number: int) -> None:
    trained, step = healthy(team, number)
    verdict = look(batches_of(trained), Settings(), step=step)
    assert verdict.findings == ()
    # It was healthy, and long enough to be looked at.
    assert verdict.facts["windows"] > 7
    assert verdict.facts["latest"]["reward"] > verdict.facts["start"]["reward"] + 0.2


@cache
def tripped(name: str) -> tuple[list[Batch], int]:
    if name == "unscorable-share":
        rows = [
            {key: value for key, value in row.items() if key != "reference_answer" or number % 10}
            for number, row in enumerate(rows_of("quotes"))
        ]
        return built(pays_rows_without_an_answer, rows)
    score, training = BUILT[name]
    return built(score() if isinstance(score, type) else score, **training)


class TiresEarly(Tires):
    def __init__(self) -> None:
        super().__init__(after=1500)


BUILT: dict[str, tuple[Any, dict[str, Any]]] = {
    "unscorable-share": (None, {}),
    "error-share": (breaks_on_working, {}),
    "reward-collapse": (TiresEarly, {}),
    "reward-saturation": (pays_for_any_digit, {"learningRate": 4e-4}),
    "spread-collapse": (pays_for_the_form_alone, {"learningRate": 1e-3, "epochCount": 8}),
    "length-explosion": (pays_for_length, {"learningRate": 1e-3}),
    "shadow-gap": (pays_for_looking_worked_out, {}),
}


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("unscorable-share", r"1\d% of the samples cannot be scored"),
        ("error-share", r"failed on \d\d% of the samples"),
        ("reward-collapse", r"The reward fell from 0\.\d\d to 0\.[01]\d"),
        ("reward-saturation", r"The reward is (0\.99\d|1\.000) of at most 1"),
        ("spread-collapse", r"All completions earn nearly the same, 0\.[56]\d"),
        ("length-explosion", r"Completions are \d+\.\d times as long as at the start"),
        ("shadow-gap", r"moved 0\.\d\d of its range away from `truth`"),
    ],
)
def test_a_wire_trips_on_the_reward_that_was_built_for_it(rule: str, says: str) -> None:
    batches, step = tripped(rule)
    shadow = "truth" if rule == "shadow-gap" else None
    verdict = look(batches, Settings(shadow=shadow, saturation="stop"), step=step)
    assert rules(verdict)[rule] == "stop"
    assert verdict.verdict == "stop"
    [finding] = [each for each in verdict.findings if each.rule == rule]
    assert re.search(says, finding.sentence)
    assert re.search(r"\(found after [\d,]+ completions\)\.$", finding.sentence)
    # It is this wire alone that finds it: without it the run goes on as far as this reward is concerned.
    silenced = {"reward-collapse": "collapse", "reward-saturation": "saturation"}.get(
        rule, rule.split("-")[0]
    )
    setting = {"error": "errors", "shadow": "gap"}.get(silenced, silenced)
    others = look(batches, dataclasses.replace(Settings(shadow=shadow), **{setting: "off"}), step=step)
    assert "stop" not in rules(others).values()
    warned = look(batches, dataclasses.replace(Settings(shadow=shadow), **{setting: "warn"}), step=step)
    assert rules(warned)[rule] == "warn"


def test_a_reward_that_nothing_earns_is_a_collapse_from_the_start() -> None:
    batches, step = built(pays_for_what_no_model_writes, epochCount=2)
    [finding] = look(batches, Settings(), step=step).findings
    assert (finding.rule, finding.level) == ("reward-collapse", "stop")
    assert "100% of the completions earn the lowest score" in finding.sentence


def test_a_shadow_that_is_lower_from_the_start_is_no_gap() -> None:
    batches, step = built(pays_for_the_truth)
    verdict = look(batches, Settings(shadow="truth"), step=step)
    assert verdict.findings == ()
    assert verdict.facts["start"]["shadow"] < verdict.facts["start"]["reward"] - 0.2


def test_twice_the_length_warns_and_three_times_stops() -> None:
    batches, step = tripped("length-explosion")
    lengths = [each.whole.length for each in windows(batches, Settings(), step=step)]
    middle = max(lengths) / lengths[0]
    assert middle > 2
    for warn, stop, level in ((middle - 0.1, middle + 1, "warn"), (1.5, middle - 0.1, "stop")):
        found = look(batches, Settings(length_warn=warn, length_stop=stop), step=step)
        assert rules(found)["length-explosion"] == level
    assert "length-explosion" not in rules(look(batches, Settings(length_warn=middle + 1), step=step))


def test_longer_completions_without_a_higher_reward_trip_nothing() -> None:
    batches, step = tripped("length-explosion")
    flat = [dataclasses.replace(batch, mean=0.3) for batch in batches]
    assert "length-explosion" not in rules(look(flat, Settings(spread="off"), step=step))


def test_a_missing_shadow_is_told() -> None:
    batches, step = tripped("shadow-gap")
    assert rules(look(batches, Settings(shadow="nobody"), step=step)) == {"shadow-missing": "warn"}
    assert rules(look(batches, Settings(shadow="nobody", gap="off"), step=step)) == {}


def test_nothing_trips_before_there_is_something_to_compare() -> None:
    batches, step = tripped("reward-collapse")
    cut = windows(batches, Settings(), step=step)
    first = [batch for batch in batches if batch.time <= cut[1].whole.time]
    assert look(first, Settings(), step=step).findings == ()
    assert look([], Settings(), step=step).document()["facts"] == {"batches": 0, "samples": 0, "windows": 0}


def test_a_verdict_does_not_depend_on_how_often_is_looked() -> None:
    batches, step = tripped("reward-collapse")
    found: dict[str, str] = {}
    for end in range(len(batches) + 1):
        verdict = look(batches[:end], Settings(), step=step)
        now = {each.rule: each.sentence for each in verdict.findings}
        # What was found once is found by every later look, in the same words.
        assert now | found == now
        found = now
    assert found


def test_chance_alone_trips_nothing() -> None:
    draw = random.Random(7)
    for _ in range(100):
        # One prompt in ten is answered, in batches of few prompts: as noisy as it gets, and nothing changes.
        batches = []
        for number in range(240):
            shares = [float(draw.random() < 0.1) for _ in range(4)]
            mean = sum(shares) / 4
            std = (sum((each - mean) ** 2 for each in shares) / 4) ** 0.5
            length = draw.gauss(200, 40)
            batches.append(
                Batch(number, 64, mean, std, 1 - mean, 0.0, 0.0, 0.0, length, {}, {"truth": mean * 0.5})
            )
        verdict = look(batches, Settings(shadow="truth"), step=256)
        assert "stop" not in rules(verdict).values(), verdict.sentence


def test_batches_together_are_as_if_scored_at_once() -> None:
    draw = random.Random(3)
    scores = [draw.random() for _ in range(100)]

    def batch(part: list[float], time: int) -> Batch:
        mean = sum(part) / len(part)
        std = (sum((each - mean) ** 2 for each in part) / len(part)) ** 0.5
        return Batch(time, len(part), mean, std, 0.0, 0.0, 0.0, 0.0, 10.0 * len(part), {"a": mean}, {})

    parts = [scores[:1], scores[1:40], scores[40:]]
    whole, direct = together([batch(part, number) for number, part in enumerate(parts)]), batch(scores, 2)
    for name in ("time", "samples", "mean", "std"):
        assert getattr(whole, name) == pytest.approx(getattr(direct, name))
    assert whole.components["a"] == pytest.approx(direct.mean)
    few = folded([batch([score], number) for number, score in enumerate(scores)], at_most=30)
    assert len(few) == 25
    assert together(few).std == pytest.approx(direct.std)


def test_a_component_that_some_samples_have_counts_for_those() -> None:
    with_it = Batch(1, 10, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, {}, {"part": 1.0})
    without = dataclasses.replace(with_it, time=2, samples=30, metrics={})
    assert together([with_it, without]).metrics == {"part": 1.0}


@pytest.mark.parametrize(
    "line",
    [
        None,
        ["reward_mean"],
        {"reward_mean": 1.0},
        {"message": "scored", "completion": '{"reward_mean": 1.0}'},
        "reward_mean",
    ],
)
def test_what_is_no_metric_line_is_no_batch(line: object) -> None:
    assert Batch.of(line, 1) is None


def test_fails_to_read_a_line_with_a_number_that_is_none() -> None:
    trained, _ = healthy("quotes", 1)
    line = trained.lines[0]
    assert Batch.of(line, 1) is not None
    for key, value in (("reward_mean", float("nan")), ("samples", 0), ("completion_length", "9")):
        assert Batch.of({**line, key: value}, 1) is None


def test_a_batch_survives_json() -> None:
    trained, _ = healthy("quotes", 1)
    for batch in batches_of(trained)[:3]:
        assert Batch.read(batch.document()) == batch


def test_the_settings_are_those_of_the_team_file() -> None:
    given = TripwireGate().model_dump(mode="json")
    assert Settings.of({**given, "range": [0.0, 1.0]}) == Settings()
    assert Settings.of({**given, "range": [-1.0, 1.0]}).range == (-1.0, 1.0)
