"""The app as the CDK CLI runs it: what it builds when asked for what, and what it says when it cannot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import REPOSITORY, Assembly


def make_project(root: Path) -> Path:
    """A project of its own: app.py, settings of the sample teams, stand-ins for their packages."""
    for name in ("app.py", "cdk.json", "package.json"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copytree(REPOSITORY / "teams", root / "teams")
    for folder in ("workflow", "quotes/reward", "support/reward"):
        (root / "build" / "aws" / folder).mkdir(parents=True)
        (root / "build" / "aws" / folder / "package.txt").write_text(folder)
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def run(
    project: Path, region: str = "us-east-1", **context: Any
) -> tuple[subprocess.CompletedProcess[str], Assembly]:
    """Runs the app with the context and the variables that the CLI gives it."""
    given = json.loads((project / "cdk.json").read_text())["context"] | context
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "CDK_CONTEXT_JSON": json.dumps(given),
        "CDK_OUTDIR": str(project / context.get("delivery", "cdk.out")),
        "CDK_DEFAULT_ACCOUNT": "111122223333",
        "CDK_DEFAULT_REGION": region,
    }
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    return done, Assembly(folder=project / context.get("delivery", "cdk.out"))


def test_app_builds_only_what_is_asked_for(project: Path) -> None:
    done, assembly = run(project, team="quotes", stage="dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert assembly.stacks == ["rft-quotes-dev"]
    # One team's data and one team's package: nothing of the others is touched.
    assert len(list((project / "cdk.out").glob("asset.*"))) == 4


def test_app_builds_everything_without_context(project: Path) -> None:
    done, assembly = run(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert assembly.stacks == ["rft-quotes-dev", "rft-quotes-prod", "rft-support-dev", "rft-support-prod"]


@pytest.mark.parametrize(
    ("context", "region", "said"),
    [
        ({"team": "quoted"}, "us-east-1", "teams/quoted: no such team (did you mean quotes?)"),
        ({"stage": "test"}, "us-east-1", "no team that was asked for has a stage test"),
        (
            {"team": "quotes", "target": "embedded"},
            "us-east-1",
            "build/embedded/workflow is missing: run `rft package --target embedded`",
        ),
        ({"team": "quotes"}, "eu-west-1", "region eu-west-1"),
    ],
    ids=["unknown team", "unknown stage", "nothing packaged", "wrong region"],
)
def test_fails_in_a_sentence(project: Path, context: dict[str, str], region: str, said: str) -> None:
    done, _ = run(project, region, **context)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line


def test_fails_in_a_sentence_where_the_credentials_are_of_another_account(project: Path) -> None:
    rules = project / "teams" / "platform.toml"
    accounts = '\n[accounts]\ndev = ["444455556666"]\nprod = ["777788889999"]\n'
    rules.write_text(rules.read_text() + accounts)
    done, _ = run(project, team="quotes", stage="dev")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "teams/platform.toml: account 111122223333: is not allowed; allowed: 444455556666 ("
    )


def test_flags_are_those_the_library_recommends() -> None:
    """Flags decide what is rendered: a new one is taken over on purpose, with a look at the templates."""
    import aws_cdk

    archive = next((Path(aws_cdk.__file__).parent / "_jsii").glob("aws-cdk-lib@*.jsii.tgz"))
    done = subprocess.run(
        ["tar", "-xzOf", str(archive), "package/recommended-feature-flags.json"],
        capture_output=True,
        check=True,
    )
    assert json.loads((REPOSITORY / "cdk.json").read_text())["context"] == json.loads(done.stdout)
