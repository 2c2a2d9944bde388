"""The policy that CloudFormation deploys with: enough for every template, and nothing beyond our stacks."""

import fnmatch
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from infra.config import Delivery, load_platform
from infra.delivery import GithubDelivery
from infra.network import PrivateNetwork
from rft import cli, terminal
from rft.delivery import Cdk
from rft.execution_policy import (
    LARGEST_POLICY,
    Place,
    arns,
    execution_policies,
    permissions_of,
    shield,
    size,
)
from tests import documented
from tests.infra.conftest import ACCOUNT, ENV, REGION, REPOSITORY, Assembly, checked_app

PLACE = Place(account=ACCOUNT, region=REGION)
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/developer-boundary"
OURS = {
    "aws:RequestTag/team": "quotes",
    "aws:ResourceTag/team": "quotes",
    # As CloudFormation makes something with its tags.
    "ec2:CreateAction": "CreateVpc",
}
IAM = f"arn:aws:iam::{ACCOUNT}"


def allows(policies: list[dict[str, Any]], action: str, resource: str, **context: str) -> bool:
    """Whether a statement allows the action on the resource and none denies it; knows the conditions used."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in policy["Statement"]
        if action in statement["Action"]
        and any(fnmatch.fnmatchcase(resource, each) for each in statement["Resource"])
        and holds(statement.get("Condition", {}), context)
    }
    return effects == {"Allow"}


def holds(conditions: dict[str, dict[str, str]], context: dict[str, str]) -> bool:
    for operator, pairs in conditions.items():
        for key, value in pairs.items():
            match operator:
                case "Null":
                    if (key in context) == (value == "true"):
                        return False
                case "StringEquals":
                    if context.get(key) != value:
                        return False
                case _:
                    raise AssertionError(f"a condition this test does not know: {operator}")
    return True


@pytest.fixture(scope="module")
def templates(assembly: Assembly) -> list[dict[str, Any]]:
    return [assembly.template(stack) for stack in assembly.stacks]


@pytest.fixture(scope="module")
def policies(templates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return execution_policies(templates, PLACE, boundary=None)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The templates that are deployed once per account: the network's, and what may deploy."""
    folder = tmp_path_factory.mktemp("others")
    app = checked_app(folder)
    PrivateNetwork(app, "rft-network", platform=load_platform(REPOSITORY), env=ENV)
    settings = Delivery(repository="example/rft")
    GithubDelivery(app, "rft-delivery", settings=settings, regions=[REGION], boundary=None, env=ENV)
    app.synth()
    return {
        kind: [json.loads((folder / f"rft-{kind}.template.json").read_text())]
        for kind in ("network", "delivery")
    }


def missing(templates: list[dict[str, Any]], policies: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What the policies do not allow of what it takes to keep the resources of templates."""
    return {
        (action, arn)
        for template in templates
        for name, resource in template["Resources"].items()
        if not resource["Type"].startswith(("Custom::", "AWS::CDK::"))
        for arn in (each.replace("*", "x1") for each in arns(resource["Type"], [name], PLACE))
        for action in permissions_of(resource["Type"]) - {"iam:PassRole"}
        if not allows(policies, action, arn, **OURS)
    }


def test_every_resource_of_every_template_can_be_kept(
    templates: list[dict[str, Any]], policies: list[dict[str, Any]]
) -> None:
    assert missing(templates, [*policies, shield(policies, PLACE)]) == set()
    assert allows(policies, "iam:PassRole", f"{IAM}:role/rft-quotes-dev-TrainRole")
    assert allows(
        policies, "lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:rft-a-dev-F"
    )
    assets = f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/0123.zip"
    assert allows(policies, "s3:GetObject", assets)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("iam:PassRole", f"{IAM}:role/Admin"),
        ("iam:CreateRole", f"{IAM}:role/Admin"),
        ("iam:PutRolePolicy", f"{IAM}:role/cdk-hnb659fds-deploy-role-{ACCOUNT}-{REGION}"),
        ("iam:PutUserPolicy", f"{IAM}:user/rft-someone"),
        ("iam:AttachRolePolicy", "arn:aws:iam::999999999999:role/rft-quotes-dev-Role"),
        ("s3:DeleteBucket", "arn:aws:s3:::payroll"),
        ("s3:PutBucketPolicy", f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"),
        ("s3:GetObject", "arn:aws:s3:::payroll/2026.csv"),
        ("s3:GetObject", "arn:aws:s3:::rft-quotes-dev-datasets/datasets/1/train.jsonl"),
        ("kms:PutKeyPolicy", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234"),
        ("kms:CreateKey", "*"),
        ("lambda:UpdateFunctionCode", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:payments"),
    ],
)
def test_nothing_beyond_our_stacks_can_be_touched(
    policies: list[dict[str, Any]], action: str, resource: str
) -> None:
    assert not allows(policies, action, resource)


@pytest.mark.parametrize("kind", ["network", "delivery"])
def test_what_is_deployed_once_can_be_kept_by_its_own_policies_only(
    others: dict[str, list[dict[str, Any]]], policies: list[dict[str, Any]], kind: str
) -> None:
    own = execution_policies(others[kind], PLACE, boundary=None)
    assert missing(others[kind], own) == set()
    assert missing(others[kind], policies) != set()
    assert len([*policies, *own]) <= 10
    for policy in own:
        assert size(policy) <= LARGEST_POLICY
        for statement in policy["Statement"]:
            if any(action.startswith(("iam:", "s3:", "kms:")) for action in statement["Action"]):
                assert "*" not in statement["Resource"] or statement["Action"] == ["kms:CreateKey"]


VPC = f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-0123"


@pytest.mark.parametrize(
    ("kind", "action", "resource", "context"),
    [
        ("network", "ec2:DeleteVpc", VPC, {}),
        ("network", "ec2:DeleteSubnet", f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/subnet-0123", {}),
        ("network", "ec2:ModifyVpcAttribute", VPC, {}),
        # With the tag, what is not ours would be.
        ("network", "ec2:CreateTags", VPC, {"aws:RequestTag/team": "x"}),
        ("network", "ec2:RunInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0123", {}),
        ("network", "ec2:CreateVpc", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:vpc/vpc-0123", {}),
        ("network", "iam:PassRole", f"{IAM}:role/Admin", {}),
        ("delivery", "iam:CreateRole", f"{IAM}:role/Admin", {}),
        ("delivery", "iam:DeleteOpenIDConnectProvider", f"{IAM}:oidc-provider/login.example.com", {}),
        ("delivery", "iam:CreateSAMLProvider", f"{IAM}:saml-provider/x", {}),
        ("delivery", "s3:DeleteBucket", "arn:aws:s3:::rft-quotes-dev-datasets", {}),
    ],
)
def test_what_is_deployed_once_gives_nothing_beyond_itself(
    others: dict[str, list[dict[str, Any]]],
    kind: str,
    action: str,
    resource: str,
    context: dict[str, str],
) -> None:
    assert not allows(execution_policies(others[kind], PLACE, boundary=None), action, resource, **context)


def test_what_deploys_teams_cannot_change_who_may_deploy(
    others: dict[str, list[dict[str, Any]]], policies: list[dict[str, Any]]
) -> None:
    shielded = [*policies, shield(policies, PLACE)]
    [template] = others["delivery"]
    roles = [name for name, each in template["Resources"].items() if each["Type"] == "AWS::IAM::Role"]
    assert len(roles) == 4
    for name in roles:
        role = f"{IAM}:role/rft-delivery-{name}-AbCdEf123456"
        for action in ("iam:UpdateAssumeRolePolicy", "iam:PutRolePolicy", "iam:PassRole", "iam:DeleteRole"):
            assert allows(policies, action, role)
            assert not allows(shielded, action, role)
    # Neither the stacks of a team of that name.
    assert allows(shielded, "iam:PutRolePolicy", f"{IAM}:role/rft-delivery-dev-RewardRole1-AbC")


def test_the_documented_commands_write_the_policies_and_how_to_put_them_in_place(
    templates: list[dict[str, Any]],
    others: dict[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def synth(_: Cdk, context: dict[str, str], output: Path) -> None:
        """What the CDK CLI would write: it takes the packages for AWS, from the registries."""
        asked = "network" if "network" in context else "delivery" if "delivery" in context else ""
        output.mkdir()
        for number, template in enumerate(others[asked] if asked else templates):
            (output / f"{number}.template.json").write_text(json.dumps(template))

    monkeypatch.setattr(Cdk, "synth", synth)
    monkeypatch.setattr(terminal, "ROOT", tmp_path)
    shutil.copytree(REPOSITORY / "teams", tmp_path / "teams", ignore=shutil.ignore_patterns("data"))
    platform = tmp_path / "teams/platform.toml"
    platform.write_text('delivery.repository = "example/rft"\n' + platform.read_text())
    commands = [each for each in documented.commands() if " execution-policy " in each]
    written = {}
    for command in commands:
        cli.app(shlex.split(command)[1:], standalone_mode=False)
        folder = tmp_path / "build/execution-policy" / f"{ACCOUNT}-{REGION}"
        said = capsys.readouterr().out
        names = set(re.findall(r"--policy-name (\S+)", said))
        assert all(f"policy/{name}" in said.splitlines()[-1] for name in names)
        for name in names:
            assert json.loads((folder / f"{name}.json").read_text())["Statement"]
        written[command] = {
            name.rpartition("rft-execution-us-east-1-")[2].rstrip("1234567890-") for name in names
        }
    # The first keeps the roles that deploy from everybody; the second is for as long as they are deployed.
    assert list(written.values()) == [{"", "shield"}, {"", "network", "delivery"}]


def test_every_action_is_named_and_iam_s3_and_kms_are_never_everything(
    policies: list[dict[str, Any]],
) -> None:
    for policy in policies:
        assert size(policy) <= LARGEST_POLICY
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            assert not any("*" in action for action in statement["Action"])
            if any(action.startswith(("iam:", "s3:", "kms:")) for action in statement["Action"]):
                assert "*" not in statement["Resource"] or statement["Action"] == ["kms:CreateKey"]


def test_budgets_belong_to_no_region(policies: list[dict[str, Any]]) -> None:
    assert allows(policies, "budgets:ModifyBudget", f"arn:aws:budgets::{ACCOUNT}:budget/BudgetAlerts-x1")


def test_a_policy_larger_than_iam_allows_is_split(policies: list[dict[str, Any]]) -> None:
    assert len(policies) > 1
    assert len(policies) <= 10


def test_with_a_boundary_no_role_is_made_without_it(templates: list[dict[str, Any]]) -> None:
    bounded = execution_policies(templates, PLACE, boundary=BOUNDARY)
    role = f"{IAM}:role/rft-quotes-dev-Role"
    for action in ("iam:CreateRole", "iam:PutRolePolicy"):
        assert not allows(bounded, action, role)
        assert not allows(bounded, action, role, **{"iam:PermissionsBoundary": f"{BOUNDARY}-other"})
        assert allows(bounded, action, role, **{"iam:PermissionsBoundary": BOUNDARY})
    assert not allows(bounded, "iam:DeleteRolePermissionsBoundary", role)


def test_fails_when_a_type_is_unknown() -> None:
    template = {"Resources": {"X": {"Type": "AWS::Bedrock::CustomModel"}}}
    with pytest.raises(ValueError, match="know no type AWS::Bedrock::CustomModel"):
        execution_policies([template], PLACE, boundary=None)
