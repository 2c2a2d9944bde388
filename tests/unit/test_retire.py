"""What the repository knows of endings: expired stages, retired ones, and stacks a change would forget."""

import datetime
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.config import SettingsError, load_teams
from rft.changes import ChangesError
from rft.retire import Retired, end, entry_text, expired, expiring, missing_teams, record, retired

REPOSITORY = Path(__file__).parents[2]
DAY = datetime.date(2027, 1, 31)


def git(root: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words],
        cwd=root,
        check=True,
        capture_output=True,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of two teams, committed."""
    (tmp_path / "teams").mkdir()
    for name in ("platform.toml", "quotes", "support"):
        source = REPOSITORY / "teams" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / "teams" / name)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "teams")
    return tmp_path


def change(root: Path, before: str, after: str) -> None:
    path = root / "teams/quotes/team.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def entry(**more: object) -> Retired:
    return Retired.model_validate({"date": DAY, "account": "111122223333", "region": "us-east-1", **more})


# Expiry


def test_a_stage_expires_the_day_after_its_last_one_and_is_warned_of_before(root: Path):
    change(root, "[stages.dev]\n", "[stages.dev]\nexpires = 2027-01-31\n")
    teams = load_teams(root)
    days = datetime.timedelta
    assert expired(teams, DAY) == []
    [found] = expired(teams, DAY + days(1))
    assert found == {"team": "quotes", "stage": "dev", "account": "default", "region": "default"}
    assert expiring(teams, DAY - days(15)) == []
    assert "expires after 2027-01-31: set a later date" in expiring(teams, DAY)[0]
    assert "retire it (`rft retire quotes --stage dev`)" in expiring(teams, DAY + days(1))[0]


@pytest.mark.parametrize(
    ("value", "stage", "words"),
    [
        ("2027-01-31", "prod", "a lasting one ends by `rft retire`"),
        ('"2027-01-31"', "dev", "a date like 2027-01-31, without quotes"),
    ],
)
def test_only_a_throwaway_stage_has_a_last_day(root: Path, value: str, stage: str, words: str):
    text = (root / "teams/quotes/team.toml").read_text()
    end = text.index("\n\n", text.index(f"[stages.{stage}]"))
    (root / "teams/quotes/team.toml").write_text(f"{text[:end]}\nexpires = {value}{text[end:]}")
    with pytest.raises(SettingsError, match=rf"stages\.{stage}\.expires.*{words}"):
        load_teams(root)


# teams/retired.toml


def test_what_is_written_down_is_read_back(root: Path):
    assert retired(root) == {}
    kept = entry(kept=("bucket a-b", 'key "c"'))
    record(root, "quotes", "dev", entry())
    record(root, "quotes", "prod", kept)
    record(root, "alpha", "dev", entry())
    record(root, "quotes", "dev", entry(region="us-west-2"))
    assert retired(root) == {
        "alpha": {"dev": entry()},
        "quotes": {"dev": entry(region="us-west-2"), "prod": kept},
    }
    assert entry_text("quotes", "prod", kept) in (root / "teams/retired.toml").read_text()
    assert load_teams(root)


def test_a_wrong_file_is_told_with_its_line(root: Path):
    (root / "teams/retired.toml").write_text(
        '[quotes.dev]\ndate = 2027-01-31\naccount = "1"\nregion = "us-east-1"\n'
    )
    with pytest.raises(SettingsError, match=r"teams/retired.toml:3: quotes.dev.account"):
        retired(root)


# What a retirement takes out of the files


def test_a_retired_stage_goes_from_its_file_and_the_folder_with_the_last_one(root: Path):
    file = root / "teams/quotes/team.toml"
    change(root, "[stages.prod]\n", "# Of everybody.\n[stages.prod]\n")
    before = file.read_text()
    assert end(root, "quotes", "dev", entry()) == [
        "teams/retired.toml lists quotes.dev",
        "teams/quotes/team.toml has no stage dev any more",
    ]
    # Line by line as it was, and what was said of the next stage as well.
    assert file.read_text() == before.replace('[stages.dev]\nretention = "throwaway"\n\n', "", 1)
    assert [team.stages.keys() for team in load_teams(root, ["quotes"])] == [{"prod"}]
    assert missing_teams(root, "HEAD") == []
    # Again changes nothing.
    assert end(root, "quotes", "dev", entry()) == ["teams/retired.toml lists quotes.dev"]

    done = end(root, "quotes", "prod", entry())
    assert done[1] == "teams/quotes is removed with its rows: prod was its last stage"
    assert not (root / "teams/quotes").exists()
    assert missing_teams(root, "HEAD") == []
    assert end(root, "quotes", "prod", entry()) == ["teams/retired.toml lists quotes.prod"]


def test_a_stage_that_was_set_up_elsewhere_stays(root: Path):
    change(root, "[stages.dev]\n", '[stages.dev]\naccount = "444455556666"\nregion = "us-east-1"\n')
    before = (root / "teams/quotes/team.toml").read_text()
    assert end(root, "quotes", "dev", entry()) == ["teams/retired.toml lists quotes.dev"]
    assert (root / "teams/quotes/team.toml").read_text() == before


def test_a_stage_in_another_form_is_left_to_a_person(root: Path):
    text = (root / "teams/quotes/team.toml").read_text()
    inline = 'stages.dev = { retention = "throwaway" }\n' + text.replace(
        '[stages.dev]\nretention = "throwaway"\n', ""
    )
    (root / "teams/quotes/team.toml").write_text(inline)
    with pytest.raises(SettingsError, match=r"stages\.dev: is no table \[stages.dev\] of its own"):
        end(root, "quotes", "dev", entry())
    assert (root / "teams/quotes/team.toml").read_text() == inline
    assert retired(root) == {}


# What a change would forget


def test_a_change_that_takes_no_stage_away_is_fine(root: Path):
    change(root, "epoch_count = 6", "epoch_count = 7")
    change(root, "[stages.dev]\n", '[stages.dev]\nregion = "us-east-1"\n')
    shutil.copytree(root / "teams/quotes", root / "teams/fresh")
    assert missing_teams(root, "HEAD") == []


def test_a_folder_that_is_gone_is_missed_until_each_of_its_stages_is_retired(root: Path):
    shutil.rmtree(root / "teams/quotes")
    faults = missing_teams(root, "HEAD")
    assert len(faults) == 2
    assert faults[0].startswith("teams/quotes: was renamed or deleted, and its stack rft-quotes-dev stays")
    assert "`rft retire quotes --stage dev`" in faults[0]
    record(root, "quotes", "dev", entry())
    assert [fault.split("--stage ")[1].split("`")[0] for fault in missing_teams(root, "HEAD")] == ["prod"]
    record(root, "quotes", "prod", entry())
    assert missing_teams(root, "HEAD") == []


def test_a_renamed_folder_is_missed_under_its_old_name(root: Path):
    git(root, "mv", "teams/quotes", "teams/prices")
    git(root, "commit", "--quiet", "--message", "rename")
    assert len(missing_teams(root, "HEAD~1")) == 2
    assert missing_teams(root, "HEAD") == []


def test_a_stage_that_is_gone_is_missed(root: Path):
    change(root, '[stages.dev]\nretention = "throwaway"\n', "")
    [fault] = missing_teams(root, "HEAD")
    assert "has no such stage any more, and its stack rft-quotes-dev" in fault


def test_a_stage_that_moves_is_missed_where_it_was(root: Path):
    change(root, "[stages.dev]\n", '[stages.dev]\naccount = "111122223333"\nregion = "us-east-1"\n')
    git(root, "commit", "--quiet", "--all", "--message", "place")
    change(root, '"111122223333"', '"444455556666"')
    [fault] = missing_teams(root, "HEAD")
    assert "moves the stage from 111122223333/us-east-1 to 444455556666/us-east-1" in fault
    record(root, "quotes", "dev", entry())
    assert missing_teams(root, "HEAD") == []


def test_a_stage_that_is_back_must_not_stay_listed(root: Path):
    record(root, "quotes", "dev", entry())
    [fault] = missing_teams(root, "HEAD")
    assert "quotes.dev is listed as retired, and teams/quotes/team.toml has it" in fault


def test_a_revision_that_git_does_not_know_is_told(root: Path):
    with pytest.raises(
        ChangesError, match=r"git cannot read teams/ at nowhere \(.*\): fetch the whole history"
    ):
        missing_teams(root, "nowhere")
