"""What a completion declares, found in time linear in its length."""

import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.completion import DEEPEST, boxed, fenced, is_deep, json_text, strict_json, tagged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (r"so \boxed{72}.", ["72"]),
        (r"\boxed{\frac{1}{2}} and \boxed{3}", [r"\frac{1}{2}", "3"]),
        (r"\boxed{\boxed{72}}", [r"\boxed{72}", "72"]),
        (r"\boxed{never closed", []),
        (r"\boxed{lost \boxed{72}", ["72"]),
        (r"\boxed{" + "9" * 21 + "}", []),
        (r"\boxed{" + "9" * 20 + "}", ["9" * 20]),
    ],
)
def test_boxed(text, expected):
    assert boxed(text, longest=20, most=5) == expected


def test_boxed_looks_at_one_more_than_the_most():
    assert len(boxed(r"\boxed{1}" * 50, longest=20, most=5)) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no fence", []),
        ('before\n```json\n{"a": 1}\n```\nafter', ['{"a": 1}\n']),
        ('  ```\n{"a": 1}\n  ```', ['{"a": 1}\n']),
        ('```json\n{"a": "```"}\n```', ['{"a": "```"}\n']),
        ("```\n1\n```\n```\n2\n```", ["1\n", "2\n"]),
        ("say ```1```", []),
        ("```json\n{}", []),
        ("```\n1\n```\n```\n2", []),
    ],
)
def test_fenced(text, expected):
    assert fenced(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' {"a": "```"}', ' {"a": "```"}'),
        ("[1]", "[1]"),
        ("so:\n```\n[1]\n```", "[1]\n"),
        ("so: [1]", None),
        ("```\n[1]\n```\n```\n[2]\n```", None),
        ("", None),
    ],
)
def test_json_text(text, expected):
    assert json_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("<answer>72</answer>", ["72"]),
        ("<ANSWER>72</Answer>", ["72"]),
        ("<answer>71</answer> no, <answer>72</answer>", ["71", "72"]),
        ("<answer><answer>72</answer></answer>", ["72"]),
        ("<answer>72", []),
        ("72</answer>", []),
        ("<answers>72</answers>", []),
    ],
)
def test_tagged(text, expected):
    assert tagged(text, "answer") == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("{'a': 1}", "double quotes"),
        ('{"a": 1} and more', "Extra data"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": {"b": 1, "b": 1}}', "twice"),
        ("[NaN]", "NaN is not"),
        ("[-Infinity]", "Infinity is not"),
        ("[1e999]", "too large"),
        ("[" * 65 + "]" * 65, "64 levels"),
        ("[" * 100_000, "nested too deep|Expecting value"),
        ("9" * 5_000, "digits|limit"),
    ],
)
def test_strict_json_refuses(text, says):
    with pytest.raises(ValueError, match=says):
        strict_json(text)


def test_strict_json_reads_what_is_left():
    text = json.dumps({"a": [1, -2.5, "x", None, True], "b": {}})
    assert strict_json(text) == json.loads(text)
    assert strict_json('{"a": 1.50}', number=str) == {"a": "1.50"}


@settings(max_examples=50)
@given(st.integers(1, 2 * DEEPEST))
def test_depth_is_told_exactly(depth):
    value = []
    for level in range(depth - 1):
        value = [value] if level % 2 else {"a": value}
    assert is_deep(value) == (depth > DEEPEST)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 60_000,
        "<answer>" * 50_000,
        "```" * 130_000,
        "```\n" * 100_000,
        "```" + " " * 400_000,
        " " * 400_000,
        (" " * 1_000 + "\n") * 400,
        "[" * 400_000,
        "{" * 400_000,
        '{"a":' * 80_000,
        "[" + "1," * 199_000 + "1]",
        '"' + "\\u0000" * 66_000 + '"',
        "9" * 400_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_no_text_costs_much(text):
    started = time.thread_time()
    boxed(text, longest=200, most=64)
    fenced(text)
    tagged(text, "answer")
    json_text(text)
    with contextlib.suppress(ValueError):
        strict_json(text)
    assert time.thread_time() - started < 1.0
