"""`rft check`: what is found before anything is paid for, what has changed, and how both are shown."""

import datetime
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from typer.testing import CliRunner

from rft import cli
from rft.changes import ChangesError
from rft.check import Check, CheckError, check
from rft.check_report import block, code, markdown, prose, terminal
from rft.differences import compare_rewards, compare_rows, rank_correlation, reward_findings

ROOT = Path(__file__).resolve().parents[2]
EXPLOITABLE = """\
from lambdas.contract import Reward


def score(sample):
    return Reward(1.0 if str(sample.reference_answer) in sample.completion else 0.1)
"""
HONEST = EXPLOITABLE.replace(
    "str(sample.reference_answer) in sample.completion",
    "sample.completion.strip() == str(sample.reference_answer)",
)


class Project:
    """A checkout of the project with one small team, whose files a test changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("infra", "lambdas", "rft", "requirements"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "teams" / "quotes", root / "teams" / "quotes")
        shutil.copy(ROOT / "teams" / "platform.toml", root / "teams")
        self.team = root / "teams" / "quotes"
        self.settings = self.team / "team.toml"
        self.train = self.team / "data" / "train.jsonl"
        # Fewer completions to score make the same points.
        self.edit(self.settings, r"\Z", "\n[gates.rehearsal]\nrows = 12\n")
        self.git("init", "--initial-branch", "main")
        self.commit("as it was")

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        command = ["git", *who, *words]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str = "a change") -> None:
        self.git("add", "--all")
        self.git("commit", "--message", message)

    def edit(self, path: Path, pattern: str, text: str) -> None:
        changed, count = re.subn(pattern, lambda _: text, path.read_text(), count=1)
        assert count == 1, f"{pattern} is not in {path.name}"
        path.write_text(changed)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.train.read_text().splitlines()]

    def write(self, rows: list[dict[str, Any]]) -> None:
        self.train.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def own_reward(self, source: str) -> None:
        (self.team / "reward.py").write_text(source)
        text = self.settings.read_text()
        self.settings.write_text(text.replace('"numeric_answer"', '"reward.py"'))

    def check(self, **options: Any) -> Check:
        return check(self.root, "quotes", **options)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project, made once; every test gets a copy of it."""
    root = tmp_path_factory.mktemp("pristine")
    Project(root)
    return root


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Project:
    root = shutil.copytree(pristine, tmp_path / "project")
    copy = Project.__new__(Project)
    copy.root, copy.team = root, root / "teams" / "quotes"
    copy.settings, copy.train = copy.team / "team.toml", copy.team / "data" / "train.jsonl"
    return copy


@pytest.fixture
def rft(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command on the project; returns its exit code and what it wrote."""
    monkeypatch.setattr(cli.terminal, "ROOT", project.root)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, ["check", *words], env={"COLUMNS": "100"})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    return run


def levels(found: Check) -> dict[str, str]:
    return {gate.name: gate.level for gate in found.gates}


def findings(found: Check, gate: str, level: str = "stop") -> dict[str, str]:
    [wanted] = [each for each in found.gates if each.name == gate]
    return {each.rule: each.sentence for each in wanted.findings if each.level == level}


def shown(found: Check, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(terminal(found), highlight=False)
    return captured.get()


# --- the gates


@pytest.mark.parametrize("team", ["quotes", "support"])
def test_a_sample_team_passes_untouched(team: str) -> None:
    found = check(ROOT, team)
    assert levels(found) == {"settings": "pass", "dataset": "pass", "rehearsal": "pass", "cost": "pass"}
    assert found.sentence == f"{team} passes: there is nothing to object to."
    assert found.content is not None
    assert found.content.dataset is not None
    assert {*found.content.starts} == {"dev", "prod"}


def test_all_faults_of_the_settings_are_told_and_the_rest_is_checked(project: Project) -> None:
    project.edit(project.settings, r"epoch_count = 6", "epoch_count = 60\nepochs = 1")
    project.edit(project.settings, r"owner = .*", 'owner = "nobody"')
    found = project.check()
    assert levels(found) == {
        "settings": "stop",
        "dataset": "pass",
        "rehearsal": "pass",
        "cost": "skipped",
    }
    [settings] = [gate for gate in found.gates if gate.name == "settings"]
    told = "\n".join(finding.sentence for finding in settings.findings)
    assert "training.epoch_count = 60" in told
    assert "training.epochs" in told
    assert "owner" in told
    assert found.verdict == "stop"


def test_a_rule_that_is_broken_does_not_keep_the_rest_from_being_checked(project: Project) -> None:
    project.edit(project.root / "teams/platform.toml", r"epoch_count = 12", "epoch_count = 3")
    found = project.check()
    assert levels(found)["settings"] == "stop"
    assert levels(found)["rehearsal"] == "pass"
    assert levels(found)["cost"] == "pass"


def test_a_component_with_a_fault_is_not_rehearsed_but_its_rows_are_checked(project: Project) -> None:
    project.edit(project.settings, r'function = "numeric_answer"', 'function = "numeric_answer"\nform = "no"')
    found = project.check()
    assert levels(found)["dataset"] == "pass"
    assert levels(found)["rehearsal"] == "skipped"
    assert found.sentence == "quotes would fail: 1 finding stops a run. Not checked: rehearsal."


def test_an_unknown_team_is_told_with_those_there_are(project: Project) -> None:
    found = check(project.root, "quote")
    assert findings(found, "settings") == {
        "settings": "teams/quote: no such team (did you mean quotes?); teams: quotes."
    }
    assert levels(found)["dataset"] == "skipped"


def test_fails_when_the_team_has_no_such_stage(project: Project) -> None:
    with pytest.raises(CheckError, match=r"quotes has no stage 'stage' \(stages: dev, prod\)"):
        project.check(stage="stage")


def test_of_one_stage_only_what_starts_a_run_there_is_told(project: Project) -> None:
    content = project.check(stage="prod").content
    assert content is not None
    assert content.starts == {"prod": "on-upload"}


def test_a_bad_dataset_stops_with_its_lines_and_is_not_rehearsed_on(project: Project) -> None:
    rows = project.rows()
    del rows[4]["reference_answer"]
    project.write(rows)
    found = project.check()
    assert levels(found) == {
        "settings": "pass",
        "dataset": "stop",
        "rehearsal": "skipped",
        "cost": "skipped",
    }
    [told] = findings(found, "dataset").values()
    assert told.startswith("teams/quotes/data/train.jsonl: line 5: ")


def test_faults_of_both_files_are_told_at_once(project: Project) -> None:
    for path in (project.train, project.team / "data" / "evaluation.jsonl"):
        path.write_text(path.read_text() + "{not json\n")
    [gate] = [gate for gate in project.check().gates if gate.name == "dataset"]
    assert [finding.sentence.partition(":")[0] for finding in gate.findings] == [
        "teams/quotes/data/train.jsonl",
        "teams/quotes/data/evaluation.jsonl",
    ]


def test_an_evaluation_file_that_is_all_known_from_training_stops(project: Project) -> None:
    evaluation = project.team / "data" / "evaluation.jsonl"
    evaluation.write_text("".join(project.train.read_text().splitlines(keepends=True)[:50]))
    found = project.check()
    [told] = findings(found, "dataset").values()
    assert "holds 0 different prompts that are not in teams/quotes/data/train.jsonl" in told
    assert levels(found)["rehearsal"] == "pass"


def test_rows_in_s3_are_named_as_not_readable(project: Project) -> None:
    project.edit(project.settings, r'train = "data/train.jsonl"', 'train = "s3://rows/train.jsonl"')
    found = project.check()
    assert levels(found) == {
        "settings": "pass",
        "dataset": "pass",
        "rehearsal": "skipped",
        "cost": "skipped",
    }
    assert findings(found, "dataset", "info") == {
        "elsewhere": "s3://rows/train.jsonl is not readable offline: a run checks it, and all files together."
    }
    project.edit(project.settings, r'evaluation = "data/.*"', 'evaluation = "s3://rows/evaluation.jsonl"')
    found = project.check()
    assert levels(found)["dataset"] == "skipped"
    assert found.verdict == "pass"


def test_an_exploitable_reward_stops_with_what_fools_it(project: Project) -> None:
    project.own_reward(EXPLOITABLE)
    found = project.check()
    assert levels(found)["rehearsal"] == "stop"
    assert any(rule.startswith("exploit-") for rule in findings(found, "rehearsal"))


def test_a_reward_that_cannot_be_loaded_stops(project: Project) -> None:
    project.own_reward("import not_there\n" + HONEST)
    told = findings(project.check(), "rehearsal")["reward"]
    assert "reward.py cannot be loaded: ModuleNotFoundError" in told


@pytest.mark.parametrize("where", ["import sys\nsys.exit(0)\n", "import sys\n"])
def test_a_reward_cannot_end_the_check(project: Project, where: str) -> None:
    ending = HONEST.replace("    return", "    sys.exit(0)\n    return")
    project.own_reward(where + (HONEST if "exit" in where else ending))
    assert levels(project.check())["rehearsal"] == "stop"


def test_cases_of_the_team_are_held_to(project: Project) -> None:
    case = {"row": "quotes-train-0001", "completion": "#### 3737.50", "at_most": 0.5, "name": "too much"}
    (project.team / "rehearsal.jsonl").write_text(json.dumps(case) + "\n")
    assert "rehearsal.jsonl:1 (too much)" in findings(project.check(), "rehearsal")["case"]
    (project.team / "rehearsal.jsonl").write_text('{"row": "nowhere", "completion": "", "at_most": 0}\n')
    assert "no row 'nowhere'" in findings(project.check(), "rehearsal")["case"]
    (project.team / "rehearsal.jsonl").write_text("{}\n")
    assert findings(project.check(), "rehearsal")["case"].startswith("rehearsal.jsonl:1: needs one of")


def test_a_judge_is_not_asked_and_it_is_said_which(project: Project) -> None:
    platform = project.root / "teams" / "platform.toml"
    model = "us.amazon.nova-2-lite-v1:0"
    platform.write_text(platform.read_text() + f'\n[judges."{model}"]\nregions = ["us-east-1"]\n')
    text = f'function = "judge"\nmodel = "{model}"\nrubric = "Is it right?"\n'
    project.edit(project.settings, r'function = "numeric_answer"\n', text)
    found = project.check()
    assert levels(found)["settings"] == "pass", findings(found, "settings")
    [rehearsal] = [gate for gate in found.gates if gate.name == "rehearsal"]
    assert rehearsal.level == "skipped"
    assert f"reward.components.answer asks {model}" in rehearsal.skipped
    assert levels(found)["cost"] in ("pass", "warn")


def test_a_run_that_cannot_fit_its_budget_stops_and_one_that_may_not_fit_warns(project: Project) -> None:
    platform = project.root / "teams" / "platform.toml"
    prices = "input_per_million_tokens = 1\noutput_per_million_tokens = 1\ntraining_per_hour = 100\n"
    prices += "training_tokens_per_hour = 1e6\n"
    platform.write_text(platform.read_text() + f'\n[prices.models."amazon.nova-2-lite-v1:0:256k"]\n{prices}')
    settings = project.settings.read_text()
    seen = {}
    for cap in (1, 300, 1_000_000):
        project.settings.write_text(f"{settings}\n[budget]\nper_run = {cap}\n")
        seen[cap] = levels(project.check())["cost"]
    assert seen == {1: "stop", 300: "warn", 1_000_000: "pass"}


# --- beside an earlier revision


def test_nothing_changed_is_no_new_run(project: Project) -> None:
    found = project.check(against="HEAD")
    assert found.against is not None
    assert found.against.new_run is False
    assert not found.against.settings
    assert not found.against.files
    assert not found.against.rewards
    assert found.verdict == "pass"


def test_changed_rows_are_counted_by_kind_and_make_a_new_run(project: Project) -> None:
    rows = project.rows()
    removed = rows.pop(10)
    rows[0]["reference_answer"] = "1"
    rows[1]["messages"][-1]["content"] += " Thank you."
    rows[2]["wording"] = "other"
    new = json.loads(json.dumps(rows[3])) | {"id": "new-1"}
    new["messages"][-1]["content"] = "What is the sum of two pallets at $10 and four at $20, in dollars?"
    project.write([*rows, new])
    found = project.check(against="HEAD").against
    assert found is not None
    [file] = found.files
    assert (file.file, file.before, file.after) == ("train", 360, 360)
    assert file.counts == {"added": 1, "removed": 1, "reference": 1, "prompt": 1, "metadata": 1}
    by = {change.kind: change for change in file.examples}
    assert by["removed"].id == removed["id"]
    assert (by["reference"].before, by["reference"].after) == ("3737.50", "1")
    assert by["added"].id == "new-1"
    assert found.new_run is True
    assert found.reasons == [f"rows of train: {file.words}"]
    # Histograms hold every row.
    assert all(sum(each.before) == sum(each.after) == 360 for each in file.histograms)


def test_another_setting_of_the_training_is_a_new_run_and_one_of_a_gate_is_none(project: Project) -> None:
    project.edit(project.settings, r"rows = 12", "rows = 13")
    found = project.check(against="HEAD").against
    assert found is not None
    assert [(each.key, each.before, each.after, each.names_run) for each in found.settings] == [
        ("gates.rehearsal.rows", 12, 13, False)
    ]
    assert found.new_run is False
    project.edit(project.settings, r"epoch_count = 6", "epoch_count = 4")
    found = project.check(against="HEAD").against
    assert found is not None
    assert found.reasons == ["training.epochCount: 6 → 4"]
    assert found.new_run is True
    before, after = found.costs
    assert 0 < after.tokens[0] < before.tokens[0]


def test_what_may_be_left_out_of_training_is_counted_in_the_cost_and_makes_a_new_run(
    project: Project,
) -> None:
    before = cost_of(project.check())
    project.edit(project.settings, r"\Z", '\n[gates.filter]\ndrop = "solved"\nprompts = 50\n')
    checked = project.check(against="HEAD")
    [gate] = [each for each in checked.gates if each.name == "cost"]
    assert gate.says.endswith("; 50 training prompts are tried first, and none is taken to be left out")
    # 50 prompts, answered eight times each, by a base model whose completions are as long as references.
    read, written = (cost_of(checked)[key][0] - before[key][0] for key in ("input_tokens", "output_tokens"))
    assert read / 400 == pytest.approx(before["input_tokens"][0] / (100 * 4 + 50 * 4 + 2 * 100 * 4))
    assert written > 0
    found = checked.against
    assert found is not None
    assert found.reasons == [
        "filter.drop: None → solved",
        "filter.prompts: None → 50",
        "filter.passing: None → 0.5",
    ]
    assert {each.key for each in found.settings if each.names_run} == {"gates.filter.drop"}
    # To leave nothing out any more is another run as well.
    project.commit()
    project.edit(project.settings, r'drop = "solved"', 'drop = "none"')
    found = project.check(against="HEAD").against
    assert found is not None
    assert found.new_run is True
    assert found.reasons[0] == "filter.drop: solved → None"


def cost_of(found: Check) -> dict[str, Any]:
    [gate] = [each for each in found.gates if each.name == "cost"]
    assert gate.verdict is not None
    parts = gate.verdict.facts["estimate"]["parts"]
    return next(dict(part) for part in parts if part["name"] == "measuring")


def test_regression_prompts_are_checked_like_held_out_rows_and_paid_for(project: Project) -> None:
    before = cost_of(project.check())
    rows = [{**row, "id": f"old-{at}"} for at, row in enumerate(project.rows()[:4])]
    rows += [
        {
            "messages": [{"role": "user", "content": f"What is {at} dollars and a half?"}],
            "reference_answer": f"{at}.5",
        }
        for at in range(9)
    ]
    file = project.team / "data" / "regression.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.edit(project.settings, r"\[dataset\]", '[dataset]\nregression = "data/regression.jsonl"')
    told = findings(project.check(), "dataset")
    assert list(told.values()) == [
        "teams/quotes/data/regression.jsonl holds 9 different prompts that are not in"
        " teams/quotes/data/train.jsonl as well, and at least 10 are needed to measure a model: hold out"
        " more."
    ]
    with file.open("a") as lines:
        lines.write(json.dumps({**rows[-1], "messages": [{"role": "user", "content": "And 1 more?"}]}) + "\n")
    found = project.check(against="HEAD")
    assert levels(found)["dataset"] == "warn"
    assert "regression.jsonl: 4 of the 14 rows have a prompt of" in findings(found, "dataset", "warn")["leak"]
    [gate] = [each for each in found.gates if each.name == "dataset"]
    assert gate.says.endswith(", 14 rows not to unlearn")
    # Base, candidate and champion answer each of the 14 four times; leaks are left out only by the run.
    per_completion = before["input_tokens"][0] / (100 * 4 + 50 * 4 + 2 * 100 * 4)
    assert cost_of(found)["input_tokens"][0] - before["input_tokens"][0] == pytest.approx(
        14 * 12 * per_completion
    )
    assert found.content is not None
    assert found.against is not None
    assert found.against.reasons == ["rows of regression: 14 added"]
    project.edit(project.settings, r'"data/regression.jsonl"', '"data/regresion.jsonl"')
    assert "dataset.regression" in findings(project.check(), "settings")["settings"]


def test_a_reward_is_compared_by_what_both_give_to_the_same_completions(project: Project) -> None:
    project.own_reward(HONEST)
    project.commit()
    project.own_reward(EXPLOITABLE)
    found = project.check(against="HEAD")
    assert found.against is not None
    [reward] = found.against.rewards
    assert reward.source == "rehearsal"
    assert reward.flips > 0
    assert reward.higher >= reward.flips
    assert reward.lower == 0
    assert (reward.examples[0].before, reward.examples[0].after) == (0.1, 1.0)
    assert found.against.reasons == ["the reward: team_reward.py"]
    # The rehearsal's completions only warn.
    assert "reward-order" in findings(found, "difference", "warn")


def test_frozen_rollouts_that_rank_otherwise_stop(project: Project) -> None:
    project.own_reward(HONEST)
    project.commit()
    source = EXPLOITABLE.replace("1.0 if", "0.1 if").replace("else 0.1", "else 1.0")
    project.own_reward(source)
    rows = project.rows()[:6]
    lines = [{"id": row["id"], "completion": text} for row in rows for text in (row["reference_answer"], "x")]
    (project.team / "rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = project.check(against="HEAD")
    assert found.against is not None
    frozen = found.against.rewards[-1]
    assert (frozen.source, frozen.completions, frozen.flips) == ("rollouts", 12, 12)
    assert frozen.correlation == pytest.approx(-1)
    told = findings(found, "difference")["reward-order"]
    assert "12 frozen completions of rollouts.jsonl" in told
    (project.team / "rollouts.jsonl").write_text('{"id": "nowhere", "completion": "x"}\n')
    found = project.check(against="HEAD")
    assert findings(found, "difference")["rollouts"].startswith("teams/quotes/rollouts.jsonl:1: no row has")


def test_the_old_reward_is_scored_by_the_code_of_then(project: Project) -> None:
    library = project.root / "lambdas" / "rewards" / "numeric_answer.py"
    now = library.read_text()
    # The code of then gave nothing to anyone; the settings of then are those of now.
    project.edit(
        library,
        r"(?m)^    def score\(self, sample.*$",
        "    def score(self, sample):\n        return Reward(0.0)",
    )
    if "import Reward" not in library.read_text() and "Reward," not in library.read_text():
        library.write_text(library.read_text() + "\nfrom lambdas.contract import Reward\n")
    project.commit()
    library.write_text(now)
    found = project.check(against="HEAD")
    assert found.against is not None
    [reward] = found.against.rewards
    assert found.against.reasons == ["the reward: lambdas/rewards/numeric_answer.py"]
    assert reward.correlation is None
    assert {example.before for example in reward.examples} == {0.0}
    assert {example.after for example in reward.examples} == {1.0}


def test_what_others_merged_meanwhile_is_no_change_of_ours(project: Project) -> None:
    project.git("switch", "--create", "ours")
    project.edit(project.settings, r"epoch_count = 6", "epoch_count = 4")
    project.commit()
    project.git("switch", "main")
    project.edit(project.settings, r"batch_size = 32", "batch_size = 64")
    project.commit()
    project.git("switch", "ours")
    found = project.check(against="main").against
    assert found is not None
    assert [each.key for each in found.settings] == ["training.epoch_count"]


def test_a_new_team_is_a_new_run(project: Project) -> None:
    shutil.copytree(project.team, project.root / "teams" / "others")
    found = check(project.root, "others", against="HEAD").against
    assert found is not None
    assert found.new_team
    assert found.new_run is True


def test_a_folder_that_is_gone_without_being_retired_stops(project: Project) -> None:
    project.team.rename(project.root / "teams" / "renamed")
    found = check(project.root, "renamed", against="HEAD")
    [gate] = [gate for gate in found.gates if gate.name == "endings"]
    assert gate.level == "stop"
    assert all("run `rft retire quotes --stage" in finding.sentence for finding in gate.findings)
    assert len(gate.findings) == 2


def test_a_stage_that_has_expired_is_told(project: Project) -> None:
    project.edit(project.settings, r"\[stages.dev\]", "[stages.dev]\nexpires = 2027-01-31")
    found = project.check(today=datetime.date(2027, 2, 1))
    assert "expired on 2027-01-31" in findings(found, "endings", "warn")["expires"]
    assert "endings" not in levels(project.check(today=datetime.date(2026, 2, 1)))


def test_settings_of_then_with_faults_are_no_reason_to_stop(project: Project) -> None:
    text = project.settings.read_text()
    project.edit(project.settings, r"epoch_count = 6", "epoch_count = 600")
    project.commit()
    project.settings.write_text(text)
    found = project.check(against="HEAD")
    assert found.verdict == "pass"
    assert found.against is not None
    assert found.against.new_run is None
    assert "its settings had faults (teams/quotes/team.toml" in found.against.run_sentence


def test_rows_in_s3_may_have_changed(project: Project) -> None:
    project.edit(project.settings, r'train = "data/train.jsonl"', 'train = "s3://rows/train.jsonl"')
    project.commit()
    found = project.check(against="HEAD").against
    assert found is not None
    assert found.new_run is None
    assert found.reasons == ["the rows of s3://rows/train.jsonl may be others by now"]


def test_fails_when_there_is_no_such_revision(project: Project) -> None:
    with pytest.raises(ChangesError, match="fetch the whole history, or name another revision"):
        project.check(against="nowhere")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # With ties, as in textbooks: d = 0, 1.5, -1.5, 0 against ranks 1, 2.5, 2.5, 4.
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486832980505138),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_rank_correlation(one: list[float], other: list[float], expected: float | None) -> None:
    found = rank_correlation(one, other)
    assert found == (None if expected is None else pytest.approx(expected))


def test_rewards_of_other_ranges_are_compared_by_their_share_of_them() -> None:
    difference = compare_rewards(
        "rollouts", [("a", "x"), ("b", "y")], ((0.0, 1.0), [0.0, 1.0]), ((-1.0, 1.0), [-1.0, 1.0])
    )
    assert (difference.flips, difference.higher, difference.lower) == (0, 0, 0)
    assert not [*reward_findings(difference)]


def test_rows_without_ids_are_told_apart_by_their_prompts(tmp_path: Path) -> None:
    def file(name: str, *rows: tuple[str, str]) -> Path:
        path = tmp_path / name
        path.write_text(
            "".join(
                json.dumps({"messages": [{"role": "user", "content": asked}], "reference_answer": answer})
                + "\n"
                for asked, answer in rows
            )
        )
        return path

    before = file("before", ("a", "1"), ("b", "2"), ("b", "2"), ("c", "3"))
    after = file("after", ("b", "2"), ("a", "9"), ("d", "4"))
    difference = compare_rows("train", before, after)
    assert difference is not None
    assert difference.counts == {"added": 1, "removed": 2, "reference": 1}
    assert compare_rows("train", before, before) is None
    other_order = compare_rows("train", before, file("again", ("c", "3"), ("b", "2"), ("a", "1"), ("b", "2")))
    assert other_order is not None
    assert other_order.words == "the same rows in another order or spelling"


def test_a_file_that_was_a_pointer_to_another_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (tmp_path / "b").write_text("{}\n")
    difference = compare_rows("train", tmp_path / "a", tmp_path / "b")
    assert difference is not None
    assert "cannot be compared" in difference.words


# --- what is written


def test_exit_codes_are_for_pipelines(rft: Callable[..., tuple[int, str]], project: Project) -> None:
    assert rft("quotes")[0] == 0
    project.own_reward(EXPLOITABLE)
    assert rft("quotes")[0] == 1
    assert rft("quotes", "--markdown")[0] == 1
    assert rft("quotes", "--json")[0] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stage", "x"], "rft: team quotes has no stage 'x' (stages: dev, prod)"),
        (["--json", "--markdown"], "rft: --markdown and --json are two ways"),
        (["--against", "nowhere"], "rft: git cannot compare with nowhere (fatal: "),
    ],
)
def test_a_mistake_of_the_caller_is_told_in_a_line(
    words: list[str],
    told: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli.terminal, "ROOT", project.root)
    monkeypatch.setattr(cli, "err", Console(stderr=True, width=100))
    monkeypatch.setattr("sys.argv", ["rft", "check", "quotes", *words])
    # The command's own handling of signals is not for the process of the tests.
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(told)


def test_a_warning_lets_pass(rft: Callable[..., tuple[int, str]], project: Project) -> None:
    rows = project.rows()
    rows[1]["messages"], rows[1]["reference_answer"] = rows[0]["messages"], rows[0]["reference_answer"]
    project.write(rows)
    code_, said = rft("quotes")
    assert code_ == 0
    assert "! quotes passes with 1 warning." in said


def test_json_has_the_documented_shape(rft: Callable[..., tuple[int, str]], project: Project) -> None:
    # What the team's own code prints is no part of it.
    project.own_reward("print('loaded')\n" + HONEST)
    code_, said = rft("quotes", "--json", "--against", "HEAD")
    document = json.loads(said)
    assert code_ == 0
    assert [*document] == ["team", "verdict", "sentence", "gates", "content", "against"]
    assert [gate["gate"] for gate in document["gates"]] == [
        "settings",
        "dataset",
        "rehearsal",
        "cost",
        "difference",
        "endings",
    ]
    for gate in document["gates"]:
        assert {*gate} == {"gate", "verdict", "sentence", "findings", "facts"}
    assert {*document["content"]} == {"dataset", "reward", "settings", "starts"}
    against = document["against"]
    assert {*against} == {
        *("revision", "commit", "new_team", "new_run", "reasons"),
        *("settings", "files", "rewards", "costs", "notes"),
    }
    assert {*against["rewards"][0]} == {
        *("source", "completions", "correlation", "flips", "higher", "lower", "examples"),
    }
    described = (ROOT / "docs" / "operations.md").read_text().partition("## Check")[2].partition("\n## ")[0]
    for key in (*document, *document["content"], *against):
        assert f"`{key}`" in described, f"{key} is not described"


HOSTILE = (
    "@octocat #12 GH-12 <img src=x> [a](javascript:b) ![i](https://e.example/i.png) | *b* _i_ `c` ``` "
    "https://e.example www.e.example a@e.example </details> $x$ ~~s~~ \\| &copy; \u202e"
)


@pytest.mark.parametrize(
    "text", [HOSTILE, "# heading", "- item", "1. item", "> quote", "+ x", "===", "| a |"]
)
def test_prose_is_shown_as_it_is(text: str) -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(prose(text))
    assert re.findall(r"<(?!/?p>)[^>]*>", html) == []
    # What GitHub would look for in the rendered text is gone.
    assert not re.search(r"@\w|#\d|GH-\d|https?://|\bwww\.", html)
    seen = re.sub(r"</?p>|\u200b|\n", "", html)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        seen = seen.replace(entity, character)
    assert seen == text.replace("\u202e", "\\u202e")


@pytest.mark.parametrize("text", [HOSTILE, "`", "``a``", "a|b"])
def test_code_cannot_be_left(text: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(f"| a |\n|---|\n| {code(text)} |\n")
    assert re.findall(r"<(?!/?(?:table|thead|tbody|tr|th|td|code)>)[^>]*>", html) == []
    assert html.count("<td>") == 1
    assert html.count("<code>") == 1
    fenced = MarkdownIt("commonmark").render("\n".join(block(f"{text}\n```\n````text\n{text}")))
    assert fenced.count("<pre>") == 1
    assert fenced.endswith("</code></pre>\n")
    assert re.findall(r"<(?!/?(?:pre|code)\b)[^>]*>", fenced) == []


def test_a_hostile_row_cannot_steer_the_comment_or_the_terminal(project: Project) -> None:
    rows = project.rows()
    text = HOSTILE + "\n</summary></details>\n# Approved\n\x1b[2J"
    rows[0]["reference_answer"] = text
    rows[1]["id"] = text[:60]
    rows[2]["messages"][-1]["content"] = f"{text} how many are there of those?"
    project.write(rows)
    found = project.check(against="HEAD")
    written = markdown(found)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(written)
    allowed = "table|thead|tbody|tr|th|td|code|pre|p|h3|ul|li|details|summary|sub"
    tags = re.findall(r"<[a-zA-Z/!][^>]*>", html)
    assert [
        tag for tag in tags if not re.fullmatch(rf"</?({allowed})( (open|class|style)[^>]*)?>", tag)
    ] == []
    assert html.count("<details") == html.count("</details>")
    outside = re.sub(r"(?s)<(pre|code)\b.*?</\1>", "", html)
    assert not re.search(r"@\w|#\d|GH-\d|https?://|\bwww\.", outside)
    assert "\x1b" not in written
    assert "\x1b" not in shown(found, 100)
    assert "\u202e" not in shown(found, 100)


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_a_line_per_gate_then_findings_and_a_sentence(
    project: Project, width: int
) -> None:
    project.own_reward(EXPLOITABLE)
    said = shown(project.check(against="HEAD"), width)
    lines = said.splitlines()
    assert all(len(line) <= width for line in lines)
    assert [line[0] for line in lines[2:4]] == ["✓", "✓"]
    assert lines[4].startswith("✗  rehearsal")
    assert "since HEAD" in said
    assert "reward.components.answer.function" in said
    assert re.search(r"✗ quotes would fail: \d+ findings? stops? a run", " ".join(said.split()))


def test_the_comment_begins_with_a_table_of_gates(project: Project) -> None:
    project.edit(project.settings, r"epoch_count = 6", "epoch_count = 4")
    written = markdown(project.check(against="HEAD"))
    assert written.startswith(
        "### ✅ `quotes`\n\nquotes passes: there is nothing to object to.\n\n| | Gate | |\n"
    )
    assert "| ✅ | rehearsal | " in written
    assert "A run on this is a new run: training.epochCount: 6 → 4." in written
    assert "| `training.epoch_count` | `6` | `4` | another run |" in written
    assert "- cost: " in written
    # GitHub takes 65,536 characters for a comment.
    assert len(written) < 6000
