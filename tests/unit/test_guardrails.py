"""What a team cannot have: its file is refused, and is told who could allow it."""

from pathlib import Path

import pytest

from infra.config import Gates, Promotion, SettingsError, examine_team, load_platform, load_teams
from infra.guardrails import DeployedStack, guardrail_faults, stacks

PLATFORM = """\
required_tags = ["cost-center"]
permissions_boundary = "boundary"
lasting_stages = ["prod"]
[tags]
application = "rft"
[accounts]
dev = ["111122223333"]
prod = ["444455556666", "777788889999"]
[models."amazon.nova-2-lite-v1:0:256k"]
regions = ["us-east-1"]
[models."amazon.nova-2-lite-v1:0:256k".inference]
profile = "us.amazon.nova-2-lite-v1:0"
regions = ["us-east-2"]
[limits.training]
epoch_count = 12
training_sample_per_prompt = 8
[limits.measurement]
prompts = 500
concurrency = 20
[limits.reward]
timeout_seconds = 300
[limits.promotion]
minimum_gain = 0.0
confidence = 0.9
tolerated_drop = 0.02
[limits.gates.dataset]
near_duplicates = true
near_duplicate_similarity = 0.9
near_duplicate_share = 0.05
most_common_answer = 0.6
personal_data = true
[limits.gates.rehearsal]
rows = 100
max_hackability = 0.5
min_reference_share = 0.95
max_latency_share = 0.8
[limits.gates.tripwires]
window_steps = 8
unscorable = "stop"
unscorable_share = 0.1
errors = "stop"
error_share = 0.1
collapse = "warn"
collapse_share = 0.6
saturation = "warn"
saturation_share = 0.999
spread = "warn"
spread_share = 0.1
length = "warn"
length_warn = 3.0
length_stop = 5.0
gap = "warn"
gap_warn = 0.1
gap_stop = 0.2
[limits.gates.signal]
prompts = 20
needless = 0.97
sparse = 0.02
flat = 0.95
[limits.gates.filter]
prompts = 300
max_dropped = 0.6
[limits.gates.cost]
growth = 2.0
[network]
closed_functions = ["code_tests"]
[network.vpcs.vpc-0123456789abcdef0]
subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
security_group_ids = ["sg-0123456789abcdef0", "sg-0123456789abcdef1"]
"""

NETWORK = """\
[network]
vpc_id = "vpc-0123456789abcdef0"
subnet_ids = ["subnet-0123456789abcdef0"]
security_group_ids = ["sg-0123456789abcdef0"]
reward_security_group_ids = ["sg-0123456789abcdef1"]
"""

TEAM = f"""\
owner = "alpha@example.com"
description = "Writes code."
[tags]
cost-center = "42"
[stages.dev]
retention = "throwaway"
account = "111122223333"
[stages.prod]
retention = "lasting"
account = "777788889999"
region = "us-east-1"
[model]
base = "amazon.nova-2-lite-v1:0:256k"
[dataset]
train = "s3://example-bucket/train.jsonl"
evaluation = "s3://example-bucket/evaluation.jsonl"
[reward]
timeout_seconds = 300
[reward.components.answer]
function = "code_tests"
[training]
epoch_count = 12
[measurement]
prompts = 500
{NETWORK}"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose one team takes all that it may have."""
    (tmp_path / "teams" / "alpha").mkdir(parents=True)
    (tmp_path / "teams" / "platform.toml").write_text(PLATFORM)
    (tmp_path / "teams" / "alpha" / "team.toml").write_text(TEAM)
    return tmp_path


def test_a_team_may_have_all_that_is_allowed(project: Path) -> None:
    (team,) = load_teams(project)
    assert team.network is not None
    assert team.network.reward_security_group_ids == ("sg-0123456789abcdef1",)


# What a team tries: what it writes instead, what is said of it, and the key that decides.
WIDENED = {
    "more epochs": (
        "epoch_count = 12",
        "epoch_count = 13",
        "training.epoch_count = 13: must be at most 12",
        "limits.training.epoch_count",
    ),
    "more completions per prompt": (
        "epoch_count = 12",
        "training_sample_per_prompt = 16",
        "training.training_sample_per_prompt = 16: must be at most 8",
        "limits.training.training_sample_per_prompt",
    ),
    "more prompts": (
        "prompts = 500",
        "prompts = 501",
        "measurement.prompts = 501: must be at most 500",
        "limits.measurement.prompts",
    ),
    "more at a time": (
        "prompts = 500",
        "concurrency = 1000",
        "measurement.concurrency = 1000: must be at most 20",
        "limits.measurement.concurrency",
    ),
    "more time": (
        "timeout_seconds = 300",
        "timeout_seconds = 900",
        "reward.timeout_seconds = 900: must be at most 300",
        "limits.reward.timeout_seconds",
    ),
    "another model": (
        'base = "amazon.nova-2-lite-v1:0:256k"',
        'base = "amazon.nova-pro-v1:0"',
        'model.base = "amazon.nova-pro-v1:0": is not allowed (did you mean amazon.nova-2-lite-v1:0:256k?); '
        "allowed: amazon.nova-2-lite-v1:0:256k",
        "models",
    ),
    "another region": (
        'region = "us-east-1"',
        'region = "eu-central-1"',
        'stages.prod.region = "eu-central-1": amazon.nova-2-lite-v1:0:256k is tuned in us-east-1 only',
        'models."amazon.nova-2-lite-v1:0:256k".regions',
    ),
    "another account": (
        'account = "111122223333"',
        'account = "777788889999"',
        'stages.dev.account = "777788889999": is not allowed; allowed: 111122223333',
        "accounts.dev",
    ),
    "a stage of its own": (
        "[stages.dev]",
        "[stages.prod2]",
        "stages.prod2: is no stage of the platform; allowed: dev, prod",
        "accounts",
    ),
    "a production that is thrown away": (
        'retention = "lasting"',
        'retention = "throwaway"',
        'stages.prod.retention = "throwaway": must be "lasting"',
        "lasting_stages",
    ),
    "another VPC": (
        'vpc_id = "vpc-0123456789abcdef0"',
        'vpc_id = "vpc-0123456789abcdef9"',
        'network.vpc_id = "vpc-0123456789abcdef9": is not allowed; allowed: vpc-0123456789abcdef0',
        "network.vpcs",
    ),
    "a subnet under a false name": (
        'subnet_ids = ["subnet-0123456789abcdef0"]',
        'subnet_ids = ["subnet-0123456789abcdef0", "subnet-9999456789abcdef9"]',
        "network.subnet_ids: subnet-9999456789abcdef9 is not allowed; "
        "allowed: subnet-0123456789abcdef0, subnet-0123456789abcdef1",
        "network.vpcs.vpc-0123456789abcdef0.subnet_ids",
    ),
    "an open door for the reward function": (
        'reward_security_group_ids = ["sg-0123456789abcdef1"]',
        'reward_security_group_ids = ["sg-9999456789abcdef9"]',
        "network.reward_security_group_ids: sg-9999456789abcdef9 is not allowed; "
        "allowed: sg-0123456789abcdef0, sg-0123456789abcdef1",
        "network.vpcs.vpc-0123456789abcdef0.security_group_ids",
    ),
    "hostile code on the internet": (
        'reward_security_group_ids = ["sg-0123456789abcdef1"]\n',
        "",
        'reward.components.answer.function = "code_tests": may run in a VPC only: '
        "set network.reward_security_group_ids",
        "network.closed_functions",
    ),
    "hostile code without any network": (
        NETWORK,
        "",
        'reward.components.answer.function = "code_tests": may run in a VPC only: '
        "set network.reward_security_group_ids",
        "network.closed_functions",
    ),
    "no cost centre": (
        'cost-center = "42"',
        'centre = "42"',
        "tags.cost-center: is missing: every team must have this tag",
        "required_tags",
    ),
    "another application": (
        'cost-center = "42"',
        'cost-center = "42"\napplication = "games"',
        'tags.application = "games": is "rft" for every team',
        "tags",
    ),
    "no boundary": (
        'owner = "alpha@example.com"',
        'permissions_boundary = "none"\nowner = "alpha@example.com"',
        "permissions_boundary: is no team's to set",
        "permissions_boundary",
    ),
    "limits of its own": (
        "[model]",
        "[limits.training]\nepoch_count = 50\n[model]",
        "limits: is no team's to set",
        "limits",
    ),
    "accounts of its own": (
        "[model]",
        '[accounts]\ndev = ["999999999999"]\n[model]',
        "accounts: is no team's to set",
        "accounts",
    ),
    "a VPC that it allows itself": (
        "[network]\n",
        "[network.vpcs.vpc-0123456789abcdef9]\nsubnet_ids = []\n[network]\n",
        "network.vpcs: unknown key (did you mean vpc_id?); "
        "allowed: reward_security_group_ids, security_group_ids, subnet_ids, vpc_id",
        None,
    ),
}


@pytest.mark.parametrize("attempt", WIDENED)
def test_a_team_that_widens_what_it_may_is_told_who_decides(project: Path, attempt: str) -> None:
    old, new, said, key = WIDENED[attempt]
    assert TEAM.count(old) == 1
    (project / "teams/alpha/team.toml").write_text(TEAM.replace(old, new))
    with pytest.raises(SettingsError) as error:
        load_teams(project)
    (fault,) = error.value.faults
    decided = f" (the platform team decides: teams/platform.toml, {key})" if key else ""
    place, _, problem = fault.partition(": ")
    assert place.startswith("teams/alpha/team.toml:")
    assert problem == f"{said}{decided}"


# What a team writes to let more pass, for every key that can have a bound, and what it is told.
LOOSENED = {
    "promotion": {
        "minimum_gain": ("-0.1", "at least 0.0"),
        "confidence": ("0.89", "at least 0.9"),
        "tolerated_drop": ("0.03", "at most 0.02"),
    },
    "gates.dataset": {
        "near_duplicates": ("false", "true"),
        "near_duplicate_similarity": ("0.95", "at most 0.9"),
        "near_duplicate_share": ("0.5", "at most 0.05"),
        "most_common_answer": ("0.7", "at most 0.6"),
        "personal_data": ("false", "true"),
    },
    "gates.rehearsal": {
        "rows": ("99", "at least 100"),
        "max_hackability": ("0.51", "at most 0.5"),
        "min_reference_share": ("0.9", "at least 0.95"),
        "max_latency_share": ("0.9", "at most 0.8"),
    },
    "gates.tripwires": {
        "window_steps": ("9", "at most 8"),
        "unscorable": ('"warn"', '"stop"'),
        "unscorable_share": ("0.11", "at most 0.1"),
        "errors": ('"off"', '"stop"'),
        "error_share": ("1.0", "at most 0.1"),
        "collapse": ('"off"', '"warn" or "stop"'),
        "collapse_share": ("0.7", "at most 0.6"),
        "saturation": ('"off"', '"warn" or "stop"'),
        "saturation_share": ("1.0", "at most 0.999"),
        "spread": ('"off"', '"warn" or "stop"'),
        "spread_share": ("0.05", "at least 0.1"),
        "length": ('"off"', '"warn" or "stop"'),
        "length_warn": ("3.1", "at most 3.0"),
        "length_stop": ("5.5", "at most 5.0"),
        "gap": ('"off"', '"warn" or "stop"'),
        "gap_warn": ("0.101", "at most 0.1"),
        "gap_stop": ("0.21", "at most 0.2"),
    },
    "gates.signal": {
        "prompts": ("19", "at least 20"),
        "needless": ("0.98", "at most 0.97"),
        "sparse": ("0.01", "at least 0.02"),
        "flat": ("0.96", "at most 0.95"),
    },
    "gates.filter": {
        "prompts": ("301", "at most 300"),
        "max_dropped": ("0.7", "at most 0.6"),
    },
    "gates.cost": {"growth": ("1.5", "at least 2.0")},
}
# What lets neither more nor less pass, whichever way it is moved.
SIDELESS = {
    ("gates.tripwires", "shadow"),
    ("gates.signal", "passing"),
    ("gates.signal", "failing"),
    ("gates.filter", "drop"),
}


@pytest.mark.parametrize(
    ("table", "key"), [(table, key) for table, keys in LOOSENED.items() for key in keys], ids=str
)
def test_a_team_that_loosens_a_gate_is_told_who_decides(project: Path, table: str, key: str) -> None:
    value, allowed = LOOSENED[table][key]
    # A warning that is wider than its stop would be a fault of its own.
    more = {"length_warn": "length_stop = 5.0", "gap_warn": "gap_stop = 0.2"}.get(key, "")
    (project / "teams/alpha/team.toml").write_text(f"{TEAM}\n[{table}]\n{key} = {value}\n{more}\n")
    with pytest.raises(SettingsError) as error:
        load_teams(project)
    (fault,) = error.value.faults
    line = TEAM.count("\n") + 3
    assert fault == (
        f"teams/alpha/team.toml:{line}: {table}.{key} = {value}: must be {allowed} "
        f"(the platform team decides: teams/platform.toml, limits.{table}.{key})"
    )
    # What `rft check` goes by.
    assert examine_team(project, "alpha")[2] == [fault]


def test_a_team_may_be_exactly_as_loose_as_allowed_and_stricter(project: Path) -> None:
    bounds = PLATFORM[PLATFORM.index("[limits.promotion]") : PLATFORM.index("[network]")]
    (project / "teams/alpha/team.toml").write_text(TEAM + bounds.replace("[limits.", "["))
    (team,) = load_teams(project)
    assert (team.gates.tripwires.collapse, team.gates.rehearsal.rows) == ("warn", 100)
    (project / "teams/alpha/team.toml").write_text(TEAM + '[gates.tripwires]\ncollapse = "stop"\n')
    assert load_teams(project)[0].gates.tripwires.collapse == "stop"


def test_every_key_of_a_gate_has_a_bound_or_no_side_that_is_looser() -> None:
    keys = {
        (f"gates.{gate}", key)
        for gate, field in Gates.model_fields.items()
        for key in type(field.default).model_fields
    } | {("promotion", key) for key in Promotion.model_fields}
    bounded = {(table, key) for table, keys in LOOSENED.items() for key in keys}
    assert keys == bounded | SIDELESS | {("promotion", "guards")}


def test_fails_when_a_default_is_looser_than_its_bound(project: Path) -> None:
    path = project / "teams/platform.toml"
    path.write_text(PLATFORM.replace("max_hackability = 0.5", "max_hackability = 0.4"))
    with pytest.raises(
        SettingsError, match=r"set defaults\.gates\.rehearsal\.max_hackability to at most 0\.4 as"
    ):
        load_platform(project)
    path.write_text(PLATFORM.replace('saturation = "warn"', 'saturation = "stop"'))
    with pytest.raises(
        SettingsError, match=r'from "warn": set defaults\.gates\.tripwires\.saturation to "stop" as well'
    ):
        load_platform(project)


def test_the_account_of_the_credentials_is_checked_when_it_is_known(project: Path) -> None:
    platform = load_platform(project)
    platform.check_account("dev", "111122223333")
    with pytest.raises(SettingsError) as error:
        platform.check_account("dev", "444455556666")
    assert str(error.value) == (
        "teams/platform.toml: account 444455556666: is not allowed; allowed: 111122223333 "
        "(the platform team decides: teams/platform.toml, accounts.dev)"
    )


def test_without_a_list_any_account_stage_and_vpc_will_do(project: Path) -> None:
    rules = PLATFORM[: PLATFORM.index("[network]")]
    rules = rules.replace(rules[rules.index("[accounts]") : rules.index("[models.")], "")
    (project / "teams/platform.toml").write_text(rules)
    text = TEAM.replace("111122223333", "999999999999").replace("0123456789abcdef", "9999456789abcdef")
    (project / "teams/alpha/team.toml").write_text(text.replace("stages.dev", "stages.test"))
    (team,) = load_teams(project)
    load_platform(project).check_account("test", "999999999999")
    assert team.stages["test"].account == "999999999999"


def stack(**changes: object) -> DeployedStack:
    facts = {
        "name": "rft-alpha-dev",
        "account": "111122223333",
        "region": "us-east-1",
        "tags": {},
        "termination_protection": False,
    }
    return DeployedStack(**{**facts, **changes})  # type: ignore[arg-type] # the names above are its fields


def test_the_manifest_says_what_a_template_does_not() -> None:
    artifacts = {
        "rft-alpha-dev.assets": {"type": "cdk:asset-manifest"},
        "rft-alpha-dev": {
            "type": "aws:cloudformation:stack",
            "environment": "aws://111122223333/us-east-1",
            "properties": {
                "templateFile": "t.json",
                "tags": {"team": "alpha"},
                "terminationProtection": True,
            },
        },
    }
    found = stacks({"artifacts": artifacts})
    assert found == {"t.json": stack(tags={"team": "alpha"}, termination_protection=True)}
    assert found["t.json"].of_a_team
    assert not stack(name="rft-network").of_a_team


# Whom a statement lets in, and what is wrong with that.
OURS = {"StringEquals": {"aws:SourceAccount": "111122223333"}}
LET_IN = [
    ({"Service": "bedrock.amazonaws.com"}, OURS, ""),
    ({"Service": "lambda.amazonaws.com"}, {}, ""),
    ({"AWS": "arn:aws:iam::111122223333:root"}, {}, ""),
    ({"AWS": {"Fn::GetAtt": ["Role", "Arn"]}}, {}, ""),
    ("*", {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}, ""),
    ({"Service": "s.amazonaws.com"}, {"ArnLike": {"aws:SourceArn": "arn:aws:x:y:111122223333:z/*"}}, ""),
    ("*", {}, "lets in everybody"),
    ({"AWS": ["arn:aws:iam::111122223333:root", "*"]}, {}, "lets in everybody"),
    ("*", {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}, "lets in everybody"),
    ("*", {"StringNotEquals": {"aws:PrincipalAccount": "111122223333"}}, "lets in everybody"),
    ("*", {"StringEqualsIfExists": {"aws:PrincipalAccount": "111122223333"}}, "lets in everybody"),
    ("*", {"StringEquals": {"aws:PrincipalAccount": ["111122223333", "9"]}}, "lets in everybody"),
    ({"AWS": "999999999999"}, {}, "lets in 999999999999, which is not of this account"),
    (
        {"AWS": "arn:aws:iam::999999999999:role/x"},
        OURS,
        "lets in arn:aws:iam::999999999999:role/x, which is not of this account",
    ),
    ({"Service": "bedrock.amazonaws.com"}, {}, "lets in bedrock.amazonaws.com on behalf of any account"),
    (
        {"Service": "bedrock.amazonaws.com"},
        {"StringEquals": {"aws:SourceAccount": "999999999999"}},
        "lets in bedrock.amazonaws.com on behalf of any account",
    ),
    ({"CanonicalUser": "0123"}, {}, "lets in CanonicalUser 0123"),
    (
        {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.example"},
        {"StringEquals": {"x.example:aud": "sts.amazonaws.com", "x.example:sub": "repo:a/b:ref:main"}},
        "",
    ),
    (
        {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.example"},
        {"StringEquals": {"x.example:aud": "sts.amazonaws.com"}},
        "lets in arn:aws:iam::111122223333:oidc-provider/x.example without naming whom of it",
    ),
]


@pytest.mark.parametrize(("principal", "condition", "problem"), LET_IN)
def test_only_this_account_and_services_on_its_behalf_are_let_in(
    project: Path, principal: object, condition: dict[str, object], problem: str
) -> None:
    statement = {"Effect": "Allow", "Action": "x:Y", "Principal": principal, "Condition": condition}
    topic = {"Type": "AWS::SQS::QueuePolicy", "Properties": {"PolicyDocument": {"Statement": [statement]}}}
    template = {"Resources": {"Policy": topic}}
    found = guardrail_faults(template, stack(name="rft-network"), load_platform(project))
    says = f"rft-network: Policy: {problem} (always so: infra/guardrails.py)"
    assert [str(fault) for fault in found if fault.rule == "Grants"] == ([says] if problem else [])
    denied = {**statement, "Effect": "Deny"}
    topic["Properties"] = {"PolicyDocument": {"Statement": denied}}
    assert not [
        fault
        for fault in guardrail_faults(template, stack(), load_platform(project))
        if fault.rule == "Grants"
    ]
