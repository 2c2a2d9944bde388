"""One text against another, and patterns that no text can make slow."""

import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError
from lambdas.rewards.string_check import StringCheck


def reward(completion, reference=None, **parameters):
    return StringCheck(**parameters).score(Sample("a", (), completion, reference_answer=reference))


# operation, completion, reference, score
TEXTS = [
    ("eq", "Paris", "Paris", 1.0),
    ("eq", " Paris\n", "Paris", 1.0),
    ("eq", "Paris", " Paris ", 1.0),
    ("eq", "paris", "Paris", 0.0),
    ("eq", "Paris.", "Paris", 0.0),
    ("eq", "It is Paris", "Paris", 0.0),
    ("eq", "Paris Paris", "Paris", 0.0),
    ("eq", "Par is", "Paris", 0.0),
    ("eq", "P\u0430ris", "Paris", 0.0),
    ("eq", "42", 42, 1.0),
    ("eq", "42.0", 42, 0.0),
    ("eq", "true", True, 1.0),
    ("eq", "", "Paris", 0.0),
    ("eq", " \n\t", "Paris", 0.0),
    ("ne", "London", "Paris", 1.0),
    ("ne", "Paris", "Paris", 0.0),
    ("ne", " Paris ", "Paris", 0.0),
    # No text at all is not another text.
    ("ne", "", "Paris", 0.0),
    ("ne", " \n", "Paris", 0.0),
    ("like", "It is Paris.", "Paris", 1.0),
    ("like", "It is paris.", "Paris", 0.0),
    ("like", "Par", "Paris", 0.0),
    ("like", "Paris", "P%s", 0.0),
    ("like", "Paris", "Pari_", 0.0),
    ("like", "100%", "100%", 1.0),
    ("like", "", "Paris", 0.0),
    ("ilike", "It is PARIS.", "paris", 1.0),
    ("ilike", "It is paris.", "PARIS", 1.0),
    ("ilike", "STRASSE", "Stra\u00dfe", 1.0),
    ("ilike", "It is London.", "Paris", 0.0),
    ("regex", "It is Paris.", "Paris", 1.0),
    ("regex", "It is Paris.", "^Paris", 0.0),
    ("regex", "Paris, France", "^Paris", 1.0),
    ("regex", "It is\nParis", "^Paris$", 0.0),
    ("regex", "It is\nParis", "(?m)^Paris$", 1.0),
    ("regex", "2024-02-29", r"^\d{4}-\d{2}-\d{2}$", 1.0),
    ("regex", "2024-2-29", r"^\d{4}-\d{2}-\d{2}$", 0.0),
    ("regex", "PARIS", "(?i)paris", 1.0),
    ("regex", "Z\u00fcrich", r"^Z.rich$", 1.0),
    ("regex", "\u5317\u4eac", r"^\p{Han}{2}$", 1.0),
    ("regex", "a\ud800b", "^a.b$", 1.0),
    ("regex", "", "^$", 0.0),
]


@pytest.mark.parametrize(("operation", "completion", "reference", "score"), TEXTS)
def test_texts_are_compared_as_the_operation_says(operation, completion, reference, score):
    assert reward(completion, reference, operation=operation).score == score


@pytest.mark.parametrize(
    ("completion", "reference", "parameters", "score"),
    [
        (" Paris", "Paris", {"strip": False}, 0.0),
        ("Paris", "Paris", {"strip": False}, 1.0),
        ("Paris ", "Paris", {"strip": False, "operation": "ne"}, 1.0),
        (" ", "Paris", {"strip": False, "operation": "ne"}, 0.0),
        ("Paris", "London", {"value": "Paris"}, 1.0),
        ("London", None, {"value": "Paris"}, 0.0),
        ("Paris", {"city": {"name": "Paris"}}, {"reference_field": "city.name"}, 1.0),
        ('{"city": "Paris"}', "Paris", {"field": "city"}, 1.0),
        ('{"city": {"names": ["Paname", "Paris"]}}', "Paris", {"field": "city.names.1"}, 1.0),
        ('Here:\n```json\n{"city": "Paris"}\n```', "Paris", {"field": "city"}, 1.0),
        ('{"city": "Paris", "city": "Paris"}', "Paris", {"field": "city"}, 0.0),
        ('{"city": ["Paris"]}', "Paris", {"field": "city"}, 0.0),
        ('{"city": null}', "Paris", {"field": "city", "operation": "ne"}, 0.0),
        ('{"town": "Bern"}', "Paris", {"field": "city", "operation": "ne"}, 0.0),
        ("Paris", "Paris", {"field": "city"}, 0.0),
        # A list of everything pays in the whole text, and not in one field.
        ("London Paris Rome", "Paris", {"operation": "like"}, 1.0),
        ('{"city": "London Paris Rome"}', "Paris", {"field": "city"}, 0.0),
        ('{"zip": 007}', "7", {"field": "zip"}, 0.0),
        ('{"zip": 7}', 7, {"field": "zip"}, 1.0),
        ('{"zip": 7.0}', 7, {"field": "zip"}, 0.0),
        ('{"open": true}', True, {"field": "open"}, 1.0),
        ('{"open": "true"}', True, {"field": "open"}, 1.0),
    ],
)
def test_what_is_compared_is_a_setting(completion, reference, parameters, score):
    assert reward(completion, reference, **parameters).score == score


@pytest.mark.parametrize(
    ("reference", "parameters", "says"),
    [
        (None, {}, "no reference answer"),
        ("", {}, "is empty"),
        (" \n", {}, "is empty"),
        (["Paris"], {}, "is list, not one text"),
        ({"a": 1}, {}, "is dict, not one text"),
        ({"a": 1}, {"reference_field": "b"}, "no field 'b'"),
        (float("nan"), {}, "is float, not one text"),
        ("(", {"operation": "regex"}, "is no pattern of RE2"),
        ("(?=a)", {"operation": "regex"}, "no look-around"),
        (r"(a)\1", {"operation": "regex"}, "no back-references"),
        ("a" * 1_001, {"operation": "regex"}, "1001 characters; 1000 are allowed"),
        ("(a?){400}a{400}c", {"operation": "regex"}, "too large a pattern"),
        ("a\ud800", {"operation": "regex"}, "not Unicode text"),
    ],
)
def test_a_row_without_a_usable_text_cannot_be_scored(reference, parameters, says):
    with pytest.raises(UnscorableError, match=says):
        reward("Paris", reference, **parameters)


@pytest.mark.parametrize(
    ("completion", "parameters", "reason", "extracted"),
    [
        ("Paris", {}, "'Paris' is 'Paris'", "Paris"),
        ("London ", {}, "'London' is not 'Paris'", "London"),
        ("Paris", {"operation": "ne"}, "'Paris' is 'Paris'", "Paris"),
        ("In Paris", {"operation": "like"}, "'In Paris' contains 'Paris'", "In Paris"),
        ("London", {"operation": "ilike"}, "'London' does not contain 'paris'", "London"),
        ("London", {"operation": "regex"}, "'London' does not match 'Paris'", "London"),
        ("", {}, "the completion is empty", None),
        ("Paris", {"field": "city"}, "no JSON with a value at 'city'", None),
    ],
)
def test_every_score_says_why(completion, parameters, reason, extracted):
    found = reward(completion, "Paris", **parameters)
    assert (found.reason, found.extracted) == (reason, extracted)
    assert found.metrics == {"answered": float(extracted is not None)}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"operation": "equals"}, "operation is one of eq, ne, like, ilike, regex"),
        ({"strip": "no"}, "strip is true or false"),
        ({"value": ""}, "value is the expected text and cannot be empty"),
        ({"value": 7}, "value is the expected text"),
        ({"value": "a", "reference_field": "b"}, "keep one of them"),
        ({"value": "(", "operation": "regex"}, "value: '\\(' is no pattern of RE2"),
        ({"value": "(?<=a)b", "operation": "regex"}, "no look-around"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        StringCheck(**parameters)


# Patterns that take a backtracking engine for ever, or a compiled automaton all of the memory.
BOMBS = [
    "(a+)+$",
    "(a|aa)+$",
    "(a|a)*c",
    "(.*)(.*)(.*)(.*)(.*)(.*)c$",
    "[ab]*a[ab]{18}c",
    "(?:a|b)*a(?:a|b){150}c",
    "(?:a?){400}a{400}c",
    "(?i)(?:[a-z]*[ab]){90}c",
    "(x+x+)+y",
]


@pytest.mark.parametrize("pattern", BOMBS)
def test_no_pattern_is_slow_whatever_text_it_meets(pattern):
    draw = random.Random(7)
    texts = ["a" * 99_999 + "!", "".join(draw.choices("ab", k=100_000)), "x" * 100_000]
    function = StringCheck(operation="regex", value=pattern)
    for text in texts:
        started = time.thread_time()
        function.score(Sample("a", (), text))
        assert time.thread_time() - started < 1.0


def test_a_longer_text_than_is_searched_does_not_match():
    assert reward("a" * 100_000, "^a+$", operation="regex").score == 1.0
    found = reward("a" * 100_001, "^a+$", operation="regex")
    assert (found.score, "more than 100000 characters" in found.reason) == (0.0, True)


HOSTILE = {
    "long": "Paris" * 80_000,
    "spaces": " " * 400_000,
    "braces": "{" * 400_000,
    "objects": '{"city":' * 50_000,
    "fences": "```" * 133_000,
    "surrogates": "\ud800" * 400_000,
    "nulls": "\x00" * 400_000,
    "digits": '{"city": ' + "9" * 390_000 + "}",
    "exponent": '{"city": 1e999999999}',
    "expanding": "\u0390" * 400_000,
}


@pytest.mark.parametrize("operation", ["eq", "like", "ilike", "regex"])
@pytest.mark.parametrize("completion", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_completion_is_expensive_or_fools_it(operation, completion):
    for field in ("", "city"):
        started = time.thread_time()
        found = reward(completion, "^It is Paris$", operation=operation, field=field)
        assert time.thread_time() - started < 0.5
        assert found.score == 0.0


@pytest.mark.parametrize(("operation", "loaded"), [("eq", False), ("ilike", False), ("regex", True)])
def test_the_regex_engine_is_imported_only_for_regex(operation, loaded):
    program = (
        "import sys\n"
        "from lambdas.contract import Sample\n"
        "from lambdas.rewards.string_check import StringCheck\n"
        f"function = StringCheck(operation={operation!r})\n"
        "assert function.score(Sample('a', (), 'x', reference_answer='x')).score == 1.0\n"
        "print('re2' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loaded)


@settings(max_examples=300)
@given(st.text(st.characters(exclude_categories=()), max_size=40), st.text(min_size=1, max_size=10))
def test_the_operations_agree_with_each_other(text, expected):
    if not expected.strip():
        return
    scores = {name: reward(text, expected, operation=name).score for name in ("eq", "ne", "like", "ilike")}
    assert scores == {name: reward(text, expected, operation=name).score for name in scores}
    assert scores["eq"] <= scores["like"] <= scores["ilike"]
    assert scores["eq"] + scores["ne"] == float(bool(text.strip()))


@settings(max_examples=200)
@given(st.text(max_size=20), st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_pattern_is_refused_or_gives_a_score(pattern, text):
    try:
        score = reward(text, pattern, operation="regex").score
    except UnscorableError:
        return
    assert score in {0.0, 1.0}
