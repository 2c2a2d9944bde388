"""New teams: folders that pass every check at once, or nothing at all."""

import json
import shutil
from pathlib import Path

import pytest

from infra.config import Platform, SettingsError, load_platform, load_team, load_teams, reward_functions
from lambdas.dataset import EVALUATION_ROW_BYTES, EVALUATION_ROWS, check
from rft import new_team
from rft.new_team import TASKS, NewTeamError, Request, examples, write_team
from rft.rows import Columns

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "teams").mkdir()
    text = (REPOSITORY / "teams/platform.toml").read_text()
    (tmp_path / "teams/platform.toml").write_text(f'{text}\n[judges."amazon.nova-pro-v1:0"]\n')
    return tmp_path


@pytest.fixture
def platform(root: Path) -> Platform:
    return load_platform(root)


def request(task: str = "number", **more: object) -> Request:
    base = {"name": "fresh", "owner": "a@example.com", "description": 'Says "hi" \\ \x7f', "task": task}
    return Request(**{**base, "tags": {"cost-center": "42"}, **more})


@pytest.mark.parametrize("task", TASKS)
def test_a_team_of_every_task_passes_the_settings_and_dataset_checks(
    root: Path, platform: Platform, task: str
):
    made = write_team(root, request(task), platform)
    assert load_teams(root) == [made.team]
    assert made.team.description == 'Says "hi" \\ \x7f'
    [component] = made.team.reward.components.values()
    assert component.function in reward_functions()
    for name in ("train", "evaluation"):
        with (root / f"teams/fresh/data/{name}.jsonl").open("rb") as stream:
            rows = (
                {"rows": EVALUATION_ROWS, "row_bytes": EVALUATION_ROW_BYTES} if name == "evaluation" else {}
            )
            found = check(stream, name, **rows)
            assert found.duplicates.count == 0
    assert made.read[0].dropped == {}
    assert sorted(path.name for path in (root / "teams").iterdir()) == ["fresh", "platform.toml"]


def test_the_same_request_writes_the_same_bytes(root: Path, platform: Platform):
    write_team(root, request("sql"), platform)
    first = {path: path.read_bytes() for path in (root / "teams/fresh").rglob("*") if path.is_file()}
    shutil.rmtree(root / "teams/fresh")
    write_team(root, request("sql"), platform)
    assert first == {path: path.read_bytes() for path in first}


def test_rows_become_what_the_reward_function_compares_with(root: Path, platform: Platform, tmp_path: Path):
    path = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"{n} + 1?", "answer": f"It is so.\n#### {n + 1}"} for n in range(130)]
    rows.append({"question": "And now?", "answer": "nobody knows"})
    path.write_text("\n".join(map(json.dumps, rows)))
    made = write_team(root, request(train=str(path)), platform)
    [(reason, lines)] = made.read[0].dropped.items()
    assert "cannot use" in reason
    assert lines == (131,)
    [first, *_] = (root / "teams/fresh/data/train.jsonl").read_text().splitlines()
    row = json.loads(first)
    assert row["messages"][0] == {"role": "system", "content": TASKS["number"].instruction}
    assert row["reference_answer"].isdecimal()


def test_labels_are_read_off_the_rows_and_asked_for(root: Path, platform: Platform, tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "text,label\n" + "".join(f"ticket {n},{'new hire' if n % 3 else 'billing'}\n" for n in range(140))
    )
    made = write_team(root, request("label", train=str(path)), platform)
    [component] = made.team.reward.components.values()
    assert component.parameters["options"] == {"billing": [], "new hire": []}
    assert made.instruction.endswith("one of these labels: billing, new hire.")


def test_a_held_out_file_keeps_its_prompts_out_of_training(root: Path, platform: Platform, tmp_path: Path):
    train, held = tmp_path / "train.csv", tmp_path / "held.csv"
    train.write_text("question,answer\n" + "".join(f"{n}?,{n}\n" for n in range(120)))
    held.write_text("question,answer\n" + "".join(f"{n}?,{n}\n" for n in range(110, 140)))
    made = write_team(root, request(train=str(train), evaluation=str(held)), platform)
    assert made.train is not None
    assert made.evaluation is not None
    assert (len(made.train.rows), len(made.evaluation.rows)) == (110, 30)


def test_rows_in_s3_are_left_where_they_are(root: Path, platform: Platform):
    places = {"train": "s3://some-bucket/train.jsonl", "evaluation": "s3://some-bucket/evaluation.jsonl"}
    made = write_team(root, request(**places), platform)
    assert made.team.dataset.files() == places
    assert [path.name for path in (root / "teams/fresh").iterdir()] == ["team.toml"]


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"name": "../fresh"}, NewTeamError, "is no name for a team"),
        ({"name": "x"}, SettingsError, "3 to 24 characters"),
        ({"task": "poems"}, NewTeamError, "one of number, formula"),
        ({"owner": "nobody"}, SettingsError, "an e-mail address"),
        ({"tags": {}}, SettingsError, "every team must have this tag"),
        ({"base_model": "amazon.nova-micro-v1:0"}, SettingsError, "allowed: amazon.nova-2-lite"),
        ({"train": "s3://some-bucket/a.jsonl"}, NewTeamError, "both as files"),
        ({"evaluation": "rows.csv"}, NewTeamError, "needs --train"),
        (
            {"task": "label", "train": "s3://b/a", "evaluation": "s3://b/c"},
            NewTeamError,
            "give --train as a file",
        ),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(
    root: Path, platform: Platform, more: dict[str, object], error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        write_team(root, request(**more), platform)
    assert [path.name for path in (root / "teams").iterdir()] == ["platform.toml"]


def test_too_few_rows_are_told_with_what_was_dropped(root: Path, platform: Platform, tmp_path: Path):
    path = tmp_path / "few.csv"
    path.write_text("question,answer\n" + "".join(f"{n}?,{n}\n" for n in range(50)))
    with pytest.raises(Exception, match="50 usable rows with 50 different prompts are too few"):
        write_team(root, request(train=str(path)), platform)
    columns = Columns(prompt="question", answer="answer")
    path.write_text("question,answer\n?,\n")
    with pytest.raises(Exception, match="1 rows: has no reference answer"):
        write_team(root, request(train=str(path), columns=columns), platform)


def test_a_judged_team_needs_a_judge(root: Path):
    shutil.copy(REPOSITORY / "teams/platform.toml", root / "teams")
    with pytest.raises(NewTeamError, match=r"allows none: ask the platform team to add \[judges"):
        write_team(root, request("judged"), load_platform(root))


def test_what_is_there_stays_as_it_is(root: Path, platform: Platform):
    (root / "teams/fresh").mkdir()
    (root / "teams/fresh/notes.txt").write_text("mine")
    with pytest.raises(NewTeamError, match="is there already"):
        write_team(root, request(), platform)
    assert [path.name for path in (root / "teams/fresh").iterdir()] == ["notes.txt"]


def test_an_interrupted_writing_leaves_no_half_folder(
    root: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(new_team, "load_team", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_team(root, request(), platform)
    assert [path.name for path in (root / "teams").iterdir()] == ["platform.toml"]
    monkeypatch.setattr(new_team, "load_team", load_team)
    assert write_team(root, request(), platform).team.name == "fresh"


def test_examples_are_as_many_as_asked_for_and_no_two_alike():
    for task in TASKS:
        prompts = [row["messages"][0]["content"] for _, row in examples(task).rows]
        assert len(set(prompts)) == len(prompts) == 150
