"""The form a completion was asked for: sections in order, or one pattern; half of it earns less."""

import pytest

from lambdas.composition import compose
from lambdas.contract import Sample
from lambdas.rewards.format import Format

THINK = ("think", "answer")
GOOD = "<think>six times twelve</think>\n<answer>72</answer>"


def reward(completion, **parameters):
    return Format(**parameters).score(Sample("a", (), completion))


# completion, score: two sections, their order and nothing outside are four parts
SECTIONS = [
    (GOOD, 1.0),
    (f"\n  {GOOD}  \n", 1.0),
    ("<think>a</think><answer>b</answer>", 1.0),
    (f"Sure! {GOOD}", 0.75),
    (f"{GOOD} Hope this helps!", 0.75),
    ("<think>a</think> so <answer>b</answer>", 0.75),
    # out of order earns neither the order nor a clean outside
    ("<answer>72</answer><think>six times twelve</think>", 0.5),
    ("<think>a <answer>b</answer></think>", 0.5),
    ("<answer><think>a</think> b</answer>", 0.5),
    # one section of two
    ("<think>a</think>", 0.25),
    ("<think>a</think><answer></answer>", 0.25),
    ("<think>a</think><answer> \n </answer>", 0.25),
    ("<think>a</think><answer>!?</answer>", 0.25),
    ("<think>a</think><answer>b", 0.25),
    ("<think>a</think>b</answer>", 0.25),
    ("<think>a</think></answer>b<answer>", 0.25),
    ("<think>a</think><answer>b</answer><answer>c</answer>", 0.25),
    ("<think>a</think><answer>b</answer></answer>", 0.25),
    ("<think>a</think><Answer>b</Answer>", 0.25),
    ('<think>a</think><answer kind="x">b</answer>', 0.25),
    ("<think>a</think>< answer >b</ answer >", 0.25),
    # none
    ("", 0.0),
    ("72", 0.0),
    ("<think><answer>", 0.0),
    ("<think></think><answer></answer>", 0.0),
    ("<think>" * 1_000 + "a" + "</think>" * 1_000, 0.0),
    # a completion that only repeats what was asked for
    ("Use <think></think> and <answer></answer>.", 0.0),
]


@pytest.mark.parametrize(("completion", "score"), SECTIONS)
def test_each_part_of_the_form_that_is_kept_counts(completion, score):
    found = reward(completion, tags=THINK)
    assert (found.score, found.metrics["in_form"]) == (score, float(score == 1.0))


@pytest.mark.parametrize(("completion", "score"), SECTIONS)
def test_without_partial_credit_it_is_all_or_nothing(completion, score):
    assert reward(completion, tags=THINK, partial_credit=False).score == float(score == 1.0)


# completion, parameters, score
SETTINGS = [
    (f"Sure! {GOOD} Bye!", {"tags": THINK, "text_outside": True}, 1.0),
    ("<answer>b</answer><think>a</think>", {"tags": THINK, "text_outside": True}, 2 / 3),
    ("<answer>b</answer>", {"tags": ["answer"]}, 1.0),
    ("so <answer>b</answer>", {"tags": ["answer"]}, 0.5),
    ("so <answer>b</answer>", {"tags": ["answer"], "text_outside": True}, 1.0),
    ("<think>one two three</think><answer>b</answer>", {"tags": THINK, "minimum_words": {"think": 3}}, 1.0),
    ("<think>one two</think><answer>b</answer>", {"tags": THINK, "minimum_words": {"think": 3}}, 0.25),
    # the same word again is one word
    ("<think>One one ONE</think><answer>b</answer>", {"tags": THINK, "minimum_words": {"think": 2}}, 0.25),
    ("Answer: 72", {"pattern": r"Answer: \d+"}, 1.0),
    ("  Answer: 72\n", {"pattern": r"Answer: \d+"}, 1.0),
    ("Answer: 72.", {"pattern": r"Answer: \d+"}, 0.0),
    ("The Answer: 72", {"pattern": r"Answer: \d+"}, 0.0),
    ("", {"pattern": r"Answer: \d+"}, 0.0),
    ("a\nb", {"pattern": "a.b"}, 1.0),
    # either side of a choice is the whole completion
    ("yes, and more", {"pattern": "yes|no"}, 0.0),
    ("no", {"pattern": "yes|no"}, 1.0),
    # a pattern that takes exponential time elsewhere
    ("a" * 50_000 + "b", {"pattern": "(a+)+"}, 0.0),
]


@pytest.mark.parametrize(("completion", "parameters", "score"), SETTINGS)
def test_settings_say_what_the_form_is(completion, parameters, score):
    assert reward(completion, **parameters).score == pytest.approx(score)


def test_the_reason_names_every_fault():
    found = reward("<answer>b</answer><think></think>", tags=THINK, minimum_words={"think": 5})
    assert found.reason == "<think> has 0 different words; 5 are needed"
    assert found.extracted == "<answer> </answer> <think> </think>"
    assert "not in the order think, answer" in reward("<answer>b</answer><think>a</think>", tags=THINK).reason
    assert "outside of the sections" in reward(f"x{GOOD}", tags=THINK).reason
    assert reward(GOOD, tags=THINK).reason == "the form is kept"
    assert reward("x", tags=THINK).extracted is None


def test_it_gates_a_reward_for_being_right():
    score = compose(
        {
            "components": {
                "answer": {"function": "numeric_answer", "form": "tag"},
                "form": {
                    "function": "format",
                    "tags": ["think", "answer"],
                    "weight": 0.0,
                    "gate": {"below": 1.0, "cap": 0.0},
                },
            }
        }
    )
    assert score(Sample("a", (), GOOD, reference_answer=72)).score == 1.0
    assert score(Sample("a", (), "<answer>72</answer>", reference_answer=72)).score == 0.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "either tags"),
        ({"tags": THINK, "pattern": "x"}, "either tags"),
        ({"tags": "think"}, "tags is a list of names"),
        ({"tags": ["<think>"]}, "tags is a list of names"),
        ({"tags": ["think", "think"]}, "at most 10 different names"),
        ({"tags": [f"t{number}" for number in range(11)]}, "at most 10 different names"),
        ({"tags": THINK, "text_outside": "no"}, "text_outside is true or false"),
        ({"tags": THINK, "partial_credit": 2}, "partial_credit is true or false"),
        ({"tags": THINK, "minimum_words": {"thought": 3}}, "'thought' is none of the tags think, answer"),
        ({"tags": THINK, "minimum_words": {"think": 0}}, "minimum_words.think is a whole number"),
        ({"tags": THINK, "minimum_words": {"think": True}}, "minimum_words.think is a whole number"),
        ({"tags": THINK, "minimum_words": 20}, "minimum_words is a table"),
        ({"pattern": "x", "minimum_words": {"think": 3}}, "belong to tags"),
        ({"pattern": 5}, "pattern is a text"),
        ({"pattern": "(a"}, "pattern"),
        ({"pattern": "a)(b"}, "pattern"),
        ({"pattern": r"(a)\1"}, "pattern"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, says):
    with pytest.raises((TypeError, ValueError), match=says):
        Format(**parameters)
