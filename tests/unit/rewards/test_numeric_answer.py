"""The declared number, and nothing but the declared number."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError
from lambdas.rewards.numeric_answer import NumericAnswer

KG = {"kg": 1, "kilograms": 1, "g": 0.001}


def reward(completion, reference, **parameters):
    return NumericAnswer(**parameters).score(Sample("a", (), completion, reference_answer=reference))


# form, completion, reference, score
FORMS = [
    ("hashes", "6 * 12 is 72\n#### 72", 72, 1.0),
    ("hashes", "#### 72\nHope this helps!", 72, 1.0),
    ("hashes", "the answer is #### 72", 72, 1.0),
    ("hashes", "#### 71", 72, 0.0),
    ("hashes", "72", 72, 0.0),
    ("hashes", "### 72", 72, 0.0),
    ("hashes", "##### 72", 72, 0.0),
    ("hashes", "####", 72, 0.0),
    ("hashes", "", 72, 0.0),
    ("hashes", "#### \n72", 72, 0.0),
    # A level-four heading is no answer, and does not take the answer away.
    ("hashes", "#### Step 1\n6 * 12\n#### Answer\n#### 72", 72, 1.0),
    ("boxed", r"so \boxed{72}.", 72, 1.0),
    ("boxed", r"so $\boxed{72}$ and nothing else", 72, 1.0),
    ("boxed", r"\boxed{\frac{1}{4}}", 0.25, 1.0),
    ("boxed", r"\boxed{-\dfrac{1}{4}}", -0.25, 1.0),
    ("boxed", r"\boxed{2\tfrac{1}{4}}", 2.25, 1.0),
    ("boxed", r"\boxed{\$1{,}234.50}", 1234.5, 1.0),
    ("boxed", r"\boxed{12.5\%}", 0.125, 1.0),
    ("boxed", r"\boxed{\textbf{72}}", 72, 1.0),
    ("boxed", r"\boxed{1.5 \times 10^{3}}", 1500, 1.0),
    ("boxed", r"\boxed{72", 72, 0.0),
    ("boxed", r"\boxed{}", 72, 0.0),
    ("boxed", "72", 72, 0.0),
    ("tag", "thinking... <answer>72</answer>", 72, 1.0),
    ("tag", "<Answer>\n72\n</answer>", 72, 1.0),
    ("tag", "<answer>72", 72, 0.0),
    ("tag", "<answer>seventy-two</answer>", 72, 0.0),
    ("label", "Answer: 72", 72, 1.0),
    ("label", "**ANSWER:** 72", 72, 1.0),
    ("label", "first\n - **Answer**: **72**.", 72, 1.0),
    ("label", "The answer: 72", 72, 0.0),
    ("label", "Answer 72", 72, 0.0),
    ("json", '{"answer": 72}', 72, 1.0),
    ("json", '{"answer": 72.0, "why": "6 * 12"}', 72, 1.0),
    ("json", '{"answer": "72"}', 72, 1.0),
    ("json", 'Here:\n```json\n{"answer": 72}\n```', 72, 1.0),
    ("json", 'Here: {"answer": 72}', 72, 0.0),
    ("json", '{"answer": 71, "answer": 72}', 72, 0.0),
    ("json", '{"answer": [72]}', 72, 0.0),
    ("json", '{"answer": true}', 1, 0.0),
    ("json", '{"answer": NaN}', 72, 0.0),
    ("json", '{"result": 72}', 72, 0.0),
    ("json", '```\n{"answer": 71}\n```\n```\n{"answer": 72}\n```', 72, 0.0),
    ("json", "72", 72, 0.0),
    ("last_line", "6 * 12 =\n\n**72**\n\n", 72, 1.0),
    ("last_line", "72\nThat is it.", 72, 0.0),
    ("last_line", "it is 72", 72, 0.0),
    ("last_line", "", 72, 0.0),
    ("any", "I think it is 71, no, 72.", 72, 1.0),
    ("any", "it costs $1,200.50 in all", 1200.5, 1.0),
    ("any", "no idea", 72, 0.0),
    ("any", "72 apples, 3 of them red", 72, 0.0),
    ("any", "released on 1/2/2024", 2024, 0.0),
    ("any", "see v1.72", 72, 0.0),
]


@pytest.mark.parametrize(("form", "completion", "reference", "score"), FORMS)
def test_the_answer_is_looked_for_where_it_was_declared(form, completion, reference, score):
    assert reward(completion, reference, form=form).score == score


# what stands after ####, reference, parameters, score
NOTATIONS = [
    ("72.", 72, {}, 1.0),
    ("72.00", 72, {}, 1.0),
    ("72.00.", 72, {}, 1.0),
    ("72..", 72, {}, 0.0),
    ("3.33...", 3.33, {}, 0.0),
    ("+72", 72, {}, 1.0),
    ("-72", 72, {}, 0.0),
    ("= 72", 72, {}, 1.0),
    (".5", 0.5, {}, 1.0),
    ("0072", 72, {}, 1.0),
    ("`72`", 72, {}, 1.0),
    ("**72**", 72, {}, 1.0),
    ('"72"', 72, {}, 1.0),
    ("$72$", 72, {}, 1.0),
    ("72 or 73", 72, {}, 0.0),
    ("71, 72", 72, {}, 0.0),
    ("72 (approximately)", 72, {}, 0.0),
    ("about 72", 72, {}, 0.0),
    ("0x48", 72, {}, 0.0),
    ("inf", 72, {}, 0.0),
    ("nan", 72, {}, 0.0),
    ("7_2", 72, {}, 0.0),
    # signs and digits of other scripts
    ("\u221272", -72, {}, 1.0),
    ("\u201372", -72, {}, 1.0),
    ("\u0667\u0662", 72, {}, 1.0),
    ("\uff17\uff12\uff0e\uff15", 72.5, {}, 1.0),
    ("\u2460", 1, {}, 0.0),
    ("7\u00b2", 72, {}, 0.0),
    # grouping
    ("1,234,567.5", 1234567.5, {}, 1.0),
    ("1'234'567", 1234567, {}, 1.0),
    ("1\u2019234", 1234, {}, 1.0),
    ("1\u202f234\u00a0567", 1234567, {}, 1.0),
    ("1 234", 1234, {}, 0.0),
    ("1,23", 123, {}, 0.0),
    ("1,2345", 12345, {}, 0.0),
    ("12,34,567", 1234567, {}, 0.0),
    ("1,234'567", 1234567, {}, 0.0),
    ("1,234", 1.234, {}, 0.0),
    ("1.234.567,5", 1234567.5, {"decimal_mark": ","}, 1.0),
    ("1.234", 1234, {"decimal_mark": ","}, 1.0),
    ("1,5", 1.5, {"decimal_mark": ","}, 1.0),
    ("1.5", 1.5, {"decimal_mark": ","}, 0.0),
    # accounting
    ("(5.2)", -5.2, {}, 1.0),
    ("($5.20)", -5.2, {}, 1.0),
    ("$(5.20)", -5.2, {}, 1.0),
    ("(5.2)%", -0.052, {}, 1.0),
    ("(5.2%)", -0.052, {}, 1.0),
    ("(5.2)", 5.2, {}, 0.0),
    ("(-5.2)", -5.2, {}, 0.0),
    ("((5.2))", -5.2, {}, 0.0),
    ("(5.2", -5.2, {}, 0.0),
    ("(5)(2)", -52, {}, 0.0),
    ("(5.2)", -5.2, {"accounting_negatives": False}, 0.0),
    # currency
    ("$72", 72, {}, 1.0),
    ("72 €", 72, {}, 1.0),
    ("-$72", -72, {}, 1.0),
    ("$-72", -72, {}, 1.0),
    ("-$-72", 72, {}, 0.0),
    ("$72$ €", 72, {}, 0.0),
    ("€72", "$72", {}, 0.0),
    ("$72", "72 $", {}, 1.0),
    ("72 USD", 72, {}, 0.0),
    ("72 USD", 72, {"currencies": ["USD", "$"]}, 1.0),
    ("$72", 72, {"currencies": []}, 0.0),
    # percent
    ("12.5%", 0.125, {}, 1.0),
    ("12.5 percent", 0.125, {}, 1.0),
    ("12.5%", 12.5, {}, 0.0),
    ("12.5%", "12.5%", {}, 1.0),
    ("12.5", "12.5%", {}, 0.0),
    ("0.125", "12.5%", {}, 1.0),
    ("12.5%", 12.5, {"percent": "points"}, 1.0),
    ("12.5", "12.5%", {"percent": "points"}, 1.0),
    ("0.125", 12.5, {"percent": "points"}, 0.0),
    ("12.5%", 0.125, {"percent": "points"}, 0.0),
    # units
    ("5 kg", 5, {}, 0.0),
    ("5 kg", 5, {"units": KG}, 1.0),
    ("5kg", 5, {"units": KG}, 1.0),
    ("5 Kilograms.", 5, {"units": KG}, 1.0),
    ("5000 g", 5, {"units": KG}, 1.0),
    ("5 g", "5 kg", {"units": KG}, 0.0),
    ("5000 g", "5 kg", {"units": KG}, 1.0),
    ("5 lb", 5, {"units": KG}, 0.0),
    ("5 kgs", 5, {"units": KG}, 0.0),
    ("$1.5 million", 1_500_000, {"units": {"million": 1e6}}, 1.0),
    # fractions
    ("3/4", 0.75, {}, 1.0),
    ("-3 / 4", -0.75, {}, 1.0),
    ("1 3/4", 1.75, {}, 1.0),
    ("-1 3/4", -1.75, {}, 1.0),
    ("1¾", 1.75, {}, 1.0),
    ("\u2153", "1/3", {}, 1.0),
    ("1/3", 0.3333, {}, 0.0),
    ("0.3333", "1/3", {"absolute_tolerance": 0.0001}, 1.0),
    ("3/0", 3, {}, 0.0),
    ("3/4/5", 0.15, {}, 0.0),
    # scientific
    ("1.5e3", 1500, {}, 1.0),
    ("1.5E+3", 1500, {}, 1.0),
    ("15e-1", 1.5, {}, 1.0),
    ("1.5 x 10^3", 1500, {}, 1.0),
    ("1.5\u00d710^{-3}", 0.0015, {}, 1.0),
    ("1.5·10³", 1500, {}, 1.0),
    ("10^6", 1_000_000, {}, 1.0),
    ("10⁻²", 0.01, {}, 1.0),
    ("2^10", 1024, {}, 0.0),
    ("1e999", "10^999", {}, 1.0),
    ("1e999", 1, {}, 0.0),
    ("1e-999", 0, {}, 0.0),
    # tolerance: inclusive, exact, and never more than stated
    ("0.3", "0.1", {"absolute_tolerance": 0.2}, 1.0),
    ("1.11", 1.10, {"absolute_tolerance": 0.01}, 1.0),
    ("1.1101", 1.10, {"absolute_tolerance": 0.01}, 0.0),
    ("101", 100, {"relative_tolerance": 0.01}, 1.0),
    ("101.01", 100, {"relative_tolerance": 0.01}, 0.0),
    ("-99", -100, {"relative_tolerance": 0.01}, 1.0),
    ("0.001", 0, {"relative_tolerance": 0.5}, 0.0),
    ("100000000000000000001", 100000000000000000000, {}, 0.0),
    ("0.1", 0.1, {}, 1.0),
    ("7.2", 72, {}, 0.0),
    ("7200", 72, {}, 0.0),
    ("0.72", 72, {}, 0.0),
    # words
    ("yes", "yes", {"words": ["yes", "no"]}, 1.0),
    ("**Yes**.", "yes", {"words": ["yes", "no"]}, 1.0),
    ("no", "yes", {"words": ["yes", "no"]}, 0.0),
    ("yes or no", "yes", {"words": ["yes", "no"]}, 0.0),
    ("1", "yes", {"words": ["yes", "no"]}, 0.0),
    ("72", 72, {"words": ["yes", "no"]}, 1.0),
]


@pytest.mark.parametrize(("answer", "reference", "parameters", "score"), NOTATIONS)
def test_a_number_is_read_as_it_is_meant(answer, reference, parameters, score):
    assert reward(f"#### {answer}", reference, **parameters).score == score


@pytest.mark.parametrize(
    ("completion", "score", "several"),
    [
        ("#### 72\n#### 72.0", 1.0, 0.0),
        ("#### 71\n#### 72", 0.0, 1.0),
        ("#### 72\n#### 71", 0.0, 1.0),
        ("".join(f"#### {number}\n" for number in range(60, 80)), 0.0, 1.0),
        ("#### 72\n" * 65, 0.0, 0.0),
    ],
)
def test_listing_answers_never_pays(completion, score, several):
    found = reward(completion, 72)
    assert (found.score, found.metrics["several_answers"]) == (score, several)


def test_no_exponent_is_longer_than_three_digits():
    assert reward("#### 1e999", 1).metrics["answered"] == 1.0
    assert reward("#### 1e1000", 1).metrics["answered"] == 0.0


def test_several_answers_are_one_when_all_are_within_the_tolerance():
    assert reward("#### 3.3\n#### 3.33", "10/3", absolute_tolerance=0.05).score == 1.0
    assert reward("#### 3.3\n#### 3.33", "10/3", absolute_tolerance=0.01).score == 0.0


@pytest.mark.parametrize(
    "reference",
    [
        72,
        72.0,
        "72",
        " 72. ",
        "$72.00",
        {"answer": 72},
        {"answer": "72", "unit": "apples"},
        {"value": 72},
        "6 times 12 is 72.\n#### 72",
    ],
)
def test_references_of_every_shape_earn_the_maximum(reference):
    assert reward("#### 72", reference).score == 1.0
    assert reward("#### 71", reference).score == 0.0


def test_the_reference_field_is_the_one_that_was_named():
    assert reward("#### 72", {"answer": 1, "total": "72"}, reference_field="total").score == 1.0
    with pytest.raises(UnscorableError, match="without total"):
        reward("#### 72", {"answer": 72}, reference_field="total")


@pytest.mark.parametrize(
    "reference",
    [
        None,
        "",
        "seventy-two",
        "71 or 72",
        "#### 71\n#### 72",
        True,
        [72],
        {},
        {"answer": None},
        {"answer": {"answer": 72}},
        float("nan"),
        float("inf"),
        pytest.param(10**5000, id="too many digits"),
        "9" * 300,
    ],
)
def test_a_row_without_one_number_cannot_be_scored(reference):
    with pytest.raises(UnscorableError):
        reward("#### 72", reference)


def test_a_large_reference_is_exact():
    assert reward(f"#### {10**150 + 1}", 10**150 + 1).score == 1.0
    assert reward(f"#### {10**150 + 2}", 10**150 + 1).score == 0.0


@pytest.mark.parametrize(
    ("completion", "form", "reason", "extracted"),
    [
        ("#### 72", "hashes", "'72' is 72", "'72'"),
        ("#### 71", "hashes", "'71' is not 72", "'71'"),
        ("#### 72 kg", "hashes", "'72 kg' is not one number in the accepted notation", "'72 kg'"),
        ("72", "hashes", "no answer after ####", None),
        ("72", "boxed", r"no answer in \boxed{}", None),
        ("72", "tag", "no answer in <answer></answer>", None),
        ("72", "label", "no line that starts with Answer:", None),
        ("72", "json", "no JSON object with the field 'answer'", None),
        ("", "last_line", "the completion is empty", None),
        ("", "any", "no number", None),
        (
            "#### 1\n#### 2",
            "hashes",
            "several different answers, '1', '2', and not every one is 72",
            "'1', '2'",
        ),
    ],
)
def test_every_score_says_why(completion, form, reason, extracted):
    found = reward(completion, 72, form=form)
    assert (found.reason, found.extracted) == (reason, extracted)
    assert found.metrics["answered"] == float(found.reason.split()[-1] == "72")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"form": "hash"}, "form is one of hashes, boxed"),
        ({"percent": "%"}, "percent is one of fraction, points"),
        ({"decimal_mark": ";"}, "decimal_mark is one of"),
        ({"absolute_tolerance": -1}, "absolute_tolerance is a number of at least 0"),
        ({"relative_tolerance": float("nan")}, "relative_tolerance"),
        ({"relative_tolerance": True}, "relative_tolerance"),
        ({"tag": "<answer>"}, "tag is a name such as answer"),
        ({"label": " : "}, "label is the text before the colon"),
        ({"units": {"": 1}}, "a unit is a word"),
        ({"units": {"m2": 1}}, "a unit is a word without digits"),
        ({"units": {"kg": 0}}, "one 'kg' is worth a number above 0"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        NumericAnswer(**parameters)


HOSTILE = {
    "digits": "#### " + "9" * 400_000,
    "hashes": "####" * 100_000,
    "hash lines": "#### 1\n" * 57_000,
    "boxes": r"\boxed{" * 57_000,
    "closed boxes": r"\boxed{1}" * 44_000,
    "tags": "<answer>" * 50_000,
    "closed tags": "<answer>1</answer>" * 22_000,
    "labels": "Answer:" * 57_000,
    "label lines": "Answer: 1\n" * 40_000,
    "stars": "*" * 400_000,
    "star lines": "*\n" * 200_000,
    "spaces": " " * 400_000,
    "fences": "```" * 133_000,
    "brackets": "[" * 400_000,
    "objects": '{"answer":' * 40_000,
    "signs": "-" * 400_000,
    "commas": "1," * 200_000,
    "fractions": "1/" * 200_000,
    "latex": "####" + r"\frac{" * 60_000,
    "surrogates": "#### \ud800" * 60_000,
    "exponents": "#### 1e999999999\n" * 20_000,
    "json exponent": '{"answer": 1e999999999}',
    "thin spaces": "#### 1" + "\u2009123" * 100_000,
    "numbers": "1 " * 200_000,
    "nulls": "#### \x00" * 60_000,
}


@pytest.mark.parametrize("form", ["hashes", "boxed", "tag", "label", "json", "last_line", "any"])
@pytest.mark.parametrize("completion", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_completion_is_expensive_or_fools_it(form, completion):
    started = time.thread_time()
    found = reward(completion, 72, form=form, units=KG, words=["yes"])
    assert time.thread_time() - started < 1.0
    assert found.score == 0.0


@settings(max_examples=300)
@given(
    st.text(st.characters(exclude_categories=()), max_size=60)
    | st.text(alphabet="0123456789.,-+()/%$€ eE^x*#\\{}'\n", max_size=40),
    st.sampled_from(["hashes", "boxed", "tag", "label", "json", "last_line", "any"]),
    st.sampled_from(
        ["{}", "#### {}", r"\boxed{{{}}}", "<answer>{}</answer>", "Answer: {}", '{{"answer": "{}"}}']
    ),
)
def test_any_text_gets_a_score_and_the_same_one_again(text, form, frame):
    completion = frame.format(text)
    first = reward(completion, 72, form=form)
    assert first == reward(completion, 72, form=form)
    assert first.score in {0.0, 1.0}


@settings(max_examples=300)
@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12),
    st.sampled_from(["{:f}", "{:,f}", "{:.6f}", "{:e}", "**{:f}**", " {:f}. "]),
)
def test_a_number_equals_itself_however_it_is_written(number, style):
    assert reward("#### " + style.format(number), str(number)).score == 1.0


@settings(max_examples=200)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.floats(0, 100))
def test_the_tolerance_is_a_bound_in_both_directions(reference, answer, tolerance):
    found = reward(f"#### {answer}", reference, absolute_tolerance=tolerance)
    assert found.score == float(abs(answer - reference) <= tolerance)
