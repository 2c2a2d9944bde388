"""Steps: counted up to a number, and neither a marker without a text nor the same text again is one."""

import time

import pytest

from lambdas.contract import Sample
from lambdas.rewards.reasoning_steps import ReasoningSteps


def reward(completion, **parameters):
    return ReasoningSteps(**parameters).score(Sample("a", (), completion))


ONE = "twelve splits into ten and two"
TWO = "six tens make sixty in total"
THREE = "adding both parts gives seventy-two"

# completion, steps
TEXTS = [
    (f"1. {ONE}\n2. {TWO}\n3. {THREE}", 3),
    (f"1) {ONE}\n2) {TWO}", 2),
    (f"Step 1: {ONE}\nSTEP 2: {TWO}", 2),
    (f"**Step 1.** {ONE}\n\n### Step 2\n{TWO}", 2),
    (f"- {ONE}\n* {TWO}\n\u2022 {THREE}", 3),
    (f"First, {ONE}. Then {TWO}. Therefore {THREE}.", 3),
    (f"  > 1. {ONE}", 1),
    # two markers at once are one step
    (f"1. First, {ONE}\n2. Then {TWO}", 2),
    # a marker that stands elsewhere is none
    (f"{ONE} then {TWO}", 0),
    (f"{ONE} 1. {TWO}", 0),
    (f"1.5 is {ONE}", 0),
    (f"-5 is {ONE}", 0),
    (f"Firstborn {ONE}", 0),
    # an answer without steps
    ("72", 0),
    ("", 0),
    # markers without a text behind them
    ("1. 2. 3. 4.", 0),
    ("1.\n2.\n3.\n", 0),
    ("Step 1 Step 2 Step 3", 0),
    ("First. Then. Next. Therefore.", 0),
    ("- a\n- b\n- c", 0),
    ("1. go go go go go go", 0),
    # the same text again, and with other numbers
    (f"1. {ONE}\n2. {ONE}\n3. {ONE}", 1),
    ("1. we add 5 to the sum\n2. we add 6 to the sum\n3. we add 7 to the sum", 1),
    (f"1. {ONE}\n2. {ONE.upper()}!", 1),
]


@pytest.mark.parametrize(("completion", "steps"), TEXTS)
def test_steps_with_something_in_them_are_counted(completion, steps):
    found = reward(completion)
    assert found.metrics["steps"] == steps
    assert found.score == pytest.approx(min(1.0, steps / 3))


# parameters, score of a text with three steps
SETTINGS = [
    ({"target": 1}, 1.0),
    ({"target": 3}, 1.0),
    ({"target": 6}, 0.5),
    ({"minimum_words": 6}, 1.0),
    # the last one goes on to the end, with the tag and the answer
    ({"minimum_words": 7}, 1 / 3),
    ({"minimum_words": 9}, 0.0),
    ({"tag": "think"}, 1.0),
    ({"tag": "work"}, 0.0),
    ({"connectives": []}, 2 / 3),
    ({"connectives": ["after that"]}, 1.0),
]


@pytest.mark.parametrize(("parameters", "score"), SETTINGS)
def test_settings_say_what_a_step_is(parameters, score):
    marker = "After that" if parameters.get("connectives") else "Then"
    text = f"<think>\n1. {ONE}\n2. {TWO}. {marker} {THREE}\n</think>\n72"
    assert reward(text, **parameters).score == pytest.approx(score)


def test_more_steps_than_wanted_earn_no_more():
    words = [f"{first}{second}" for first in "bcdfg" for second in "aeiou"]
    lines = [f"{number}. {' '.join(f'{word}{number}' for word in words[:5])}" for number in range(1, 100)]
    found = reward("\n".join(lines), target=50)
    assert (found.score, found.metrics["steps"]) == (1.0, 50.0)


def test_the_reason_says_what_was_left_out():
    found = reward(f"1. {ONE}\n2. {ONE}\n3. ok")
    assert found.reason == "1 of 3 steps, 1 empty, 1 repeated"
    assert found.extracted == ONE
    assert reward("72").extracted is None


@pytest.mark.parametrize(
    "text",
    [
        "1. " * 130_000,
        "\n1. " * 100_000,
        " " * 400_000,
        "then " * 80_000,
        ". then" * 60_000,
        "step " * 80_000,
    ],
)
def test_the_cost_is_linear_in_the_completion(text):
    started = time.thread_time()
    assert reward(text).score <= 1 / 3
    assert time.thread_time() - started < 2.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"target": 0}, "target is a whole number of 1 to 50"),
        ({"target": 51}, "target is a whole number of 1 to 50"),
        ({"target": 3.0}, "target is a whole number of 1 to 50"),
        ({"minimum_words": True}, "minimum_words is a whole number of 1 to 50"),
        ({"tag": "<think>"}, "tag is a name such as think"),
        ({"connectives": "then"}, "connectives is a list of words"),
        ({"connectives": ["and, then"]}, "connectives are words"),
        ({"connectives": [5]}, "connectives are words"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, says):
    with pytest.raises((TypeError, ValueError), match=says):
        ReasoningSteps(**parameters)
