"""The right calls with the right arguments, and nothing for guessing many."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError
from lambdas.rewards.tool_call import ToolCall


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def tag(*calls):
    return "\n".join(f"<tool_call>{json.dumps(each)}</tool_call>" for each in calls)


def openai(name, arguments):
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def reward(completion, reference, tool_calls=(), **parameters):
    sample = Sample("a", (), completion, tool_calls=tuple(tool_calls), reference_answer=reference)
    return ToolCall(**parameters).score(sample)


BERN = call("weather", city="Bern", days=3)
CHUR = call("weather", city="Chur", days=3)
MAIL = call("mail", to="ada@example.com", subject="Rain")

# form, completion, tool calls of the message, score
FORMS = [
    ("any", tag(BERN), (), 1.0),
    ("any", f"Let me look.\n{tag(BERN)}\nOne moment.", (), 1.0),
    ("any", json.dumps(BERN), (), 1.0),
    ("any", f"So:\n```json\n{json.dumps(BERN)}\n```", (), 1.0),
    ("any", "", (openai("weather", '{"city": "Bern", "days": 3}'),), 1.0),
    ("any", "", ({"name": "weather", "arguments": {"city": "Bern", "days": 3}},), 1.0),
    ("any", "", ({"toolUse": {"name": "weather", "input": {"city": "Bern", "days": 3}}},), 1.0),
    ("any", json.dumps({"name": "weather", "parameters": {"city": "Bern", "days": 3}}), (), 1.0),
    ("any", json.dumps({"tool_calls": [openai("weather", '{"days": 3, "city": "Bern"}')]}), (), 1.0),
    ("any", "weather(city='Bern', days=3)", (), 0.0),
    ("any", f"I would call {json.dumps(BERN)}", (), 0.0),
    ("any", f"<tool_call>{json.dumps(BERN)}", (), 0.0),
    ("any", "", (), 0.0),
    # Beside calls, JSON is not one more.
    ("any", f"```json\n{json.dumps(CHUR)}\n```\n{tag(BERN)}", (), 1.0),
    # Said twice is called twice.
    ("any", tag(BERN), (openai("weather", '{"city": "Bern", "days": 3}'),), 0.5),
    ("any", tag(BERN, BERN), (), 0.5),
    ("messages", tag(BERN), (), 0.0),
    ("messages", tag(CHUR), (openai("weather", '{"city": "Bern", "days": 3}'),), 1.0),
    ("tag", json.dumps(BERN), (), 0.0),
    ("tag", tag(BERN), (openai("weather", '{"city": "Chur"}'),), 1.0),
    ("json", tag(BERN), (), 0.0),
    ("json", json.dumps([BERN]), (), 1.0),
    ("json", f"```\n{json.dumps(BERN)}\n```", (), 1.0),
]


@pytest.mark.parametrize(("form", "completion", "tool_calls", "score"), FORMS)
def test_calls_are_read_where_they_were_declared(form, completion, tool_calls, score):
    assert reward(completion, [BERN], tool_calls, form=form).score == score


def test_the_tag_has_the_name_that_was_set():
    text = f"<function>{json.dumps(BERN)}</function>"
    assert reward(text, [BERN], form="tag", tag="function").score == 1.0
    assert reward(text, [BERN], form="tag").score == 0.0


# made, expected, score: name_weight is 0.25
SHARES = [
    ([BERN], [BERN], 1.0),
    # Objects have no order.
    ([call("weather", days=3, city="Bern")], [BERN], 1.0),
    ([call("weather", city="Bern", days=3.0)], [BERN], 1.0),
    # One of two arguments right: each side has two, one is equal, so a third.
    ([CHUR], [BERN], 0.25 + 0.75 / 3),
    ([call("weather", city="Bern")], [BERN], 0.25 + 0.75 / 2),
    ([call("weather", city="Bern", days=3, hour=9)], [BERN], 0.25 + 0.75 * 2 / 3),
    ([call("weather")], [BERN], 0.25),
    ([call("weather", town="Bern")], [BERN], 0.25),
    # A wrong name earns nothing, whatever its arguments, and is a call too many.
    ([call("forecast", city="Bern", days=3)], [BERN], 0.0),
    ([call("Weather", city="Bern", days=3)], [BERN], 0.0),
    # Types are JSON's.
    ([call("weather", city="Bern", days="3")], [BERN], 0.25 + 0.75 / 3),
    ([call("weather", city="bern", days=3)], [BERN], 0.25 + 0.75 / 3),
    ([call("f", a=True)], [call("f", a=1)], 0.25),
    ([call("f", a=None)], [call("f", a=0)], 0.25),
    ([call("f", a=None)], [call("f")], 0.25),
    ([call("f", a=[1, 2])], [call("f", a=[2, 1])], 0.25),
    ([call("f", a={"b": 1, "c": [2]})], [call("f", a={"c": [2], "b": 1})], 1.0),
    ([call("f", a={"b": 1, "c": 2})], [call("f", a={"b": 1})], 0.25),
    ([call("f")], [call("f")], 1.0),
    # Parallel calls, in any order, each paired with the one that suits it best.
    ([BERN, CHUR, MAIL], [MAIL, BERN, CHUR], 1.0),
    ([CHUR], [BERN, CHUR], 0.5),
    ([BERN, BERN], [BERN, CHUR], (1 + 0.5) / 2),
    ([CHUR, call("weather", city="Bern")], [BERN, CHUR], (1 + 0.625) / 2),
    ([], [BERN], 0.0),
    # What is too much costs as much as what is expected.
    ([BERN, MAIL], [BERN], 1 / 2),
    ([BERN, CHUR], [BERN], 1 / 2),
    ([BERN, MAIL, call("x"), call("y")], [BERN], 1 / 4),
]


@pytest.mark.parametrize(("made", "expected", "score"), SHARES)
def test_names_and_arguments_earn_their_share(made, expected, score):
    assert reward(tag(*made), expected).score == pytest.approx(score)


@pytest.mark.parametrize(
    ("made", "expected", "score"),
    [
        ([BERN, MAIL], [BERN, MAIL], 1.0),
        ([MAIL, BERN], [BERN, MAIL], 0.5),
        ([MAIL, BERN, CHUR], [BERN, CHUR, MAIL], 2 / 3),
        ([BERN], [BERN, MAIL], 0.5),
        ([BERN, MAIL, CHUR], [BERN, MAIL], 2 / 3),
    ],
)
def test_the_order_counts_where_it_was_asked_for(made, expected, score):
    assert reward(tag(*made), expected, ordered=True).score == pytest.approx(score)


@pytest.mark.parametrize(
    ("made", "expected", "parameters", "score"),
    [
        (CHUR, BERN, {"partial_credit": False}, 0.0),
        (BERN, BERN, {"partial_credit": False}, 1.0),
        (call("weather"), BERN, {"name_weight": 0}, 0.0),
        (call("weather"), BERN, {"name_weight": 1}, 1.0),
        (call("mail", to="ada@example.com", subject="x"), MAIL, {"ignored_arguments": ["subject"]}, 1.0),
        (call("mail", to="ada@example.com"), MAIL, {"ignored_arguments": ["subject"]}, 1.0),
        (call("mail", to="x", subject="Rain"), MAIL, {"ignored_arguments": ["subject"]}, 0.25),
        (call("weather", city=" BERN ", days=3), BERN, {"strings": "casefold"}, 1.0),
        (call("weather", city="Ber n", days=3), BERN, {"strings": "casefold"}, 0.5),
        (call("WEATHER", city="Bern", days=3), BERN, {"strings": "casefold"}, 0.0),
        (call("weather", city="Bern", days="3"), BERN, {"numbers_as_text": True}, 1.0),
        (call("f", a="True"), call("f", a=True), {"numbers_as_text": True}, 1.0),
        (call("f", a="NaN"), call("f", a="nan"), {"numbers_as_text": True}, 0.25),
        (call("f", a=1.11), call("f", a=1.1), {"absolute_tolerance": 0.01}, 1.0),
        (call("f", a=1.1101), call("f", a=1.1), {"absolute_tolerance": 0.01}, 0.25),
        (call("f", a=101), call("f", a=100), {"relative_tolerance": 0.01}, 1.0),
        (call("f", a=10**400), call("f", a=1), {"absolute_tolerance": 9}, 0.25),
        (call("f", a=True), call("f", a=1), {"absolute_tolerance": 9}, 0.25),
    ],
)
def test_what_is_allowed_to_differ_is_a_setting(made, expected, parameters, score):
    assert reward(tag(made), [expected], **parameters).score == pytest.approx(score)


def test_a_dearer_call_too_many_costs_more():
    assert reward(tag(BERN, MAIL), [BERN], extra_call_penalty=3).score == 0.25


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>weather</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>{}</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": "weather", "name": "weather"}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "city=Bern"}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {}, "input": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"a": ' + "[" * 70 + "]" * 70 + "}}</tool_call>",
    ],
)
def test_a_call_that_cannot_be_read_is_one_too_many(text):
    alone = reward(text, [BERN])
    assert (alone.score, alone.metrics["malformed_calls"]) == (0.0, 1.0)
    assert reward(text + tag(BERN), [BERN]).score == 0.5


@pytest.mark.parametrize(
    ("completion", "tool_calls", "score"),
    [
        ("It is sunny in Bern.", (), 1.0),
        # An answer may be data; only what looks like a call is one.
        ('{"city": "Bern", "name": "weather"}', (), 1.0),
        ("[1, 2]", (), 1.0),
        ("", (), 0.0),
        (" \n", (), 0.0),
        (tag(BERN), (), 0.0),
        ("Sunny.", (openai("weather", "{}"),), 0.0),
        ("<tool_call>oops</tool_call>", (), 0.0),
        ("<tool_call>", (), 0.0),
    ],
)
def test_where_no_call_is_expected_a_text_without_one_is_right(completion, tool_calls, score):
    for reference in ([], "[]", {"tool_calls": []}):
        assert reward(completion, reference, tool_calls).score == score


@pytest.mark.parametrize(
    ("reference", "parameters"),
    [
        (BERN, {}),
        ([BERN], {}),
        ({"tool_calls": [BERN]}, {}),
        ({"tool_calls": [openai("weather", json.dumps(BERN["arguments"]))]}, {}),
        (json.dumps([BERN]), {}),
        (json.dumps(BERN), {}),
        ({"expected": [BERN], "note": "x"}, {"reference_field": "expected"}),
        ([{"name": "weather", "input": BERN["arguments"]}], {}),
    ],
)
def test_references_of_every_shape_earn_the_maximum(reference, parameters):
    assert reward(tag(BERN), reference, **parameters).score == 1.0
    assert reward(tag(CHUR), reference, **parameters).score == 0.5


@pytest.mark.parametrize(
    ("reference", "parameters", "says"),
    [
        (None, {}, "no reference answer"),
        (7, {}, "is int, not a list of tool calls"),
        ("weather", {}, "not valid JSON"),
        ('{"name": "a", "name": "a"}', {}, "appears twice"),
        ("7", {}, "is int, not a list"),
        ([BERN, 7], {}, "call 2 is no object with a name"),
        ([{"arguments": {}}], {}, "call 1 is no object"),
        ({}, {}, "call 1 is no object"),
        ([BERN] * 33, {}, "33 calls; 32 are allowed"),
        ({"a": [BERN]}, {"reference_field": "b"}, "no field 'b'"),
        ([BERN], {"reference_field": "b"}, "no field 'b'"),
    ],
)
def test_a_row_without_usable_calls_cannot_be_scored(reference, parameters, says):
    with pytest.raises(UnscorableError, match=says):
        reward(tag(BERN), reference, **parameters)


@pytest.mark.parametrize(
    ("completion", "reference", "reason"),
    [
        (tag(BERN), [BERN], "every call is right"),
        (tag(CHUR), [BERN], "not every argument is right"),
        (tag(MAIL), [BERN], "missing: weather; 1 calls too many"),
        (tag(BERN, MAIL), [BERN], "1 calls too many"),
        ("", [BERN], "no call is made"),
        (tag(BERN), [], "no call is expected, and 1 are made"),
        ("Sunny.", [], "no call is expected, and there is none"),
        ("", [], "no call is expected, and the completion is empty"),
    ],
)
def test_every_score_says_why(completion, reference, reason):
    found = reward(completion, reference)
    assert found.reason == reason
    assert found.metrics["exact_match"] == float(found.score == 1.0)


def test_what_was_called_is_shown():
    assert reward(tag(BERN), [BERN]).extracted == 'weather {"city": "Bern", "days": 3}'
    assert reward(tag(*[BERN] * 5), [BERN]).extracted.endswith(
        '; weather {"city": "Bern", "days": 3} and 2 more'
    )


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"form": "text"}, "form is one of any, messages, tag, json"),
        ({"strings": "lower"}, "strings is one of exact, casefold"),
        ({"tag": "<t>"}, "tag is a name such as tool_call"),
        ({"ordered": "yes"}, "ordered is true or false"),
        ({"numbers_as_text": None}, "numbers_as_text is true or false"),
        ({"name_weight": 1.5}, "name_weight is a number of 0 to 1"),
        ({"extra_call_penalty": 0.5}, "listing guesses would pay"),
        ({"absolute_tolerance": -1}, "absolute_tolerance is a number of at least 0"),
        ({"relative_tolerance": float("nan")}, "relative_tolerance"),
        ({"ignored_arguments": "subject"}, "ignored_arguments is a list of names"),
        ({"ignored_arguments": [1]}, "ignored_arguments is a list of names"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        ToolCall(**parameters)


HOSTILE = {
    "tags": "<tool_call>" * 36_000,
    "calls": tag(*[call("weather")] * 10_000),
    "list of calls": json.dumps([call("weather")] * 10_000),
    "tag with a list": f"<tool_call>{json.dumps([call('weather')] * 10_000)}</tool_call>",
    "brackets": "[" * 400_000,
    "named brackets": '{"name":' * 50_000,
    "fences": "```" * 133_000,
    "fenced calls": f"```\n{json.dumps(call('weather'))}\n```\n" * 7_000,
    "wide": tag(call("weather", **{f"key{number}": number for number in range(25_000)})),
    "long array": tag(call("weather", city=list(range(60_000)))),
    "long integer": '<tool_call>{"name": "weather", "arguments": {"days": '
    + "9" * 390_000
    + "}}</tool_call>",
    "exponent": '<tool_call>{"name": "weather", "arguments": {"days": 1e999999999}}</tool_call>',
    "text in text": tag({"name": "weather", "arguments": json.dumps({"city": "\\" * 90_000})}),
    "surrogates": tag(call("weather", city="\ud800" * 60_000)),
    "expanding": tag({"name": "weather", "arguments": {"city": "\u0390" * 60_000}}),
    "wrappers": '{"function":' * 30_000,
}


@pytest.mark.parametrize("completion", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_completion_is_expensive_or_earns_more_than_a_name(completion):
    for parameters in ({}, {"ordered": True, "strings": "casefold", "numbers_as_text": True}):
        started = time.thread_time()
        found = reward(completion, [BERN] * 16 + [MAIL] * 16, **parameters, absolute_tolerance=0.1)
        assert time.thread_time() - started < 1.0
        assert found.score <= 0.25 / 32 + 1e-9


def test_the_most_calls_are_matched_quickly():
    expected = [call("f", **{f"k{n}": n for n in range(i, i + 8)}) for i in range(32)]
    made = [call("f", **{f"k{n}": n for n in range(i, i + 8)}) for i in reversed(range(64))]
    started = time.thread_time()
    assert reward(tag(*made), expected).score == pytest.approx(32 / 64)
    assert time.thread_time() - started < 0.5
    assert reward(tag(*made, made[0]), expected).score == 0.0


names = st.sampled_from(["f", "g"])
values = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.text(max_size=2)
arguments = st.dictionaries(st.sampled_from("abc"), values | st.lists(values, max_size=2), max_size=3)
calls = st.builds(lambda name, given: {"name": name, "arguments": given}, names, arguments)


@settings(max_examples=200)
@given(st.lists(calls, min_size=1, max_size=4), st.lists(calls, max_size=4), st.booleans())
def test_any_calls_get_a_share_and_more_calls_than_the_right_ones_cost(expected, made, ordered):
    full = reward(tag(*expected), expected, ordered=ordered)
    assert full.score == 1.0
    first = reward(tag(*made), expected, ordered=ordered)
    assert first == reward(tag(*made), expected, ordered=ordered)
    assert 0.0 <= first.score <= 1.0
    more = [*expected, *made, call("h")]
    assert reward(tag(*more), expected, ordered=ordered).score <= len(expected) / len(more) + 1e-9


@settings(max_examples=200)
@given(st.lists(calls, min_size=2, max_size=6))
def test_a_list_of_guesses_earns_at_most_what_the_best_one_would(guesses):
    best = max(reward(tag(guess), [guesses[0]]).score for guess in guesses)
    assert reward(tag(*guesses), [guesses[0]]).score <= best / len(guesses) + 1e-9


@settings(max_examples=200)
@given(
    st.text(st.characters(exclude_categories=()), max_size=60)
    | st.text(alphabet='{}[]":,<>/`\n name1', max_size=40),
    st.sampled_from(["{}", "<tool_call>{}</tool_call>", "```\n{}\n```", '{{"name": "{}"}}']),
)
def test_any_text_gets_a_score(text, frame):
    assert 0.0 <= reward(frame.format(text), [BERN]).score <= 1.0
