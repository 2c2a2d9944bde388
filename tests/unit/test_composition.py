"""Components, weights, gates, formulas and ranges make one reward."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.composition import CompositionError, Formula, compose, reward_range
from lambdas.contract import Reward, Sample, UnscorableError, score_samples

ANSWER = {"function": "numeric_answer", "form": "hashes"}
TAGGED = {"function": "numeric_answer", "form": "tag"}


def sample(completion, reference=72):
    return Sample("a", (), completion, reference_answer=reference)


def components(**tables):
    return {"components": tables}


@pytest.fixture
def own(tmp_path):
    """Writes a team's own reward.py and returns its path."""

    def write(code):
        path = tmp_path / "reward.py"
        path.write_text("from lambdas.contract import Reward, Sample, UnscorableError\n" + code)
        return path

    return write


def test_one_component_is_the_reward_itself():
    reward = compose(components(answer=ANSWER))(sample("#### 72"))
    assert reward == Reward(
        1.0,
        components={"answer": 1.0},
        metrics={"answer_answered": 1.0, "answer_several_answers": 0.0},
        extracted="'72'",
        reason="'72' is 72",
    )


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("#### 72 \n<answer>72</answer>", 1.0),
        ("#### 72", 0.75),
        ("<answer>72</answer>", 0.25),
        ("", 0.0),
    ],
)
def test_weights_make_a_mean(completion, expected):
    score = compose(components(hashes={**ANSWER, "weight": 3}, tag={**TAGGED, "weight": 1}))
    assert score(sample(completion)).score == expected


def test_a_component_of_weight_0_is_watched_only():
    reward = compose(components(answer=ANSWER, tag={**TAGGED, "weight": 0}))(sample("#### 72"))
    assert reward.score == 1.0
    assert set(reward.components) == {"answer"}
    assert reward.metrics["tag"] == 0.0


def test_extracted_and_reason_say_whose_they_are():
    reward = compose(components(answer=ANSWER, tag=TAGGED))(sample("#### 71\n<answer>72</answer>"))
    assert reward.extracted == "answer: '71'; tag: '72'"
    assert reward.reason == "answer: '71' is not 72; tag: '72' is 72"


@pytest.mark.parametrize(
    ("completion", "score", "gated"),
    [("#### 72\n<answer>72</answer>", 1.0, 0.0), ("#### 72", 0.3, 1.0), ("<answer>72</answer>", 0.0, 0.0)],
)
def test_a_failed_gate_caps_the_total(completion, score, gated):
    tag = {**TAGGED, "weight": 0, "gate": {"below": 1.0, "cap": 0.3}}
    reward = compose(components(answer=ANSWER, tag=tag))(sample(completion))
    assert (reward.score, reward.metrics["gated"]) == (score, gated)


def test_a_formula_decides_what_is_optimized():
    table = {**components(answer=ANSWER, tag=TAGGED, other=TAGGED), "formula": "0.8 * answer + 0.2 * tag"}
    reward = compose(table)(sample("#### 72"))
    assert reward.score == pytest.approx(0.8)
    assert set(reward.components) == {"answer", "tag"}
    assert reward.metrics["other"] == 0.0


def test_the_total_is_clipped_to_the_range():
    table = {**components(answer=ANSWER), "formula": "4 * answer - 2", "range": [-1, 1]}
    assert compose(table)(sample("#### 72")).score == 1.0
    assert compose(table)(sample("#### 71")).score == -1.0
    assert reward_range(table) == (-1.0, 1.0)
    assert reward_range({}) == (0.0, 1.0)


def test_a_bad_row_is_told_with_the_component_it_is_bad_for():
    with pytest.raises(UnscorableError, match=r"^the row has no reference answer$"):
        compose(components(answer=ANSWER))(sample("#### 72", None))
    with pytest.raises(UnscorableError, match=r"^answer: the row has no reference answer$"):
        compose(components(answer=ANSWER, tag={**TAGGED, "weight": 0}))(sample("#### 72", None))


def test_a_watched_component_cannot_make_a_row_unscorable(own):
    path = own("def score(sample): return Reward(0.5)\n")
    watched = {**ANSWER, "weight": 0}
    table = components(style={"function": "reward.py"}, answer=watched)
    reward = compose(table, path)(sample("#### 72", None))
    assert reward.score == 0.5
    assert reward.metrics == {"answer_unscorable": 1.0}
    # As a gate it decides, so there it does.
    table = components(style={"function": "reward.py"}, answer={**watched, "gate": {"below": 1, "cap": 0}})
    with pytest.raises(UnscorableError):
        compose(table, path)(sample("#### 72", None))


def test_a_teams_own_reward_function_has_the_same_guarantees(own):
    path = own(
        "LIMIT = 10\n"
        "def score(sample: Sample) -> Reward:\n"
        "    if sample.completion == 'nan':\n"
        "        return Reward(float('nan'))\n"
        "    part = len(sample.completion) / LIMIT\n"
        "    return Reward(part, components={'length': 1}, metrics={'limit': LIMIT})\n"
    )
    score = compose(components(style={"function": "reward.py"}), path)
    outcomes = score_samples(score, [sample("xxxxx"), sample("x" * 99), sample("nan")])
    assert [outcome.reward.score for outcome in outcomes] == [0.5, 1.0, 0.0]
    assert [outcome.trouble for outcome in outcomes] == ["", "", "error"]
    assert outcomes[0].reward.components == {"style": 0.5, "style_length": 1.0}
    assert outcomes[0].reward.metrics["style_limit"] == 10.0


def test_one_component_cannot_outshout_the_others(own):
    path = own("def score(sample): return Reward(5.0 if sample.completion else -5.0)\n")
    score = compose(components(style={"function": "reward.py"}, answer=ANSWER), path)
    assert score(sample("x")).score == 0.5
    assert score(sample("")).components["style"] == 0.0
    wide = compose({**components(style={"function": "reward.py"}, answer=ANSWER), "range": [-2, 4]}, path)
    assert (wide(sample("x")).score, wide(sample("")).score) == (2.0, -1.0)


def test_two_teams_reward_files_do_not_meet(tmp_path):
    table = components(style={"function": "reward.py"})
    scores = []
    for value in (0.25, 0.75):
        path = tmp_path / str(value) / "reward.py"
        path.parent.mkdir()
        path.write_text(
            "from lambdas.contract import Reward\n"
            f"VALUE = {value}\n"
            "def score(sample):\n    return Reward(VALUE)\n"
        )
        scores.append(compose(table, path))
    assert [score(sample("")).score for score in scores] == [0.25, 0.75]


def test_a_component_keeps_its_name_when_a_metric_is_called_the_same():
    table = components(answer=ANSWER, answer_answered={**TAGGED, "weight": 0})
    reward = compose(table)(sample("#### 72"))
    assert reward.metrics["answer_answered"] == 0.0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "1 to 50 components are needed, got 0"),
        (components(**{f"c{n}": ANSWER for n in range(51)}), "got 51"),
        (
            components(answer={"function": "numeric_anser"}),
            "components.answer: .*'numeric_anser'.*numeric_answer",
        ),
        (components(answer={"function": "../secrets"}), "no reward function"),
        (components(answer={}), "a table with a function"),
        (components(answer="numeric_answer"), "a table with a function"),
        (components(answer={**ANSWER, "frm": 1}), "numeric_answer has no parameter 'frm'; it has form, "),
        (components(answer={**ANSWER, "form": "hash"}), "form is one of hashes, .*not 'hash'"),
        (components(answer={**ANSWER, "weight": -1}), "answer.weight: a number of at least 0"),
        (components(answer={**ANSWER, "weight": True}), "answer.weight"),
        (components(answer={**ANSWER, "weight": 0}), "every weight is 0"),
        (components(answer={**ANSWER, "gate": {"below": 1}}), "answer.gate: "),
        (components(answer={**ANSWER, "gate": {"below": 1, "cap": "0"}}), "answer.gate: "),
        (components(Answer=ANSWER), "lower-case letters"),
        (components(min=ANSWER), "none of"),
        (components(error=ANSWER), "none of"),
        ({**components(answer=ANSWER), "range": [1, 0]}, "reward.range"),
        ({**components(answer=ANSWER), "range": [0, math.nan]}, "reward.range"),
        ({**components(answer=ANSWER), "range": [0]}, "reward.range"),
    ],
)
def test_a_wrong_table_is_refused_in_words(table, says):
    with pytest.raises(CompositionError, match=says):
        compose(table)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def scor(sample): pass\n", "has to define score"),
        ("def score(sample:\n", "cannot be loaded: SyntaxError"),
        ("import a_module_that_is_not_there\n", "cannot be loaded: ModuleNotFoundError"),
        ("1 / 0\n", "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_a_wrong_reward_file_is_refused_in_words(own, code, says):
    with pytest.raises(CompositionError, match=f"reward.components.style: reward.py {says}"):
        compose(components(style={"function": "reward.py"}), own(code))


def test_a_missing_reward_file_and_its_parameters_are_refused(own, tmp_path):
    with pytest.raises(CompositionError, match="cannot be loaded: FileNotFoundError"):
        compose(components(style={"function": "reward.py"}), tmp_path / "reward.py")
    with pytest.raises(CompositionError, match=r"does not take these parameters: .*'limit'"):
        compose(components(style={"function": "reward.py", "limit": 3}), own("def score(sample): pass\n"))


def test_a_reward_file_gets_its_parameters(own):
    code = "from lambdas.contract import Reward\n\ndef score(sample, limit=1.0):\n    return Reward(limit)\n"
    score = compose(components(style={"function": "reward.py", "limit": 0.25}), own(code))
    assert score(sample("x")).score == 0.25


FORMULAS = [
    ("a", 0.5),
    ("a + b", 0.75),
    ("a - b", 0.25),
    ("-a + +b", -0.25),
    ("2 * a * b", 0.25),
    ("a / 4", 0.125),
    ("a / max(b, 0.5)", 1.0),
    ("(a + b) / 2", 0.375),
    ("min(a, b)", 0.25),
    ("max(a, b, 0.9)", 0.9),
    ("abs(b - a)", 0.25),
    ("clip(3 * a, 0, 1)", 1.0),
    ("1e-1 * a", 0.05),
    (" a\n", 0.5),
    ("(a +\n b)", 0.75),
]


@pytest.mark.parametrize(("text", "expected"), FORMULAS)
def test_formulas(text, expected):
    formula = Formula(text, ("a", "b"), (0.0, 1.0))
    assert formula({"a": 0.5, "b": 0.25}) == pytest.approx(expected)


@settings(max_examples=200)
@given(st.sampled_from([text for text, _ in FORMULAS]), st.floats(-1, 1), st.floats(-1, 1))
def test_a_formula_never_leaves_its_bounds(text, a, b):
    formula = Formula(text, ("a", "b"), (-1.0, 1.0))
    assert formula.low - 1e-9 <= formula({"a": a, "b": b}) <= formula.high + 1e-9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 to 500 characters"),
        (7, "1 to 500 characters"),
        ("a + " * 200 + "a", "1 to 500 characters"),
        ("a +", "not an arithmetic expression"),
        ("a; b", "not an arithmetic expression"),
        ("(" * 250 + "a" + ")" * 250, "500|not an arithmetic expression|nested"),
        ("-" * 499 + "a", None),
        ("c", "'c' is no component; the components are a, b"),
        ("1", "uses no component"),
        ("a / b", "divide by zero"),
        ("a / (b - 0.5)", "divide by zero"),
        ("a ** b", "Pow is no operator"),
        ("a // 2", "FloorDiv"),
        ("a % 2", "Mod is no operator"),
        ("1e308 * a * 1e308", "not allowed"),
        ("1e9 * a * 1e9", "can pass 1e\\+09"),
        ("a / 1e-9 * 2", "can pass"),
        ("a if b else 0", "not allowed"),
        ("a < b", "not allowed"),
        ("a and b", "not allowed"),
        ("True * a", "not allowed"),
        ("'x' * a", "not allowed"),
        ("1j * a", "not allowed"),
        ("a.real", "not allowed"),
        ("a[0]", "not allowed"),
        ("[a for a in b]", "not allowed"),
        ("(lambda: a)()", "not allowed"),
        ("__import__('os').system('true')", "not allowed"),
        ("eval('a')", "not allowed"),
        ("max(*a)", "not allowed"),
        ("max(a, key=b)", "not allowed"),
        ("f'{a}'", "not allowed"),
        ("(a := 1)", "not allowed"),
        ("min(a)", "min does not take 1 values"),
        ("abs(a, b)", "abs does not take 2"),
        ("clip(a)", "clip does not take 1"),
        ("~a", "not allowed"),
        ("not a", "not allowed"),
    ],
)
def test_a_formula_that_is_more_than_arithmetic_is_refused(text, says):
    if says is None:
        assert Formula(text, ("a", "b"), (0.0, 1.0))({"a": 0.5}) == -0.5
        return
    with pytest.raises(CompositionError, match=says) as raised:
        Formula(text, ("a", "b"), (0.0, 1.0))
    assert "reward.formula" in str(raised.value)


@settings(max_examples=300)
@given(st.text(alphabet="ab01.+-*/(), minaxbsclp", max_size=40))
def test_any_text_is_a_total_formula_or_refused(text):
    try:
        formula = Formula(text, ("a", "b"), (-1.0, 1.0))
    except CompositionError:
        return
    for a, b in ((0.0, 0.0), (-1.0, 1.0), (1.0, -1.0)):
        assert math.isfinite(formula({"a": a, "b": b}))


def test_the_table_may_come_from_json():
    table = json.loads(
        json.dumps({**components(answer={**ANSWER, "words": ["yes"], "units": {"kg": 1}}), "memory_mb": 512})
    )
    score = compose(table)
    assert score(sample("#### 72 kg")).score == 1.0
    assert score(sample("#### yes", "Yes")).score == 1.0
