"""A fleet: generated teams of five shapes over three accounts, synthesized as one app.

`make bench` does the same with 200 teams.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from cloudformation_validate import Severity

from infra.config import load_platform
from infra.guardrails import guardrail_faults, stacks
from tests.infra.conftest import Assembly
from tests.infra.fleet import ACCOUNTS, SHAPES, Member, fleet
from tests.infra.test_templates import ACCEPTED, lint, validate

# Of every shape two in each account.
TEAMS = 30


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Member], Assembly, Path]:
    """The generated teams, what was synthesized of them under every check, and their project."""
    root = tmp_path_factory.mktemp("fleet")
    return fleet(root, TEAMS)


Fleet = tuple[list[Member], Assembly, Path]


def test_every_team_is_one_stack_in_its_account(members: Fleet) -> None:
    teams, assembly, _ = members
    assert assembly.stacks == sorted(member.stack for member in teams)
    manifest = json.loads((assembly.folder / "manifest.json").read_text())["artifacts"]
    assert {manifest[each.stack]["environment"].split("/")[2] for each in teams} == set(ACCOUNTS)
    for each in teams:
        assert manifest[each.stack]["environment"] == f"aws://{each.account}/us-east-1"
        assert manifest[each.stack]["properties"]["tags"]["team"] == each.team
    assert {(each.shape, each.account) for each in teams} == {
        (shape, account) for shape in SHAPES for account in ACCOUNTS
    }


def test_guardrails_hold_for_all(members: Fleet) -> None:
    teams, assembly, project = members
    platform = load_platform(project)
    assert platform.permissions_boundary
    assert platform.accounts
    assert platform.network
    manifest = json.loads((assembly.folder / "manifest.json").read_text())
    known = {stack.name: stack for stack in stacks(manifest).values()}
    assert len(known) == TEAMS
    for each in teams:
        assert guardrail_faults(assembly.template(each.stack), known[each.stack], platform) == []


def test_equal_shape_in_the_same_account_is_equal_bytes(members: Fleet) -> None:
    teams, assembly, _ = members
    texts = defaultdict(list)
    for each in teams:
        texts[each.shape, each.account].append(assembly.text(each.stack))
    assert {len(found) for found in texts.values()} == {TEAMS // len(SHAPES) // len(ACCOUNTS)}
    assert {kind: len(set(found)) for kind, found in texts.items()} == dict.fromkeys(texts, 1)
    assert len({found[0] for found in texts.values()}) == len(SHAPES) * len(ACCOUNTS)


def test_checkers_find_nothing_in_any_shape(members: Fleet) -> None:
    teams, assembly, _ = members
    # The slower of the two sees every type but the dashboard in test_templates.py.
    one = {each.shape: assembly.folder / f"{each.stack}.template.json" for each in teams}
    assert len(one) == len(SHAPES)
    found = [
        (path.name, each.rule_id, each.message)
        for path in one.values()
        for each in validate(path)
        if each.severity != Severity.INFO and each.rule_id not in ACCEPTED
    ]
    assert found == []
    linted = lint(one["watched"])
    # What these two rules find is said in test_templates.py.
    assert [each for each in linted if each[0] not in {"W3005", "E3601"}] == []
