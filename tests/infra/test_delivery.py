"""What a repository's workflows may do in an account, and which of them."""

import json
import re
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cloudformation_validate import Severity

from infra.config import Delivery
from infra.delivery import GithubDelivery
from tests.infra.conftest import ACCOUNT, BOUNDARY, ENV, REGION, Assembly, checked_app
from tests.infra.test_templates import ACCEPTED, lint, validate

ISSUER = "token.actions.githubusercontent.com"
BOOTSTRAP = f"arn:aws:iam::{ACCOUNT}:role/cdk-hnb659fds"
REPOSITORY = "repo:example/rft"
STATE_MACHINE = "AWS::StepFunctions::StateMachine"
MACHINE = "TrainingStateMachineEAE34FB3"


def delivery(app: cdk.App, construct_id: str, *, boundary: str | None = None, **settings: Any) -> None:
    GithubDelivery(
        app,
        construct_id,
        settings=Delivery(repository="example/rft", **settings),
        regions=[REGION, "us-west-2"],
        boundary=boundary,
        env=ENV,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delivery")
    app = checked_app(folder)
    delivery(app, "rft-delivery")
    delivery(app, "rft-second", existing_provider=True, boundary=BOUNDARY, environments=("test", "live"))
    app.synth()
    return folder


def roles(folder: Path, stack: str) -> dict[str, dict[str, Any]]:
    """Each role by its id: its trust statement and its policy statements."""
    resources = json.loads((folder / f"{stack}.template.json").read_text())["Resources"]
    found = {}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            (trust,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            statements = [
                statement
                for policy in resources.values()
                if policy["Type"] == "AWS::IAM::Policy" and {"Ref": name} in policy["Properties"]["Roles"]
                for statement in policy["Properties"]["PolicyDocument"]["Statement"]
            ]
            found[name[:-8]] = {**resource["Properties"], "trust": trust, "statements": statements}
    return found


def test_only_the_right_workflows_of_the_one_repository_get_a_role(folder: Path) -> None:
    subjects = {
        "Read": [f"{REPOSITORY}:pull_request", f"{REPOSITORY}:ref:refs/heads/main"],
        "Deploy": [f"{REPOSITORY}:environment:dev", f"{REPOSITORY}:environment:prod"],
        "Smoke": [f"{REPOSITORY}:environment:dev", f"{REPOSITORY}:environment:prod"],
        "Retire": [f"{REPOSITORY}:environment:retire"],
    }
    found = roles(folder, "rft-delivery")
    assert set(found) == set(subjects)
    for name, role in found.items():
        assert role["trust"]["Action"] == "sts:AssumeRoleWithWebIdentity"
        # Equals, and not like: a pattern in a subject is how other repositories get in.
        assert role["trust"]["Condition"] == {
            "StringEquals": {f"{ISSUER}:aud": "sts.amazonaws.com", f"{ISSUER}:sub": subjects[name]}
        }


def test_a_workflow_may_only_take_the_roles_of_the_bootstrap(folder: Path) -> None:
    found = roles(folder, "rft-delivery")
    kinds = {"Read": ["lookup"], "Deploy": ["deploy", "file-publishing", "lookup"]}
    for name, expected in kinds.items():
        (statement,) = found[name]["statements"]
        assert statement["Action"] == "sts:AssumeRole"
        assert statement["Resource"] == [
            f"{BOOTSTRAP}-{kind}-role-{ACCOUNT}-{region}"
            for kind in expected
            for region in (REGION, "us-west-2")
        ]


def test_what_tries_out_a_deployment_may_call_our_functions_and_change_nothing(folder: Path) -> None:
    stacks, functions = roles(folder, "rft-delivery")["Smoke"]["statements"]
    assert (stacks["Action"], functions["Action"]) == (
        "cloudformation:DescribeStacks",
        "lambda:InvokeFunction",
    )
    assert all(":stack/rft-*/*" in arn for arn in stacks["Resource"])
    assert all(":function:rft-*" in arn for arn in functions["Resource"])


def test_the_state_machines_of_all_stacks_have_the_logical_id_that_is_counted_on(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        resources = assembly.template(stack)["Resources"]
        machines = {name for name, each in resources.items() if each["Type"] == STATE_MACHINE}
        assert machines == {MACHINE}
        assert "StateMachineName" not in resources[MACHINE]["Properties"]


def test_what_retires_takes_away_only_what_is_named_or_tagged_as_ours(folder: Path) -> None:
    verbs = set()
    for statement in roles(folder, "rft-delivery")["Retire"]["statements"]:
        actions, on = (
            each if isinstance(each, list) else [each]
            for each in (statement["Action"], statement["Resource"])
        )
        changing = [each for each in actions if not re.match(r"\w+:(List|Describe|Get)", each)]
        verbs.update(changing)
        if changing == ["states:StopExecution"]:
            # A workflow may have any name, but none that CloudFormation makes of another logical id.
            assert {arn.rpartition(":execution:")[2] for arn in on} == {f"{MACHINE}-*:*"}
        elif changing:
            assert "Condition" in statement or all("rft-" in json.dumps(arn) for arn in on), changing
    assert "iam:PassRole" not in verbs
    assert {"cloudformation:DeleteStack", "s3:DeleteObjectVersion", "kms:ScheduleKeyDeletion"} <= verbs


def test_an_account_that_has_the_provider_gets_no_second_one(folder: Path) -> None:
    template = json.loads((folder / "rft-second.template.json").read_text())
    assert "AWS::IAM::OIDCProvider" not in {each["Type"] for each in template["Resources"].values()}
    for role in roles(folder, "rft-second").values():
        assert role["trust"]["Principal"] == {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}"}
        assert BOUNDARY in json.dumps(role["PermissionsBoundary"])


def test_checkers_find_nothing(folder: Path) -> None:
    template = folder / "rft-delivery.template.json"
    assert [each for each in lint(template) if each[0] != "W3005"] == []
    found = [each for each in validate(template) if each.severity != Severity.INFO]
    assert [each.message for each in found if each.rule_id not in ACCEPTED] == []
