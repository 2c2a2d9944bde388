"""What the platform fixes holds for what is deployed, however it got into a template."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

from infra.config import Platform, load_platform
from infra.guardrails import DeployedStack, Fault, guardrail_faults, stacks
from tests.infra.conftest import ACCOUNT, BOUNDARY, ENV, Assembly, checked_app

Template = dict[str, Any]
PROD, DEV, BOUNDED = "rft-quotes-prod", "rft-quotes-dev", "rft-bounded-dev"
SUBNETS = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
STRANGER = "999999999999"


@pytest.fixture(scope="module")
def known(assembly: Assembly) -> dict[str, DeployedStack]:
    manifest = json.loads((assembly.folder / "manifest.json").read_text())
    return {stack.name: stack for stack in stacks(manifest).values()}


@pytest.fixture(scope="module")
def platform(projects: list[Path]) -> Platform:
    """The sample platform with everything set that it can fix."""
    rules = load_platform(projects[1])
    limits = rules.limits.model_dump()
    limits["training"]["batch_size"] = 64
    limits["reward"]["memory_mb"] = 1024
    vpc = {"subnet_ids": SUBNETS, "security_group_ids": ["sg-0123456789abcdef0", "sg-0123456789abcdef1"]}
    return Platform.model_validate(
        {
            **rules.model_dump(),
            "limits": limits,
            "accounts": {"dev": [ACCOUNT], "prod": [ACCOUNT]},
            "lasting_stages": ["prod"],
            "network": {"vpcs": {"vpc-0123456789abcdef0": vpc}},
        }
    )


def faults_of(
    assembly: Assembly, known: dict[str, DeployedStack], platform: Platform, stack: str, **changes: Any
) -> list[Fault]:
    facts = known[stack]
    if changes:
        facts = DeployedStack(**{**vars(facts), **changes})
    return guardrail_faults(assembly.template(stack), facts, platform)


def test_nothing_is_wrong_with_what_is_synthesized(
    assembly: Assembly, known: dict[str, DeployedStack], projects: list[Path]
) -> None:
    platforms = {True: load_platform(projects[1]), False: load_platform(projects[0])}
    assert {stack: faults_of(assembly, known, platforms["bounded" in stack], stack) for stack in known} == {
        stack: [] for stack in assembly.stacks
    }


def without(template: Template, name: str, *path: str) -> None:
    *outer, last = ("Resources", name, *path)
    place = template
    for key in outer:
        place = place[key]
    del place[last]


def change(template: Template, name: str, value: Any, *path: str) -> None:
    *outer, last = ("Resources", name, "Properties", *path)
    place = template
    for key in outer:
        place = place[key]
    assert place[last] != value
    place[last] = value


def settings(**changes: Any) -> Callable[[Template], None]:
    """Changes settings that the function which starts a run is given: table__key=value."""

    def apply(template: Template) -> None:
        for function in template["Resources"].values():
            variables = function.get("Properties", {}).get("Environment", {}).get("Variables", {})
            if "SETTINGS" in variables:
                given = variables["SETTINGS"]
                parts = [given] if isinstance(given, str) else given["Fn::Join"][1]
                text = "".join(
                    part if isinstance(part, str) else f"<{number}>" for number, part in enumerate(parts)
                )
                document = json.loads(text)
                for path, value in changes.items():
                    table, _, key = path.partition("__")
                    if key:
                        assert document[table][key] != value
                        document[table][key] = value
                    else:
                        document[table] = value
                variables["SETTINGS"] = json.dumps(document)

    return apply


def statement(name: str, **changes: Any) -> Callable[[Template], None]:
    """Adds a statement to a policy, whether of a role, a bucket, a key or a topic."""

    def apply(template: Template) -> None:
        properties = template["Resources"][name]["Properties"]
        document = next(properties[key] for key in properties if key.endswith(("Policy", "Document")))
        document["Statement"].append(
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", **changes}
        )

    return apply


def permission(**properties: Any) -> Callable[[Template], None]:
    """Lets somebody call a function."""

    def apply(template: Template) -> None:
        given = {"Action": "lambda:InvokeFunction", "FunctionName": {"Ref": "RewardFunction"}, **properties}
        template["Resources"]["Extra"] = {"Type": "AWS::Lambda::Permission", "Properties": given}

    return apply


KEY, BUCKET, LOGS, CHAMPION = (
    "Key961B73FD",
    "Datasets0030EE04",
    "RewardFunctionLogGroup5DBE7E5F",
    "ChampionDeploymentBF727125",
)
ALWAYS = "(always so: infra/guardrails.py)"


def decided(key: str) -> str:
    return f"(the platform team decides: teams/platform.toml, {key})"


# A stack, what is done to its template, and the first thing said of it.
MUTATIONS: dict[str, tuple[str, Callable[[Template], Any], str]] = {
    "role without its boundary": (
        BOUNDED,
        lambda t: without(t, "Customization1AAFC5FD", "Properties", "PermissionsBoundary"),
        f"Customization1AAFC5FD: is not bounded by {BOUNDARY} {decided('permissions_boundary')}",
    ),
    "role with another boundary": (
        BOUNDED,
        lambda t: change(
            t, "Customization1AAFC5FD", "arn:aws:iam::aws:policy/AdministratorAccess", "PermissionsBoundary"
        ),
        f"Customization1AAFC5FD: is not bounded by {BOUNDARY} {decided('permissions_boundary')}",
    ),
    "bucket under no key": (
        BOUNDED,
        lambda t: without(t, BUCKET, "Properties", "BucketEncryption"),
        f"{BUCKET}: is not encrypted with a KMS key {ALWAYS}",
    ),
    "bucket open to the public": (
        BOUNDED,
        lambda t: change(t, BUCKET, False, "PublicAccessBlockConfiguration", "BlockPublicPolicy"),
        f"{BUCKET}: does not block all public access {ALWAYS}",
    ),
    "log group under no key": (
        BOUNDED,
        lambda t: without(t, LOGS, "Properties", "KmsKeyId"),
        f"{LOGS}: is not encrypted with a KMS key {ALWAYS}",
    ),
    "logs kept for ever": (
        BOUNDED,
        lambda t: without(t, LOGS, "Properties", "RetentionInDays"),
        f"{LOGS}: keeps its logs for ever: it needs a retention {ALWAYS}",
    ),
    "key that does not rotate": (
        BOUNDED,
        lambda t: without(t, KEY, "Properties", "EnableKeyRotation"),
        f"{KEY}: is a key that does not rotate {ALWAYS}",
    ),
    "bucket that goes with its stack": (
        "rft-bounded-prod",
        lambda t: t["Resources"][BUCKET].update(DeletionPolicy="Delete"),
        f"{BUCKET}: is deleted or replaced with the stack, which lasts {decided('lasting_stages')}",
    ),
    "parameter that is replaced": (
        "rft-bounded-prod",
        lambda t: without(t, CHAMPION, "UpdateReplacePolicy"),
        f"{CHAMPION}: is deleted or replaced with the stack, which lasts {decided('lasting_stages')}",
    ),
    "bucket for everybody": (
        BOUNDED,
        statement("DatasetsPolicy8640E9F8", Principal="*"),
        f"DatasetsPolicy8640E9F8: lets in everybody {ALWAYS}",
    ),
    "key for another account": (
        BOUNDED,
        statement(KEY, Principal={"AWS": f"arn:aws:iam::{STRANGER}:root"}),
        f"{KEY}: lets in arn:aws:iam::{STRANGER}:root, which is not of this account {ALWAYS}",
    ),
    "role for another account": (
        BOUNDED,
        statement("Customization1AAFC5FD", Principal={"AWS": STRANGER}, Action="sts:AssumeRole"),
        f"Customization1AAFC5FD: lets in {STRANGER}, which is not of this account {ALWAYS}",
    ),
    "role for Bedrock of any account": (
        BOUNDED,
        lambda t: t["Resources"]["Customization1AAFC5FD"]["Properties"]["AssumeRolePolicyDocument"][
            "Statement"
        ][0].pop("Condition"),
        f"Customization1AAFC5FD: lets in bedrock.amazonaws.com on behalf of any account {ALWAYS}",
    ),
    "function for another account": (
        BOUNDED,
        permission(Principal=STRANGER),
        f"Extra: lets {STRANGER} call a function for any account {ALWAYS}",
    ),
    "function for the events of all": (
        BOUNDED,
        permission(Principal="events.amazonaws.com"),
        f"Extra: lets events.amazonaws.com call a function for any account {ALWAYS}",
    ),
    "any model": (
        BOUNDED,
        statement("StepsMeasureRoleDefaultPolicy6FB9ADC5", Action="bedrock:InvokeModel"),
        f"StepsMeasureRoleDefaultPolicy6FB9ADC5: may bedrock:InvokeModel with any model {ALWAYS}",
    ),
    "another model": (
        BOUNDED,
        statement(
            "StepsMeasureRoleDefaultPolicy6FB9ADC5",
            Action="bedrock:InvokeModel",
            Resource="arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0",
        ),
        "StepsMeasureRoleDefaultPolicy6FB9ADC5: may use amazon.nova-pro-v1:0; allowed: "
        "amazon.nova-2-lite-v1:0, amazon.nova-2-lite-v1:0:256k, us.amazon.nova-2-lite-v1:0 "
        f"{decided('models and judges')}",
    ),
    "another base model": (
        BOUNDED,
        settings(base_model="amazon.nova-pro-v1:0"),
        f"tunes amazon.nova-pro-v1:0; allowed: amazon.nova-2-lite-v1:0:256k {decided('models')}",
    ),
    "more epochs": (
        BOUNDED,
        settings(training__epochCount=13),
        f"training.epoch_count is 13, and must be at most 12 {decided('limits.training.epoch_count')}",
    ),
    "more epochs for one run": (
        BOUNDED,
        settings(limits__epochCount=50),
        f"a single run may set training.epoch_count beyond 12 {decided('limits.training.epoch_count')}",
    ),
    "more prompts": (
        BOUNDED,
        settings(measurement__prompts=501),
        f"measurement.prompts is 501, and must be at most 500 {decided('limits.measurement.prompts')}",
    ),
    "more memory": (
        BOUNDED,
        lambda t: change(t, reward_function(t), 2048, "MemorySize"),
        f"RewardFunction: memory_mb is 2048, and must be at most 1024 {decided('limits.reward.memory_mb')}",
    ),
    "a reward that is easier to fool": (
        BOUNDED,
        settings(gates__rehearsal={"max_hackability": 0.9}),
        "gates.rehearsal.max_hackability is 0.9, and must be at most 0.7 "
        f"{decided('limits.gates.rehearsal.max_hackability')}",
    ),
    "a lower bar": (
        BOUNDED,
        settings(promotion__confidence=0.5),
        f"promotion.confidence is 0.5, and must be at least 0.8 {decided('limits.promotion.confidence')}",
    ),
    "another subnet": (
        BOUNDED,
        lambda t: t["Resources"][reward_function(t)]["Properties"].update(
            VpcConfig={"SubnetIds": [SUBNETS[0], "subnet-9999999999abcdef0"], "SecurityGroupIds": []}
        ),
        "RewardFunction: is in subnet-9999999999abcdef0; allowed: "
        "sg-0123456789abcdef0, sg-0123456789abcdef1, subnet-0123456789abcdef0, "
        f"subnet-0123456789abcdef1, vpc-0123456789abcdef0 {decided('network.vpcs')}",
    ),
}


def reward_function(template: Template) -> str:
    """Its logical id, which ends in a hash."""
    [name] = [
        name
        for name, each in template["Resources"].items()
        if each.get("Properties", {}).get("Handler") == "lambdas.reward_function.handler"
    ]
    return name


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_template_that_widens_is_caught(
    assembly: Assembly, known: dict[str, DeployedStack], platform: Platform, mutation: str
) -> None:
    stack, change_it, says = MUTATIONS[mutation]
    # The limits that only the test's platform has are not in the templates of the sample one.
    template = assembly.template(stack)
    settings(
        limits={"epochCount": 12, "trainingSamplePerPrompt": 16, "inferenceMaxTokens": 8192, "batchSize": 64}
    )(template)
    assert guardrail_faults(template, known[stack], platform) == []
    broken = copy.deepcopy(template)
    change_it(broken)
    found = [str(fault) for fault in guardrail_faults(broken, known[stack], platform)]
    expected = says.replace("RewardFunction:", f"{reward_function(template)}:")
    assert found == [f"{stack}: {expected}"]


@pytest.mark.parametrize(
    ("stack", "changes", "says"),
    [
        (PROD, {"termination_protection": False}, "lasts, but is not protected from deletion"),
        (DEV, {"account": STRANGER}, f"account {STRANGER}: is not allowed; allowed: {ACCOUNT}"),
        (DEV, {"region": "eu-west-1"}, "region eu-west-1: amazon.nova-2-lite-v1:0:256k is tuned in"),
        (DEV, {"name": "rft-other-dev"}, "is not called as its tags team and stage say"),
        (DEV, {"tags": {}}, "has no tag team"),
        (DEV, {"tags": {"team": "quotes", "stage": "dev", "owner": "a@b.example"}}, "has no tag cost-center"),
    ],
    ids=["unprotected", "account", "region", "name", "no tags", "no cost centre"],
)
def test_a_stack_is_looked_at_as_a_whole(
    assembly: Assembly,
    known: dict[str, DeployedStack],
    platform: Platform,
    stack: str,
    changes: dict[str, Any],
    says: str,
) -> None:
    found = [str(fault) for fault in faults_of(assembly, known, platform, stack, **changes)]
    name = changes.get("name", stack)
    assert [fault for fault in found if fault.startswith(f"{name}: {says}")]


def test_a_synthesis_fails_in_words_that_nobody_can_acknowledge_away(
    projects: list[Path], tmp_path: Path
) -> None:
    app = checked_app(tmp_path, load_platform(projects[0]))
    stack = cdk.Stack(app, "rft-other", env=ENV)
    role = iam.Role(stack, "Role", assumed_by=iam.AccountPrincipal(STRANGER))
    bucket = s3.Bucket(stack, "Bucket")
    cdk.Validations.of(bucket).acknowledge(
        cdk.Acknowledgment(id="AwsSolutions-S1", reason="Not what is tested."),
        cdk.Acknowledgment(id="AwsSolutions-S10", reason="Not what is tested."),
    )
    for each in (role, bucket):
        cdk.Validations.of(each).acknowledge(
            *(
                cdk.Acknowledgment(id=f"Guardrails::{rule}", reason="Please.")
                for rule in ("Grants", "Encryption", "Retention")
            )
        )
    with pytest.raises(RuntimeError):
        app.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    said = json.dumps(report)
    assert f"lets in arn:aws:iam::{STRANGER}:root, which is not of this account" in said.replace(
        "${AWS::Partition}", "aws"
    )
    assert "is not encrypted with a KMS key (always so: infra/guardrails.py)" in said
