"""S3 Object Lock, where a stage asks for it: on the bucket of what runs make, for the report step alone."""

import json
import re
from pathlib import Path
from typing import Any

import cfnlint
import pytest

from infra import environment
from infra.config import load_platform, load_team
from infra.environment import RftEnvironment
from lambdas.workflow import provenance
from tests.infra.conftest import ENV, REPOSITORY, Assembly, checked_app, synthesize
from tests.infra.test_permissions import RUNS, listed, policies, spelled

REPORT = "StepsReportRoleBB465BC9"
BUCKET = "Artifacts82DD59A1"
LOCKED = {f"{RUNS}{name}" for name in ("manifest.json", "decision.json", "model-card.md", "model-card.html")}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    root, packages = tmp_path_factory.mktemp("locked"), tmp_path_factory.mktemp("locked-packages")
    (root / "teams").mkdir()
    (root / "teams/quotes").symlink_to(REPOSITORY / "teams/quotes")
    lasting = root / "teams/locked"
    lasting.mkdir()
    (lasting / "data").symlink_to(REPOSITORY / "teams/quotes/data")
    text = (REPOSITORY / "teams/quotes/team.toml").read_text()
    asked = 'retention = "lasting"\nobject_lock_days = 365\nobject_lock_mode = "compliance"'
    (lasting / "team.toml").write_text(text.replace('retention = "lasting"', asked))
    (root / "teams/platform.toml").write_text((REPOSITORY / "teams/platform.toml").read_text())
    for name in ("workflow", "quotes/reward", "locked/reward"):
        (packages / name).mkdir(parents=True)
        (packages / name / "package.txt").write_text(name.rpartition("/")[2])
    return synthesize([root], packages, tmp_path_factory.mktemp("locked-assembly"))


def retention(template: dict[str, Any]) -> dict[str, set[str]]:
    """What each role may lock."""
    return {
        role: found
        for role, statements in policies(template).items()
        if (
            found := {
                spelled(resource)
                for statement in statements
                if "s3:PutObjectRetention" in listed(statement["Action"])
                for resource in listed(statement["Resource"])
            }
        )
    }


def test_only_a_stage_that_asks_for_it_has_a_lock(locked: Assembly) -> None:
    for stack in ("rft-quotes-dev", "rft-quotes-prod", "rft-locked-dev"):
        assert "ObjectLock" not in locked.text(stack)
        assert retention(locked.template(stack)) == {}
    properties = locked.template("rft-locked-prod")["Resources"][BUCKET]["Properties"]
    assert properties["ObjectLockEnabled"] is True
    # No default: it would lock every artifact of every run.
    assert properties["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}


def test_the_report_step_alone_may_lock_and_only_what_a_model_is_judged_by(locked: Assembly) -> None:
    assert retention(locked.template("rft-locked-prod")) == {REPORT: LOCKED}
    # Nobody may lift a lock.
    assert "BypassGovernance" not in locked.text("rft-locked-prod")
    variables = [
        each["Properties"]["Environment"]["Variables"]
        for each in locked.template("rft-locked-prod")["Resources"].values()
        if each["Type"] == "AWS::Lambda::Function"
    ]
    asked = [each for each in variables if "LOCK_DAYS" in each]
    assert [(each["LOCK_DAYS"], each["LOCK_MODE"]) for each in asked] == [("365", "COMPLIANCE")]


def test_switching_it_on_changes_the_bucket_in_place(locked: Assembly) -> None:
    before, after = (locked.template(f"rft-{name}-prod")["Resources"] for name in ("quotes", "locked"))
    assert before.keys() == after.keys()
    changed = {
        key
        for key in before[BUCKET]["Properties"].keys() | after[BUCKET]["Properties"].keys()
        if before[BUCKET]["Properties"].get(key) != after[BUCKET]["Properties"].get(key)
    }
    assert changed == {"ObjectLockEnabled", "ObjectLockConfiguration"}
    # By CloudFormation's own schema of the type, neither makes it a new one.
    schemas = Path(cfnlint.__file__).parent / "data/schemas"
    provider = json.loads((schemas / "providers/us-east-1.json").read_text())["AWS::S3::Bucket"]
    schema = json.loads((schemas / f"resources/{provider}.json").read_text())
    replacing = {path.split("/")[2] for path in schema["createOnlyProperties"]}
    assert "BucketName" in replacing
    assert not changed & replacing


def test_what_the_card_says_of_the_team_is_in_a_tag_and_not_in_the_template(locked: Assembly) -> None:
    tags = locked.stack("rft-quotes-dev")["tags"]
    assert tags["description"].startswith("Sample team: answers the arithmetic of a sales-quote desk.")
    # Bedrock takes no comma in a tag.
    assert "synthetic=2C see" in tags["description"]
    assert "arithmetic" not in locked.text("rft-quotes-dev")


def test_the_revision_changes_no_resource_and_no_tag(tmp_path: Path) -> None:
    platform = load_platform(REPOSITORY)
    team = load_team(REPOSITORY, "quotes", platform)
    (tmp_path / "workflow").mkdir()
    (tmp_path / "quotes/reward").mkdir(parents=True)
    found = {}
    for called in (None, "54f6bc3"):
        app = checked_app(tmp_path / str(called))
        made = RftEnvironment(
            app, team=team, stage="dev", platform=platform, packages=tmp_path, env=ENV, revision=called
        )
        app.synth()
        written = json.loads((tmp_path / str(called) / "rft-quotes-dev.template.json").read_text())
        found[called] = (written, made.tags.tag_values())
    (plain, tags), (called, same_tags) = found.values()
    # A changed tag would have CloudFormation write the champion's parameter anew, as "none".
    assert tags == same_tags
    assert provenance.revision_of(called) == "54f6bc3"
    assert provenance.revision_of(plain) is None
    assert {**called, "Metadata": None} == {**plain, "Metadata": None}
    assert provenance.template_sha256(called) == provenance.template_sha256(plain)


@pytest.mark.parametrize("text", ["plain", "a, b; c = 5€ \u65e5\u672c \U0001f600 =2C", "line\n  break"])
def test_a_description_survives_being_a_tag(text: str) -> None:
    value = environment._tag_value(text)
    assert re.fullmatch(r"[a-zA-Z0-9\s._:/=+@-]{0,256}", value)
    assert provenance._said(value) == " ".join(text.split())


def test_a_long_description_is_cut_between_characters() -> None:
    value = environment._tag_value("\u20ac" * 400)
    assert len(value) <= 256
    assert provenance._said(value) == "\u20ac" * 28 + "..."
