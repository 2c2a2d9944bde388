"""The network around a team's code: the reward function in a VPC, and the VPC that the platform can make."""

import json
from pathlib import Path
from typing import Any

import pytest
from cloudformation_validate import Severity

from infra.config import load_platform
from infra.network import PrivateNetwork
from tests.infra.conftest import ACCOUNT, BOUNDARY, ENV, REGION, Assembly, checked_app
from tests.infra.test_app import project, run  # noqa: F401 - a fixture
from tests.infra.test_templates import ACCEPTED, lint, validate

Template = dict[str, Any]
SERVICES = {"bedrock", "bedrock-runtime", "kms", "lambda", "logs", "s3", "sns", "states"}


@pytest.fixture(scope="module")
def network(projects: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The platform's network, with a boundary, and once more without: the files of their templates."""
    folder = tmp_path_factory.mktemp("network")
    app = checked_app(folder, load_platform(projects[0]))
    for name, of in (("rft-network", projects[0]), ("rft-bounded", projects[1])):
        PrivateNetwork(app, name, platform=load_platform(of), env=ENV)
    app.synth()
    return folder


@pytest.fixture(scope="module")
def template(network: Path) -> Template:
    parsed: Template = json.loads((network / "rft-network.template.json").read_text())
    return parsed


def of(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    found = {name: each["Properties"] for name, each in template["Resources"].items() if each["Type"] == kind}
    assert found, f"no {kind}"
    return found


def test_only_the_reward_function_is_in_the_vpc(assembly: Assembly) -> None:
    functions = of(assembly.template("rft-closed-dev"), "AWS::Lambda::Function")
    inside = {each["Handler"]: each["VpcConfig"] for each in functions.values() if "VpcConfig" in each}
    assert inside == {
        "lambdas.reward_function.handler": {
            "SubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
            "SecurityGroupIds": ["sg-0123456789abcdef1"],
        }
    }
    for stack in ("rft-walled-dev", "rft-quotes-dev"):
        functions = of(assembly.template(stack), "AWS::Lambda::Function")
        assert not [each for each in functions.values() if "VpcConfig" in each]


def test_the_function_waits_for_the_right_to_make_interfaces(assembly: Assembly) -> None:
    resources = assembly.template("rft-closed-dev")["Resources"]
    [function] = [each for each in resources.values() if each.get("Properties", {}).get("VpcConfig")]
    assert any(name.startswith("RewardFunctionRoleDefaultPolicy") for name in function["DependsOn"])


def test_moving_into_the_vpc_is_a_new_version_of_the_reward_function(assembly: Assembly) -> None:
    def version(stack: str) -> str:
        resources = assembly.template(stack)["Resources"]
        [name] = [name for name, each in resources.items() if each["Type"] == "AWS::Lambda::Version"]
        return name

    assert version("rft-closed-dev") != version("rft-quotes-dev") == version("rft-twins-dev")


def test_nothing_leads_out_of_the_network(template: Template) -> None:
    kinds = {each["Type"] for each in template["Resources"].values()}
    assert not kinds & {
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
        "AWS::EC2::TransitGatewayAttachment",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::EC2::VPCPeeringConnection",
    }
    subnets = of(template, "AWS::EC2::Subnet")
    assert [each["MapPublicIpOnLaunch"] for each in subnets.values()] == [False, False]
    zones = [each["AvailabilityZone"] for each in subnets.values()]
    assert zones == [{"Fn::Select": [number, {"Fn::GetAZs": ""}]} for number in (0, 1)]


def test_every_service_is_reached_from_inside_and_for_this_account_only(template: Template) -> None:
    endpoints = of(template, "AWS::EC2::VPCEndpoint").values()
    names = [each["ServiceName"].removeprefix(f"com.amazonaws.{REGION}.") for each in endpoints]
    assert sorted(names) == sorted(SERVICES)
    for name, each in zip(names, endpoints, strict=True):
        (statement,) = each["PolicyDocument"]["Statement"]
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}
        if name == "s3":
            assert (each["VpcEndpointType"], each["RouteTableIds"]) == (
                "Gateway",
                [{"Fn::GetAtt": ["Routes", "RouteTableId"]}],
            )
        else:
            assert (each["VpcEndpointType"], each["PrivateDnsEnabled"]) == ("Interface", True)
            assert each["SubnetIds"] == [{"Fn::GetAtt": [f"Subnet{n}", "SubnetId"]} for n in (1, 2)]
            assert each["SecurityGroupIds"] == [{"Fn::GetAtt": ["EndpointsSecurityGroup", "GroupId"]}]


def test_security_groups_let_https_in_from_the_network_and_nothing_out_of_the_closed_one(
    template: Template,
) -> None:
    groups = of(template, "AWS::EC2::SecurityGroup")
    rules = {
        name: {
            way: [(rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in each.get(way, [])]
            for way in ("SecurityGroupIngress", "SecurityGroupEgress")
        }
        for name, each in groups.items()
    }
    nowhere = [("255.255.255.255/32", 1, 1)]
    assert rules == {
        "EndpointsSecurityGroup": {
            "SecurityGroupIngress": [("10.0.0.0/16", 443, 443)],
            "SecurityGroupEgress": nowhere,
        },
        "JobsSecurityGroup": {
            "SecurityGroupIngress": [],
            "SecurityGroupEgress": [("0.0.0.0/0", 443, 443)],
        },
        "ClosedSecurityGroup": {"SecurityGroupIngress": [], "SecurityGroupEgress": nowhere},
    }


def test_flow_logs_are_encrypted_and_outlive_the_network(network: Path, template: Template) -> None:
    (log,) = of(template, "AWS::EC2::FlowLog").values()
    (group,) = of(template, "AWS::Logs::LogGroup")
    assert (log["ResourceType"], log["TrafficType"], log["LogGroupName"]) == ("VPC", "ALL", {"Ref": group})
    assert template["Resources"][group]["Properties"]["KmsKeyId"] == {"Fn::GetAtt": ["Key961B73FD", "Arn"]}
    for name in (group, "Key961B73FD"):
        assert template["Resources"][name]["DeletionPolicy"] == "Retain"
    known = json.loads((network / "manifest.json").read_text())["artifacts"]["rft-network"]["properties"]
    assert known["terminationProtection"] is True
    assert known["tags"] == {"application": "rft", "team": "platform"}


def test_outputs_are_what_the_settings_ask_for(template: Template) -> None:
    assert template["Outputs"].keys() == {
        "VpcId",
        "SubnetIds",
        "JobSecurityGroupId",
        "ClosedSecurityGroupId",
        "BilledByTheHour",
    }
    # Seven services in two zones; the gateway endpoint of S3 costs nothing.
    assert template["Outputs"]["BilledByTheHour"]["Value"] == "14"


def test_checkers_find_nothing(network: Path) -> None:
    path = network / "rft-network.template.json"
    assert lint(path) == []
    found = [each for each in validate(path) if each.severity != Severity.INFO]
    assert [(each.rule_id, each.message) for each in found if each.rule_id not in ACCEPTED] == []


def test_the_platforms_boundary_holds_here_too(network: Path) -> None:
    bounded = json.loads((network / "rft-bounded.template.json").read_text())
    (role,) = of(bounded, "AWS::IAM::Role").values()
    assert BOUNDARY in str(role["PermissionsBoundary"])


def test_app_builds_the_network_alone_and_looks_nothing_up(project: Path) -> None:  # noqa: F811 - the fixture
    done, assembly = run(project, network="true")
    assert (done.returncode, done.stderr) == (0, "")
    assert assembly.stacks == ["rft-network"]
    assert "missing" not in json.loads((assembly.folder / "manifest.json").read_text())
