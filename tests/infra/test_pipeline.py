"""Delivery by CodePipeline: what it runs in which order, who may do what in it, and what nobody can skip."""

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any, cast

import aws_cdk as cdk
import pytest
from cloudformation_validate import Severity

from app import deliver
from infra.config import Delivery, Platform, SettingsError, load_platform
from infra.environment import RftEnvironment
from infra.guardrails import guardrail_faults, stacks
from infra.pipeline import DeliveryPipeline, Wave, _check_size
from tests.infra.conftest import ACCOUNT, BOUNDARY, ENV, REGION, REPOSITORY, Assembly, checked_app
from tests.infra.test_app import make_project, run
from tests.infra.test_templates import ACCEPTED, lint, validate

OTHER = "444455556666"
CONNECTION = f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:connection/01234567-89ab-cdef-0123-456789abcdef"
DELIVERY = f"""
[delivery]
repository = "example/rft"
connection_arn = "{CONNECTION}"
smoke_role_arn = "arn:aws:iam::{{account}}:role/rft-smoke"

[accounts]
dev = ["{ACCOUNT}"]
prod = ["{ACCOUNT}", "{OTHER}"]
"""
# What the CDK CLI asks for, and app.py alone does not.
METADATA = {"aws:cdk:enable-path-metadata": True, "aws:cdk:enable-asset-metadata": True, "revision": "abc"}
ROLE = f"arn:aws:iam::{{account}}:role/cdk-hnb659fds-{{kind}}-role-{{account}}-{REGION}"
Statement = dict[str, Any]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample teams, one of them in production in another account."""
    folder = make_project(tmp_path_factory.mktemp("pipeline"))
    rules, team = (folder / "teams" / name for name in ("platform.toml", "quotes/team.toml"))
    rules.write_text(f'permissions_boundary = "{BOUNDARY}"\n{rules.read_text()}{DELIVERY}')
    placed = team.read_text().replace("[stages.prod]\n", f'[stages.prod]\naccount = "{OTHER}"\n')
    assert OTHER in placed
    team.write_text(placed)
    return folder


@pytest.fixture(scope="module")
def assembly(project: Path) -> Assembly:
    """What `make assembly DELIVERY=pipeline` writes: the security check and the guardrails passed it."""
    done, assembly = run(project, delivery="pipeline", **METADATA)
    assert (done.returncode, done.stderr) == (0, "")
    return assembly


@pytest.fixture(scope="module")
def resources(assembly: Assembly) -> dict[str, Any]:
    found: dict[str, Any] = assembly.template("rft-delivery")["Resources"]
    return found


@pytest.fixture(scope="module")
def stages(resources: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The actions of each stage, in the order they run in."""
    (pipeline,) = of(resources, "AWS::CodePipeline::Pipeline").values()
    return {
        stage["Name"]: sorted(stage["Actions"], key=lambda each: int(each["RunOrder"]))
        for stage in pipeline["Stages"]
    }


def of(resources: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: each["Properties"] for name, each in resources.items() if each["Type"] == kind}


def allowed(resources: dict[str, Any], role: str) -> dict[str, list[Any]]:
    """What the one role whose logical id begins like this may do: {action: resources}."""
    (name,) = (each for each in of(resources, "AWS::IAM::Role") if each.startswith(role))
    assert "ManagedPolicyArns" not in resources[name]["Properties"]
    found: dict[str, list[Any]] = {}
    for policy in of(resources, "AWS::IAM::Policy").values():
        if {"Ref": name} in policy["Roles"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                for action in listed(statement["Action"]):
                    found.setdefault(action, []).extend(listed(statement["Resource"]))
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def commands(resources: dict[str, Any], project: str) -> list[str]:
    """The commands of the one build whose logical id begins like this; a reference is written `FUNCTION`."""
    (found,) = (
        each["Source"]["BuildSpec"]
        for name, each in of(resources, "AWS::CodeBuild::Project").items()
        if name.startswith(project)
    )
    parts = [found] if isinstance(found, str) else found["Fn::Join"][1]
    spec = json.loads("".join(part if isinstance(part, str) else "FUNCTION" for part in parts))
    said: list[str] = spec["phases"]["build"]["commands"]
    return said


BUILDING = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetBucketAcl",
    "s3:GetBucketLocation",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
}


def test_waves_follow_each_other_and_each_but_the_first_waits_for_a_person(
    stages: dict[str, list[dict[str, Any]]],
) -> None:
    assert list(stages) == ["Source", "Build", "Assets", "dev", "prod"]
    names = {name: [(int(each["RunOrder"]), each["Name"]) for each in stages[name]] for name in stages}
    confirmed = [(1, "ConfirmPermissions.Check"), (2, "ConfirmPermissions.Confirm")]
    assert names["dev"] == [
        *confirmed,
        (3, "rft-quotes-dev.Deploy"),
        (3, "rft-support-dev.Deploy"),
        (4, "Smoke"),
    ]
    assert names["prod"] == [
        (1, "Approve"),
        *confirmed,
        (3, "rft-quotes-prod.Deploy"),
        (3, "rft-support-prod.Deploy"),
        (4, "Protect"),
        (4, f"Protect-{OTHER}"),
        (4, "Smoke"),
        (4, f"Smoke-{OTHER}"),
    ]
    approvals = [
        (stage, each["Name"])
        for stage, actions in stages.items()
        for each in actions
        if each["ActionTypeId"]["Category"] == "Approval"
    ]
    assert approvals == [
        ("dev", "ConfirmPermissions.Confirm"),
        ("prod", "Approve"),
        ("prod", "ConfirmPermissions.Confirm"),
    ]


def test_it_does_not_update_itself(
    resources: dict[str, Any], stages: dict[str, list[dict[str, Any]]]
) -> None:
    deployed = {
        each["Configuration"]["StackName"]
        for actions in stages.values()
        for each in actions
        if each["ActionTypeId"]["Provider"] == "CloudFormation"
    }
    assert deployed == {"rft-quotes-dev", "rft-quotes-prod", "rft-support-dev", "rft-support-prod"}
    assert "SelfMutat" not in json.dumps(resources)


def test_it_reads_the_branch_through_the_connection(stages: dict[str, list[dict[str, Any]]]) -> None:
    (source,) = stages["Source"]
    assert source["Configuration"] == {
        "ConnectionArn": CONNECTION,
        "FullRepositoryId": "example/rft",
        "BranchName": "main",
    }


def test_builds_call_verbs_of_the_makefile(resources: dict[str, Any]) -> None:
    assert commands(resources, "DeliveryPipelineBuildSynth") == [
        'make assembly DELIVERY=pipeline REVISION="$CODEBUILD_RESOLVED_SOURCE_VERSION"'
    ]
    assert commands(resources, "DeliveryPipelinedevSmoke") == ['make smoke TEAMS="$TEAMS" STAGE="$STAGE"']
    (smoke,) = (
        each
        for name, each in of(resources, "AWS::CodeBuild::Project").items()
        if name.startswith("DeliveryPipelinedevSmoke")
    )
    given = {each["Name"]: each["Value"] for each in smoke["Environment"]["EnvironmentVariables"]}
    assert given == {"TEAMS": "quotes,support", "STAGE": "dev"}


def test_another_account_is_reached_by_a_profile_that_a_shell_writes(
    resources: dict[str, Any], tmp_path: Path
) -> None:
    said = commands(resources, f"DeliveryPipelineprodSmoke{OTHER}")
    assert said[-1] == 'make smoke TEAMS="$TEAMS" STAGE="$STAGE"'
    script = "\n".join(said[:-1]).replace("/tmp/aws-config", str(tmp_path / "config"))
    role = f"arn:aws:iam::{OTHER}:role/rft-smoke"
    variables = {"PATH": "/usr/bin:/bin", "ROLE_ARN": role, "AWS_REGION": REGION}
    subprocess.run(["sh", "-euc", script], env=variables, check=True)
    profile = configparser.ConfigParser()
    profile.read(tmp_path / "config")
    assert dict(profile["profile there"]) == {
        "role_arn": role,
        "credential_source": "EcsContainer",
        "region": REGION,
    }


def test_lasting_stacks_are_protected_by_fixed_commands(resources: dict[str, Any]) -> None:
    said = commands(resources, f"DeliveryPipelineprodProtect{OTHER}")
    assert "--enable-termination-protection" in said[-1]
    assert not any("make" in each for each in said)
    assert set(allowed(resources, "ProtectRole")) == {*BUILDING, "sts:AssumeRole"}


def test_what_runs_code_of_the_repository_may_neither_deploy_nor_answer_an_approval(
    resources: dict[str, Any],
) -> None:
    assert set(allowed(resources, "SynthRole")) == {*BUILDING, "s3:PutObject"}
    smoke = allowed(resources, "SmokeRole")
    assert set(smoke) == {
        *BUILDING,
        "cloudformation:DescribeStacks",
        "lambda:InvokeFunction",
        "sts:AssumeRole",
    }
    assert smoke["sts:AssumeRole"] == [f"arn:aws:iam::{OTHER}:role/rft-smoke"]
    # The library would let it start any build of the account, with commands of its own.
    assets = allowed(resources, "DeliveryAssetsFileRole")
    assert set(assets) == {*BUILDING, "sts:AssumeRole"}
    assert assets["sts:AssumeRole"] == [
        ROLE.format(kind="file-publishing", account=account) for account in (ACCOUNT, OTHER)
    ]


def test_what_confirms_permissions_cannot_approve_a_wave(resources: dict[str, Any]) -> None:
    answers = allowed(resources, "DeliveryPipelinesSecurityCheckCDKPipelinesAutoApproveServiceRole")
    assert answers.pop("codepipeline:PutApprovalResult") == [
        f"arn:aws:codepipeline:{REGION}:{ACCOUNT}:rft-delivery-*/{stage}/ConfirmPermissions.Confirm"
        for stage in ("dev", "prod")
    ]
    assert set(answers) == {"codepipeline:GetPipelineState", "logs:CreateLogStream", "logs:PutLogEvents"}
    check = allowed(resources, "DeliveryPipelinesSecurityCheckCDKSecurityCheckRole")
    assert set(check) == {*BUILDING, "sts:AssumeRole", "lambda:InvokeFunction"}
    assert check["sts:AssumeRole"] == [
        ROLE.format(kind="deploy", account=account) for account in (ACCOUNT, OTHER)
    ]


def test_what_confirms_permissions_installs_the_pinned_cli_away_from_files_of_the_change(
    resources: dict[str, Any],
) -> None:
    said = commands(resources, "DeliveryPipelinesSecurityCheckCDKSecurityCheckC")
    version = json.loads((REPOSITORY / "package.json").read_text())["devDependencies"]["aws-cdk"]
    assert said[:2] == ["cd /tmp", f"npm install -g aws-cdk@{version}"]
    assert 'if cdk diff -a "$CODEBUILD_SRC_DIR" --security-only --fail $STAGE_PATH/\\*; then' in said[-1]
    subprocess.run(["bash", "-n"], input="\n".join(said), text=True, check=True)


def test_only_services_of_this_account_take_its_roles(resources: dict[str, Any]) -> None:
    for name, role in of(resources, "AWS::IAM::Role").items():
        assert BOUNDARY in json.dumps(role["PermissionsBoundary"]), name
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        service = trust["Principal"].get("Service")
        if service and service != "lambda.amazonaws.com":
            assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}, name
        elif not service:
            assert list(trust["Principal"]["AWS"]) == ["Fn::GetAtt"], name


def test_artifacts_and_logs_are_encrypted_and_no_build_is_privileged(resources: dict[str, Any]) -> None:
    (key,) = of(resources, "AWS::KMS::Key")
    encrypted = {"Fn::GetAtt": [key, "Arn"]}
    (pipeline,) = of(resources, "AWS::CodePipeline::Pipeline").values()
    assert pipeline["ArtifactStore"]["EncryptionKey"]["Id"] == encrypted
    ((group, logs),) = of(resources, "AWS::Logs::LogGroup").items()
    assert (logs["KmsKeyId"], logs["RetentionInDays"]) == (encrypted, 365)
    projects = of(resources, "AWS::CodeBuild::Project")
    # Synthesis, assets, the check, and what follows in each wave and account.
    assert len(projects) == 8
    for name, project in projects.items():
        assert project["EncryptionKey"] == encrypted, name
        assert project["Environment"]["PrivilegedMode"] is False, name
        assert project["LogsConfig"]["CloudWatchLogs"]["GroupName"] == {"Ref": group}, name
    store = pipeline["ArtifactStore"]["Location"]["Ref"]
    (policy,) = (
        each for each in of(resources, "AWS::S3::BucketPolicy").values() if each["Bucket"] == {"Ref": store}
    )
    denied = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Deny"]
    assert {"Bool": {"aws:SecureTransport": "false"}} in [each["Condition"] for each in denied]


def test_a_change_of_a_team_changes_nothing_of_the_pipeline(assembly: Assembly) -> None:
    hashes = {
        name
        for file in assembly.folder.glob("assembly-*/*.assets.json")
        for name in json.loads(file.read_text())["files"]
    }
    assert len(hashes) > 8
    template = assembly.text("rft-delivery")
    assert not [name for name in hashes if name in template]
    # The assembly itself says what is to be published, and where.
    (spec,) = assembly.folder.glob("buildspec-*.yaml")
    assert f'"{spec.name}"' in template
    published = set(re.findall(r'publish \\"(\w{64}):', spec.read_text()))
    (manifest,) = assembly.folder.glob("assembly-dev/*rftquotesdev*.assets.json")
    files = json.loads(manifest.read_text())["files"]
    assert {name for name, each in files.items() if "template" not in each["source"]["path"]} <= published


def test_stacks_are_those_that_cdk_deploy_makes(project: Path, assembly: Assembly) -> None:
    moved = cdk_stacks(assembly.folder)
    done, direct = run(project, team="quotes", **METADATA)
    assert (done.returncode, done.stderr) == (0, "")
    assert direct.stacks == ["rft-quotes-dev", "rft-quotes-prod"]
    for name, (template, properties) in cdk_stacks(direct.folder).items():
        assert moved[name][0].read_bytes() == template.read_bytes()
        for key in ("tags", "terminationProtection", "assumeRoleArn", "cloudFormationExecutionRoleArn"):
            assert moved[name][1].get(key) == properties.get(key), key
        given = json.loads(moved[name][0].with_name(f"{moved[name][0].name}.config.json").read_text())
        assert given == {"Tags": properties["tags"]}


def cdk_stacks(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The stacks of an assembly and of those inside it, by name: the template and what CDK knows of them."""
    return {
        artifact["properties"].get("stackName", name): (
            manifest.parent / artifact["properties"]["templateFile"],
            artifact["properties"],
        )
        for manifest in folder.rglob("manifest.json")
        for name, artifact in json.loads(manifest.read_text())["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }


def test_checkers_find_nothing(assembly: Assembly) -> None:
    template = assembly.folder / "rft-delivery.template.json"
    assert [each for each in lint(template) if each[0] != "W3005"] == []
    found = [each for each in validate(template) if each.severity != Severity.INFO]
    assert [each.message for each in found if each.rule_id not in ACCEPTED] == []


@pytest.mark.parametrize("where", ["account that is no stage's", "role to take", "stack of a team"])
def test_guardrails_let_nobody_in_but_who_deploys_to_accounts_of_stages(
    project: Path, assembly: Assembly, where: str
) -> None:
    platform = load_platform(project)
    (stack,) = stacks(json.loads((assembly.folder / "manifest.json").read_text())).values()
    template = assembly.template("rft-delivery")
    assert guardrail_faults(template, stack, platform) == []
    facts = vars(stack)
    match where:
        case "account that is no stage's":
            platform = Platform.model_validate({**platform.model_dump(), "accounts": {"prod": [ACCOUNT]}})
        case "role to take":
            deployer = ROLE.format(kind="deploy", account=OTHER).replace("aws", "${AWS::Partition}", 1)
            (role,) = (
                each
                for name, each in of(template["Resources"], "AWS::IAM::Role").items()
                if name.startswith("PipelineRole")
            )
            role["AssumeRolePolicyDocument"]["Statement"].append(
                {"Effect": "Allow", "Principal": {"AWS": deployer}, "Action": "sts:AssumeRole"}
            )
        case "stack of a team":
            facts = {**facts, "name": "rft-quotes-prod"}
    found = [
        each for each in guardrail_faults(template, type(stack)(**facts), platform) if each.rule == "Grants"
    ]
    assert found
    assert all("which is not of this account" in each.problem for each in found)


def test_says_which_role_is_missing_for_another_account(tmp_path: Path) -> None:
    app = checked_app(tmp_path)
    stage = cdk.Stage(app, "prod")
    place = cdk.Environment(account=OTHER, region=REGION)
    there = cdk.Stack(stage, "There", stack_name="rft-quotes-prod", env=place)
    with pytest.raises(SettingsError) as caught:
        DeliveryPipeline(
            app,
            "rft-delivery",
            settings=Delivery(repository="example/rft"),
            connection_arn=CONNECTION,
            waves=[Wave(stage=stage, environments={"quotes": cast("RftEnvironment", there)})],
            boundary=None,
            tags={},
            cli_version="2",
            env=ENV,
        )
    assert str(caught.value).startswith(
        "teams/platform.toml: delivery.smoke_role_arn: is missing: rft-quotes-prod is deployed to "
        f"{OTHER}, and the pipeline in {ACCOUNT} tries it out through a role there"
    )


def test_a_pipeline_that_codepipeline_would_refuse_says_how_many_teams_are_possible() -> None:
    names = [f"team-{number:03}" for number in range(300)]
    environments = dict.fromkeys(names, cast("RftEnvironment", None))
    waves = [Wave(stage=cast("cdk.Stage", None), environments=environments) for _ in ("dev", "prod")]
    stages = [{"actions": [{}] * 10}, {"actions": [{}] * 600}]
    with pytest.raises(SettingsError, match=r"300 teams with 600 stages .* 610 actions .* about 245 teams"):
        _check_size(stages, waves)
    _check_size([{"actions": [{}] * 500}], waves)


@pytest.mark.parametrize(
    ("settings", "context", "said"),
    [
        (
            '[delivery]\nrepository = "example/rft"\n',
            {},
            "teams/platform.toml: delivery.connection_arn: is missing: it must be the ARN of the connection",
        ),
        (DELIVERY, {"team": "quotes"}, "team: cannot be chosen for delivery=pipeline"),
        (
            DELIVERY.replace("[accounts]", 'environments = ["live"]\n[accounts]'),
            {},
            "no team has one of the stages live in us-east-1",
        ),
    ],
    ids=["no connection", "one team", "no stage"],
)
def test_fails_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, context: dict[str, str], said: str
) -> None:
    project = make_project(tmp_path)
    rules = project / "teams" / "platform.toml"
    rules.write_text(f"{rules.read_text()}\n{settings}")
    monkeypatch.setattr("app.ROOT", project)
    monkeypatch.setenv("CDK_DEFAULT_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("CDK_DEFAULT_REGION", REGION)
    with pytest.raises(SettingsError) as caught:
        deliver(cdk.App(context=context), load_platform(project), "pipeline")
    assert str(caught.value).startswith(said)
