"""A team in the platform's own network: both stacks side by side, and a reward function that is closed in."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft.embedded.aws import EmbeddedAws

Clients = Callable[[str], Any]
Deploy = Callable[..., dict[str, str]]
REPOSITORY = Path(__file__).resolve().parents[2]


def network_assembly(aws: EmbeddedAws, folder: Path) -> Path:
    """What `cdk synth -c network=true` writes."""
    context = {**json.loads((REPOSITORY / "cdk.json").read_text())["context"], "network": "true"}
    environment = aws.environment(os.environ) | {
        "CDK_OUTDIR": str(folder),
        "CDK_CONTEXT_JSON": json.dumps(context),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "app.py"], cwd=REPOSITORY, env=environment, check=True)
    return folder


def closed_project(root: Path, network: dict[str, str]) -> Path:
    """The project with a further stage of a sample team, in the network, under rules that allow no other."""
    for name in ("app.py", "cdk.json"):
        shutil.copy(REPOSITORY / name, root)
    for name in ("infra", "lambdas", "build"):
        (root / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "teams/quotes", root / "teams/quotes")
    subnets = json.dumps(network["SubnetIds"].split(","))
    groups = json.dumps([network["JobSecurityGroupId"], network["ClosedSecurityGroupId"]])
    rules = (REPOSITORY / "teams/platform.toml").read_text()
    (root / "teams/platform.toml").write_text(
        f"{rules}\n[network.vpcs.{network['VpcId']}]\nsubnet_ids = {subnets}\nsecurity_group_ids = {groups}\n"
    )
    settings = root / "teams/quotes/team.toml"
    text = re.sub(r"(?m)^\[stages\.dev\]", "[stages.closed]", settings.read_text())
    settings.write_text(
        f'{text}\n[network]\nvpc_id = "{network["VpcId"]}"\nsubnet_ids = {subnets}\n'
        f'security_group_ids = ["{network["JobSecurityGroupId"]}"]\n'
        f'reward_security_group_ids = ["{network["ClosedSecurityGroupId"]}"]\n'
    )
    return root


def test_a_team_in_the_platforms_network_has_its_completions_scored(
    aws: EmbeddedAws,
    client: Clients,
    assembly: Path,
    deploy: Deploy,
    synthesize: Callable[[Path, str, str], Path],
    tmp_path: Path,
) -> None:
    platform = network_assembly(aws, tmp_path / "network")
    template = platform / "rft-network.template.json"
    document = json.loads(template.read_text())
    # The emulator has no such type; everything else is deployed as it is written.
    del document["Resources"]["FlowLog"]
    template.write_text(json.dumps(document))
    network = deploy(platform, "rft-network")
    endpoints = client("ec2").describe_vpc_endpoints(
        Filters=[{"Name": "vpc-id", "Values": [network["VpcId"]]}]
    )["VpcEndpoints"]
    assert len(endpoints) == 8
    (tmp_path / "project").mkdir()
    project = closed_project(tmp_path / "project", network)
    outputs = deploy(synthesize(project, "quotes", "closed"), "rft-quotes-closed")

    version = client("lambda").get_function_configuration(FunctionName=outputs["RewardVersion"])
    # The emulator leaves out what CloudFormation says of a function's network: that it holds is not shown
    # here, only that everything fits together. When this fails, it has caught up, and can be asked.
    assert "VpcConfig" not in version
    role = version["Role"].rpartition("/")[2]
    [policy] = client("iam").list_role_policies(RoleName=role)["PolicyNames"]
    statements = client("iam").get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"][
        "Statement"
    ]
    made = [each["Resource"] for each in statements if each["Action"] == "ec2:CreateNetworkInterface"]
    assert {arn.rpartition("/")[2] for [*arns] in made for arn in arns} == {
        *network["SubnetIds"].split(","),
        network["ClosedSecurityGroupId"],
        "*",
    }
    row = json.loads((project / "teams/quotes/data/train.jsonl").read_text().splitlines()[0])
    sample = {
        "id": "1",
        "messages": [
            *row["messages"],
            {"role": "assistant", "content": f"#### {row['reference_answer']}"},
        ],
        "metadata": {"reference_answer": row["reference_answer"]},
    }
    answer = client("lambda").invoke(FunctionName=outputs["RewardVersion"], Payload=json.dumps([sample]))
    [reward] = json.loads(answer["Payload"].read())
    assert reward["aggregate_reward_score"] > 0.5
