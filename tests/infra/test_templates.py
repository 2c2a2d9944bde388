"""CloudFormation's own rules, by two independent checkers that know its schemas."""

import json
import subprocess
import sys
from pathlib import Path

from cloudformation_validate import CompositeEngine, Diagnostic, Severity

from tests.infra.conftest import Assembly

# Between them these have every resource and every kind of setting; cfn-lint takes its time over each.
SHAPES = ["rft-walled-dev", "rft-deploying-dev", "rft-uploading-prod", "rft-bounded-dev"]


def lint(*templates: Path) -> list[tuple[str, str, str]]:
    """What cfn-lint says of templates: (rule, message, template)."""
    done = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "--format", "json", "--", *map(str, templates)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return [
        (each["Rule"]["Id"], each["Message"], Path(each["Filename"]).name) for each in json.loads(done.stdout)
    ]


def test_cfn_lint_finds_nothing(assembly: Assembly) -> None:
    found = lint(*(assembly.folder / f"{stack}.template.json" for stack in SHAPES))
    expressions = (
        "'{% $states.context.Execution.Input.measurement.concurrency %}' is not of type 'number'",
        "'{% $decision.approval_seconds %}' is not of type 'number'",
    )
    unexpected = [
        (rule, message, template)
        for rule, message, template in found
        # The library has a function wait for its role by name, though it refers to it as well.
        if rule != "W3005"
        # Its schema has these fields as numbers only; in JSONata they may be expressions, as Items may.
        and not (rule == "E3601" and message.startswith(expressions))
    ]
    assert unexpected == []


def test_fails_when_a_template_is_wrong(assembly: Assembly, tmp_path: Path) -> None:
    text = assembly.text("rft-quotes-dev")
    for before, after in (
        ('"Runtime": "python3.14"', '"Runtime": "python2.7"'),
        ('"Action": "iam:PassRole"', '"Action": "iam:PassTheRole"'),
        ('"Ref": "Datasets0030EE04"', '"Ref": "Datasets"'),
        (r"\"Next\": \"Rehearse reward\"", r"\"Nex\": \"Rehearse reward\""),
    ):
        assert before in text
        text = text.replace(before, after)
    broken = tmp_path / "broken.template.json"
    broken.write_text(text)
    # An ended runtime, an action that does not exist, a reference to nothing, a state that leads nowhere.
    assert {rule for rule, _, _ in lint(broken)} >= {"E2533", "W3037", "E1020", "E3601"}
    assert any(each.severity != Severity.INFO for each in validate(broken) if each.rule_id not in ACCEPTED)


# The library has a function wait for its role by name, though it refers to it as well. An account's id is in
# the ARNs because a stack is synthesized for one account.
ACCEPTED = {"W3005", "W9013"}


def validate(template: Path) -> list[Diagnostic]:
    diagnostics: list[Diagnostic] = CompositeEngine().validate_template(str(template)).diagnostics
    return diagnostics


def test_cloudformation_validate_finds_nothing(assembly: Assembly) -> None:
    found = [
        (stack, each.rule_id, each.message)
        for stack in assembly.stacks
        for each in validate(assembly.folder / f"{stack}.template.json")
        if each.severity != Severity.INFO and each.rule_id not in ACCEPTED
    ]
    assert found == []
