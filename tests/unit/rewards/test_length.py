"""Length: the two published shapes at known points, and nothing earned by padding."""

import math

import pytest

from lambdas.composition import compose
from lambdas.contract import Sample
from lambdas.rewards.length import Length


def reward(completion, **parameters):
    return Length(**parameters).score(Sample("a", (), completion))


# characters, score: DAPO with L_max 20,480 and L_cache 4,096, in hundreds; -1..0 moved to 0..1
SOFT_OVERLONG = [
    (1, 1.0),
    (100, 1.0),
    (160, 1.0),
    (161, 39 / 40),
    (170, 0.75),
    (180, 0.5),
    (190, 0.25),
    (199, 1 / 40),
    (200, 0.0),
    (201, 0.0),
    (1_000_000, 0.0),
    (0, 0.0),
]


@pytest.mark.parametrize(("length", "score"), SOFT_OVERLONG)
def test_soft_overlong_falls_in_a_line_over_the_buffer(length, score):
    assert reward("x" * length, maximum=200, buffer=40).score == pytest.approx(score)
    # A fifth of the maximum is the buffer where none is given, as in the paper.
    assert reward("x" * length, maximum=200).score == pytest.approx(score)


# characters, score: (1 + cos(pi t)) / 2 with t from 0 at 10 to 1 at 110
COSINE = [
    (10, 1.0),
    (35, (1 + math.sqrt(0.5)) / 2),
    (60, 0.5),
    (85, (1 - math.sqrt(0.5)) / 2),
    (110, 0.0),
    (111, 0.0),
    (5_000, 0.0),
    (5, 0.5),
    (1, 0.1),
    (0, 0.0),
]


@pytest.mark.parametrize(("length", "score"), COSINE)
def test_cosine_falls_from_the_minimum_to_the_maximum(length, score):
    found = reward("x" * length, maximum=110, minimum=10, shape="cosine")
    assert found.score == pytest.approx(score, abs=1e-12)
    assert found.metrics == {"length": float(length)}


def test_neither_shape_ever_rises_with_the_length():
    for shape in ("soft_overlong", "cosine"):
        scores = [reward("x" * length, maximum=50, shape=shape).score for length in range(1, 80)]
        assert scores == sorted(scores, reverse=True)
        assert all(0.0 <= score <= 1.0 for score in scores)


# completion, parameters, length, score
UNITS = [
    ("one two three", {"unit": "words"}, 3, 1.0),
    ("one  two\n\nthree ", {"unit": "words"}, 3, 1.0),
    ("", {"unit": "words"}, 0, 0.0),
    ("abcdefgh", {"unit": "tokens"}, 2, 1.0),
    ("abcdefghi", {"unit": "tokens"}, 3, 1.0),
    # three bytes of UTF-8 each
    ("日本語日", {"unit": "tokens"}, 3, 1.0),
    ("日本語日", {"unit": "characters"}, 4, 1.0),
    # half of a surrogate pair
    ("\ud800" * 4, {"unit": "tokens"}, 3, 1.0),
    ("x" * 10, {"maximum": 10, "buffer": 0}, 10, 1.0),
    ("x" * 11, {"maximum": 10, "buffer": 0}, 11, 0.0),
    # padding with white space costs what it takes to read and earns nothing
    ("x" + " " * 49, {"minimum": 50}, 50, 0.02),
    ("x" * 50, {"minimum": 50}, 50, 1.0),
    (" " * 50, {"minimum": 1}, 50, 0.0),
    ("\n" * 50 + "x", {"maximum": 50, "buffer": 0}, 51, 0.0),
]


@pytest.mark.parametrize(("completion", "parameters", "length", "score"), UNITS)
def test_the_length_is_counted_in_the_unit_that_was_named(completion, parameters, length, score):
    found = reward(completion, **{"maximum": 100, **parameters})
    assert (found.metrics["length"], found.score) == (length, pytest.approx(score))


@pytest.mark.parametrize(
    ("length", "says"),
    [
        (4, "4 characters: below the minimum of 5"),
        (80, "80 characters: a good length"),
        (90, "90 characters: on the way to the maximum of 100"),
        (100, "100 characters: at the maximum of 100 or beyond"),
    ],
)
def test_the_reason_says_where_the_length_lies(length, says):
    assert reward("x" * length, maximum=100, minimum=5).reason == says
    assert reward("xx", maximum=100, unit="tokens").extracted == "about 1 tokens"


def test_a_right_answer_earns_more_when_it_is_short_and_a_wrong_one_nothing():
    components = {
        "answer": {"function": "numeric_answer"},
        "length": {"function": "length", "shape": "cosine", "maximum": 1_000},
    }
    score = compose({"components": components, "formula": "answer * (0.5 + 0.5 * length)"})
    short, long, wrong = (
        score(Sample("a", (), completion, reference_answer=72)).score
        for completion in ("#### 72", "x" * 1_000 + "\n#### 72", "#### 71")
    )
    assert short == pytest.approx(1.0, abs=1e-3)
    assert (long, wrong) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"maximum": 1}, "maximum is a whole number"),
        ({"maximum": 1_000_001}, "maximum is a whole number"),
        ({"maximum": 10.0}, "maximum is a whole number"),
        ({"maximum": True}, "maximum is a whole number"),
        ({"maximum": 10, "minimum": 0}, "minimum is a whole number"),
        ({"maximum": 10, "minimum": 10}, "minimum has to be below maximum"),
        ({"maximum": 10, "minimum": 9}, "no length earns everything"),
        ({"maximum": 10, "buffer": -1}, "buffer is a whole number"),
        ({"maximum": 10, "buffer": 10}, "no length earns everything"),
        ({"maximum": 10, "shape": "linear"}, "shape is one of soft_overlong, cosine"),
        ({"maximum": 10, "unit": "lines"}, "unit is one of characters, words, tokens"),
        ({"maximum": 10, "shape": "cosine", "buffer": 2}, "buffer belongs to the shape soft_overlong"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, says):
    with pytest.raises(ValueError, match=says):
        Length(**parameters)
