"""The miniature policy learns what the reward function pays, and nothing else."""

import json
import random
import re
import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rft.embedded.policy import AnswerSpace, Completion, Policy, Task, advantages, text_of, tokens

Row = dict[str, Any]
Reward = Callable[[str, Any], float]

SYSTEM = "You work at a sales desk. End with a line that holds only the result, in the form #### <number>."
FIELDS = (
    "Answer with one JSON object and nothing else. It has these keys:\n"
    "- team: one of billing, technical, shipping\n"
    "- urgent: true or false"
)


def sums(count: int, seed: int) -> list[Row]:
    """Word problems of three kinds; the reference is what the words ask for."""
    draw = random.Random(seed)
    kinds: list[tuple[str, Callable[[int, int, int], int]]] = [
        (
            "An order has {0} lamps at ${1} each. Shipping is ${2}. What is the total?",
            lambda a, b, c: a * b + c,
        ),
        ("Out of ${2}, a customer pays {0} lamps at ${1} each. What is left?", lambda a, b, c: c - a * b),
        (
            "A customer buys {0} lamps at ${1} each and gets ${2} off. What do they pay?",
            lambda a, b, c: a * b - c,
        ),
    ]
    rows = []
    for number in range(count):
        text, answer = kinds[number % len(kinds)]
        values = draw.randint(3, 30), draw.randint(11, 70), draw.randint(500, 4000)
        rows.append(
            {
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": text.format(*values)},
                ],
                "reference_answer": str(answer(*values)),
            }
        )
    return rows


def tickets(count: int, seed: int) -> list[Row]:
    """Tickets whose words, never the labels themselves, say which labels are right."""
    draw = random.Random(seed)
    teams = {
        "billing": ("The invoice is wrong.", "I was charged twice.", "My card shows a fee."),
        "technical": ("The screen stays dark.", "It crashes with an error.", "The update freezes."),
        "shipping": ("The parcel never came.", "The courier lost it.", "Tracking has not moved."),
    }
    hurry = {True: ("I need it now.", "This cannot wait."), False: ("Take your time.", "No rush at all.")}
    rows = []
    for _ in range(count):
        team, urgent = draw.choice(list(teams)), draw.choice([True, False])
        said = [
            draw.choice(teams[team]),
            draw.choice(hurry[urgent]),
            draw.choice(["Hello.", "Thanks.", "Hi again."]),
        ]
        draw.shuffle(said)
        rows.append(
            {
                "messages": [
                    {"role": "system", "content": FIELDS},
                    {"role": "user", "content": " ".join(said)},
                ],
                "reference_answer": {"team": team, "urgent": urgent},
            }
        )
    return rows


def right_number(text: str, reference: Any) -> float:
    return float(re.findall(r"#### (.*)", text) == [reference])


def right_object(text: str, reference: Any) -> float:
    try:
        return float(json.loads(text) == reference)
    except ValueError:
        return 0.0


def train(
    rows: list[Row], reward: Reward, *, steps: int = 30, learning_rate: float = 1e-4, seed: str = "a"
) -> tuple[Policy, list[dict[str, float]]]:
    """Trains as a job does, on 32 prompts a step, 8 completions each; also returns what each step saw."""
    policy = Policy.base(AnswerSpace.of(row["reference_answer"] for row in rows))
    draw = random.Random(seed)
    seen = []
    for step in range(steps):
        groups: list[tuple[Task, list[Completion], list[float]]] = []
        rewards: list[float] = []
        for position, row in enumerate(draw.sample(rows, 32)):
            task = policy.task(row["messages"])
            completions = policy.sample(task, 8, seed=f"{seed} {step} {position}")
            scores = [reward(completion.text, row["reference_answer"]) for completion in completions]
            rewards += scores
            groups.append((task, completions, advantages(scores)))
        update = policy.learn(groups, learning_rate)
        texts = [completion.text for _, completions, _ in groups for completion in completions]
        seen.append(
            {
                "reward": statistics.fmean(rewards),
                "entropy": update.entropy,
                "length": statistics.fmean(tokens(text) for text in texts),
                "gradient_norm": update.gradient_norm,
            }
        )
    return policy, seen


@cache
def trained(kind: str) -> tuple[Policy, list[dict[str, float]]]:
    """What a correct reward makes of the policy."""
    make, reward = KINDS[kind]
    return train(make(200, 1), reward)


def passed(policy: Policy, rows: list[Row], reward: Reward) -> float:
    """The mean reward over samples of prompts."""
    return statistics.fmean(
        reward(completion.text, row["reference_answer"])
        for number, row in enumerate(rows)
        for completion in policy.sample(policy.task(row["messages"]), 4, seed=str(number), temperature=0.7)
    )


KINDS: dict[str, tuple[Callable[[int, int], list[Row]], Reward]] = {
    "numbers": (sums, right_number),
    "objects": (tickets, right_object),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_correct_reward_raises_the_reward_also_on_prompts_never_trained_on(kind: str) -> None:
    make, reward = KINDS[kind]
    held_out = make(60, 99)
    policy, seen = trained(kind)
    before, after = passed(Policy.base(), held_out, reward), passed(policy, held_out, reward)
    # The base must leave something to learn, and something to learn from.
    assert 0.02 < before < 0.6
    assert after > before + 0.3
    first, last = (statistics.fmean(step["reward"] for step in part) for part in (seen[:5], seen[-5:]))
    assert last > 2 * first


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_falls_as_it_learns(kind: str) -> None:
    _, seen = trained(kind)
    assert seen[-1]["entropy"] < 0.6 * seen[0]["entropy"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0])
def test_a_constant_reward_teaches_nothing(kind: str, constant: float) -> None:
    make, reward = KINDS[kind]
    rows = make(64, 1)
    policy, seen = train(rows, lambda *_: constant, steps=3)
    assert np.array_equal(policy.weights, Policy.base().weights)
    assert all(step["gradient_norm"] == 0 for step in seen)
    assert passed(policy, rows, reward) == passed(Policy.base(policy.space), rows, reward)


def test_a_reward_that_pays_wrong_numbers_teaches_wrong_numbers() -> None:
    def off_by_one_sign(text: str, reference: Any) -> float:
        found = re.findall(r"#### (.*)", text)
        return float(len(found) == 1 and found[0] != reference)

    held_out = sums(60, 99)
    policy, _ = train(sums(200, 1), off_by_one_sign)
    assert passed(policy, held_out, off_by_one_sign) > 0.9
    assert passed(policy, held_out, right_number) < 0.5 * passed(Policy.base(), held_out, right_number)


def test_a_reward_that_pays_one_wrong_label_teaches_that_label() -> None:
    def always_shipping(text: str, _: Any) -> float:
        try:
            return float(json.loads(text)["team"] == "shipping")
        except (ValueError, TypeError, KeyError):
            return 0.0

    policy, _ = train(tickets(200, 1), always_shipping)
    assert passed(policy, tickets(60, 99), always_shipping) > 0.9


def test_a_reward_for_length_makes_it_write_more() -> None:
    _, seen = train(sums(200, 1), lambda text, _: min(len(text) / 2000, 1.0))
    assert seen[-1]["length"] > 3 * seen[0]["length"]


def test_a_reward_that_only_looks_for_the_answer_is_won_by_listing_everything() -> None:
    def contains(text: str, reference: Any) -> float:
        return float(f"#### {reference}" in text.splitlines())

    draw = random.Random(1)
    rows = sums(100, 1)
    for row in rows:
        # No words say which of these is right, so the honest way is to guess.
        low, middle, high = sorted(map(int, re.findall(r"[0-9]+", row["messages"][1]["content"])))
        possible = (
            low + middle,
            low + high,
            middle + high,
            low * high,
            middle * high,
            high - low,
            high - middle,
        )
        row["reference_answer"] = str(draw.choice(possible))
    policy, _ = train(rows, contains, steps=60)
    [completion] = policy.sample(policy.task(sums(1, 99)[0]["messages"]), 1, seed="s", temperature=0)
    assert completion.text.count("####") > 20


def test_a_bolder_learning_rate_learns_faster() -> None:
    rows = sums(200, 1)
    timid, usual, bold = (
        train(rows, right_number, steps=15, learning_rate=rate)[1][-1]["reward"]
        for rate in (1e-7, 1e-5, 1e-4)
    )
    assert timid < usual < bold


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    rows = sums(64, 1)
    first, second, other = (train(rows, right_number, steps=3, seed=seed)[0] for seed in ("a", "a", "b"))
    assert np.array_equal(first.weights, second.weights)
    assert first.identity == second.identity != other.identity


def test_references_are_no_input(tmp_path: Path) -> None:
    rows = tickets(50, 1)
    policy = Policy.base(AnswerSpace.of(row["reference_answer"] for row in rows))
    swapped = Policy.base(AnswerSpace.of(row["reference_answer"] for row in reversed(rows)))
    policy.save(tmp_path / "policy.npz")
    for row in rows:
        samples = [
            each.sample(each.task(row["messages"]), 3, seed="x")
            for each in (policy, swapped, Policy.load(tmp_path / "policy.npz"))
        ]
        assert samples[0] == samples[1] == samples[2]


def test_a_saved_policy_answers_as_before(tmp_path: Path) -> None:
    rows = sums(64, 1)
    policy, _ = train(rows, right_number, steps=5)
    policy.save(tmp_path / "policy.npz")
    loaded = Policy.load(tmp_path / "policy.npz")
    assert loaded.identity == policy.identity
    for row in rows:
        task = policy.task(row["messages"])
        assert policy.sample(task, 4, seed="s") == loaded.sample(loaded.task(row["messages"]), 4, seed="s")


def test_temperature_0_always_takes_the_best_and_1_does_not() -> None:
    policy = Policy.base()
    task = policy.task(sums(1, 1)[0]["messages"])
    assert len({each.text for each in policy.sample(task, 20, seed="s", temperature=0)}) == 1
    warm, hot = ({each.text for each in policy.sample(task, 40, seed="s", temperature=t)} for t in (0.3, 1.0))
    assert 1 < len(warm) < len(hot)


def test_top_p_leaves_out_what_is_unlikely() -> None:
    policy = Policy.base()
    task = policy.task(sums(1, 1)[0]["messages"])
    narrow, wide = ({each.text for each in policy.sample(task, 200, seed="s", top_p=p)} for p in (0.3, 1.0))
    assert narrow < wide


def test_completions_end_at_the_limit_of_tokens() -> None:
    policy = Policy.base()
    task = policy.task(sums(1, 1)[0]["messages"])
    completions = policy.sample(task, 60, seed="s", max_tokens=5)
    assert all(len(each.text) <= 20 for each in completions)
    assert {each.truncated for each in completions} == {True, False}
    assert all(each.truncated == (len(each.text) == 20) for each in completions)


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ("Put the result in the form #### <number>.", r"#### 36"),
        (r"Put the result into \boxed{}.", r"\\boxed\{36\}"),
        ("Put the result between <answer> and </answer>.", r"<answer>36</answer>"),
        ("Answer with only the number.", r"36"),
    ],
)
def test_an_answer_comes_in_the_form_the_prompt_asks_for(asked: str, form: str) -> None:
    policy, _ = train(
        [
            {
                "messages": [{"role": "user", "content": f"What do {a} pens cost at ${b} each? {asked}"}],
                "reference_answer": str(a * b),
            }
            for a in range(3, 13)
            for b in range(2, 9)
        ],
        lambda text, reference: float(re.fullmatch(form.replace("36", reference), text.strip()) is not None),
    )
    [completion] = policy.sample(
        policy.task([{"role": "user", "content": f"What do 4 pens cost at $9 each? {asked}"}]),
        1,
        seed="s",
        temperature=0,
    )
    assert re.fullmatch(form, completion.text)


def test_texts_are_answered_from_what_training_has_seen() -> None:
    words = {"sky": "blue", "grass": "green", "snow": "white"}
    rows = [
        {
            "messages": [{"role": "user", "content": f"{opening} which colour has {thing}?"}],
            "reference_answer": colour,
        }
        for thing, colour in words.items()
        for opening in ("Please tell me", "Quick question,", "Say", "I wonder", "Hello,", "Do you know")
    ] * 2
    policy, _ = train(rows, lambda text, reference: float(text == reference), steps=40)
    asked = [{"role": "user", "content": "I beg you, which colour has snow?"}]
    assert policy.sample(policy.task(asked), 1, seed="s", temperature=0)[0].text == "white"


def test_content_may_be_parts_and_answers_may_be_wrapped() -> None:
    plain = [{"role": "user", "content": "What do 4 pens cost at $9 each?"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "What do 4 pens cost at $9 each?"}]}]
    policy = Policy.base()
    assert policy.sample(policy.task(plain), 9, seed="s") == policy.sample(policy.task(parts), 9, seed="s")
    assert text_of([{"text": "a"}, {"image": {}}, {"text": "b"}]) == "a\nb"
    assert AnswerSpace.of([{"text": "3"}, {"answer": 4}, "5"]).kind == "number"
    assert AnswerSpace.of(['{"a": 1, "b": 2}']).fields == {"a": (1,), "b": (2,)}


def test_any_prompt_gets_an_answer() -> None:
    policy = Policy.base()
    odd = ("", "Hi", "0", "1/0 0 0 0", "9" * 400, "a" * 5000, "\ud800", "½ ² 9,9,9")
    for text in (*odd, "- x: one of , or\nJSON", "- id: the number\nJSON"):
        task = policy.task([{"role": "user", "content": text}])
        assert len(policy.sample(task, 50, seed="s")) == 50


def test_a_step_goes_up_the_gradient_of_advantage_times_log_probability() -> None:
    rows = tickets(4, 1)
    policy = Policy.base()
    # From a point where nothing is symmetric.
    policy.weights += np.random.default_rng(1).normal(size=len(policy.weights)) * 0.3
    policy.weights[0] = 0
    groups = []
    for row in rows:
        task = policy.task(row["messages"])
        groups.append((task, policy.sample(task, 4, seed="s"), [1.5, -0.5, -0.7, -0.3]))

    def objective() -> float:
        total = 0.0
        for task, completions, gains in groups:
            chances = [choice.probabilities(policy.weights) for choice in task.choices]
            for completion, gain in zip(completions, gains, strict=True):
                total += gain * sum(
                    float(np.log(chance[pick]))
                    for chance, pick in zip(chances, completion.picks, strict=False)
                )
        return total / 16

    used = sorted(
        {int(i) for task, _, _ in groups for choice in task.choices for i in choice.features.flat} - {0}
    )
    slopes = []
    for index in used:
        kept = policy.weights[index]
        values = []
        for step in (1e-5, -1e-5):
            policy.weights[index] = kept + step
            values.append(objective())
        policy.weights[index] = kept
        slopes.append((values[0] - values[1]) / 2e-5)
    before, aim = policy.weights.copy(), objective()
    update = policy.learn(groups, 1e-4)
    moved = (policy.weights - before)[used]
    assert update.gradient_norm == pytest.approx(float(np.linalg.norm(slopes)), rel=1e-4)
    assert update.loss == pytest.approx(-aim)
    sure = np.abs(slopes) > 1e-6
    assert np.array_equal(np.sign(moved[sure]), np.sign(np.array(slopes)[sure]))
    assert np.count_nonzero(policy.weights - before) == np.count_nonzero(moved)


def test_advantages_are_relative_to_the_group() -> None:
    assert advantages([0.5, 0.5, 0.5]) == [0, 0, 0]
    # 0.1 + 0.2 is not 0.3 for a computer, and that is no reward.
    assert advantages([0.1 + 0.2, 0.3]) == [0, 0]
    assert advantages([0, 0, 0, 1]) == pytest.approx([-0.577, -0.577, -0.577, 1.732], abs=1e-3)
