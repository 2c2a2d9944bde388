"""Code earns the share of the tests it passes, by every kind of test, and nothing by any other way."""

import json
import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import InfrastructureError, Sample, UnscorableError, reward_handler
from lambdas.rewards import code_tests
from lambdas.rewards.code_tests import CodeTests

ADD = "def add(a, b):\n    return a + b\n"
ADDS = [
    "assert add(1, 2) == 3",
    "assert add('a', 'b') == 'ab'",
    "assert add(0.1, 0.2) == 0.3",
    "assert add(2, 2) == 4",
]


@pytest.fixture(scope="module", autouse=True)
def ended():
    """The sandbox that the tests here share."""
    yield
    for sandbox in code_tests._running:
        sandbox.close()


def reward(code, reference, **parameters):
    """Scores a completion that says something around its code, as models do."""
    return whole(f"Here you are:\n```python\n{code}\n```\nThis works.", reference, **parameters)


def whole(completion, reference, **parameters):
    return CodeTests(**parameters).score(Sample("a", (), completion, reference_answer=reference))


def test_each_passed_test_earns_its_share():
    found = reward(ADD, ADDS)
    assert found.score == 0.75
    assert found.metrics == {
        "has_code": 1.0,
        "tests": 4.0,
        "passed_tests": 3.0,
        "late_tests": 0.0,
        "all_passed": 0.0,
    }
    assert found.extracted == ADD.strip()
    assert found.reason == "3 of 4 tests pass; test 3: it does not hold"


def test_without_partial_credit_it_is_all_or_nothing():
    assert reward(ADD, ADDS, partial_credit=False).score == 0.0
    assert reward(ADD, ADDS[:2], partial_credit=False).score == 1.0


# form, completion, whether its code is found
FORMS = [
    ("fenced", f"```python\n{ADD}```", True),
    ("fenced", f"```\n{ADD}```", True),
    ("fenced", f"```python\n{ADD}```\nor\n```python\n{ADD}```", False),
    ("fenced", ADD, False),
    ("fenced", f"```python\n{ADD}", False),
    ("fenced", "```python\n\n```", False),
    ("fenced", "", False),
    ("fenced", "I cannot do that.", False),
    ("last_fenced", f"```\npip install x\n```\n```python\n{ADD}```", True),
    ("last_fenced", ADD, False),
    ("tag", f"<answer>\n{ADD}</answer>", True),
    ("tag", f"<answer>\n{ADD}</answer><answer>\n{ADD}</answer>", False),
    ("whole", ADD, True),
    ("whole", " \n", False),
]


@pytest.mark.parametrize(("form", "completion", "found"), FORMS)
def test_the_code_is_looked_for_where_it_was_declared(form, completion, found):
    result = whole(completion, "assert add(1, 2) == 3", form=form)
    assert result.score == float(found)
    assert result.metrics["has_code"] == float(found)
    assert result.metrics["tests"] == 1.0
    assert (result.extracted is not None) == found


# The same tests in every shape that a dataset may give them.
ONE = {"function": "add", "args": [1, 2], "expected": 3}
SHAPES = [
    "assert add(1, 2) == 3",
    ["assert add(1, 2) == 3"],
    {"tests": ["assert add(1, 2) == 3"]},
    ONE,
    [ONE],
    json.dumps([ONE]),
    json.dumps(ONE),
    json.dumps({"tests": [ONE, "assert add(1, 2) == 3"]}),
    "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n",
]


@pytest.mark.parametrize("reference", SHAPES)
def test_tests_are_read_in_every_declared_shape(reference):
    assert reward(ADD, reference).score == 1.0
    assert reward("def add(a, b): return 4", reference).score == 0.0


def test_the_tests_may_stand_in_a_field_of_the_reference():
    reference = {"solution": "...", "checks": ["assert add(1, 2) == 3"]}
    assert reward(ADD, reference, reference_field="checks").score == 1.0


# reference, what is wrong with it
UNUSABLE = [
    (None, "no reference answer"),
    ([], "0 tests"),
    (["assert add(1, 2) == 3"] * 101, "101 tests"),
    (7, "is int, not a text or an object"),
    ([None], "test 1 of the reference answer is NoneType"),
    (["assert add(1, 2) == 3", "assert add(1,"], "test 2 of the reference answer is not Python"),
    ("add(1, 2)", "asserts nothing"),
    ("assert True", "nothing that a completion defines"),
    ("def check(candidate):\n    assert candidate(1) == 1\n", "nothing that a completion defines"),
    ("assert sum(max(1, 2), 3) == 5", "only built-in names"),
    ("x = 1\nassert x == 1", "nothing that a completion defines"),
    ('[{"stdin": "1"', "not valid JSON"),
    ({"tests": None}, "no field 'tests'"),
    ({"stdin": "1"}, "the keys stdin"),
    ({"stdin": 1, "stdout": "1"}, "stdin is int, not a text"),
    ({"stdin": "1", "stdout": None}, "stdout is NoneType, not a text"),
    ({"function": "add", "args": [1, 2]}, "the keys args, function"),
    (
        {"function": "add", "args": [1, 2], "expected": 3, "note": ""},
        "the keys args, expected, function, note",
    ),
    ({"function": "add(1)", "args": [], "expected": 3}, "function is not a name"),
    ({"function": "add", "args": 1, "expected": 3}, "args is not a list"),
    ({"function": "add", "args": [], "kwargs": [], "expected": 3}, "kwargs not an object"),
    ({"function": "add", "args": [], "expected": float("nan")}, "not finite"),
    ({"stdin": "x" * 1_000_001, "stdout": ""}, "1000000 are allowed"),
    ({"function": "f", "args": [], "expected": json.loads("[" * 70 + "]" * 70)}, "nested more than"),
    ("import no_such_library\nassert add(1, 2) == 3", "cannot import what it needs"),
    ("assert add(1, 2) == 3\nraise SystemExit", "ends the program"),
    ("class Own: pass\nassert add(Own(), 1) == 1", "neither plain data nor a function"),
]


@pytest.mark.parametrize(("reference", "says"), UNUSABLE)
def test_unusable_tests_are_the_row_s_fault(reference, says):
    with pytest.raises(UnscorableError, match=says.replace("(", r"\(")):
        reward(ADD, reference)


# code, function, arguments, what is expected, score
CALLS = [
    ("def f(x): return x", "f", [[1, 2]], [1, 2], 1.0),
    ("def f(x): return tuple(x)", "f", [[1, 2]], [1, 2], 1.0),
    ("def f(x): return [1, 2, 3]", "f", [1], [1, 2], 0.0),
    ("def f(x): return {1: 'a', 'b': None}", "f", [1], {"1": "a", "b": None}, 1.0),
    ("def f(x): return {1: 'a', '1': 'a'}", "f", [1], {"1": "a"}, 0.0),
    ("def f(x): return {(1, 2): 'a'}", "f", [1], {"[1, 2]": "a"}, 0.0),
    ("def f(x): return True", "f", [1], True, 1.0),
    ("def f(x): return 1", "f", [1], True, 0.0),
    ("def f(x): return True", "f", [1], 1, 0.0),
    ("def f(x): return '1'", "f", [1], 1, 0.0),
    ("def f(x): return 1.0", "f", [1], 1, 1.0),
    ("def f(x): return 0.1 + 0.2", "f", [1], 0.3, 1.0),
    ("def f(x): return 0.31", "f", [1], 0.3, 0.0),
    ("def f(x): return float('nan')", "f", [1], 0.3, 0.0),
    ("def f(x): return float('inf')", "f", [1], 1e308, 0.0),
    ("def f(x): return 10 ** 400", "f", [1], 0.5, 0.0),
    ("def f(x): return 10 ** 30", "f", [1], 10**30, 1.0),
    ("def f(x): pass", "f", [1], None, 1.0),
    ("def f(x): return x", "f", ["\ud800é"], "\ud800é", 1.0),
    ("def f(x): return {1, 2}", "f", [1], [1, 2], 0.0),
    ("def f(x): return (i for i in [1, 2])", "f", [1], [1, 2], 0.0),
    ("class Solution:\n  def f(self, x): return x + 1", "Solution().f", [1], 2, 1.0),
    ("class A:\n  class B:\n    @staticmethod\n    def f(x): return x", "A.B.f", [1], 1, 1.0),
    ("def g(x): return x", "f", [1], 1, 0.0),
    ("f = 3", "f", [1], 3, 0.0),
    ("def f(x): raise ValueError('no')", "f", [1], 1, 0.0),
    ("def f(x): return x", "f", [1, 2], 1, 0.0),
    ("1 / 0\ndef f(x): return x", "f", [1], 1, 0.0),
    ("if __name__ == '__main__': 1 / 0\ndef f(x): return x", "f", [1], 1, 1.0),
    ("from statistics import mean\ndef f(x): return mean(x)", "f", [[1, 3]], 2, 1.0),
    (
        "import math, itertools, re, json, heapq, bisect, collections\ndef f(x): return math.gcd(*x)",
        "f",
        [[4, 6]],
        2,
        1.0,
    ),
    ("def f(x):\n  import functools\n  return functools.reduce(int.__add__, x)", "f", [[1, 2]], 3, 1.0),
]


@pytest.mark.parametrize(("code", "function", "args", "expected", "score"), CALLS)
def test_a_function_has_to_return_what_is_expected(code, function, args, expected, score):
    found = reward(code, {"function": function, "args": args, "expected": expected})
    assert found.score == score, found.reason


def test_arguments_may_have_names():
    test = {"function": "f", "args": [1], "kwargs": {"b": 2}, "expected": [1, 2]}
    assert reward("def f(a, *, b): return a, b", test).score == 1.0


# code, standard input, what has to be printed, rule, score
PROGRAMS = [
    ("print(sum(map(int, input().split())))", "1 2\n", "3\n", "exact", 1.0),
    ("print(3, end='')", "", "3\n", "exact", 0.0),
    ("print(3, end='')", "", "3\n", "lines", 1.0),
    ("print('a  \\nb\\n\\n')", "", "a\nb", "lines", 1.0),
    ("print('a\\n\\nb')", "", "a\nb", "lines", 0.0),
    ("print(' a')", "", "a", "lines", 0.0),
    ("print('a\\n\\n  b')", "", "a b", "tokens", 1.0),
    ("print(1 / 3)", "", "0.33333333333", "tokens", 1.0),
    ("print(0.34)", "", "0.33", "tokens", 0.0),
    ("print(3.0)", "", "3", "tokens", 0.0),
    ("import sys\nprint(sys.stdin.read()[::-1])", "abc", "cba", "lines", 1.0),
    ("import sys\nfor line in sys.stdin: print(line.strip().upper())", "a\nb\n", "A\nB", "lines", 1.0),
    ("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())", "é\n", "é", "lines", 1.0),
    ("print(open(0).read())", "abc", "abc", "lines", 1.0),
    ("if __name__ == '__main__':\n  print(1)", "", "1", "lines", 1.0),
    ("import sys\nprint(1)\nsys.exit()", "", "1", "lines", 1.0),
    ("import sys\nprint(1)\nsys.exit(1)", "", "1", "lines", 0.0),
    ("print(1)\n1 / 0", "", "1", "lines", 0.0),
    ("print(input(), input())", "a\n", "a", "lines", 0.0),
    ("import sys\nprint(1, file=sys.stderr)", "", "1", "lines", 0.0),
    (
        "import sys, threading\nsys.setrecursionlimit(10**6)\ndef main(): print(1)\n"
        "t = threading.Thread(target=main)\nt.start()\nt.join()",
        "",
        "1",
        "lines",
        1.0,
    ),
]


@pytest.mark.parametrize(("code", "stdin", "stdout", "rule", "score"), PROGRAMS)
def test_a_program_has_to_print_what_is_expected(code, stdin, stdout, rule, score):
    found = reward(code, {"stdin": stdin, "stdout": stdout}, stdout=rule)
    assert found.score == score, found.reason


STACK = """
class Empty(LookupError):
    pass

class Unlikely(Empty):
    pass

class Stack:
    limit = 3
    def __init__(self, items=()):
        self.items = list(items)
    def push(self, item):
        self.items.append(item)
        return self
    def pop(self):
        if not self.items:
            raise Unlikely("nothing there")
        return self.items.pop()
    def __len__(self):
        return len(self.items)
    def __iter__(self):
        return iter(self.items)
    def __getitem__(self, index):
        return self.items[index]
    def __add__(self, other):
        return Stack(self.items + other.items)
    def __eq__(self, other):
        return self.items == other.items
    def __repr__(self):
        return f"Stack({self.items})"
    def __enter__(self):
        return self
    def __exit__(self, *raised):
        self.items.clear()

class Bag(list):
    def total(self):
        return sum(self)

def mapped(function, items):
    return [function(item) for item in items]

def grow(items, table):
    items.append(4)
    table["x"] = 1

def count(start):
    while True:
        yield start
        start += 1
"""

# A test's Python, and whether it holds for that code.
ASSERTIONS = [
    ("s = Stack()\ns.push(1).push(2)\nassert len(s) == 2\nassert s.pop() == 2\nassert s.items == [1]", True),
    ("assert list(Stack([1, 2])) == [1, 2]", True),
    ("assert Stack([1, 2])[1] == 2 and Stack([1, 2])[-2:] == [1, 2]", True),
    ("assert repr(Stack([1])) == 'Stack([1])' and f'{Stack()}' == 'Stack([])'", True),
    ("assert (Stack([1]) + Stack([2])).items == [1, 2]", True),
    ("assert Stack.limit == 3\nStack.limit = 4\nassert Stack().limit == 4", True),
    ("s = Stack([1])\nwith s as t:\n    assert t is s\nassert len(s) == 0", True),
    (
        "try:\n    Stack().pop()\nexcept Empty as error:\n    assert str(error) == 'nothing there'\n"
        "else:\n    assert False",
        True,
    ),
    ("try:\n    Stack().pop()\nexcept KeyError:\n    pass\nassert Stack", False),
    ("b = Bag([1, 2])\nb.append(3)\nassert b.total() == 6", True),
    ("assert mapped(lambda item: item * 2, [1, 2]) == [2, 4]", True),
    ("assert mapped(str, (1, 2)) == ['1', '2'] and mapped(len, ['a']) == [1]", True),
    (
        "def bad(item): raise KeyError(item)\ntry:\n    mapped(bad, [1])\nexcept KeyError:\n    pass\n"
        "else:\n    assert False",
        True,
    ),
    ("a, t = [3], {}\ngrow(a, t)\nassert a == [3, 4] and t == {'x': 1}", True),
    ("from itertools import islice\nassert list(islice(count(3), 3)) == [3, 4, 5]", True),
    ("import math\nassert math.isclose(mapped(float, [1])[0], 1.0)", True),
    ("assert mapped(lambda s: s.pop(), [Stack([7])]) == [7]", True),
    ("assert len(Stack([1])) == 2, 'one is missing'", False),
    ("assert missing(1) == 1", False),
    # Whether its own objects are equal is not for a completion to say, unless it is allowed to.
    ("assert Stack([1]) == Stack([1])", None),
    ("assert Stack([1]) in [Stack([1])]", None),
    ("assert isinstance(Stack(), Stack)", None),
]


@pytest.mark.parametrize(("source", "holds"), ASSERTIONS)
def test_assertions_may_use_whatever_the_code_defines(source, holds):
    found = reward(STACK, source)
    assert found.score == float(holds is True), found.reason
    if holds is None:
        assert "which could say anything" in found.reason
        assert reward(STACK, source, own_operators=True).score == 1.0


def test_a_function_may_be_named_like_a_built_in_one():
    assert reward("def sum(a, b): return a + b", "assert sum(10, 15) == 25").score == 1.0
    # But what a test judges with stays its own.
    cheat = "def all(_): return True\ndef add(a, b): return 0"
    assert reward(cheat, "assert all(add(i, 1) == i + 1 for i in range(3))").score == 0.0


def test_code_that_is_late_fails_and_is_counted():
    found = reward(
        "def add(a, b):\n    while a > 1: pass\n    return a + b",
        [
            {"function": "add", "args": [1, 2], "expected": 3},
            {"function": "add", "args": [2, 2], "expected": 4},
        ],
        seconds_per_test=0.1,
        seconds_per_completion=0.5,
    )
    assert found.score == 0.5
    assert found.metrics["late_tests"] == 1.0
    assert "took too much processor time" in found.reason


@pytest.mark.parametrize(
    "code",
    [
        "def add(a, b): return",
        "def add(a, b) return a + b",
        "\x00",
        "\ud800",
        "(" * 10_000,
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "import no_such_library",
        "while True: print('3')",
        "class Three(int):\n  def __eq__(self, other): return True\ndef add(a, b): return Three(4)",
        "class Three:\n  def __eq__(self, other): return True\ndef add(a, b): return Three()",
    ],
)
def test_malformed_and_hostile_code_earns_nothing(code):
    tests = ["assert add(1, 2) == 3", ONE, {"stdin": "1 2", "stdout": "3"}]
    found = reward(code, tests, seconds_per_test=0.2, seconds_per_completion=0.2)
    assert found.score == 0.0
    assert found.reason.startswith("0 of 3 tests pass; test 1: ")


@settings(max_examples=25)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_scored_the_same_way_twice(text):
    first, second = (reward(text, "assert add(1, 2) == 3") for _ in range(2))
    assert first == second
    assert first.score == 0.0


def test_a_sandbox_that_is_gone_is_replaced():
    assert reward(ADD, ADDS[:2]).score == 1.0
    os.kill(code_tests._running[0]._warden.pid, signal.SIGKILL)
    assert reward(ADD, ADDS[:2]).score == 1.0


def test_a_sandbox_that_cannot_run_is_infrastructure_trouble(monkeypatch):
    for sandbox in code_tests._running:
        sandbox.close()
    monkeypatch.setattr("lambdas.sandbox.sys.executable", "/nowhere/python")
    with pytest.raises(InfrastructureError, match="cannot be started"):
        reward(ADD, ADDS)


def test_a_handler_works_off_the_main_thread():
    import threading

    event = [
        {
            "id": "1",
            "messages": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": f"```\n{ADD}```"},
            ],
            "metadata": {"reference_answer": {"text": "assert add(1, 2) == 3"}},
        }
    ]
    answers = []
    handler = reward_handler(CodeTests().score)
    thread = threading.Thread(target=lambda: answers.append(handler(event, None)))
    thread.start()
    thread.join()
    assert answers[0][0]["aggregate_reward_score"] == 1.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"form": "fence"}, "form is one of"),
        ({"stdout": "words"}, "stdout is one of"),
        ({"tag": "<a>"}, "tag is a name"),
        ({"partial_credit": "yes"}, "partial_credit is true or false"),
        ({"own_operators": 2}, "own_operators is true or false"),
        ({"absolute_tolerance": -1}, "absolute_tolerance is a number of at least 0"),
        ({"relative_tolerance": float("nan")}, "relative_tolerance is a number of 0 to 1"),
        ({"seconds_per_test": 0}, "seconds_per_test is a number of 0.05 to 60"),
        ({"seconds_per_completion": 0.5}, "seconds_per_completion is a number of seconds_per_test to 300"),
        ({"test_memory_mb": 1}, "test_memory_mb is a number of 64 to 8192"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_is_allowed(parameters, says):
    with pytest.raises(ValueError, match=says):
        CodeTests(**parameters)
