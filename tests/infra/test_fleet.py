"""A fleet: 200 generated teams of five shapes over three accounts, each synthesized under every check."""

import json
from collections import defaultdict

import pytest
from cloudformation_validate import Severity

from infra.config import load_platform
from infra.guardrails import guardrail_faults, stacks
from tests.infra.fleet import ACCOUNTS, SHAPES, Fleet, fleet
from tests.infra.test_templates import ACCEPTED, lint, validate

TEAMS = 200


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """All of them; a finding of the security check or a guardrail would have failed the synthesis."""
    return fleet(tmp_path_factory.mktemp("fleet"), TEAMS, processes=2)


def test_every_team_is_one_stack_in_its_account(everybody: Fleet) -> None:
    assert len({member.stack for member in everybody.members}) == TEAMS
    made = [stack for each in set(everybody.assemblies.values()) for stack in each.stacks]
    assert sorted(made) == sorted(member.stack for member in everybody.members)
    assert {(each.shape, each.account) for each in everybody.members} == {
        (shape, account) for shape in SHAPES for account in ACCOUNTS
    }
    for folder in {each.folder for each in everybody.assemblies.values()}:
        manifest = json.loads((folder / "manifest.json").read_text())["artifacts"]
        for each in everybody.members:
            if everybody.assemblies[each].folder == folder:
                assert manifest[each.stack]["environment"] == f"aws://{each.account}/us-east-1"
                assert manifest[each.stack]["properties"]["tags"]["team"] == each.team


def test_guardrails_hold_for_all(everybody: Fleet) -> None:
    platform = load_platform(everybody.project)
    assert platform.permissions_boundary
    assert platform.accounts
    assert platform.network
    known = {
        stack.name: stack
        for each in set(everybody.assemblies.values())
        for stack in stacks(json.loads((each.folder / "manifest.json").read_text())).values()
    }
    assert len(known) == TEAMS
    for each in everybody.members:
        assert guardrail_faults(json.loads(everybody.text(each)), known[each.stack], platform) == []


def test_equal_shape_in_the_same_account_is_equal_bytes(everybody: Fleet) -> None:
    texts = defaultdict(list)
    for each in everybody.members:
        texts[each.shape, each.account].append(everybody.text(each))
    assert {len(found) for found in texts.values()} == {13, 14}
    assert {kind: len(set(found)) for kind, found in texts.items()} == dict.fromkeys(texts, 1)
    assert len({found[0] for found in texts.values()}) == len(SHAPES) * len(ACCOUNTS)


def test_checkers_find_nothing_in_any_shape(everybody: Fleet) -> None:
    # The slower of the two sees every type but the dashboard in test_templates.py.
    one = {
        each.shape: everybody.assemblies[each].folder / f"{each.stack}.template.json"
        for each in everybody.members
    }
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
