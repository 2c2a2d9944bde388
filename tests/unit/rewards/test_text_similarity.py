"""Every measure against numbers that others published or that a hand can check."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError
from lambdas.rewards.text_similarity import TextSimilarity

METRICS = ("fuzzy", "bleu", "gleu", "meteor", "cosine", "rouge_1", "rouge_2", "rouge_l")


def reward(completion, reference, metric="fuzzy", **parameters):
    function = TextSimilarity(metric=metric, **parameters)
    return function.score(Sample("a", (), completion, reference_answer=reference))


# The first candidate and the first reference of example 1 in Papineni et al. 2002, "BLEU: a Method for
# Automatic Evaluation of Machine Translation", without full stops, as NLTK's documentation has them.
GUIDE = (
    "It is a guide to action which ensures that the military always obeys the commands of the party",
    "It is a guide to action that ensures that the military will forever heed Party commands",
)
# Of 18, 17, 16 and 15 n-grams of the candidate these are in the reference, counted by hand: 11 words (not
# "which", "always", "obeys", "of", "party", and two of three "the"), 8 pairs, 6 triples, 4 quadruples.
SHARED, OF = (11, 8, 6, 4), (18, 17, 16, 15)
BROWN = ("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog")
CAT = "the cat sat on the mat"

# metric, completion, reference, similarity
KNOWN = [
    # RapidFuzz's README: the ratio of the two tests is 96.55, 28/29 exactly; that of the two fuzzy bears is
    # 90.91, 40/44.
    ("fuzzy", "this is a test", "this is a test!", 28 / 29),
    ("fuzzy", "fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear", 40 / 44),
    # The textbook pair of edit distances: "ittn" is common to 6 and 7 letters.
    ("fuzzy", "kitten", "sitting", 8 / 13),
    ("fuzzy", "abc", "xyz", 0.0),
    # No brevity penalty, because 18 words are more than 16. The value is 0.4118.
    ("bleu", *GUIDE, math.prod(a / b for a, b in zip(SHARED, OF, strict=True)) ** 0.25),
    # The other way round: 11/16, 8/15, 6/14, 4/13 and the brevity penalty exp(1 - 18/16).
    ("bleu", *GUIDE[::-1], math.exp(-1 / 8) * (11 * 8 * 6 * 4 / (16 * 15 * 14 * 13)) ** 0.25),
    # Two words have no triples. One of two words; for the missing pair a half of 1: sqrt(1/2 * 1/2).
    ("bleu", "the cat", "the dog", 0.5),
    # 3/4 words, 1/3 pairs, then no triple (a half of 1, of 2) and no quadruple (a quarter, out of 1).
    ("bleu", "a b x c", "a b y c", (3 / 4 * 1 / 3 * 0.5 / 2 * 0.25 / 1) ** 0.25),
    ("bleu", "dog", "cat", 0.0),
    # Papineni's example 2: seven times "the" are two of the reference's at most. No pair, triple or
    # quadruple: 2/7 * 1/2/6 * 1/4/5 * 1/8/4, and no brevity penalty, as seven words are more than six.
    ("bleu", "the " * 7, "the cat is on the mat", (2 / 7 * 0.5 / 6 * 0.25 / 5 * 0.125 / 4) ** 0.25),
    # 29 shared n-grams; the candidate has 66 of orders 1 to 4, the reference 58.
    ("gleu", *GUIDE, 29 / 66),
    ("gleu", *GUIDE[::-1], 29 / 66),
    ("gleu", "the " * 7, "the cat is on the mat", 2 / 22),
    ("gleu", "the cat", "the cat sat", 3 / 6),
    # Wikipedia's article on METEOR: 0.9654, from 6 matches in 2 chunks, a mean of 0.9836 and a penalty of
    # 0.0185.
    ("meteor", "the cat was sat on the mat", CAT, 60 / 61 * (1 - 0.5 * (2 / 6) ** 3)),
    # Two words of six: P = 1, R = 1/3 and 10PR / (R + 9P) = 5/14; one chunk of two costs 1/2 * 1/8.
    ("meteor", "the cat", CAT, 5 / 14 * 15 / 16),
    ("meteor", "mat the on sat cat the", CAT, 1 - 0.5 * (6 / 6) ** 3),
    ("meteor", "dog", CAT, 0.0),
    # The README of Google's rouge-score: F 0.7058 and 0.5882, from 6 and 5 of 8 and 9 words.
    ("rouge_1", *BROWN, 12 / 17),
    ("rouge_l", *BROWN, 10 / 17),
    # "the quick" and "quick brown" of 7 and 8 pairs.
    ("rouge_2", *BROWN, 4 / 15),
    ("rouge_3", *BROWN, 2 / 13),
    ("rouge_4", *BROWN, 0.0),
    ("rouge_5", "a b c d e f", "a b c d e g", 2 / 4),
    # Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1, with beta 1.
    ("rouge_l", "police kill the gunman", "police killed the gunman", 3 / 4),
    ("rouge_l", "the gunman kill police", "police killed the gunman", 2 / 4),
    ("rouge_2", "police kill the gunman", "police killed the gunman", 1 / 3),
    ("rouge_2", "the gunman kill police", "police killed the gunman", 1 / 3),
    # (1, 1) and (1, 1) share one of two words; (2, 1) and (1, 2) are 4 / 5.
    ("cosine", "a b", "a c", 1 / 2),
    ("cosine", "a a b", "a b b", 4 / 5),
    ("cosine", "b a", "a b", 1.0),
    ("cosine", "a a b b", "a b", 1.0),
]


@pytest.mark.parametrize(("metric", "completion", "reference", "similarity"), KNOWN)
def test_known_pairs_have_their_known_similarity(metric, completion, reference, similarity):
    assert reward(completion, reference, metric).score == pytest.approx(similarity, abs=1e-12)


def test_the_published_roundings_are_met():
    assert round(100 * reward("this is a test", "this is a test!").score, 2) == 96.55
    assert round(reward(*GUIDE, "bleu").score, 4) == 0.4118
    assert round(reward(*GUIDE, "gleu").score, 4) == 0.4394
    assert round(reward("the cat was sat on the mat", CAT, "meteor").score, 4) == 0.9654
    assert round(reward(*BROWN, "rouge_1").score, 4) == 0.7059


@pytest.mark.parametrize("metric", METRICS)
def test_an_equal_text_earns_everything_and_another_one_nothing(metric):
    assert reward(CAT, CAT, metric).score == 1.0
    assert reward(f" {CAT}\n", CAT, metric).score == 1.0
    assert reward("1234 56", CAT, metric).score == (pytest.approx(2 / 29) if metric == "fuzzy" else 0.0)
    assert reward("", CAT, metric).score == 0.0
    assert reward(" \n", CAT, metric).score == 0.0


# metric, completion, reference, similarity: what a word is
WORDS = [
    ("rouge_1", "The CAT, sat!", "the cat sat", 1.0),
    ("meteor", "The CAT, sat!", "the cat sat", 1.0),
    ("cosine", "The CAT, sat!", "the cat sat", 1.0),
    ("gleu", "The cat", "the cat", 1 / 3),
    # mteval-v13a parts symbols, and full stops and commas outside of numbers.
    ("gleu", "a,b", "a , b", 1.0),
    ("gleu", "Hello, world!", "Hello , world !", 1.0),
    ("gleu", "3.5% of $1,000.", "3.5 % of $ 1,000 .", 1.0),
    ("gleu", "1,000", "1 , 000", 0.0),
    ("gleu", "it's", "it 's", 0.0),
    ("gleu", "1-2", "1 - 2", 1.0),
    ("gleu", "well-known", "well - known", 0.0),
    ("gleu", "&quot;a&quot; &amp; b", '"a" & b', 1.0),
    # Scripts without spaces: every character is a word.
    ("rouge_1", "\u5317\u4eac\u5927\u5b66", "\u5317\u4eac\u5e02", 4 / 7),
    ("bleu", "\u5317\u4eac\u5927\u5b66", "\u5317\u4eac\u5927\u5b66", 1.0),
    ("rouge_1", "\u0e01\u0e02", "\u0e01\u0e02", 1.0),
    (
        "rouge_1",
        "\u043c\u0438\u0440 \u0438 \u0434\u043e\u043c",
        "\u041c\u0438\u0440, \u0434\u043e\u043c.",
        4 / 5,
    ),
    ("rouge_1", "caf\u00e9", "cafe", 0.0),
    ("rouge_1", "!!!", "the cat", 0.0),
]


@pytest.mark.parametrize(("metric", "completion", "reference", "similarity"), WORDS)
def test_a_text_is_parted_into_words_as_published(metric, completion, reference, similarity):
    assert reward(completion, reference, metric).score == pytest.approx(similarity, abs=1e-12)


# Without the cosine, which does not see how long a text is.
@pytest.mark.parametrize("metric", sorted({*METRICS} - {"cosine"}))
@pytest.mark.parametrize(
    "completion",
    [CAT + " " + "the cat sat on a dog " * 40, CAT * 30, "the " * 300, "etaoin shrdlu " * 60],
    ids=["padded", "repeated", "one word", "letters"],
)
def test_padding_and_repeating_never_reach_what_the_answer_earns(metric, completion):
    assert reward(completion, CAT, metric).score < 0.75
    assert reward(completion, CAT, metric).score < reward(CAT, CAT, metric).score


def test_a_threshold_makes_it_all_or_nothing():
    found = reward(*BROWN, "rouge_1", pass_threshold=0.7)
    assert (found.score, found.metrics["similarity"]) == (1.0, pytest.approx(12 / 17))
    assert reward(*BROWN, "rouge_1", pass_threshold=0.71).score == 0.0
    assert reward(*BROWN, "rouge_1", pass_threshold=12 / 17).score == 1.0
    for metric in METRICS:
        assert reward(CAT, CAT, metric, pass_threshold=1).score == 1.0


@pytest.mark.parametrize(
    ("completion", "reference", "parameters", "score"),
    [
        ('{"title": "abc"}', "abc", {"field": "title"}, 1.0),
        ('{"title": "abc"}', "abc", {"field": "name"}, 0.0),
        ('{"title": "abc", "title": "abc"}', "abc", {"field": "title"}, 0.0),
        ("abc", "abc", {"field": "title"}, 0.0),
        ("abc", {"best": {"title": "abc"}}, {"reference_field": "best.title"}, 1.0),
        ("abc", None, {"value": "abc"}, 1.0),
        ("42", 42, {}, 1.0),
    ],
)
def test_what_is_compared_is_a_setting(completion, reference, parameters, score):
    assert reward(completion, reference, **parameters).score == score


@pytest.mark.parametrize(
    ("reference", "parameters", "says"),
    [
        (None, {}, "no reference answer"),
        (" ", {}, "is empty"),
        (["a"], {}, "is list, not one text"),
        ({"a": "b"}, {"reference_field": "c"}, "no field 'c'"),
        ("a" * 20_001, {}, "20001 characters; 20000 are compared"),
        ("one two", {"metric": "rouge_3"}, "fewer than 3 words, which rouge_3 compares"),
        ("!!!", {"metric": "cosine"}, "fewer than 1 words"),
    ],
)
def test_a_row_without_a_comparable_text_cannot_be_scored(reference, parameters, says):
    with pytest.raises(UnscorableError, match=says):
        reward("abc", reference, **parameters)


@pytest.mark.parametrize(
    ("completion", "parameters", "reason", "extracted"),
    [
        ("abd", {}, "fuzzy 0.6667 between 'abd' and 'abc'", "abd"),
        ("", {}, "the completion is empty", None),
        ("abc", {"field": "title"}, "no JSON with a value at 'title'", None),
        ("a" * 20_001, {}, "the text has 20001 characters; 20000 are compared at most", "a" * 200),
    ],
)
def test_every_score_says_why(completion, parameters, reason, extracted):
    found = reward(completion, "abc", **parameters)
    assert (found.reason, found.extracted) == (reason, extracted)
    assert found.metrics["answered"] == float(extracted is not None)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"metric": "rouge"}, "metric is one of fuzzy, bleu"),
        ({"metric": "rouge_6"}, "metric is one of"),
        ({"pass_threshold": 0}, "pass_threshold is a number above 0 and at most 1"),
        ({"pass_threshold": 1.01}, "pass_threshold"),
        ({"pass_threshold": True}, "pass_threshold"),
        ({"pass_threshold": float("nan")}, "pass_threshold"),
        ({"value": ""}, "value is empty"),
        ({"value": 7}, "value is a text, not 7"),
        ({"value": "a", "reference_field": "b"}, "keep one of them"),
        ({"value": "one two", "metric": "rouge_3"}, "value has fewer than 3 words"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        TextSimilarity(**parameters)


LONGEST = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))
HOSTILE = {
    "one character": "a" * 20_000,
    "one word": "a " * 10_000,
    "two words": "b a " * 5_000,
    "ideographs": LONGEST[::-1],
    "full stops": "." * 20_000,
    "commas": ",1" * 10_000,
    "dashes": "1-" * 10_000,
    "entities": "&amp;" * 4_000,
    "growing": "\u0130" * 20_000,
    "surrogates": "\ud800" * 20_000,
    "too long": "a " * 200_000,
    "nulls": "\x00" * 20_000,
}


@pytest.mark.parametrize("metric", [*METRICS, "rouge_5"])
@pytest.mark.parametrize("completion", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_completion_is_expensive_or_fools_it(metric, completion):
    for reference in (LONGEST, "a b " * 5_000):
        started = time.thread_time()
        found = reward(completion, reference, metric)
        assert time.thread_time() - started < 0.5
        assert 0.0 <= found.score <= 1.0
    assert reward(completion, CAT + " and was happy", metric).score < 0.2


@settings(max_examples=200)
@given(
    st.text(st.characters(exclude_categories=()), max_size=40) | st.text(alphabet="ab .,", max_size=40),
    st.text(alphabet="abc .,", max_size=30).map(lambda text: text + " a b c"),
    st.sampled_from(METRICS),
)
def test_any_text_gets_a_share_and_the_same_one_again(text, reference, metric):
    first = reward(text, reference, metric)
    assert first == reward(text, reference, metric)
    assert 0.0 <= first.score <= 1.0
    assert reward(reference, reference, metric).score == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=200)
@given(st.text(alphabet="abc", max_size=12), st.text(alphabet="abc", min_size=1, max_size=12))
def test_fuzzy_is_the_longest_common_subsequence(one, two):
    # The textbook recurrence, cell by cell.
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for row, left in enumerate(one, start=1):
        for column, right in enumerate(two, start=1):
            table[row][column] = (
                table[row - 1][column - 1] + 1
                if left == right
                else max(table[row - 1][column], table[row][column - 1])
            )
    assert reward(one, two).score == (2 * table[-1][-1] / (len(one) + len(two)) if one else 0.0)
