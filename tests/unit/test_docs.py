"""The examples of the documentation work: settings are accepted, code runs, commands exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from infra.config import load_platform, load_team, reward_functions
from lambdas.composition import compose
from lambdas.contract import Reward, Sample, reward_handler
from rft.cli import app
from rft.grader_import import convert, placed
from tests import documented

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = "from lambdas.contract import Reward\n\n\ndef score(sample):\n    return Reward(1.0)\n"
JUDGES = ("us.amazon.nova-2-lite-v1:0",)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the line it begins at, its language and its text."""

    page: str
    line: int
    language: str
    text: str


def blocks(*languages):
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 2
            found.append(Block(page.relative_to(ROOT).as_posix(), line, match[1], match[2]))
    return [
        pytest.param(block, id=f"{block.page}:{block.line}") for block in found if block.language in languages
    ]


def cells(page, heading):
    """The words in backquotes in the first column of the tables of a page's section."""
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {
        word
        for line in section.splitlines()
        if line.startswith("|")
        for word in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


@pytest.fixture
def root(tmp_path):
    """A project in which the judges of the examples are allowed and every file of theirs exists."""
    shutil.copytree(ROOT / "teams", tmp_path / "teams")
    (tmp_path / "teams/quotes/reward.py").write_text(OWN)
    platform = tmp_path / "teams/platform.toml"
    platform.write_text(
        platform.read_text() + "".join(f'\n[judges."{name}"]\nregions = ["us-east-1"]\n' for name in JUDGES)
    )
    return tmp_path


@pytest.mark.parametrize("block", blocks("toml"))
def test_settings_are_accepted(block, root):
    document = tomllib.loads(block.text)
    team, platform = root / "teams/quotes/team.toml", root / "teams/platform.toml"
    if "owner" in document:
        team.write_text(block.text)
    elif "models" in document:
        platform.write_text(block.text)
    elif "judges" in document:
        platform.write_text(platform.read_text().partition("[judges.")[0] + block.text)
    elif "delivery" in document:
        platform.write_text(f"{platform.read_text()}\n{block.text}")
    elif "reward" in document:
        team.write_bytes(placed(team.read_bytes(), block.text, name="team.toml", force=True))
    else:
        kept = tomllib.loads(team.read_text())
        assert document.keys() <= {*kept, "promotion", "network", "encryption"}, "no part of a settings file"
        text = team.read_text()
        for table in document:
            text = re.sub(rf"(?ms)^\[{table}\b.*?(?=^\[(?!{table}\b)|\Z)", "", text)
        team.write_text(f"{text}\n{block.text}")
    loaded = load_team(root, "quotes", load_platform(root))
    compose(loaded.reward.document(), loaded.folder / "reward.py")
    if "reward" in document:
        assert loaded.reward.components.keys() == document["reward"]["components"].keys()


def test_code_runs():
    """Blocks of a page run one after the other, as a reader would; a `score` among them earns a reward."""
    for page in PAGES:
        names = {}
        for block in (each.values[0] for each in blocks("python")):
            if block.page == page.relative_to(ROOT).as_posix():
                source = "\n" * (block.line - 1) + block.text
                exec(compile(source, block.page, "exec"), names)
        if "score" in names:
            reward = names["score"](Sample("a", (), "ORD-000001", reference_answer="ORD-000001"))
            assert isinstance(reward, Reward)
            assert reward.score == 1.0


@pytest.mark.parametrize("block", blocks("json", "jsonl"))
def test_json_is_json_and_a_grader_can_be_imported(block):
    documents = (
        [json.loads(block.text)]
        if block.language == "json"
        else [json.loads(line) for line in block.text.splitlines()]
    )
    for document in documents:
        if "type" in document:
            following = next(
                each.values[0]
                for each in blocks("toml")
                if each.values[0].page == block.page and each.values[0].line > block.line
            )
            assert convert(document).table == tomllib.loads(following.text)["reward"]


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_exist_with_their_options(block):
    command = get_command(app)
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or Path(words[0]).name != "rft":
            continue
        assert words[1] in command.commands, line
        command.commands[words[1]].make_context("rft", words[2:])


@pytest.mark.parametrize("block", blocks("sh"))
def test_verbs_of_the_makefile_exist_with_their_variables(block):
    makefile = (ROOT / "Makefile").read_text()
    verbs = set(re.findall(r"(?m)^([a-z]+):.*## ", makefile))
    for line in block.text.splitlines():
        words = [word for word in shlex.split(line, comments=True) if not word.startswith("-")]
        if words[:1] == ["make"]:
            called, given = (
                [word for word in words[1:] if ("=" in word) == with_value] for with_value in (False, True)
            )
            assert set(called) <= verbs, line
            for name in (word.partition("=")[0] for word in given):
                assert re.search(rf"\$[({{]{name}\b|filter {name}|origin {name}", makefile), line


def test_what_the_cdk_is_asked_for_exists():
    app_text = (ROOT / "app.py").read_text()
    for block in (each.values[0] for each in blocks("sh")):
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["npx", "cdk"]:
                assert words[2] in ("bootstrap", "deploy"), line
            if words[:2] == ["npx", "cdk"] and "-c" in words and "<" not in line:
                assert f'"{words[3]}"' in app_text, line
                key, _, value = words[words.index("-c") + 1].partition("=")
                assert f'try_get_context("{key}")' in app_text, line
                assert f'"{value}"' in app_text, line


def test_what_is_not_run_on_the_embedded_aws_is_in_the_page_and_has_a_test_and_a_reason():
    found = documented.commands()
    assert len(found) >= 20
    for start, place in documented.ELSEWHERE.items():
        assert any(documented.elsewhere(each) is place for each in found), f"{start} is on the page no more"
        assert (ROOT / place.test).is_file()
        assert place.why
    # All others are programs that the embedded test can run.
    here = [each for each in found if documented.elsewhere(each) is None]
    assert {each.split()[0] for each in here} <= {".venv/bin/rft", "make"}, "add how it is tested"


def test_every_reward_function_is_in_the_table_to_choose_from():
    assert {*reward_functions(), "reward.py"} <= cells("docs/rewards.md", "Choosing")


def test_every_metric_of_a_batch_is_described(capsys):
    handler = reward_handler(lambda _sample: Reward(1.0, components={"<name>": 1.0}), environment="e")
    handler([{"id": "a", "messages": [{"role": "assistant", "content": "x"}]}], None)
    line = json.loads(capsys.readouterr().out)
    metrics = {each["Name"] for each in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert metrics <= cells("docs/rewards.md", "What it tells while it runs")
    assert len(metrics) == 12


def test_completions_of_the_example_fit_the_sample_team(tmp_path):
    from rft import scoring

    (block,) = (block for each in blocks("jsonl") if (block := each.values[0]).page == "docs/rewards.md")
    (tmp_path / "c.jsonl").write_text(block.text)
    team = load_team(ROOT, "quotes", load_platform(ROOT))
    rows = scoring.dataset_rows(ROOT, team)
    scores = scoring.score_completions(
        team, scoring.completions(tmp_path / "c.jsonl", rows, rows), lambda _: None
    )
    assert [each.score for each in scores.found] == [1.0, 1.0]


DRY = """#!/bin/sh
# What has changed is asked for real; everything else only says what it would do.
echo "$@" >>"$CALLS"
case "$*" in
  *changed*) cd "$ROOT" && exec .venv/bin/rft ci changed ;;
  *) exec "$MAKE" --dry-run --directory "$ROOT" "$@" >/dev/null ;;
esac
"""


@pytest.mark.parametrize("job", ["test", "review", "synthesize", "dev", "prod"])
def test_the_jobs_on_gitlab_call_verbs_that_exist(job, tmp_path):
    (block,) = (each.values[0] for each in blocks("yaml") if each.values[0].page == "docs/delivery.md")
    jobs = yaml.safe_load(block.text)
    script = {**jobs.get(jobs[job].get("extends"), {}), **jobs[job]}["script"]
    assert jobs[job]["stage"] in jobs["stages"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "make").write_text(DRY)
    (tmp_path / "bin" / "make").chmod(0o755)
    if job in ("dev", "prod"):
        changed = subprocess.run(
            [ROOT / ".venv/bin/rft", "ci", "changed"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        (tmp_path / "changed.txt").write_text(changed.stdout)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "ROOT": str(ROOT),
        "MAKE": str(shutil.which("make")),
        "CI_JOB_NAME": job,
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": "HEAD",
        "CI_COMMIT_BEFORE_SHA": "HEAD",
        "AWS_TOKEN": "token",
        "AWS_REGION": "us-east-1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "RFT_ACCOUNT": "111122223333",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stacks = [f"rft-quotes-{job}", f"rft-support-{job}"]
    assert (tmp_path / "calls").read_text().splitlines() == {
        "test": ["test"],
        "review": ["--silent changed SINCE=HEAD", "review TEAMS=quotes,support SINCE=HEAD"],
        "synthesize": ["--silent changed SINCE=HEAD", "assembly TEAMS=quotes,support"],
    }.get(job, [f"deploy STACKS={' '.join(stacks)}", f"smoke TEAMS=quotes,support STAGE={job}"])
