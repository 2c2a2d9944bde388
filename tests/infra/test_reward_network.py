"""The documented way to close the network around the reward function."""

import re

from aws_cdk.assertions import Match, Template

from infra.config import load_platform, load_teams
from infra.environment import RftEnvironment
from tests.infra.conftest import ENV, REPOSITORY, checked_app


def test_the_documented_function_closes_the_network_around_the_reward(projects, packages, tmp_path):
    [source] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "sandbox.md").read_text(), re.DOTALL)
    namespace = {}
    exec(source, namespace)
    team = next(team for team in load_teams(projects[0]) if team.name == "quotes")
    environment = RftEnvironment(
        checked_app(tmp_path),
        team=team,
        stage="dev",
        platform=load_platform(projects[0]),
        packages=packages,
        env=ENV,
    )
    namespace["without_egress"](environment, ["subnet-1", "subnet-2"], ["sg-1"])
    template = Template.from_stack(environment)
    template.resource_properties_count_is(
        "AWS::Lambda::Function",
        Match.object_like(
            {
                "Handler": "lambdas.reward_function.handler",
                "VpcConfig": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
            }
        ),
        1,
    )
    template.resource_properties_count_is("AWS::Lambda::Function", {"VpcConfig": Match.any_value()}, 1)
    [policy] = template.find_resources(
        "AWS::IAM::Policy",
        {
            "Properties": {
                "PolicyDocument": {
                    "Statement": Match.array_with([Match.object_like({"Effect": "Deny"})]),
                }
            }
        },
    ).values()
    allowed, denied = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (allowed["Effect"], denied["Effect"]) == ("Allow", "Deny")
    assert allowed["Action"] == denied["Action"]
    assert "lambda:SourceFunctionArn" in denied["Condition"]["ArnLike"]
