"""The Lambda entry, run as Lambda runs it: another process, another folder, the package's files only."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ["__init__", "completion", "contract", "composition", "reward_function", "rewards/__init__"]
TABLE = {
    "range": [0.0, 1.0],
    "timeout_seconds": 60,
    "memory_mb": 512,
    "log_sampling_rate": 0.0,
    "components": {"answer": {"function": "numeric_answer", "weight": 1.0, "form": "hashes"}},
}


@pytest.fixture
def package(tmp_path):
    """Builds a package with the table, the library's functions it names and, if given, the team's own."""

    def build(table, *functions, own=None):
        for module in (*MODULES, *(f"rewards/{function}" for function in functions)):
            target = tmp_path / "lambdas" / f"{module}.py"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "lambdas" / f"{module}.py", target)
        if table is not None:
            (tmp_path / "reward.json").write_text(json.dumps(table))
        if own is not None:
            (tmp_path / "team_reward.py").write_text(own)
        return tmp_path

    return build


def invoke(package, event, after=""):
    """Imports the handler in a clean interpreter, calls it once, and prints its answer."""
    code = (
        "import json, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from lambdas.reward_function import handler\n"
        "answer = handler(json.load(sys.stdin), None)\n"
        f"{after}\n"
        "print(json.dumps(answer))\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code, str(package)],
        input=json.dumps(event),
        env={"STACK": "rft-quotes-dev", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def sample(completion, reference="72"):
    return {
        "id": "a",
        "messages": [{"role": "assistant", "content": completion}],
        "metadata": {"reference_answer": reference},
    }


def test_a_package_scores_and_prints_its_metrics(package):
    run = invoke(package(TABLE, "numeric_answer"), [sample("#### 72"), sample("#### 71")])
    assert run.returncode == 0, run.stderr
    line, answer = map(json.loads, run.stdout.splitlines())
    assert [entry["aggregate_reward_score"] for entry in answer] == [1.0, 0.0]
    assert (line["Environment"], line["samples"], line["reward_mean"]) == ("rft-quotes-dev", 2, 0.5)


def test_the_handlers_settings_come_from_the_table(package):
    table = {
        **TABLE,
        "range": [-1.0, 1.0],
        "completion_limit": 7,
        "log_sampling_rate": 1.0,
        "log_completions": True,
    }
    run = invoke(package(table, "numeric_answer"), [sample("#### 72"), sample("#### 72 ")])
    first, second, _, answer = map(json.loads, run.stdout.splitlines())
    assert (first["completion"], second["message"]) == ("#### 72", "over_length")
    assert [entry["aggregate_reward_score"] for entry in answer] == [1.0, -1.0]


def test_a_teams_own_reward_function_is_found_in_the_package(package):
    own = (
        "from lambdas.contract import Reward, Sample\n\n\n"
        "def score(sample: Sample) -> Reward:\n"
        "    return Reward(len(sample.completion) / 10, reason='a tenth a character')\n"
    )
    table = {**TABLE, "components": {"length": {"function": "reward.py"}}}
    run = invoke(package(table, own=own), [sample("12345")])
    assert json.loads(run.stdout.splitlines()[-1])[0]["aggregate_reward_score"] == 0.5


@pytest.mark.parametrize("function", ["numeric_answer", "json_match"])
def test_a_cold_start_imports_the_standard_library_only(package, function):
    table = {**TABLE, "components": {"answer": {"function": function}}}
    after = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    run = invoke(package(table, function), [sample("#### 72", {"answer": 72})], after)
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout.splitlines()[-2])) - {"lambdas", "__main__"}
    assert {name for name in loaded if not name.startswith("_")} <= sys.stdlib_module_names
    # Each costs a cold start tens of milliseconds, and a reward function needs none of them.
    assert not loaded & {"asyncio", "http", "logging", "socket", "ssl", "unittest", "subprocess"}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "reward.json"),
        ({**TABLE, "components": {}}, "CompositionError: reward.components"),
        ({**TABLE, "components": {"answer": {"function": "json_match"}}}, "no reward function 'json_match'"),
    ],
)
def test_a_wrong_package_fails_when_it_starts_and_says_why(package, table, says):
    run = invoke(package(table, "numeric_answer"), [])
    assert run.returncode != 0
    assert says in run.stderr.splitlines()[-1]
