"""Who may do what: exact actions, exact resources, and a reason for every wildcard."""

import fnmatch
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import aws_iam as iam

from infra.config import load_platform, load_team
from infra.environment import RftEnvironment
from infra.permissions import allow, grant_apart
from tests.infra.conftest import ACCOUNT, BOUNDARY, ENV, REGION, REPOSITORY, Assembly, checked_app

Statement = dict[str, Any]

BEDROCK = f"arn:aws:bedrock:{REGION}:{ACCOUNT}"

# Every wildcard: {role: {resource: actions}}. A new one is written down here, and its reason in infra/.
RUNS, ROWS = "<Artifacts82DD59A1.Arn>/runs/*/", "<Datasets0030EE04.Arn>/"
HISTORY = "<Artifacts82DD59A1.Arn>/history/*"
JOBS, MODELS, DEPLOYMENTS = (
    f"{BEDROCK}:{kind}/*" for kind in ("model-customization-job", "custom-model", "custom-model-deployment")
)
EXECUTIONS = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:<TrainingStateMachineEAE34FB3.Name>"
WILDCARDS = {
    "Customization1AAFC5FD": {
        f"{ROWS}datasets/*": {"s3:GetObject"},
        f"{RUNS}output/*": {"s3:GetObject", "s3:PutObject"},
        f"{RUNS}filtered/*": {"s3:GetObject"},
    },
    "RunStarterFunctionRoleC96792E1": {
        f"{ROWS}datasets/*": {"s3:GetObject"},
        f"{ROWS}incoming/*": {"s3:GetObject"},
        HISTORY: {"s3:GetObject"},
    },
    "StepsPrepareRole14EFD451": {
        f"{ROWS}datasets/*": {"s3:GetObject", "s3:PutObject"},
        f"{ROWS}incoming/*": {"s3:GetObject"},
        f"{RUNS}run.json": {"s3:PutObject"},
        f"{RUNS}dataset.json": {"s3:PutObject"},
        f"{RUNS}gates/dataset.json": {"s3:PutObject"},
        f"{RUNS}prompts.jsonl": {"s3:PutObject"},
        f"{RUNS}training-prompts.jsonl": {"s3:PutObject"},
    },
    "StepsRehearseRoleD9FFB092": {
        f"{ROWS}datasets/*": {"s3:GetObject"},
        f"{RUNS}gates/rehearsal.json": {"s3:PutObject"},
    },
    "StepsMeasureRole3739AC49": {
        DEPLOYMENTS: {"bedrock:InvokeModel"},
        f"{RUNS}measured/*": {"s3:PutObject"},
        f"{RUNS}failed/*": {"s3:PutObject"},
    },
    "StepsSignalRole66FBA0B5": {
        f"{RUNS}measured/*": {"s3:GetObject"},
        f"{RUNS}gates/signal.json": {"s3:PutObject"},
    },
    "StepsLockRoleB25351B7": {
        f"{RUNS}gates/lock.json": {"s3:PutObject"},
        f"{EXECUTIONS}:*": {"states:DescribeExecution"},
    },
    "StepsEstimateRoleC497027B": {
        f"{RUNS}measured/*": {"s3:GetObject"},
        f"{RUNS}gates/cost.json": {"s3:PutObject"},
        "<Artifacts82DD59A1.Arn>/ledger/*": {"s3:GetObject", "s3:PutObject"},
    },
    "StepsFilterRole2317D8B1": {
        f"{ROWS}datasets/*": {"s3:GetObject"},
        f"{RUNS}training-prompts.jsonl": {"s3:GetObject"},
        f"{RUNS}measured/training/*": {"s3:GetObject"},
        f"{RUNS}gates/filter.json": {"s3:PutObject"},
        f"{RUNS}filtered/*": {"s3:PutObject"},
    },
    "StepsTrainRoleE36FA5C5": {
        JOBS: {
            "bedrock:CreateModelCustomizationJob",
            "bedrock:GetModelCustomizationJob",
            "bedrock:StopModelCustomizationJob",
            "bedrock:TagResource",
        },
        MODELS: {"bedrock:CreateModelCustomizationJob", "bedrock:TagResource"},
        f"{EXECUTIONS}:*": {"states:DescribeExecution"},
    },
    "StepsWatchRole80CB17B0": {
        f"{RUNS}rewards.json": {"s3:GetObject", "s3:PutObject"},
        f"{RUNS}gates/tripwires.json": {"s3:PutObject"},
    },
    "StepsDecideRoleD6C12A78": {
        f"{RUNS}measured/*": {"s3:GetObject"},
        f"{RUNS}decision.json": {"s3:PutObject"},
    },
    "StepsPromoteRole5743BE9D": {
        DEPLOYMENTS: {"bedrock:GetCustomModelDeployment", "bedrock:UpdateCustomModelDeployment"},
        MODELS: {"bedrock:UpdateCustomModelDeployment"},
        f"{RUNS}promotion.json": {"s3:GetObject", "s3:PutObject"},
        HISTORY: {"s3:PutObject"},
        f"{EXECUTIONS}:*": {"states:DescribeExecution"},
    },
    "StepsApprovalRoleA2F40F9F": {
        f"{RUNS}approval.json": {"s3:GetObject", "s3:PutObject"},
        f"{RUNS}decision.json": {"s3:PutObject"},
    },
    "StepsRetireOldRoleAAE1489F": {
        # Listing knows no resources.
        "*": {"bedrock:ListCustomModelDeployments", "bedrock:ListCustomModels"},
        MODELS: {"bedrock:DeleteCustomModel"},
        DEPLOYMENTS: {"bedrock:DeleteCustomModelDeployment", "bedrock:GetCustomModelDeployment"},
        f"{RUNS}retired.json": {"s3:PutObject"},
        HISTORY: {"s3:GetObject"},
    },
    "ChampionChangesFunctionRoleF1DFF353": {
        MODELS: {"bedrock:GetCustomModel", "bedrock:UpdateCustomModelDeployment"},
        DEPLOYMENTS: {"bedrock:GetCustomModelDeployment", "bedrock:UpdateCustomModelDeployment"},
        f"{RUNS}approval.json": {"s3:GetObject"},
        f"{RUNS}decision.json": {"s3:GetObject"},
        HISTORY: {"s3:GetObject", "s3:PutObject"},
    },
    "StepsReportRoleBB465BC9": {
        JOBS: {"bedrock:GetModelCustomizationJob"},
        f"{RUNS}*": {"s3:GetObject"},
        f"{RUNS}report.html": {"s3:PutObject"},
        f"{RUNS}manifest.json": {"s3:PutObject"},
        f"{RUNS}model-card.md": {"s3:PutObject"},
        f"{RUNS}model-card.html": {"s3:PutObject"},
        "<RewardFunction1B502C03.Arn>:*": {"lambda:GetFunctionConfiguration"},
    },
    "StepsCleanUpRole7C4B00DE": {
        JOBS: {"bedrock:GetModelCustomizationJob", "bedrock:StopModelCustomizationJob"},
        DEPLOYMENTS: {"bedrock:GetCustomModelDeployment", "bedrock:DeleteCustomModelDeployment"},
        f"{RUNS}failure.json": {"s3:GetObject", "s3:PutObject"},
        f"{RUNS}promotion.json": {"s3:GetObject"},
        f"{RUNS}failed/*": {"s3:GetObject"},
    },
    "TrainingStateMachineRole25B9785B": {
        JOBS: {"bedrock:GetModelCustomizationJob"},
        MODELS: {"bedrock:CreateCustomModelDeployment"},
        DEPLOYMENTS: {
            "bedrock:GetCustomModelDeployment",
            "bedrock:DeleteCustomModelDeployment",
            "bedrock:TagResource",
        },
        f"{RUNS}prompts.jsonl": {"s3:GetObject"},
        f"{RUNS}training-prompts.jsonl": {"s3:GetObject"},
        f"{EXECUTIONS}:*": {"states:DescribeExecution", "states:StopExecution"},
        f"{EXECUTIONS}/*": {"states:DescribeExecution", "states:StopExecution"},
        # Setting up log delivery, and tracing: neither knows resources.
        "*": {
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:DescribeLogGroups",
            "logs:DescribeResourcePolicies",
            "logs:GetLogDelivery",
            "logs:ListLogDeliveries",
            "logs:PutResourcePolicy",
            "logs:UpdateLogDelivery",
            "xray:GetSamplingRules",
            "xray:GetSamplingTargets",
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        },
    },
}
INTERFACES = f"arn:aws:ec2:{REGION}:{ACCOUNT}:network-interface/*"
NETWORK_WILDCARDS = {
    "*": {
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
    },
    INTERFACES: {
        "ec2:CreateNetworkInterface",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:CreateTags",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteNetworkInterfacePermission",
    },
}

REWARD_ROLE = "RewardFunctionRole19CDDB22"
LAMBDA_CHANGES = {
    "ec2:AssignPrivateIpAddresses",
    "ec2:DeleteNetworkInterface",
    "ec2:UnassignPrivateIpAddresses",
}
LAMBDA_LOOKS = {"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"}
LAMBDA_ALL = {"ec2:CreateNetworkInterface", *LAMBDA_CHANGES, *LAMBDA_LOOKS}
REWARD_NETWORK_WILDCARDS = {
    # What is allowed there, and everything again, which is refused to code.
    "*": LAMBDA_ALL,
    INTERFACES: {"ec2:CreateNetworkInterface"},
    f"arn:aws:ec2:{REGION}:{ACCOUNT}:*/*": LAMBDA_CHANGES,
}

OURS = {"aws:ResourceTag/rft:environment": {"Ref": "AWS::StackName"}}


def spelled(value: Any) -> str:
    """A resource of a statement as text."""
    match value:
        case str():
            return value
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Fn::Join": ["", parts]}:
            return "".join(spelled(part) for part in parts)
    raise AssertionError(f"a resource of a kind not seen before: {value}")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def policies(template: dict[str, Any]) -> dict[str, list[Statement]]:
    """The statements of every role of a template."""
    found: dict[str, list[Statement]] = defaultdict(list)
    for name, each in template["Resources"].items():
        if each["Type"] == "AWS::IAM::Role":
            assert "Policies" not in each["Properties"], name
            found[name] += []
        if each["Type"] == "AWS::IAM::Policy":
            for role in each["Properties"]["Roles"]:
                found[role["Ref"]] += each["Properties"]["PolicyDocument"]["Statement"]
    return found


def wildcards(statements: list[Statement]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for statement in statements:
        for resource in map(spelled, listed(statement["Resource"])):
            if "*" in resource:
                found[resource] |= set(listed(statement["Action"]))
    return dict(found)


def test_every_statement_allows_named_actions(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        for role, statements in policies(assembly.template(stack)).items():
            for statement in statements:
                # What Lambda may do with a role, the code that runs under it may not.
                refusal = role == REWARD_ROLE and "rft-closed-" in stack
                assert statement["Effect"] == "Allow" or (statement["Effect"] == "Deny" and refusal)
                assert "NotAction" not in statement, role
                assert "NotResource" not in statement, role
                assert not [action for action in listed(statement["Action"]) if "*" in action], role


def test_every_wildcard_is_written_down(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        found = {role: wildcards(each) for role, each in policies(assembly.template(stack)).items()}
        expected = dict(WILDCARDS)
        if stack.startswith(("rft-walled-", "rft-closed-")):
            role = "Customization1AAFC5FD"
            expected[role] = {**expected[role], **NETWORK_WILDCARDS}
        if stack.startswith("rft-closed-"):
            expected[REWARD_ROLE] = REWARD_NETWORK_WILDCARDS
        assert {role: each for role, each in found.items() if each} == expected, stack


def test_what_bedrock_made_is_told_apart_by_its_tag(assembly: Assembly) -> None:
    strict = {
        "bedrock:CreateCustomModelDeployment",
        "bedrock:DeleteCustomModel",
        "bedrock:DeleteCustomModelDeployment",
        "bedrock:InvokeModel",
        "bedrock:StopModelCustomizationJob",
        "bedrock:UpdateCustomModelDeployment",
    }
    lenient = {
        "bedrock:GetCustomModel",
        "bedrock:GetCustomModelDeployment",
        "bedrock:GetModelCustomizationJob",
        "bedrock:TagResource",
    }
    seen = set()
    for statements in policies(assembly.template("rft-quotes-dev")).values():
        for statement in statements:
            actions = set(listed(statement["Action"]))
            if not {JOBS, MODELS, DEPLOYMENTS} & set(map(spelled, listed(statement["Resource"]))):
                continue
            if actions == {"bedrock:CreateModelCustomizationJob"}:
                # What is about to be made has no tags to look at.
                continue
            seen |= actions
            assert statement["Condition"] == {
                "StringEquals" if actions <= strict else "StringEqualsIfExists": OURS
            }
            assert actions <= strict or actions <= lenient
    assert seen == strict | lenient
    machine = assembly.template("rft-quotes-dev")["Resources"]["TrainingStateMachineEAE34FB3"]["Properties"]
    assert {"Key": "rft:environment", "Value": {"Ref": "AWS::StackName"}} in machine["Tags"]


def test_base_model_is_called_through_its_profile_only(assembly: Assembly) -> None:
    profile = f"{BEDROCK}:inference-profile/us.amazon.nova-2-lite-v1:0"
    models = [
        f"arn:aws:bedrock:{region}::foundation-model/amazon.nova-2-lite-v1:0"
        for region in ("us-east-1", "us-east-2", "us-west-2")
    ]
    template = assembly.template("rft-quotes-dev")
    calls = [
        statement
        for statement in policies(template)["StepsMeasureRole3739AC49"]
        if statement["Action"] == "bedrock:InvokeModel" and statement["Resource"] != DEPLOYMENTS
    ]
    assert calls == [
        {"Action": "bedrock:InvokeModel", "Effect": "Allow", "Resource": profile},
        {
            "Action": "bedrock:InvokeModel",
            "Condition": {"ArnEquals": {"bedrock:InferenceProfileArn": profile}},
            "Effect": "Allow",
            "Resource": models,
        },
    ]
    machine = template["Resources"]["TrainingStateMachineEAE34FB3"]["Properties"]
    assert machine["DefinitionSubstitutions"]["BaseModelForInference"] == "us.amazon.nova-2-lite-v1:0"


def test_people_have_one_function_and_it_alone_answers_a_waiting_run(assembly: Assembly) -> None:
    template = assembly.template("rft-quotes-dev")
    answering = [
        (role, statement["Resource"])
        for role, statements in policies(template).items()
        for statement in statements
        if "states:SendTaskSuccess" in listed(statement["Action"])
    ]
    assert answering == [
        ("ChampionChangesFunctionRoleF1DFF353", {"Ref": "TrainingStateMachineEAE34FB3"}),
    ]
    function = template["Resources"][template["Outputs"]["ChangeChampion"]["Value"]["Ref"]]["Properties"]
    assert function["Role"]["Fn::GetAtt"][0] == answering[0][0]


def test_nobody_deletes_what_was_written_down(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        for statements in policies(assembly.template(stack)).values():
            actions = {action for statement in statements for action in listed(statement["Action"])}
            assert not {action for action in actions if action.startswith("s3:Delete")}


def test_no_role_is_shared_and_none_has_a_managed_policy(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        template = assembly.template(stack)["Resources"]
        functions = [
            each["Properties"] for each in template.values() if each["Type"] == "AWS::Lambda::Function"
        ]
        roles = [each["Role"]["Fn::GetAtt"][0] for each in functions]
        assert len(set(roles)) == len(roles) == 18
        for each in template.values():
            if each["Type"] == "AWS::IAM::Role":
                assert "ManagedPolicyArns" not in each["Properties"]


def test_no_role_comes_near_the_size_that_its_policies_may_have(assembly: Assembly) -> None:
    # IAM takes 10,240 characters in all the policies of a role; half of that leaves room for what references
    # become. The library would split a policy that it adds to, and ours are handed to it as they are.
    for stack in assembly.stacks:
        for role, statements in policies(assembly.template(stack)).items():
            assert len(json.dumps(statements, separators=(",", ":"))) < 5_120, (stack, role)


def test_functions_write_to_their_own_logs_only(assembly: Assembly) -> None:
    template = assembly.template("rft-quotes-dev")
    statements = policies(template)
    for each in template["Resources"].values():
        if each["Type"] == "AWS::Lambda::Function":
            role = each["Properties"]["Role"]["Fn::GetAtt"][0]
            logs = [
                statement
                for statement in statements[role]
                if any(action.startswith("logs:") for action in listed(statement["Action"]))
            ]
            if role == "StepsWatchRole80CB17B0":
                # It reads one log more, that of the reward function, and writes there as little as others.
                reading = logs.pop()
                assert reading["Action"] == "logs:FilterLogEvents"
                assert reading["Resource"] == {"Fn::GetAtt": ["RewardFunctionLogGroup5DBE7E5F", "Arn"]}
            group = each["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
            assert logs == [
                {
                    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                    "Effect": "Allow",
                    "Resource": {"Fn::GetAtt": [group, "Arn"]},
                }
            ]


def test_reward_function_may_write_logs_and_nothing_else(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        (statement, *interfaces) = policies(assembly.template(stack))[REWARD_ROLE]
        assert bool(interfaces) == stack.startswith("rft-closed-")
        assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]


def test_services_assume_roles_on_behalf_of_this_account_only(assembly: Assembly) -> None:
    account = {"aws:SourceAccount": ACCOUNT}
    conditions = {
        # Lambda passes no source when it assumes the role of a function.
        "lambda.amazonaws.com": None,
        "bedrock.amazonaws.com": {
            "StringEquals": account,
            "ArnEquals": {"aws:SourceArn": f"{BEDROCK}:model-customization-job/*"},
        },
        "states.amazonaws.com": {
            "StringEquals": account,
            "ArnLike": {"aws:SourceArn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:*"},
        },
        "events.amazonaws.com": {
            "StringEquals": account,
            "ArnLike": {"aws:SourceArn": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/*"},
        },
    }
    for stack in assembly.stacks:
        seen = []
        for each in assembly.template(stack)["Resources"].values():
            if each["Type"] == "AWS::IAM::Role":
                # One statement: a second one without the conditions would undo the first.
                (trust,) = each["Properties"]["AssumeRolePolicyDocument"]["Statement"]
                service = trust["Principal"]["Service"]
                assert trust["Principal"] == {"Service": service}
                assert trust.get("Condition") == conditions[service]
                seen.append(service)
        assert set(seen) == set(conditions)
        assert sorted(seen).count("bedrock.amazonaws.com") == 1


def test_customization_role_has_what_the_service_asks_for(assembly: Assembly) -> None:
    statements = policies(assembly.template("rft-quotes-dev"))["Customization1AAFC5FD"]
    version = next(
        name
        for name, each in assembly.template("rft-quotes-dev")["Resources"].items()
        if each["Type"] == "AWS::Lambda::Version"
    )
    key = ["<Key961B73FD.Arn>"]
    found = sorted(
        (
            sorted(listed(each["Action"])),
            sorted(map(spelled, listed(each["Resource"]))),
            each.get("Condition"),
        )
        for each in statements
    )
    via = {
        service: {"StringEquals": {"kms:ViaService": [f"{service}.{REGION}.amazonaws.com"]}}
        for service in ("s3", "bedrock")
    }
    assert found == [
        (["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"], key, via["bedrock"]),
        (["kms:Decrypt", "kms:GenerateDataKey"], key, via["s3"]),
        (["lambda:InvokeFunction"], [f"<{version}>"], None),
        (["s3:GetObject"], [f"{RUNS}filtered/*", f"{RUNS}output/*", f"{ROWS}datasets/*"], None),
        (["s3:ListBucket"], ["<Artifacts82DD59A1.Arn>", "<Datasets0030EE04.Arn>"], None),
        (["s3:PutObject"], [f"{RUNS}output/*"], None),
    ]


def test_lambda_may_make_its_interfaces_and_the_code_in_it_may_not(assembly: Assembly) -> None:
    """The actions are those of the managed policy AWSLambdaVPCAccessExecutionRole, version 3."""
    statements = policies(assembly.template("rft-closed-dev"))[REWARD_ROLE]
    found = {
        (each["Effect"], frozenset(listed(each["Action"]))): (
            set(map(spelled, listed(each["Resource"]))),
            each.get("Condition"),
        )
        for each in statements
        if listed(each["Action"])[0].startswith("ec2:")
    }
    subnets = {f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/subnet-0123456789abcdef{n}" for n in (0, 1)}
    group = f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-0123456789abcdef1"
    code = {"ArnLike": {"lambda:SourceFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:*"}}
    assert found == {
        ("Allow", frozenset(LAMBDA_LOOKS)): ({"*"}, None),
        ("Allow", frozenset({"ec2:CreateNetworkInterface"})): ({*subnets, group, INTERFACES}, None),
        ("Allow", frozenset(LAMBDA_CHANGES)): ({f"arn:aws:ec2:{REGION}:{ACCOUNT}:*/*"}, None),
        ("Deny", frozenset(LAMBDA_ALL)): ({"*"}, code),
    }


def test_network_statements_are_those_of_the_service(assembly: Assembly) -> None:
    statements = policies(assembly.template("rft-walled-dev"))["Customization1AAFC5FD"]
    network = [each for each in statements if listed(each["Action"])[0].startswith("ec2:")]
    jobs = f"{BEDROCK}:model-customization-job/*"
    subnets = [f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/subnet-0123456789abcdef{n}" for n in (0, 1)]
    conditions = {
        frozenset(listed(each["Action"])): each.get("Condition")
        for each in network
        if listed(each["Resource"]) == [INTERFACES]
    }
    assert conditions == {
        frozenset({"ec2:CreateNetworkInterface"}): {
            "StringEquals": {"aws:RequestTag/BedrockManaged": "true"},
            "ArnEquals": {"aws:RequestTag/BedrockModelCustomizationJobArn": jobs},
        },
        frozenset(
            {
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            }
        ): {
            "StringEquals": {"ec2:ResourceTag/BedrockManaged": "true"},
            "ArnEquals": {
                "ec2:Subnet": subnets,
                "ec2:ResourceTag/BedrockModelCustomizationJobArn": jobs,
            },
        },
        frozenset({"ec2:CreateTags"}): {
            "StringEquals": {"ec2:CreateAction": ["CreateNetworkInterface"]},
            "ForAllValues:StringEquals": {
                "aws:TagKeys": ["BedrockManaged", "BedrockModelCustomizationJobArn"]
            },
        },
    }
    (placed,) = (
        each
        for each in network
        if listed(each["Action"]) == ["ec2:CreateNetworkInterface"]
        and listed(each["Resource"]) != [INTERFACES]
    )
    assert sorted(placed["Resource"]) == sorted(
        [*subnets, f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-0123456789abcdef0"]
    )
    for stack in assembly.stacks:
        if not stack.startswith(("rft-walled-", "rft-closed-")):
            assert '"ec2:' not in assembly.text(stack)


def test_only_the_customization_role_is_passed_and_only_to_bedrock(assembly: Assembly) -> None:
    passed = [
        statement
        for statements in policies(assembly.template("rft-quotes-dev")).values()
        for statement in statements
        if "iam:PassRole" in listed(statement["Action"])
    ]
    assert passed == [
        {
            "Action": "iam:PassRole",
            "Condition": {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
            "Effect": "Allow",
            "Resource": {"Fn::GetAtt": ["Customization1AAFC5FD", "Arn"]},
        }
    ]


def test_source_objects_are_read_one_by_one(assembly: Assembly) -> None:
    for stack, bucket in (
        ("rft-quotes-dev", f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/*.jsonl"),
        ("rft-remote-dev", "arn:aws:s3:::rows-elsewhere/quotes/*.jsonl"),
    ):
        for role in ("RunStarterFunctionRoleC96792E1", "StepsPrepareRole14EFD451"):
            outside = [
                spelled(resource)
                for statement in policies(assembly.template(stack))[role]
                for resource in listed(statement["Resource"])
                if spelled(resource).startswith("arn:aws:s3:::")
            ]
            assert len(outside) == 2
            assert all(fnmatch.fnmatch(each, bucket) and "*" not in each for each in outside)


def test_boundary_is_on_every_role_when_the_platform_sets_it(assembly: Assembly) -> None:
    def boundaries(stack: str) -> list[Any]:
        return [
            each["Properties"].get("PermissionsBoundary")
            for each in assembly.template(stack)["Resources"].values()
            if each["Type"] == "AWS::IAM::Role"
        ]

    assert boundaries("rft-bounded-dev") == [f"arn:aws:iam::{ACCOUNT}:policy/{BOUNDARY}"] * 21
    assert boundaries("rft-quotes-dev") == [None] * 21


def test_only_the_rehearsal_reads_the_cases_of_a_team(packages: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(REPOSITORY / "teams", root / "teams")
    cases = root / "teams" / "quotes" / "rehearsal.jsonl"
    cases.write_text('{"row": 1, "completion": "", "at_most": 0.0}\n')
    app = checked_app(tmp_path / "assembly")
    platform = load_platform(root)
    team = load_team(root, "quotes", platform)
    RftEnvironment(app, team=team, stage="dev", platform=platform, packages=packages, env=ENV)
    app.synth()
    template = Assembly(folder=tmp_path / "assembly").template("rft-quotes-dev")
    (asset,) = (
        path for path in (tmp_path / "assembly").glob("*.jsonl") if path.read_bytes() == cases.read_bytes()
    )
    name = asset.name.removeprefix("asset.")
    start = template["Resources"]["RunStarterFunctionAD9141CF"]["Properties"]["Environment"]["Variables"]
    assert f"/{name}" in json.dumps(start["SETTINGS"])
    readers = [
        role
        for role, statements in policies(template).items()
        for statement in statements
        if any(name in spelled(resource) for resource in listed(statement["Resource"]))
    ]
    assert readers == ["StepsRehearseRoleD9FFB092"]


# The security check of every synthesis


@pytest.mark.parametrize("reason", ["", "Because this test says so."])
def test_fails_when_a_wildcard_has_no_reason(
    reason: str, projects: list[Path], packages: Path, tmp_path: Path
) -> None:
    app = checked_app(tmp_path)
    environment = RftEnvironment(
        app,
        team=load_team(projects[0], "quotes", load_platform(projects[0])),
        stage="dev",
        platform=load_platform(projects[0]),
        packages=packages,
        env=ENV,
    )
    role = environment.node.find_child("Customization").node.find_child("Default")
    assert isinstance(role, iam.Role)
    permission = allow("s3:GetObject", on=["arn:aws:s3:::elsewhere/*"], because=reason)
    grant_apart(environment, "Elsewhere", [role], permission)
    if reason:
        app.synth()
    else:
        with pytest.raises(RuntimeError, match="ValidationFailed"):
            app.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    violations = [each["ruleName"] for plugin in report["pluginReports"] for each in plugin["violations"]]
    assert violations == ([] if reason else ["AwsSolutions-IAM5[Resource::arn:aws:s3:::elsewhere/*]"])
