"""`rft score`: the deployed reward on references and completions, what is shown, and what is refused."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from infra.config import load_platform, load_team
from lambdas.composition import compose
from lambdas.contract import reward_handler
from lambdas.dataset import DatasetError
from rft import cli, scoring, terminal
from rft.scoring import ScoringError

ROOT = Path(__file__).resolve().parents[2]
OWN = """\
from lambdas.contract import Reward, Sample


def score(sample: Sample) -> Reward:
    return Reward(float(sample.completion == sample.reference_answer), reason="by my own rule")
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of which only the teams are its own."""
    shutil.copytree(ROOT / "teams", tmp_path / "teams")
    monkeypatch.setattr(terminal, "ROOT", tmp_path)
    return tmp_path


def rewarded(root, components, own=None):
    """Gives the team quotes another reward, and perhaps a reward function of its own."""
    file = root / "teams/quotes/team.toml"
    head, _, rest = file.read_text().partition("[reward]")
    file.write_text(head + f"[reward]\n{components}\n" + rest[rest.index("[training]") :])
    if own is not None:
        (root / "teams/quotes/reward.py").write_text(own)


def quotes(root):
    return load_team(root, "quotes", load_platform(root))


def lines(path, *documents):
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    return path


def references(root):
    team = quotes(root)
    return scoring.score_references(team, scoring.dataset_rows(root, team), lambda _done: None)


def given(root, *documents):
    team = quotes(root)
    rows = scoring.dataset_rows(root, team)
    answered = scoring.completions(lines(root / "c.jsonl", *documents), rows, rows)
    return scoring.score_completions(team, answered, lambda _done: None)


def shown(renderable, width=100):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(renderable, highlight=False)
    return captured.get()


def rft(*words):
    """Runs the command in this process; returns its exit code and all it said."""
    done = CliRunner().invoke(cli.app, [*map(str, words)], env={"COLUMNS": "100"})
    failed = done.exception if not isinstance(done.exception, SystemExit) else None
    return done.exit_code, done.output + (f"{type(failed).__name__}: {failed}" if failed else "")


# --- scoring


@pytest.mark.parametrize(("team", "rows"), [("quotes", 480), ("support", 576)])
def test_every_reference_of_the_sample_teams_earns_the_maximum(root, team, rows):
    code, said = rft("score", team)
    assert code == 0, said
    assert f"{rows} references as completions" in said
    assert "every reference earns the maximum of 1" in said
    assert "no trouble" in said


def test_a_completion_earns_what_the_deployed_handler_gives_it(root):
    rewarded(
        root,
        '[reward.components.answer]\nfunction = "numeric_answer"\nweight = 3\n'
        '[reward.components.length]\nfunction = "length"\nmaximum = 60\nshape = "cosine"\n',
    )
    team = quotes(root)
    rows = scoring.dataset_rows(root, team)
    texts = ["#### 3737.50", "it is\n#### 3737.50", "#### 1", "", "x" * 100, "x" * 500_000]
    scores = given(root, *({"row": 1, "completion": text} for text in texts))
    handler = reward_handler(compose(team.reward.document()))
    batch = [
        {
            "id": rows[0].id,
            "messages": [*rows[0].data["messages"], {"role": "assistant", "content": text}],
            "metadata": {"reference_answer": rows[0].data["reference_answer"]},
        }
        for text in texts
    ]
    expected = [entry["aggregate_reward_score"] for entry in handler(batch, None)]
    assert [each.score for each in scores.found] == expected
    assert len(set(expected)) >= 4
    assert scores.troubles() == {"over_length": 1}
    assert not scores.mistaken


def test_the_rest_of_a_row_reaches_the_reward_function_as_metadata(root):
    rewarded(
        root,
        '[reward.components.own]\nfunction = "reward.py"',
        OWN.replace("sample.completion == sample.reference_answer", 'sample.metadata["template"] == "total"'),
    )
    assert [
        each.score for each in given(root, {"row": 1, "completion": "x"}, {"row": 2, "completion": "x"}).found
    ] == [
        1.0,
        0.0,
    ]


def test_a_whole_message_may_carry_tool_calls(root):
    rewarded(root, '[reward.components.calls]\nfunction = "tool_call"')
    call = {"type": "function", "function": {"name": "pay", "arguments": "{}"}}
    row = {
        "messages": [{"role": "user", "content": "Pay."}],
        "reference_answer": {"name": "pay", "arguments": {}},
    }
    dataset = lines(root / "rows.jsonl", row)
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    file = lines(root / "c.jsonl", {"row": 1, "completion": message})
    code, said = rft("score", "quotes", "--rows", dataset, "--completions", file, "--row", 1, "--explain")
    assert code == 0, said
    assert "row 1 · rows-1 · 1.000" in said
    assert '"name": "pay"' in said


def test_a_reference_that_misses_the_maximum_fails_the_command_and_is_shown(root):
    data = root / "teams/quotes/data/train.jsonl"
    text = data.read_text()
    first, _, rest = text.partition("\n")
    data.write_text(first.replace('"3737.50"', '"some 3737"') + "\n" + rest)
    code, said = rft("score", "quotes")
    assert code == 1
    assert "1 of 480 references miss the maximum of 1" in said
    assert "unscorable: answer" in said or "unscorable: the reference answer" in said
    assert "rft score quotes --row 1 --explain" in said


def test_a_teams_own_function_is_given_the_reference_in_the_usual_forms(root):
    rewarded(root, '[reward.components.own]\nfunction = "reward.py"', OWN)
    assert not references(root).mistaken
    rewarded(
        root,
        '[reward.components.own]\nfunction = "reward.py"',
        OWN.replace("sample.completion ==", 'sample.completion == "#### " +'),
    )
    assert not references(root).mistaken


def test_a_teams_own_function_may_write_its_references_itself(root):
    wanted = OWN.replace("sample.completion ==", 'sample.completion == "It is " +')
    rewarded(root, '[reward.components.own]\nfunction = "reward.py"', wanted)
    assert len(references(root).missed) == 480
    writer = "\n\ndef reference_completion(sample):\n    return 'It is ' + sample.reference_answer\n"
    rewarded(root, '[reward.components.own]\nfunction = "reward.py"', wanted + writer)
    assert not references(root).mistaken


def test_a_function_that_always_raises_is_shown_where_a_job_would_only_fail(root):
    rewarded(
        root,
        '[reward.components.own]\nfunction = "reward.py"',
        OWN.replace("sample.reference_answer)", 'sample.metadata["solution"])'),
    )
    code, said = rft("score", "quotes")
    assert code == 1
    assert "error: KeyError at reward.py:5" in said
    assert "raised on all of a batch, which fails a job" in said
    assert "480 error" in said


# --- rows and completions


def test_rows_are_chosen_by_number_or_id_through_both_files(root):
    rows = scoring.dataset_rows(root, quotes(root))
    assert [row.place for row in scoring.chosen(rows, ["361", "quotes-train-0002"])] == [
        "teams/quotes/data/train.jsonl:2",
        "teams/quotes/data/evaluation.jsonl:1",
    ]
    with pytest.raises(ScoringError, match=r"no row 481: rows are numbered from 1 to 480"):
        scoring.chosen(rows, ["481"])
    with pytest.raises(ScoringError, match=r"no row has the id 'x': the first one's is 'quotes-train-0001'"):
        scoring.chosen(rows, ["x"])


def test_a_row_is_one_line_whatever_its_text_holds(root):
    rows = [
        {"messages": [{"role": "user", "content": f"a\u2028b\x85{n}"}], "reference_answer": str(n)}
        for n in range(3)
    ]
    file = root / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    found = scoring.dataset_rows(root, quotes(root), file)
    assert [(row.number, row.place) for row in found] == [(n + 1, f"rows.jsonl:{n + 1}") for n in range(3)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('"text"', 'expected an object with "completion"'),
        ('{"row": 1}', 'expected an object with "completion"'),
        ('{"completion": "x"}', 'either "id" or "row"'),
        ('{"row": 1, "id": "a", "completion": "x"}', 'either "id" or "row"'),
        ('{"row": "1", "completion": "x"}', "\"row\" is a whole number, not '1'"),
        ('{"row": 1.5, "completion": "x"}', "there is no row 1.5"),
        ('{"row": true, "completion": "x"}', "there is no row True"),
        ('{"row": 0, "completion": "x"}', "numbered from 1 to 480"),
        ('{"id": 1, "completion": "x"}', '"id" is a text, not 1'),
        ('{"id": "nobody", "completion": "x"}', "no row has the id 'nobody'"),
        ('{"row": 1, "completion": 5}', '"completion" is a text, or a message'),
        ('{"row": 1, "completion": {"role": "user"}}', '"completion" is a text, or a message'),
    ],
)
def test_fails_with_file_and_line_when_a_completion_cannot_be_read(root, line, says):
    (root / "c.jsonl").write_text('{"row": 1, "completion": "x"}\n\n' + line + "\n")
    rows = scoring.dataset_rows(root, quotes(root))
    with pytest.raises(ScoringError) as raised:
        scoring.completions(root / "c.jsonl", rows, rows)
    assert str(raised.value).startswith(f"{root / 'c.jsonl'}:3: ")
    assert says in str(raised.value)


def test_all_wrong_lines_are_told_up_to_a_bound(root):
    rows = scoring.dataset_rows(root, quotes(root))
    (root / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\xff\n" * 50)
    with pytest.raises(ScoringError) as raised:
        scoring.completions(root / "c.jsonl", rows, rows)
    told = str(raised.value).split("\n")
    assert (len(told), told[-1]) == (21, "and 30 more lines")
    assert "is not UTF-8" in told[0]


def test_fails_when_there_is_nothing_to_score(root):
    rows = scoring.dataset_rows(root, quotes(root))
    file = lines(root / "c.jsonl", {"row": 1, "completion": "x"})
    with pytest.raises(ScoringError, match="no completion of the rows asked for"):
        scoring.completions(file, rows, rows[1:])
    with pytest.raises(ScoringError, match="has no completion: its lines look like"):
        scoring.completions(lines(file), rows, rows)
    with pytest.raises(ScoringError, match=r"cannot be read: No such file"):
        scoring.completions(root / "nowhere.jsonl", rows, rows)


def test_rows_in_s3_are_to_be_fetched_first(root):
    file = root / "teams/quotes/team.toml"
    text = file.read_text()
    file.write_text(
        text.replace('"data/train', '"s3://bucket/train').replace('"data/eval', '"s3://bucket/eval')
    )
    with pytest.raises(ScoringError, match=r"aws s3 cp s3://bucket/train.jsonl rows.jsonl.*--rows"):
        scoring.dataset_rows(root, quotes(root))
    rows = scoring.dataset_rows(root, quotes(root), ROOT / "teams/quotes/data/train.jsonl")
    assert len(rows) == 360


def test_a_broken_dataset_is_told_as_such(root):
    (root / "teams/quotes/data/train.jsonl").write_text("{}\n")
    with pytest.raises(DatasetError, match=r"teams/quotes/data/train.jsonl cannot be used"):
        scoring.dataset_rows(root, quotes(root))


# --- judges


def test_a_judge_says_by_name_what_it_needs(root, monkeypatch):
    rewarded(
        root,
        '[reward.components.tone]\nfunction = "judge"\nmodel = "amazon.nova-pro-v1:0"\nrubric = "Kind."',
    )
    platform = root / "teams/platform.toml"
    platform.write_text(platform.read_text() + '\n[judges."amazon.nova-pro-v1:0"]\n')
    team = quotes(root)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ScoringError) as raised:
        scoring.require_judges(team, {})
    for named in ("components.tone", "amazon.nova-pro-v1:0", "AWS_PROFILE", "AWS_REGION", "InvokeModel"):
        assert named in str(raised.value)
    code, said = rft("score", "quotes")
    assert code == 1
    assert "AWS_ACCESS_KEY_ID" in said
    scoring.require_judges(load_team(root, "support", load_platform(root)), {})


# --- what is shown and written


MIXED = (
    {"row": 1, "completion": "#### 3737.50"},
    {"row": 2, "completion": "#### 1"},
    {"row": 3, "completion": "=cmd|' /C calc'!A0 \x1b[31m\u202e[bold]\ud800\n#### no"},
)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_shown_fits_the_terminal_and_does_not_steer_it(root, width):
    scores = given(root, *MIXED)
    for text in (
        shown(scoring.overview(scores, width), width),
        shown(scoring.explanation(scores, named=True), width),
    ):
        assert all(len(line) <= width for line in text.split("\n"))
        assert not any(sign in text for sign in ("\x1b", "\u202e", "\ud800"))
    assert "\\x1b[31m\\u202e[bold]\\ud800" in shown(scoring.explanation(scores, named=True))


def test_the_distribution_shows_how_often_each_score_came(root):
    text = shown(scoring.overview(given(root, *MIXED), 100))
    bars = re.findall(r"(?m)^ (\d\.\d{3}) +(█\S*) +(\d+) +(\d+%)", text)
    assert [(score, *counts) for score, _, *counts in bars] == [("1.000", "1", "33%"), ("0.000", "2", "67%")]
    assert len(bars[1][1]) == 2 * len(bars[0][1])


def test_nothing_less_than_the_maximum_looks_like_it():
    assert scoring._number(0.99999) == "0.999"
    assert scoring._number(1.0) == "1.000"
    assert scoring._percent(0.999) == ">99%"
    assert scoring._percent(0.001) == "<1%"


def test_rows_with_the_same_low_score_do_not_push_the_others_out(root):
    many = [{"row": n, "completion": "#### 1"} for n in range(1, 41)]
    rewarded(root, '[reward.components.l]\nfunction = "length"\nmaximum = 60\nshape = "cosine"')
    text = shown(scoring.overview(given(root, *many, {"row": 50, "completion": "x" * 30}), 100))
    listed = re.findall(r"(?m)^ +(\d+)  (\d\.\d{3})  ", text)
    assert len(listed) == 6
    assert listed[0] == ("50", "0.513")


def test_explaining_shows_a_row_in_full(root):
    file = lines(root / "c.jsonl", *MIXED)
    code, said = rft("score", "quotes", "--completions", file, "--row", 2, "--explain")
    assert code == 0, said
    for part in (
        "quotes-train-0002",
        "train.jsonl:2",
        "label printers",
        "#### 1",
        "26.25",
        "'1' is not '26.25'",
    ):
        assert part in said
    assert "answer  0.000" in said
    assert "quotes-train-0001" not in said


def test_files_hold_every_sample(root):
    file = lines(root / "c.jsonl", *MIXED)
    code, said = rft(
        "score", "quotes", "--completions", file, "--csv", root / "out.csv", "--json", root / "out.json"
    )
    assert code == 0, said
    document = json.loads((root / "out.json").read_text())
    assert document["summary"]["mean"] == pytest.approx(1 / 3)
    assert [each["score"] for each in document["samples"]] == [1.0, 0.0, 0.0]
    assert document["samples"][2]["completion"].startswith("=cmd|")
    with (root / "out.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["answer"] for row in table] == ["1.0", "0.0", "0.0"]
    assert table[1]["reason"] == "'1' is not '26.25'"


def test_no_cell_of_a_spreadsheet_is_a_formula(root):
    rewarded(
        root,
        '[reward.components.own]\nfunction = "reward.py"',
        OWN.replace('reason="by my own rule"', "extracted=sample.completion"),
    )
    scores = given(root, *MIXED)
    scoring.write_csv(scores, root / "out.csv")
    with (root / "out.csv").open(newline="") as stream:
        assert [row["extracted"][:2] for row in csv.DictReader(stream)] == ["##", "##", "'="]


def test_fails_when_a_file_cannot_be_written(root):
    with pytest.raises(ScoringError, match="cannot be written"):
        scoring.write_json(given(root, *MIXED), root / "nowhere" / "out.json")
