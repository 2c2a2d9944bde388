"""The declared option, and nothing but the declared option."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError
from lambdas.rewards.choice import Choice

LETTERS = {"A": [], "B": [], "C": [], "D": []}
CITIES = {"A": ["Paris"], "B": ["London"], "C": ["Rome"]}
MOODS = {"positive": ["pos", "+"], "negative": ["neg", "-"], "neutral": []}


def reward(completion, reference="B", options=None, **parameters):
    function = Choice(options=LETTERS if options is None else options, **parameters)
    return function.score(Sample("a", (), completion, reference_answer=reference))


# form, completion, score
FORMS = [
    ("label", "Thinking.\nAnswer: B", 1.0),
    ("label", "**Answer:** B", 1.0),
    ("label", "Answer: C", 0.0),
    ("label", "The answer: B", 0.0),
    ("label", "Answer B", 0.0),
    ("label", "B", 0.0),
    ("label", "Answer:\nB", 0.0),
    ("label", "", 0.0),
    ("boxed", r"so \boxed{B}.", 1.0),
    ("boxed", r"so \boxed{\text{B}}", 1.0),
    ("boxed", r"so \boxed{\textbf{(B)}}", 1.0),
    ("boxed", r"so \boxed{B", 0.0),
    ("boxed", r"so \boxed{}", 0.0),
    ("hashes", "#### B", 1.0),
    ("hashes", "### B", 0.0),
    ("tag", "thinking... <answer>B</answer>", 1.0),
    ("tag", "<Answer>\n b \n</answer>", 1.0),
    ("tag", "<answer>B", 0.0),
    ("json", '{"answer": "B", "why": "C is wrong"}', 1.0),
    ("json", '```json\n{"answer": "b"}\n```', 1.0),
    ("json", '{"answer": "C", "answer": "B"}', 0.0),
    ("json", '{"answer": ["B"]}', 0.0),
    ("last_line", "It is C.\nNo:\nB", 1.0),
    ("last_line", "B\nThat is it.", 0.0),
    ("whole", " (B) ", 1.0),
    ("whole", "It is B", 0.0),
]


@pytest.mark.parametrize(("form", "completion", "score"), FORMS)
def test_the_option_is_looked_for_where_it_was_declared(form, completion, score):
    assert reward(completion, form=form).score == score


# what stands after "Answer:", options, score; the right option is B
NOTATIONS = [
    ("b", LETTERS, 1.0),
    ("B.", LETTERS, 1.0),
    ("(B)", LETTERS, 1.0),
    ("B)", LETTERS, 1.0),
    ("[B]", LETTERS, 1.0),
    ("<B>", LETTERS, 1.0),
    ("**B**", LETTERS, 1.0),
    ("`B`", LETTERS, 1.0),
    ('"B"!', LETTERS, 1.0),
    ("\u201cB\u201d", LETTERS, 1.0),
    ("$B$", LETTERS, 1.0),
    (r"$\text{B}$", LETTERS, 1.0),
    ("\uff22", LETTERS, 1.0),
    # a letter of another script that only looks like it
    ("\u0392", LETTERS, 0.0),
    # the option's text
    ("B) London", LETTERS, 1.0),
    ("(B) London", LETTERS, 1.0),
    ("B. London is the capital", LETTERS, 1.0),
    ("**B.** London", LETTERS, 1.0),
    ("B: London", LETTERS, 1.0),
    ("B - London", LETTERS, 1.0),
    ("London", LETTERS, 0.0),
    ("London", CITIES, 1.0),
    ("LONDON.", CITIES, 1.0),
    ("B) London", CITIES, 1.0),
    # another option's text takes the letter back
    ("B) Paris", CITIES, 0.0),
    ("Paris", CITIES, 0.0),
    # more than one
    ("B or C", LETTERS, 0.0),
    ("B, C", LETTERS, 0.0),
    ("B/C", LETTERS, 0.0),
    ("B C", LETTERS, 0.0),
    ("BC", LETTERS, 0.0),
    ("B and C", LETTERS, 0.0),
    ("B) or C)", LETTERS, 0.0),
    ("B) C", {"B": [], "C": []}, 0.0),
    ("B) London or (C) Rome", LETTERS, 0.0),
    ("B) London or C", LETTERS, 0.0),
    ("A) B) C) D)", LETTERS, 0.0),
    ("all of them", LETTERS, 0.0),
    # taken back
    ("not B", LETTERS, 0.0),
    ("anything but B", LETTERS, 0.0),
    ("B is wrong", LETTERS, 0.0),
    ("B) is not right", LETTERS, 0.0),
    ("B) not", LETTERS, 0.0),
    ("B) wrong", LETTERS, 0.0),
    ("B - incorrect", LETTERS, 0.0),
    # nothing at all
    ("E", LETTERS, 0.0),
    ("...", LETTERS, 0.0),
    ("?", LETTERS, 0.0),
    ("()", LETTERS, 0.0),
    ("B" * 301, LETTERS, 0.0),
    ("B) " + "x" * 300, LETTERS, 0.0),
]


@pytest.mark.parametrize(("answer", "options", "score"), NOTATIONS)
def test_an_option_is_read_as_it_is_meant(answer, options, score):
    assert reward(f"Answer: {answer}", options=options).score == score


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("positive", "positive", 1.0),
        ("Pos.", "positive", 1.0),
        ("+", "positive", 1.0),
        ("positive", "+", 1.0),
        ("-", "positive", 0.0),
        ("not positive", "positive", 0.0),
        ("positive) negative", "positive", 0.0),
        ("positive: because it is", "positive", 0.0),
        ("positive or negative", "positive", 0.0),
        ("neutral", "negative", 0.0),
        ("positively", "positive", 0.0),
    ],
)
def test_a_label_has_synonyms(answer, reference, score):
    assert reward(f"Answer: {answer}", reference, MOODS).score == score


@pytest.mark.parametrize(
    ("completion", "score", "several"),
    [
        ("Answer: B\nAnswer: (b)", 1.0, 0.0),
        ("Answer: A\nAnswer: B", 0.0, 1.0),
        ("Answer: B\nAnswer: A", 0.0, 1.0),
        ("".join(f"Answer: {letter}\n" for letter in "ABCD"), 0.0, 1.0),
        ("Answer: B\n" * 65, 0.0, 0.0),
        # A line that names no option is no answer, and takes none away.
        ("Answer: let me think\nAnswer: B", 1.0, 0.0),
    ],
)
def test_listing_options_never_pays(completion, score, several):
    found = reward(completion)
    assert (found.score, found.metrics["several_answers"]) == (score, several)


@pytest.mark.parametrize("letter", LETTERS)
def test_one_text_for_every_row_is_right_on_one_option_at_most(letter):
    listed = [
        f"Answer: {letter}) A B C D",
        f"Answer: {letter}) or any other",
        f"Answer: {letter}. A, B, C, D",
    ]
    for text in listed:
        assert sum(reward(text, reference).score for reference in LETTERS) <= 1.0


@pytest.mark.parametrize("reference", ["B", "b", "(B)", "B) London", "Worked.\nAnswer: B", {"key": "B"}])
def test_references_of_every_shape_earn_the_maximum(reference):
    field = "key" if isinstance(reference, dict) else ""
    assert reward("Answer: B", reference, reference_field=field).score == 1.0
    assert reward("Answer: C", reference, reference_field=field).score == 0.0


def test_a_number_is_an_option_too():
    assert reward("Answer: 2", 2, {"1": [], "2": []}).score == 1.0
    assert reward("Answer: 2) Bern", 2, {"1": [], "2": []}).score == 1.0
    assert reward("Answer: 12", 2, {"1": [], "2": []}).score == 0.0


@pytest.mark.parametrize(
    ("reference", "parameters", "says"),
    [
        (None, {}, "no reference answer"),
        ("", {}, "is empty"),
        ("E", {}, "'E' names none of the options"),
        ("B or C", {}, "names none"),
        ("Answer: B\nAnswer: C", {}, "names none"),
        (["B"], {}, "is list, not one text"),
        ({"key": "B"}, {}, "is dict, not one text"),
        ({"key": "B"}, {"reference_field": "answer"}, "no field 'answer'"),
    ],
)
def test_a_row_without_one_option_cannot_be_scored(reference, parameters, says):
    with pytest.raises(UnscorableError, match=says):
        reward("Answer: B", reference, **parameters)


@pytest.mark.parametrize(
    ("completion", "reason", "answered"),
    [
        ("Answer: B", "'B' is 'B'", 1.0),
        ("Answer: c", "'c' is 'C', not 'B'", 1.0),
        ("Answer: B\nAnswer: A", "'B', 'A' is 'A', 'B', not 'B'", 1.0),
        ("Answer: B or C", "'B or C' names none of the options, or more than one", 0.0),
        ("B", "no line that starts with Answer:", 0.0),
    ],
)
def test_every_score_says_why(completion, reason, answered):
    found = reward(completion)
    assert (found.reason, found.metrics["answered"]) == (reason, answered)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"options": {"A": []}}, "options is a table of 2 to 1000 options"),
        ({"options": ["A", "B"]}, "options is a table"),
        ({"options": {"A": "a", "B": []}}, "the other names of 'A' are a list of texts"),
        ({"options": {"A": [1], "B": []}}, "the other names of 'A' are a list of texts"),
        ({"options": {"A": ["b"], "B": []}}, "'B' stands for both 'A' and 'B'"),
        ({"options": {"A": [" "], "B": []}}, "' ' is no name"),
        ({"options": {"A": ["x" * 301], "B": []}}, "1 to 300 characters"),
        ({"options": LETTERS, "form": "any"}, "form is one of boxed"),
        ({"options": LETTERS, "tag": "<a>"}, "tag is a name such as answer"),
        ({"options": LETTERS, "label": ":"}, "label is the text before the colon"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        Choice(**parameters)


HOSTILE = {
    "letters": "Answer: " + "B" * 400_000,
    "answers": "Answer: B\n" * 40_000,
    "brackets": "Answer: " + "(" * 400_000,
    "pairs": "Answer: " + "(" * 140 + "B" + ")" * 140 + ")",
    "full stops": "Answer: B" + "." * 290,
    "quotes": "Answer: " + '"' * 150 + "B or C",
    "latex": "Answer: " + r"\text{" * 60_000,
    "spaces": "Answer: " + " " * 400_000,
    "expanding": "Answer: " + "\ufdfa" * 400_000,
    "combining": "Answer: B" + "\u0301" * 400_000,
    "surrogates": "Answer: \ud800" * 40_000,
    "boxes": r"\boxed{" * 57_000,
    "tags": "<answer>" * 50_000,
    "fences": "```" * 133_000,
    "nulls": "Answer: B\x00" * 40_000,
}


@pytest.mark.parametrize("form", ["label", "boxed", "hashes", "tag", "json", "last_line", "whole"])
@pytest.mark.parametrize("completion", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_completion_is_expensive_or_fools_it(form, completion):
    started = time.thread_time()
    found = reward(completion, form=form)
    assert time.thread_time() - started < 0.5
    assert found.score == 0.0


@settings(max_examples=300)
@given(
    st.text(st.characters(exclude_categories=()), max_size=30)
    | st.text(alphabet="ABCD()[].,:/ -*$\\ornt", max_size=20),
    st.sampled_from(["{}", "Answer: {}", r"\boxed{{{}}}", "Answer: B) {}"]),
)
def test_any_text_gets_a_score_and_never_two_options(text, frame):
    completion = frame.format(text)
    for form in ("label", "boxed", "whole"):
        scores = [reward(completion, letter, form=form).score for letter in LETTERS]
        assert scores == [reward(completion, letter, form=form).score for letter in LETTERS]
        assert sum(scores) in {0.0, 1.0}
