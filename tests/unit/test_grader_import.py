"""What OpenAI's graders become here, what is refused, and that what is written works."""

import json
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.config import load_platform, load_team
from lambdas.composition import compose
from lambdas.contract import Sample
from lambdas.rewards.judge import Judge
from rft import cli, terminal
from rft.grader_import import GraderError, convert, main_text, placed

ROOT = Path(__file__).resolve().parents[2]
ANSWER = "{{sample.output_text}}"
REFERENCE = "{{item.reference_answer}}"


def check(operation="eq", given=ANSWER, expected=REFERENCE, **more):
    return {
        "type": "string_check",
        "name": "c",
        "input": given,
        "reference": expected,
        "operation": operation,
        **more,
    }


def similarity(metric="fuzzy_match", given=ANSWER, expected=REFERENCE, **more):
    return {
        "type": "text_similarity",
        "name": "s",
        "input": given,
        "reference": expected,
        "evaluation_metric": metric,
        **more,
    }


def scoring(content="Grade {{sample.output_text}}", **more):
    return {
        "type": "score_model",
        "name": "q",
        "model": "gpt-4.1-2025-04-14",
        "input": [{"role": "user", "content": content}],
        **more,
    }


def labelling(**more):
    return {
        "type": "label_model",
        "name": "l",
        "model": "gpt-4o-2024-08-06",
        "input": [{"role": "user", "content": f"Is {ANSWER} kind?"}],
        "labels": ["kind", "neutral", "rude"],
        "passing_labels": ["kind", "neutral"],
        **more,
    }


def multi(formula, **graders):
    return {"type": "multi", "name": "m", "graders": graders, "calculate_output": formula}


def component(grader):
    (found,) = convert(grader).table["components"].values()
    return found


def score(grader, completion, reference=None, **more):
    imported = tomllib.loads(convert(grader).toml)["reward"]
    return compose(imported)(Sample("a", (), completion, reference_answer=reference, **more)).score


# grader, completion, reference answer, score: what OpenAI's documentation says of each operation
SCORES = [
    (check("eq"), "Paris", "Paris", 1.0),
    (check("eq"), "paris", "Paris", 0.0),
    (check("eq"), "Paris ", "Paris", 0.0),
    (check("ne"), "Lyon", "Paris", 1.0),
    (check("ne"), "Paris", "Paris", 0.0),
    (check("neq"), "Lyon", "Paris", 1.0),
    (check("like"), "It is Paris.", "Paris", 1.0),
    (check("like"), "It is paris.", "Paris", 0.0),
    (check("like"), "Par", "Paris", 0.0),
    (check("ilike"), "It is PARIS.", "Paris", 1.0),
    (check("eq", expected="yes"), "yes", None, 1.0),
    (check("eq", "yes", ANSWER), "yes", None, 1.0),
    (check("eq", REFERENCE, ANSWER), "Paris", "Paris", 1.0),
    (check("eq", "{{ sample.output_json.city.name }}"), '{"city": {"name": "Paris"}}', "Paris", 1.0),
    (check("eq", "{{sample.output_json['city'][0]}}"), '{"city": ["Paris"]}', "Paris", 1.0),
    (check("eq", "{{sample.choices[0].message.content}}"), "Paris", "Paris", 1.0),
    (check("eq", expected="{{item.reference_answer.city}}"), "Paris", {"city": "Paris"}, 1.0),
    (check("eq", expected="{{item.city}}"), "Paris", {"city": "Paris"}, 1.0),
    (check("eq", expected="{{item.cities[1]}}"), "Paris", {"cities": ["Lyon", "Paris"]}, 1.0),
    (similarity(), "kitten", "kitten", 1.0),
    (similarity(pass_threshold=0.99), "kitten", "mitten", pytest.approx(10 / 12)),
    (similarity("rouge_1", expected="a b"), "a c", None, 0.5),
    (multi("(a + b) / 2", a=check("eq"), b=check("like", expected="a")), "Paris", "Paris", 1.0),
    (multi("0.25 * a", a=check("eq")), "Paris", "Paris", 0.25),
]


@pytest.mark.parametrize(("grader", "completion", "reference", "expected"), SCORES)
def test_an_imported_grader_scores_as_it_did(grader, completion, reference, expected):
    assert score(grader, completion, reference) == expected


@pytest.mark.parametrize(
    ("name", "metric"),
    [("fuzzy_match", "fuzzy"), ("bleu", "bleu"), ("gleu", "gleu"), ("meteor", "meteor"), ("cosine", "cosine")]
    + [(name, name) for name in ("rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")],
)
def test_every_metric_has_its_own(name, metric):
    assert component(similarity(name)) == {"function": "text_similarity", "metric": metric}


def test_the_texts_of_a_lopsided_metric_are_not_swapped():
    assert component(similarity("cosine", REFERENCE, ANSWER))["metric"] == "cosine"
    with pytest.raises(GraderError, match=r"^reference: looks in the expected text"):
        convert(similarity("bleu", REFERENCE, ANSWER))


# calculate_output, the scores of a and b, the result OpenAI computes
FORMULAS = [
    ("a", 0.5, 0.25, 0.5),
    ("0.5 * a + 0.5 * b", 0.5, 0.25, 0.375),
    ("(a+b)/2", 0.5, 0.25, 0.375),
    ("a^2", 0.5, 0.25, 0.25),
    ("a ^ 2 * b", 0.5, 0.25, 0.0625),
    ("2^a^1", 0.5, 0.25, None),
    ("min(a, b)", 0.5, 0.25, 0.25),
    ("max(a,b)", 0.5, 0.25, 0.5),
    ("abs(b - a)", 0.5, 0.25, 0.25),
    ("floor(a + b)", 0.5, 0.5, 1.0),
    ("ceil(a)", 0.25, 0.0, 1.0),
    ("sqrt(a)", 0.25, 0.0, 0.5),
    ("exp(a) - 1", 0.0, 0.0, 0.0),
    ("log(a + 1)", 0.0, 0.0, 0.0),
    ("-a + -b", 0.5, 0.25, -0.75),
    ("2*a - 1", 0.25, 0.0, -0.5),
    ("sqrt(a) - b", 0.25, 1.0, -0.5),
    ("10 * a", 0.5, 0.0, 5.0),
    ("1e-1*a", 0.5, 0.0, 0.05),
]


@pytest.mark.parametrize(("formula", "a", "b", "expected"), FORMULAS)
def test_formulas_give_what_they_gave(formula, a, b, expected):
    """Two similarities whose scores are known stand for any two graders."""
    known = {0.0: ("x", "abcd"), 0.25: ("axxx", "abcd"), 0.5: ("abxx", "abcd"), 1.0: ("abcd", "abcd")}
    graders = {
        name: similarity(given=f"{{{{sample.output_json.{name}}}}}", expected=f"{{{{item.{name}}}}}")
        for name in ("a", "b")
    }
    grader = multi(formula, **{name: each for name, each in graders.items() if name in formula})
    if expected is None:
        with pytest.raises(GraderError, match=r"^calculate_output: .*Pow is no operator.*fixed exponent"):
            convert(grader)
        return
    completion = json.dumps({"a": known[a][0], "b": known[b][0]})
    reference = {"a": known[a][1], "b": known[b][1]}
    assert score(grader, completion, reference) == pytest.approx(expected)


def test_a_formula_beyond_0_and_1_sets_the_range():
    imported = convert(multi("2 * a - 1", a=check()))
    assert imported.table["range"] == [-1.0, 1.0]
    assert any("from -1 to 1" in note for note in imported.notes)
    assert convert(multi("a / 2", a=check())).table["range"] == [0.0, 1.0]


def test_a_grader_that_the_formula_leaves_out_is_watched():
    imported = convert(multi("a", a=check(), b=check("like")))
    assert any("does not use b: watched" in note for note in imported.notes)
    reward = compose(imported.table)(Sample("a", (), "Paris", reference_answer="Paris"))
    assert (set(reward.components), reward.metrics["b"]) == ({"a"}, 1.0)


def test_graders_nest():
    inner = multi("min(x, y)", x=check("like", expected="a"), y=check("like", expected="b"))
    imported = convert(multi("0.5 * a + 0.5 * (1 - b)^2", a=inner, b=check("like", expected="c")))
    assert set(imported.table["components"]) == {"a_x", "a_y", "b"}
    assert imported.table["formula"] == "0.5 * (min(a_x, a_y)) + 0.5 * (1 - b) ** 2"
    assert [compose(imported.table)(Sample("a", (), text)).score for text in ("ab", "a", "abc")] == [
        1.0,
        0.5,
        0.5,
    ]


def test_one_grader_in_a_multi_may_stand_there_without_a_name_of_its_own():
    assert set(convert(multi("c") | {"graders": check()}).table["components"]) == {"c"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Email Check", "email-check"], {"email_check", "email_check_2"}),
        (["min", "9lives", "gated"], {"grader_min", "grader_9lives", "grader_gated"}),
        (["\u00e9t\u00e9", "x" * 80], {"t", "x" * 30}),
        (["", "!!"], {"string_check", "grader"}),
    ],
)
def test_names_become_names_of_components(names, expected):
    found = set()
    for name in names:
        found |= set(convert(check(name=name)).table["components"])
    if len(found) == len(names):
        assert found == expected
    graders = {f"g{place}": check(name=name) for place, name in enumerate(names)}
    assert set(convert(multi(" + ".join(graders), **graders)).table["components"]) == set(graders)


def test_names_that_come_out_the_same_stay_apart():
    inner = multi("b_c", b_c=check("like"))
    imported = convert(multi("a + a_b", a=inner, a_b=multi("c", c=check())))
    assert set(imported.table["components"]) == {"a_b_c", "a_b_c_2"}
    assert len(convert({**multi("x"), "graders": {"x": check(), "X": check()}}).table["components"]) == 2


# --- tool calls

NAME = check(given="get_acceptors", expected="{{sample.output_tools[0].function.name}}")
ARGUMENTS = check(
    given='{"smiles": "{{item.smiles}}"}', expected="{{sample.output_tools[0].function.arguments}}"
)


def called(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (called("get_acceptors", smiles="CCO"), 1.0),
        (called("get_acceptors", smiles="CCC"), 0.5),
        (called("get_donors", smiles="CCC"), 0.0),
        (None, 0.0),
    ],
)
def test_tool_calls_are_compared_as_calls(made, expected):
    grader = multi("0.5 * function_name + 0.5 * arguments", function_name=NAME, arguments=ARGUMENTS)
    reference = {"tool_calls": [{"name": "get_acceptors", "arguments": {"smiles": "CCO"}}]}
    assert score(grader, "", reference, tool_calls=(made,) if made else ()) == expected


def test_rows_are_told_to_hold_the_calls_and_not_their_pieces():
    grader = multi("n + a + c", n=NAME, a=ARGUMENTS, c=check())
    imported = convert(grader)
    assert "holds reference_answer, tool_calls." in imported.notes[0]
    assert any("the name 'get_acceptors'" in note for note in imported.notes)
    assert any("{{item.smiles}}" in note for note in imported.notes)


def test_similar_arguments_earn_their_share():
    grader = {**ARGUMENTS, "type": "text_similarity", "evaluation_metric": "fuzzy_match"}
    found = component(grader)
    assert (found["function"], found["name_weight"], found["partial_credit"]) == ("tool_call", 0.0, True)


# --- graders with a model


def test_a_score_model_becomes_a_judge_with_its_prompt_as_rubric():
    grader = {
        **scoring(),
        "input": [
            {"role": "system", "content": 'You are an expert.\nSay "1" for a match.'},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Task: {{item.messages[0].content}}"},
                    {
                        "type": "input_text",
                        "text": "Truth: {{ item.reference_answer }}. Answer: {{sample.output_text}}",
                    },
                ],
            },
            {"role": "assistant", "content": "0.5"},
        ],
        "range": [0, 1],
        "pass_threshold": 0.5,
        "sampling_params": {"temperature": 1},
    }
    imported = convert(grader, judge="amazon.nova-pro-v1:0")
    assert imported.table["components"]["q"] == {
        "function": "judge",
        "model": "amazon.nova-pro-v1:0",
        "rubric": 'You are an expert.\nSay "1" for a match.\n\n'
        "Task: (see PROMPT)\nTruth: (see REFERENCE). Answer: (see ANSWER)\n\n"
        "An answer of the judge, as an example:\n0.5",
        "scale": [0.0, 1.0],
        "whole_numbers": False,
    }
    notes = " ".join(imported.notes)
    for word in (
        "gpt-4.1-2025-04-14 becomes amazon.nova-pro-v1:0",
        "pass_threshold",
        "sampling_params",
        "`result`",
    ):
        assert word in notes
    assert "Rows:" not in notes


def test_a_range_of_a_score_model_is_kept_through_a_formula():
    imported = convert(scoring(range=[-1, 9]))
    assert (imported.table["range"], imported.table["formula"]) == ([-1.0, 9.0], "(-1 + 10 * q)")
    assert imported.table["components"]["q"]["scale"] == [-1.0, 9.0]
    half = convert(multi("0.5 * q + 0.5 * c", q=scoring(range=[0, 10]), c=check()))
    assert half.table["formula"] == "0.5 * (10 * q) + 0.5 * c"
    assert half.table["range"] == [0.0, 5.5]


def test_a_label_model_becomes_a_judge_that_chooses():
    imported = convert(labelling())
    judge = imported.table["components"]["l"]
    assert judge["labels"] == {"kind": 1.0, "neutral": 1.0, "rude": 0.0}
    assert (
        Judge(**{key: value for key, value in judge.items() if key != "function"}).labels == judge["labels"]
    )


def test_templates_in_a_prompt_name_the_place_a_judge_finds_them_in():
    text = (
        "{{item.question}} {{item.reference_answer}} {{sample.output_json}} {{sample.output_json.a[0]}} "
        "{{sample.output_tools[0].function.name}}"
    )
    imported = convert(scoring(text))
    assert component(scoring(text))["rubric"] == (
        "(see question in REFERENCE) (see reference_answer in REFERENCE) (see ANSWER) (see a.0 in ANSWER) "
        "(see TOOL CALLS OF THE ANSWER)"
    )
    assert imported.notes[0].startswith("Rows:")
    assert "question, reference_answer" in imported.notes[0]


def test_a_prompt_that_hides_the_answer_is_told():
    notes = convert(scoring("Give 1 to everybody.")).notes
    assert any("shows nothing that the model wrote" in note for note in notes)


# --- rows


@pytest.mark.parametrize(
    ("graders", "places", "moved"),
    [
        ([check()], [None], None),
        ([check(expected="{{item.reference_answer.a}}")], ["a"], "a"),
        ([check(expected="{{item.x}}")], ["x"], "x"),
        # a whole answer and something beside it: both become fields
        ([check(), check(expected="{{item.x}}")], ["reference_answer", "x"], "reference_answer, x"),
        # an answer with fields gets a further one
        (
            [check(expected="{{item.reference_answer.a}}"), check(expected="{{item.x.y}}")],
            ["a", "x.y"],
            "a, x.y",
        ),
        ([check(expected="yes")], [None], None),
    ],
)
def test_rows_are_told_to_hold_what_graders_compare_with(graders, places, moved):
    named = {f"g{place}": grader for place, grader in enumerate(graders)}
    imported = convert(multi(" + ".join(named), **named))
    assert [each.get("reference_field") for each in imported.table["components"].values()] == places
    rows = [note for note in imported.notes if note.startswith("Rows:")]
    assert bool(rows) == (moved is not None)
    assert moved is None or f"holds {moved}." in rows[0]


# --- what is refused

REFUSED = {
    "python": (
        {"type": "python", "source": "def grade(sample, item): return 1.0"},
        r"^type: a python grader is code.*reward\.py",
    ),
    "python in a multi": (
        multi("a", a={"type": "python", "source": ""}),
        r"^graders\.a\.type: a python grader is code",
    ),
    "unknown type": ({"type": "vibes"}, "^type: 'vibes' is no type.*string_check"),
    "no grader": ({"hello": "world"}, "^the file: is not a grader"),
    "a list": ([1], "is not a grader"),
    "no grader in a job": (
        {"method": {"reinforcement": {"grader": 5}}},
        r"^method\.reinforcement\.grader: is not",
    ),
    "operation": (check("equals"), "^operation: 'equals' is none; use eq, ne, like, ilike"),
    "metric": (similarity("bertscore"), "^evaluation_metric: 'bertscore' is none; use fuzzy_match"),
    "no input": ({**check(), "input": None}, "^input: is missing, or is no text"),
    "two templates": (
        check(expected="{{item.a}} {{item.b}}"),
        "^reference: '{{item.a}} {{item.b}}' is more than one",
    ),
    "text around a template": (check(given="x {{sample.output_text}}"), "^input: .*more than one"),
    "an unknown space": (check(given="{{row.x}}"), "^input: .*nothing else"),
    "two samples": (check(expected=ANSWER), "^input: of input and reference, one.*both are"),
    "no sample": (check(given=REFERENCE), "neither is"),
    "contained the other way": (check("like", REFERENCE, ANSWER), "^reference: looks in the expected text"),
    "an empty text": (check(expected=" "), "^reference: is empty"),
    "a whole object": (check(given="{{sample.output_json}}"), "json_match"),
    "a whole tool call": (
        check(given="{{sample.output_tools[0]}}"),
        "^input: .*neither the name of a call nor",
    ),
    "a part of a tool's name": (
        check("like", given="{{sample.output_tools[0].function.name}}"),
        "^operation: tool calls can only be compared by eq",
    ),
    "audio": (check(given="{{sample.output_audio.data}}"), "nothing that a completion has"),
    "audio in a prompt": (
        scoring("{{sample.output_audio.data}}"),
        r"^input\[0\]\.content: .*nothing that a judge",
    ),
    "an image": (
        scoring([{"type": "input_image", "image_url": "x"}]),
        r"^input\[0\]\.content: input_image is no text",
    ),
    "no messages": ({**scoring(), "input": []}, "^input: is not a list of messages"),
    "a falling range": (scoring(range=[1, 0]), "^range: .*rising order"),
    "a range of texts": (scoring(range=["0", "1"]), "^range: "),
    "an unknown label": (
        labelling(passing_labels=["kindest"]),
        "^passing_labels: 'kindest' is none of labels",
    ),
    "all labels pass": (
        labelling(passing_labels=["kind", "neutral", "rude"]),
        "every answer gets the same score",
    ),
    "no label passes": (labelling(passing_labels=[]), "every answer gets the same score"),
    "no labels": (labelling(labels="kind"), "^labels: is not a list of texts"),
    "no graders": (multi("a"), "^graders: is no object of graders"),
    "no formula": ({**multi("a", a=check()), "calculate_output": None}, "^calculate_output: is missing"),
    "an unknown name": (multi("a + b", a=check()), "^calculate_output: 'b' is none of graders; use a,"),
    "an unknown function": (multi("sin(a)", a=check()), "'sin' is none of graders"),
    "code": (multi("__import__('os')", a=check()), "^calculate_output: "),
    "a formula that cannot be": (
        multi("a +", a=check()),
        "^calculate_output: .*not an arithmetic expression",
    ),
    "division by nothing": (multi("1 / a", a=check()), "^calculate_output: .*divide by zero"),
    "the logarithm of nothing": (multi("log(a)", a=check()), "^calculate_output: .*log"),
    "a constant": (multi("a - a + 0 * a", a=check(), b=check()), None),
    "a huge prompt": (scoring(ANSWER + "x" * 30_000), "rubric is a text of 1 to 20000 characters"),
    "too many graders": (
        multi(" + ".join(f"g{n}" for n in range(60)), **{f"g{n}": check() for n in range(60)}),
        "1 to 50 components",
    ),
}


@pytest.mark.parametrize(("grader", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_mean_the_same_is_refused_in_words(grader, says):
    if says is None:
        # An expression whose bounds are wide although its value is fixed is only as good as its grader.
        convert(grader)
        return
    with pytest.raises(GraderError, match=says):
        convert(grader)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(GraderError) as raised:
        convert(multi("a + c", a=check("equals"), b={"type": "python", "source": ""}))
    lines = str(raised.value).split("\n")
    assert [line.split(":")[0] for line in lines] == [
        "graders.a.operation",
        "graders.b.type",
        "calculate_output",
    ]
    assert all(line.endswith(".") for line in lines)


# --- the text


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda grader: grader,
        lambda grader: {"grader": grader, "item": {}, "model_sample": "x"},
        lambda grader: {
            "model": "o4-mini",
            "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
        },
    ],
)
def test_a_file_may_hold_the_grader_or_the_job_around_it(tmp_path, wrapped):
    path = tmp_path / "grader.json"
    path.write_text(json.dumps(wrapped(check())))
    assert tomllib.loads(main_text(path))["reward"]["components"]["c"]["function"] == "string_check"


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(GraderError, match="cannot be read: No such file"):
        main_text(tmp_path / "grader.json")
    (tmp_path / "grader.json").write_text("{")
    with pytest.raises(GraderError, match="is not JSON"):
        main_text(tmp_path / "grader.json")


AWKWARD = st.text(st.characters(exclude_categories=()), max_size=30)


@settings(max_examples=300)
@given(AWKWARD, AWKWARD, st.lists(AWKWARD.filter(str.strip), min_size=2, max_size=4, unique=True))
def test_what_is_written_is_toml_that_says_the_same(value, prompt, labels):
    graders = [
        check("like", expected=f"x{value}".replace("{{", "")),
        labelling(labels=labels, passing_labels=labels[:1]),
    ]
    graders.append(scoring(f"{prompt}\n{value} Grade it.".replace("{{", "")))
    for grader in graders:
        imported = convert(grader)
        written = tomllib.loads(imported.toml)["reward"]
        # Half a surrogate pair has no place in a file.
        whole = json.loads(json.dumps(imported.table, ensure_ascii=False).encode("utf-8", "replace"))
        assert written == whole


def test_the_text_reads_well():
    grader = multi(
        "0.7 * match + 0.3 * quality",
        match=check("ilike", expected="{{item.city}}"),
        quality=scoring('Say "1" for a match.\nElse 0.', range=[0, 1]),
    )
    text = convert(grader).toml
    body = text[text.index("[reward]") :]
    assert (
        body
        == '''[reward]
range = [0.0, 1.0]
formula = "0.7 * match + 0.3 * quality"

[reward.components.match]
function = "string_check"
operation = "ilike"
reference_field = "city"
strip = false

[reward.components.quality]
function = "judge"
model = "us.amazon.nova-2-lite-v1:0"
rubric = """
Say "1" for a match.
Else 0."""
scale = [0.0, 1.0]
whole_numbers = false
'''
    )
    assert all(
        line.startswith("#") and len(line) <= 100
        for line in text[: text.index("[reward]")].split("\n")
        if line
    )


def test_what_is_written_is_a_team_file(tmp_path):
    """The platform's own check accepts it, parameters and all."""
    shutil.copytree(ROOT / "teams", tmp_path / "teams")
    platform = tmp_path / "teams" / "platform.toml"
    platform.write_text(
        platform.read_text()
        + '\n[judges."us.amazon.nova-2-lite-v1:0"]\nregions = ["us-east-1", "us-west-2"]\n'
    )
    file = tmp_path / "teams" / "quotes" / "team.toml"
    head, _, rest = file.read_text().partition("[reward]")
    grader = multi(
        "a * max(s, q) - 0.5 * l",
        a=check(given="{{sample.output_json.a}}", expected="{{item.a}}"),
        s=similarity("rouge_l"),
        q=scoring(range=[1, 5]),
        l=labelling(),
    )
    file.write_text(head + convert(grader).toml + "\n" + rest[rest.index("[training]") :])
    team = load_team(tmp_path, "quotes", load_platform(tmp_path))
    assert set(team.reward.components) == {"a", "s", "q", "l"}


# --- into a team's file


SETTINGS = (ROOT / "teams" / "quotes" / "team.toml").read_text()
REWARD = convert(check()).toml
OLD = SETTINGS[SETTINGS.index("[reward]") : SETTINGS.index("[training]")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Between other tables, at the end, and where there is none.
        (SETTINGS, SETTINGS.replace(OLD, f"{REWARD}\n")),
        (SETTINGS.replace(OLD, "") + "\n" + OLD.rstrip() + "\n", SETTINGS.replace(OLD, "") + "\n" + REWARD),
        (SETTINGS.replace(OLD, ""), SETTINGS.replace(OLD, "") + "\n" + REWARD),
        ("", REWARD),
        ("a = 1", f"a = 1\n\n{REWARD}"),
        # A comment right above a table is the table's; another one is not.
        (
            "# of a\na = 1\n\n# lone\n\n# old\n[reward]\nx = 1\n# of b\n[b]\n",
            f"# of a\na = 1\n\n# lone\n\n{REWARD}\n# of b\n[b]\n",
        ),
        # In pieces, quoted, with an array of tables, and with headers that are text.
        (
            '[reward.components.a]\n[b]\nc = """\n[reward]\n"""\n["reward"]\nx = 1\n[[reward.y]]\n[d]\n',
            f'{REWARD}\n[b]\nc = """\n[reward]\n"""\n[d]\n',
        ),
        (SETTINGS.replace("\n", "\r\n"), SETTINGS.replace(OLD, f"{REWARD}\n").replace("\n", "\r\n")),
    ],
)
def test_a_team_file_gets_the_reward_and_keeps_every_other_byte(before, after):
    assert placed(before.encode(), REWARD, name="team.toml", force=True).decode() == after


def test_importing_twice_leaves_what_importing_once_left():
    reward = convert(scoring()).toml
    assert reward.startswith("#")
    once = placed(SETTINGS.encode(), reward, name="team.toml", force=True)
    assert placed(once, reward, name="team.toml", force=True) == once


@pytest.mark.parametrize(
    ("before", "force", "says"),
    [
        (SETTINGS, False, "has a [reward] already: --force"),
        ("reward = { range = [0, 1] }\n", True, "in another form than [reward] tables"),
        ("reward.range = [0, 1]\n[reward.components]\n", True, "in another form than [reward] tables"),
        # What looks like a table is the middle of a text.
        ('[reward]\nx = 1\n[c]\nd = """ \'\'\'\n[reward]\nq\n[e]\n"""\n', True, "in another form than"),
        ("[reward", True, "is not valid TOML"),
    ],
)
def test_fails_when_the_reward_of_a_file_cannot_be_replaced(before, force, says):
    with pytest.raises(GraderError) as raised:
        placed(before.encode(), REWARD, name="teams/a/team.toml", force=force)
    assert str(raised.value).startswith("teams/a/team.toml ")
    assert says in str(raised.value)


def run(monkeypatch, capsys, root, *words):
    monkeypatch.setattr(terminal, "ROOT", root)
    monkeypatch.setattr(cli, "signal", SimpleNamespace(SIGTERM=0, SIGHUP=0, signal=lambda *_: None))
    monkeypatch.setattr("sys.argv", ["rft", "import-grader", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code or 0, " ".join((said.out + said.err).split())


def test_the_command_writes_the_table_where_it_is_told_to(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "teams", tmp_path / "teams")
    team = tmp_path / "teams" / "quotes" / "team.toml"
    file = tmp_path / "grader.json"
    file.write_text(json.dumps(check()))
    code, said = run(monkeypatch, capsys, tmp_path, file)
    assert (code, said) == (0, " ".join(REWARD.split()))
    code, said = run(monkeypatch, capsys, tmp_path, file, "--into", "quotes")
    assert code == 1
    assert "teams/quotes/team.toml has a [reward] already: --force replaces it" in said
    assert team.read_text() == SETTINGS
    code, said = run(monkeypatch, capsys, tmp_path, file, "--into", "quotes", "--force")
    assert (code, team.read_text()) == (0, SETTINGS.replace(OLD, f"{REWARD}\n"))
    assert "has a new [reward]" in said
    assert "rft score quotes" in said
    file.write_text(json.dumps(scoring()))
    code, said = run(
        monkeypatch, capsys, tmp_path, file, "--into", "quotes", "--force", "--judge", "a.judge-v1:0"
    )
    assert code == 0
    assert "Still to mend: teams/quotes/team.toml" in said
    assert '[judges."a.judge-v1:0"]' in said
    code, said = run(monkeypatch, capsys, tmp_path, file, "--into", "quote")
    assert code == 1
    assert "teams/quote: no such team (did you mean quotes?)" in said
