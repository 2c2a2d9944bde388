"""A reward function may ask the judges its team names, in every way Bedrock has, and nobody else."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from infra.config import SettingsError, load_platform, load_teams
from tests.infra.conftest import ACCOUNT, REGION, REPOSITORY, Assembly, synthesize

MODEL = "amazon.nova-pro-v1:0"
PROFILE = "us.amazon.nova-2-lite-v1:0"
GLOBAL = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
APPLICATION = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:application-inference-profile/abc123def456"
DEPLOYMENT = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:custom-model-deployment/abc123def456"

RULES = f"""
[judges."{MODEL}"]
[judges."{DEPLOYMENT}"]
[judges."{PROFILE}"]
regions = ["us-east-2", "us-east-1", "us-west-2"]
[judges."{GLOBAL}"]
regions = ["{REGION}"]
[judges."{APPLICATION}"]
model = "{MODEL}"
regions = ["us-east-1", "us-east-2"]
"""

TEAMS = {"plain": [], "direct": [MODEL], "many": [PROFILE, MODEL, GLOBAL, APPLICATION, DEPLOYMENT, PROFILE]}


def project_with(root: Path, rules: str, teams: dict[str, list[str]]) -> Path:
    """A project whose teams are the sample team quotes with one judge component for each model."""
    sample = REPOSITORY / "teams" / "quotes"
    for name, models in teams.items():
        folder = shutil.copytree(sample, root / "teams" / name)
        components = "\n".join(
            f'[reward.components.judge_{place}]\nfunction = "judge"\nmodel = "{model}"\nrubric = "Be good."\n'
            for place, model in enumerate(models)
        )
        text = (folder / "team.toml").read_text()
        (folder / "team.toml").write_text(text.replace("[training]", f"{components}\n[training]", 1))
    platform = (REPOSITORY / "teams" / "platform.toml").read_text()
    (root / "teams" / "platform.toml").write_text(platform + rules)
    return root


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    root = project_with(tmp_path_factory.mktemp("judged"), RULES, TEAMS)
    packages = tmp_path_factory.mktemp("judged-packages")
    for name in ("workflow", *(f"{team}/reward" for team in TEAMS)):
        (packages / name).mkdir(parents=True)
        (packages / name / "package.txt").write_text(name)
    return synthesize([root], packages, tmp_path_factory.mktemp("judged-assembly"))


def spelled(arn: Any) -> str:
    """An ARN in which only the partition is left open, with it filled in."""
    if isinstance(arn, str):
        return arn
    (separator, parts) = arn["Fn::Join"]
    return str(separator).join("aws" if part == {"Ref": "AWS::Partition"} else part for part in parts)


def bedrock_statements(template: dict[str, Any]) -> list[tuple[list[str], dict[str, str]]]:
    """What the reward function's role may invoke: ARNs, and the condition's profile."""
    found = []
    for name, resource in template["Resources"].items():
        if resource["Type"] != "AWS::IAM::Policy" or not name.startswith("RewardFunctionRole"):
            continue
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            if not any(action.startswith("bedrock") for action in actions):
                continue
            assert (statement["Effect"], actions) == ("Allow", ["bedrock:InvokeModel"])
            on = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            conditions = statement.get("Condition", {})
            assert set(conditions) <= {"ArnEquals"}
            found.append(
                (
                    sorted(map(spelled, on)),
                    {key: spelled(value) for key, value in conditions.get("ArnEquals", {}).items()},
                )
            )
    return found


def model_in(region: str, model: str) -> str:
    return f"arn:aws:bedrock:{region}::foundation-model/{model}"


def through(profile: str) -> dict[str, str]:
    return {"bedrock:InferenceProfileArn": profile}


def test_without_a_judge_no_model_can_be_asked(judged: Assembly) -> None:
    assert bedrock_statements(judged.template("rft-plain-dev")) == []


def test_a_model_is_asked_in_the_stacks_own_region(judged: Assembly) -> None:
    assert bedrock_statements(judged.template("rft-direct-dev")) == [([model_in(REGION, MODEL)], {})]


def test_every_way_to_a_judge_gets_what_bedrock_asks_for_and_no_more(judged: Assembly) -> None:
    geographic = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile/{PROFILE}"
    worldwide = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile/{GLOBAL}"
    regions = ("us-east-1", "us-east-2", "us-west-2")
    unconditional = sorted([geographic, worldwide, APPLICATION, DEPLOYMENT, model_in(REGION, MODEL)])
    statements = bedrock_statements(judged.template("rft-many-dev"))
    # CDK merges statements that have the same conditions.
    assert sorted(arn for on, when in statements if not when for arn in on) == unconditional
    assert sorted((on, when["bedrock:InferenceProfileArn"]) for on, when in statements if when) == sorted(
        [
            ([model_in(region, PROFILE.removeprefix("us.")) for region in regions], geographic),
            (
                sorted(model_in(region, GLOBAL.removeprefix("global.")) for region in ("", REGION)),
                worldwide,
            ),
            ([model_in(region, MODEL) for region in ("us-east-1", "us-east-2")], APPLICATION),
        ]
    )


def test_no_other_function_may_ask_the_judges(judged: Assembly) -> None:
    template = judged.template("rft-many-dev")
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::IAM::Policy" and not name.startswith("RewardFunctionRole"):
            assert "claude-haiku" not in str(resource)
            assert "application-inference-profile" not in str(resource)


@pytest.mark.parametrize(
    ("rules", "models", "says"),
    [
        (
            RULES,
            ["us.amazon.nova-2-light-v1:0"],
            f"is no judge of teams/platform.toml (did you mean {PROFILE}?); allowed: ",
        ),
        ("", [MODEL], f'allows none: add [judges."{MODEL}"] to it'),
        (f'[judges."{PROFILE}"]\n', [PROFILE], f"{PROFILE} is an inference profile: list the regions"),
        (
            f'[judges."{APPLICATION}"]\nregions = ["us-east-1"]\n',
            [APPLICATION],
            f"{APPLICATION} needs model, the id of the model behind it",
        ),
        (f'[judges."{APPLICATION}"]\nmodel = "{MODEL}"\n', [APPLICATION], "list the regions"),
        ('[judges."Nova Pro"]\n', [], "the id or ARN of a Bedrock model or inference profile"),
        (RULES, [5], "must be a text"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_a_mistake_in_the_settings(
    tmp_path: Path, rules: str, models: list[str], says: str
) -> None:
    root = project_with(tmp_path, rules, {"judges": models})
    team = root / "teams" / "judges" / "team.toml"
    team.write_text(team.read_text().replace('model = "5"', "model = 5"))
    with pytest.raises(SettingsError) as raised:
        load_teams(root)
    assert says in str(raised.value)


def test_the_platform_knows_the_judges_of_a_reward(tmp_path: Path) -> None:
    root = project_with(tmp_path, RULES, TEAMS)
    platform = load_platform(root)
    asked = {team.name: list(platform.judges_of(team.reward)) for team in load_teams(root)}
    assert asked == {name: list(dict.fromkeys(models)) for name, models in TEAMS.items()}
