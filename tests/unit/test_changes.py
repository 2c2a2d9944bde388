"""What a change touches, and what a difference would take away."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.config import load_teams
from rft.changes import ChangesError, changed_teams, losses, wave

REPOSITORY = Path(__file__).resolve().parents[2]
Commit = Callable[..., None]


@pytest.fixture
def commit(tmp_path: Path) -> Commit:
    """Makes a repository with two teams, and commits changes to it."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit(*paths: str) -> None:
        for name in paths:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((path.read_text() if path.exists() else "") + "more\n")
        git("add", "--all")
        git("commit", "--message", "a change")

    git("init", "--initial-branch", "main")
    commit("teams/one/team.toml", "teams/two/team.toml", "README.md")
    return commit


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["teams/one/team.toml"], ["one"]),
        (["teams/two/data/train.jsonl"], ["two"]),
        (["teams/one/reward.py", "teams/two/reward.py"], ["one", "two"]),
        (["README.md", "docs/teams.md", "tests/unit/test_x.py", "rft/cli.py"], []),
        (["teams/team.schema.json"], []),
        # What every template, or every package, is made of.
        (["infra/environment.py"], ["one", "two"]),
        (["lambdas/contract.py"], ["one", "two"]),
        (["requirements/workflow.txt"], ["one", "two"]),
        (["teams/platform.toml"], ["one", "two"]),
        (["rft/packaging.py"], ["one", "two"]),
    ],
)
def test_a_change_touches(commit: Commit, tmp_path: Path, paths: list[str], expected: list[str]) -> None:
    commit(*paths)
    assert changed_teams(tmp_path, "HEAD~1") == expected


def test_a_team_that_is_gone_is_not_deployed(commit: Commit, tmp_path: Path) -> None:
    (tmp_path / "teams" / "one" / "team.toml").unlink()
    (tmp_path / "teams" / "one").rmdir()
    commit()
    assert changed_teams(tmp_path, "HEAD~1") == []


def test_fails_when_the_revision_is_unknown(commit: Commit, tmp_path: Path) -> None:
    with pytest.raises(ChangesError, match=r"cannot compare HEAD with nowhere .*fetch the whole history"):
        changed_teams(tmp_path, "nowhere")


def test_stacks_of_one_account_and_region_go_together() -> None:
    teams = load_teams(REPOSITORY)
    (together,) = wave(teams, "dev")
    assert together.document() == {
        "account": "default",
        "region": "default",
        "teams": "quotes,support",
        "stacks": "rft-quotes-dev rft-support-dev",
    }
    assert wave(teams, "staging") == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[-] AWS::S3::Bucket Datasets Datasets0030EE04 destroy", ["is deleted"]),
        ("[-] AWS::S3::Bucket Datasets Datasets0030EE04 orphan", ["is left behind"]),
        ("[~] AWS::KMS::Key Key Key961B73FD replace", ["is replaced"]),
        ("[~] AWS::SSM::Parameter Champion Champion1 may be replaced", ["may be replaced"]),
        ("[~] AWS::S3::Bucket Datasets Datasets0030EE04", []),
        ("[+] AWS::S3::Bucket More More1", []),
        # What holds no state may come and go.
        ("[-] AWS::Lambda::Function Steps/Train StepsTrain1 destroy", []),
        ("[~] AWS::IAM::Role Steps/Train/Role StepsTrainRole1 replace", []),
        (" └─ [~] BucketName (requires replacement)", []),
    ],
)
def test_losing_state_is_said(line: str, expected: list[str]) -> None:
    found = losses(f"Stack rft-a-dev\nResources\n{line}\n")
    assert len(found) == len(expected)
    assert all(each.endswith(fate) for each, fate in zip(found, expected, strict=True))
