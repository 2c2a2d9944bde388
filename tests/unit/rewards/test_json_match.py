"""Field by field, strictly typed, and no way to farm partial credit."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError
from lambdas.rewards.json_match import JsonField, JsonMatch

TICKET = {"category": "billing", "priority": 2, "refund": True, "tags": ["invoice", "late"]}


def reward(completion, reference, **parameters):
    text = completion if isinstance(completion, str) else json.dumps(completion)
    return JsonMatch(**parameters).score(Sample("a", (), text, reference_answer=reference))


# form, completion, score
FORMS = [
    ("either", '{"a": 1}', 1.0),
    ("either", ' \n{"a": 1}\n ', 1.0),
    ("either", 'Sure!\n```json\n{"a": 1}\n```\nDone.', 1.0),
    ("either", '```{"a": 1}```', 0.0),
    ("either", 'Sure! {"a": 1}', 0.0),
    ("either", '{"a": 1} {"a": 2}', 0.0),
    ("either", '```\n{"a": 2}\n```\n```\n{"a": 1}\n```', 0.0),
    ("either", '```json\n{"a": 1}', 0.0),
    ("either", "", 0.0),
    ("whole", '{"a": 1}', 1.0),
    ("whole", '```json\n{"a": 1}\n```', 0.0),
    ("fenced", '{"a": 1}', 0.0),
    ("fenced", '```json\n{"a": 1}\n```', 1.0),
    ("tag", 'thinking <answer>{"a": 1}</answer>', 1.0),
    ("tag", '<answer>{"a": 2}</answer><answer>{"a": 1}</answer>', 0.0),
    ("tag", '{"a": 1}', 0.0),
]


@pytest.mark.parametrize(("form", "completion", "score"), FORMS)
def test_the_json_is_looked_for_where_it_was_declared(form, completion, score):
    assert reward(completion, {"a": 1}, form=form).score == score


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        ("{'a': 1}", "not valid JSON"),
        ('{"a": 1,}', "not valid JSON"),
        ('{"a": 1', "not valid JSON"),
        ('{"a": 2, "a": 1}', "a key appears twice"),
        ('{"a": NaN}', "NaN is not a JSON value"),
        ('{"a": 1e999}', "a number is too large"),
        ("[" * 70 + "]" * 70, "nested more than 64 levels"),
        ("", "neither JSON nor"),
        ("no JSON here", "neither JSON nor"),
    ],
)
def test_what_is_no_strict_json_earns_nothing_and_says_why(completion, says):
    found = reward(completion, {"a": 1})
    assert found.score == 0.0
    assert says in found.reason
    assert found.metrics["valid_json"] == 0.0


# answer, score
TICKETS = [
    (TICKET, 1.0),
    (dict(reversed(TICKET.items())), 1.0),
    ({**TICKET, "priority": 2.0}, 1.0),
    ({**TICKET, "priority": 3}, 0.75),
    ({**TICKET, "priority": "2"}, 0.75),
    ({**TICKET, "priority": True}, 0.75),
    ({**TICKET, "refund": 1}, 0.75),
    ({**TICKET, "refund": None}, 0.75),
    ({**TICKET, "category": "Billing"}, 0.75),
    ({**TICKET, "category": ["billing"]}, 0.75),
    ({**TICKET, "tags": ["invoice"]}, 0.875),
    ({**TICKET, "tags": ["late", "invoice"]}, 0.75),
    ({**TICKET, "tags": {"invoice": "late"}}, 0.75),
    ({"category": "billing"}, 0.25),
    ({}, 0.0),
    ([TICKET], 0.0),
    ("billing", 0.0),
    # An unknown key costs as much as a wrong field.
    ({**TICKET, "note": "x"}, 0.8),
    ({**TICKET, **{f"key{number}": number for number in range(36)}}, 0.1),
]


@pytest.mark.parametrize(("answer", "score"), TICKETS)
def test_each_right_field_earns_its_share(answer, score):
    assert reward(answer, TICKET).score == pytest.approx(score)


@pytest.mark.parametrize(
    ("parameters", "answer", "score"),
    [
        ({"fields": {"category": {"weight": 3}}}, {"category": "billing"}, 0.5),
        ({"fields": {"category": {"weight": 3}}}, {**TICKET, "category": "x"}, 0.5),
        ({"fields": {"tags": {"weight": 0}}}, {**TICKET, "tags": "anything"}, 1.0),
        ({"fields": {"tags": {"weight": 0}}}, {k: v for k, v in TICKET.items() if k != "tags"}, 1.0),
        ({"fields": {"category": {"strings": "casefold"}}}, {**TICKET, "category": " BILLING "}, 1.0),
        ({"strings": "casefold"}, {**TICKET, "tags": ["Invoice", "LATE"]}, 1.0),
        (
            {"strings": "casefold", "fields": {"tags": {"strings": "exact"}}},
            {**TICKET, "tags": ["Invoice", "LATE"]},
            0.75,
        ),
        ({"arrays": "set"}, {**TICKET, "tags": ["late", "invoice"]}, 1.0),
        ({"arrays": "set"}, {**TICKET, "tags": ["late", "late"]}, 0.75 + 0.25 / 3),
        ({"arrays": "set"}, {**TICKET, "tags": ["late", "invoice", *"abcdef"]}, 0.75 + 0.25 * 2 / 8),
        ({"fields": {"priority": {"absolute_tolerance": 1}}}, {**TICKET, "priority": 3}, 1.0),
        ({"fields": {"priority": {"absolute_tolerance": 0.5}}}, {**TICKET, "priority": 3}, 0.75),
        ({"relative_tolerance": 0.5}, {**TICKET, "priority": 3}, 1.0),
        (
            {"relative_tolerance": 0.5, "fields": {"priority": {"relative_tolerance": 0}}},
            {**TICKET, "priority": 3},
            0.75,
        ),
        ({"extra_key_penalty": 0}, {**TICKET, "note": "x"}, 1.0),
        ({"extra_key_penalty": 4}, {**TICKET, "note": "x"}, 0.5),
        ({"partial_credit": False}, {**TICKET, "priority": 3}, 0.0),
        ({"partial_credit": False}, TICKET, 1.0),
    ],
)
def test_fields_have_weights_and_rules_of_their_own(parameters, answer, score):
    assert reward(answer, TICKET, **parameters).score == pytest.approx(score)


ORDER = {
    "customer": {"name": "Ada", "address": {"city": "Bern", "zip": "3011"}},
    "lines": [{"sku": "A", "count": 2}, {"sku": "B", "count": 1}],
}


@pytest.mark.parametrize(
    ("answer", "parameters", "score"),
    [
        (ORDER, {}, 1.0),
        ({**ORDER, "customer": {**ORDER["customer"], "name": "Bob"}}, {}, 0.75),
        ({**ORDER, "customer": {**ORDER["customer"], "address": {"city": "Bern", "zip": 3011}}}, {}, 0.875),
        ({**ORDER, "lines": [{"sku": "A", "count": 2}, {"sku": "B", "count": 9}]}, {}, 0.875),
        ({**ORDER, "lines": ORDER["lines"][:1]}, {}, 0.75),
        ({**ORDER, "lines": ORDER["lines"] * 50}, {}, 0.51),
        ({**ORDER, "lines": ORDER["lines"][::-1]}, {"fields": {"lines": {"arrays": "set"}}}, 1.0),
        (
            {**ORDER, "customer": {**ORDER["customer"], "name": "Bob"}},
            {"fields": {"customer.name": {"weight": 0}}},
            1.0,
        ),
        (
            {**ORDER, "lines": [{"sku": "A", "count": 9}, {"sku": "B", "count": 9}]},
            {"fields": {"lines.count": {"weight": 0}}},
            1.0,
        ),
        # Deeper or wider than the reference is never better.
        ({**ORDER, "customer": {**ORDER["customer"], "copy": ORDER["customer"]}}, {}, 0.5 + 0.5 * 2 / 3),
        ({"customer": ORDER}, {}, 0.0),
    ],
)
def test_nested_fields_count_within_their_object(answer, parameters, score):
    assert reward(answer, ORDER, **parameters).score == pytest.approx(score)


def test_the_whole_answer_may_be_an_array():
    assert reward([1, 2, 3], [1, 2, 3]).score == 1.0
    assert reward([3, 2, 1], [1, 2, 3]).score == pytest.approx(1 / 3)
    assert reward([3, 2, 1], [1, 2, 3], arrays="set").score == 1.0
    assert reward([{"a": 1}], [{"a": 1}, {"a": 2}]).score == 0.5


@pytest.mark.parametrize(
    ("answer", "tolerance", "score"),
    [(1.11, 0.01, 1.0), (1.1101, 0.01, 0.0), (1.1, 0.0, 1.0), (10**400, 0.01, 0.0), (-1.1, 2.2, 1.0)],
)
def test_a_tolerance_is_exact_in_decimals(answer, tolerance, score):
    assert reward({"a": answer}, {"a": 1.10}, absolute_tolerance=tolerance).score == score


def test_empty_values_are_values():
    assert reward({"a": [], "b": {}, "c": None, "d": ""}, {"a": [], "b": {}, "c": None, "d": ""}).score == 1.0
    assert (
        reward({"a": [1], "b": {"x": 1}, "c": 0, "d": None}, {"a": [], "b": {}, "c": None, "d": ""}).score
        == 0.0
    )
    assert reward({"a": 1}, {"a": 1, "b": None}).score == 0.5
    assert reward({"a": {"x": 1}}, {"a": {}}, extra_key_penalty=0).score == 1.0


@pytest.mark.parametrize(
    ("reference", "parameters", "says"),
    [
        (None, {}, "no reference answer"),
        ({}, {}, "not a JSON object or array with something in it"),
        ([], {}, "with something in it"),
        (7, {}, "not a JSON object"),
        ("billing", {}, "not valid JSON"),
        ('"billing"', {}, "not a JSON object"),
        ('{"a": 1, "a": 2}', {}, "appears twice"),
        ({"a": 1}, {"reference_field": "expected"}, "no field 'expected'"),
        ({"a": "1"}, {"fields": {"a": {"type": "number"}}}, "a is string, not number"),
        ({"a": True}, {"fields": {"a": {"type": "number"}}}, "a is boolean, not number"),
        ({"a": {"b": 1}}, {"fields": {"a.b": {"type": "string"}}}, "a.b is number, not string"),
        ([{"b": 1}], {"fields": {"b": {"type": "string"}}}, "b is number, not string"),
    ],
)
def test_a_row_without_usable_json_cannot_be_scored(reference, parameters, says):
    with pytest.raises(UnscorableError, match=says):
        reward("{}", reference, **parameters)


def test_a_bottomless_reference_is_a_bad_row():
    deep = leaf = []
    for _ in range(5_000):
        leaf.append([])
        leaf = leaf[0]
    with pytest.raises(UnscorableError, match="64 levels"):
        reward("{}", {"a": deep})


@pytest.mark.parametrize(
    ("reference", "parameters"),
    [
        ('{"a": 1}', {}),
        ({"expected": {"a": 1}}, {"reference_field": "expected"}),
        ({"expected": '{"a": 1}'}, {"reference_field": "expected"}),
        ({"a": 1}, {"fields": {"a": {"type": "number"}}}),
        ({"a": 1}, {"fields": {"a": JsonField(type="number")}}),
    ],
)
def test_references_of_every_shape_earn_the_maximum(reference, parameters):
    assert reward({"a": 1}, reference, **parameters).score == 1.0
    assert reward({"a": 2}, reference, **parameters).score == 0.0


def test_every_score_says_why():
    answer = {"category": "other", "priority": 2, "tags": ["late"], "note": "x", "mood": "y"}
    found = reward(answer, TICKET)
    assert found.reason == (
        "wrong: category, refund (missing), tags (1 items, not 2), tags, 2 unknown in the answer"
    )
    assert found.metrics == {"valid_json": 1.0, "exact_match": 0.0, "missing_keys": 1.0, "extra_keys": 2.0}
    right = reward(TICKET, TICKET)
    assert (right.reason, right.metrics["exact_match"]) == ("every field is right", 1.0)
    assert json.loads(right.extracted) == TICKET


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"form": "anywhere"}, "form is one of either, whole, fenced, tag"),
        ({"tag": "<a>"}, "tag is a name such as answer"),
        ({"strings": "lower"}, "strings is one of exact, casefold"),
        ({"arrays": "bag"}, "arrays is one of sequence, set"),
        ({"extra_key_penalty": -1}, "extra_key_penalty is a number of at least 0"),
        ({"absolute_tolerance": float("inf")}, "absolute_tolerance"),
        ({"partial_credit": "no"}, "partial_credit is true or false"),
        ({"fields": {"a": 2}}, "fields.a is a table of weight, type"),
        ({"fields": {"a": {"wight": 2}}}, "fields.a .*'wight' is none of them"),
        ({"fields": {"a": {"weight": -2}}}, "fields.a: weight is a number of at least 0"),
        ({"fields": {"a": {"type": "text"}}}, "fields.a: type is one of string, number"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        JsonMatch(**parameters)


# Numbers that all have the hash 0, so that a table made of them would be searched from end to end.
COLLIDING = [number * (2**61 - 1) for number in range(18_000)]
HOSTILE = {
    "brackets": "[" * 400_000,
    "objects": '{"a":' * 80_000,
    "fences": "```" * 133_000,
    "tags": "<answer>" * 50_000,
    "wide array": "[" + "1," * 190_000 + "1]",
    "wide object": json.dumps({f"k{number}": 0 for number in range(25_000)}),
    "wide tags": json.dumps({"tags": ["late"] * 45_000}),
    "colliding tags": json.dumps({"tags": COLLIDING}),
    "nested tags": json.dumps({"tags": [[[["late"] * 10] * 10] * 10] * 20}),
    "long integer": '{"priority": ' + "9" * 390_000 + "}",
    "long integers": '{"tags": [' + ",".join(["9" * 4_000] * 90) + "]}",
    "long float": '{"priority": 0.' + "9" * 390_000 + "}",
    "huge exponent": '{"priority": 1e999999999}',
    "tiny exponent": '{"priority": 1e-999999999}',
    "surrogates": '{"category": "' + "\\ud800" * 60_000 + '"}',
    "combining": '{"category": "' + "a\u0301\u0323" * 120_000 + '"}',
    "expanding": '{"category": "' + "\ufdfa" * 300_000 + '"}',
    "spaces": '{"category": "' + " " * 390_000 + '"}',
    "quotes": '"' * 400_000,
    "escapes": '{"category": "' + "\\" * 390_000,
}


@pytest.mark.parametrize("arrays", ["sequence", "set"])
@pytest.mark.parametrize("completion", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_completion_is_expensive_or_earns_much(completion, arrays):
    started = time.thread_time()
    found = reward(completion, TICKET, strings="casefold", arrays=arrays, relative_tolerance=0.01)
    assert time.thread_time() - started < 1.5
    assert found.score < 0.01


def test_a_megabyte_of_right_json_is_compared_quickly():
    reference = {f"key{number}": {"value": number, "tags": ["a", "b"]} for number in range(20_000)}
    text = json.dumps(reference)
    assert len(text) > 900_000
    started = time.thread_time()
    assert reward(text, reference, arrays="set").score == 1.0
    assert time.thread_time() - started < 2.0


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=5)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
references = (
    st.lists(documents, max_size=4) | st.dictionaries(st.text(max_size=3), documents, max_size=4)
).filter(bool)


@settings(max_examples=300)
@given(references, documents, st.sampled_from(["sequence", "set"]), st.sampled_from(["exact", "casefold"]))
def test_any_json_gets_a_share_and_the_same_one_again(reference, answer, arrays, strings):
    first = reward(answer, reference, arrays=arrays, strings=strings)
    assert first == reward(answer, reference, arrays=arrays, strings=strings)
    assert 0.0 <= first.score <= 1.0
    assert reward(reference, reference, arrays=arrays, strings=strings).score == 1.0


@settings(max_examples=300)
@given(
    st.dictionaries(st.text(max_size=3), documents, min_size=1, max_size=4),
    st.dictionaries(st.text(min_size=4, max_size=6), documents, min_size=1, max_size=4),
    st.sampled_from(["sequence", "set"]),
)
def test_dumping_keys_or_items_only_ever_lowers_a_score(reference, dumped, arrays):
    full = reward(reference, reference, arrays=arrays).score
    assert reward({**reference, **dumped}, reference, arrays=arrays).score < full
    listed = list(reference.values())
    assert reward([*listed, *dumped.values()], listed, arrays=arrays).score < full


@settings(max_examples=200)
@given(
    st.text(st.characters(exclude_categories=()), max_size=60)
    | st.text(alphabet='{}[]":,0123e.`\n ', max_size=40)
)
def test_any_text_gets_a_score(text):
    assert 0.0 <= reward(text, TICKET).score <= 1.0
