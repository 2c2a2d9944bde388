"""Repetition: the share of repeated n-grams at known points, in every script, however the loop is written."""

import pytest

from lambdas.contract import Sample
from lambdas.rewards.repetition import Repetition


def reward(completion, **parameters):
    return Repetition(**parameters).score(Sample("a", (), completion))


# completion, n, share of repeated n-grams
SHARES = [
    ("a b c d e f", 1, 0.0),
    ("a b a b a b", 1, 1 - 2 / 6),
    ("a b a b a b", 2, 1 - 2 / 5),
    ("a b a b a b", 3, 1 - 2 / 4),
    ("a b a b a b", 4, 1 - 2 / 3),
    ("a b a b a b", 5, 0.0),
    ("a a a a a a a a a a", 4, 1 - 1 / 7),
    # fewer words than n repeat nothing
    ("a a a", 4, 0.0),
    ("a a a a", 4, 0.0),
    # case and spacing make no other words; marks are words
    ("The cat. the  CAT.\nThe cat.", 3, 1 - 3 / 7),
    ("yes! yes! yes!", 2, 1 - 2 / 5),
    # a loop without spaces: twelve letters at a time
    ("ha" * 60, 1, 1 - 1 / 10),
    ("-" * 40, 1, 1 - 1 / 40),
    # scripts without spaces: a character at a time
    ("日本日本日本", 2, 1 - 2 / 5),
    ("สวัสวัสวั", 3, 1 - 3 / 7),
    # words of other scripts are words
    ("да нет да нет", 2, 1 - 2 / 3),
]


@pytest.mark.parametrize(("completion", "n", "share"), SHARES)
def test_the_share_of_repeated_runs_is_counted(completion, n, share):
    found = reward(completion, n=n, allowed_share=0.0, largest_share=1.0)
    assert found.metrics["repeated_share"] == pytest.approx(share)
    # With 0 and 1 the score is the published penalty, moved to 0..1.
    assert found.score == pytest.approx(1 - share)


# share in parts of ten, allowed_share, largest_share, score
LIMITS = [
    (0, 0.1, 0.5, 1.0),
    (1, 0.1, 0.5, 1.0),
    (2, 0.1, 0.5, 0.75),
    (3, 0.1, 0.5, 0.5),
    (5, 0.1, 0.5, 0.0),
    (9, 0.1, 0.5, 0.0),
    (5, 0.0, 1.0, 0.5),
    (5, 0.5, 0.6, 1.0),
]


@pytest.mark.parametrize(("tenths", "allowed", "largest", "score"), LIMITS)
def test_the_score_falls_in_a_line_between_the_two_shares(tenths, allowed, largest, score):
    words = [*(f"w{number}" for number in range(10 - tenths)), *["w0"] * tenths]
    found = reward(" ".join(words), n=1, allowed_share=allowed, largest_share=largest)
    assert found.metrics["repeated_share"] == pytest.approx(tenths / 10)
    assert found.score == pytest.approx(score)


# completion, score: with the defaults
TEXTS = [
    ("Six times twelve is seventy-two, because six tens are sixty and six twos are twelve.", 1.0),
    ("I think the answer is 72. " * 20, 0.0),
    ("the same thing " * 2, 1.0),
    ("", 0.0),
    (" \n\t", 0.0),
    ("\ud800", 1.0),
    ("no", 1.0),
    ("0" * 100_000, 0.0),
    ("ab " * 100_000, 0.0),
]


@pytest.mark.parametrize(("completion", "score"), TEXTS)
def test_loops_cost_and_plain_text_does_not(completion, score):
    assert reward(completion).score == score


def test_the_reason_shows_what_was_said_most_often():
    found = reward("we add and we add and we add", n=2)
    assert found.extracted == "we add"
    assert found.reason == "57% of 7 runs of 2 words are repeated; most often, 3 times: 'we add'"
    assert reward("all of it is new").extracted is None
    assert reward("").reason == "the completion has no words"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"n": 0}, "n is a whole number of 1 to 10"),
        ({"n": 11}, "n is a whole number of 1 to 10"),
        ({"n": 2.0}, "n is a whole number of 1 to 10"),
        ({"n": True}, "n is a whole number of 1 to 10"),
        ({"allowed_share": -0.1}, "allowed_share is a number of 0 to 1"),
        ({"largest_share": 1.1}, "largest_share is a number of 0 to 1"),
        ({"largest_share": float("nan")}, "largest_share is a number of 0 to 1"),
        ({"allowed_share": 0.5, "largest_share": 0.5}, "allowed_share, 0.5, has to be below"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, says):
    with pytest.raises(ValueError, match=says):
        Repetition(**parameters)
