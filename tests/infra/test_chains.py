"""How long CloudFormation has to wait: what it cannot make at the same time."""

import pytest

from tests.infra.chains import longest_chain
from tests.infra.conftest import Assembly

# Each link is a reference that has to be: the key encrypts the reward's log group, which its role's policy
# names; the function waits for its role, is published as a version, and the version is what the step that
# measures may call. The state machine calls that step and its role's policy says so; what starts runs names
# the state machine. At the end stands what calls the
# starter: a rule and its permission, or the deploy itself.
DEEPEST = 13


def test_no_environment_waits_longer_than_its_references_make_it(assembly: Assembly) -> None:
    chains = {stack: longest_chain(assembly.template(stack)) for stack in assembly.stacks}
    assert {stack: chain for stack, chain in chains.items() if len(chain) > DEEPEST} == {}


@pytest.mark.parametrize(
    "reference",
    [
        {"Properties": {"Name": {"Ref": "First"}}},
        {"Properties": {"Name": {"Fn::GetAtt": ["First", "Arn"]}}},
        {"Properties": {"Name": {"Fn::GetAtt": "First.Arn"}}},
        {"Properties": {"Names": [{"Fn::Join": ["", ["a", {"Ref": "First"}]]}]}},
        {"Properties": {"Name": {"Fn::Sub": "a-${First.Arn}"}}},
        {"Properties": {"Name": {"Fn::Sub": ["${Given}", {"Given": {"Ref": "First"}}]}}},
        {"DependsOn": "First"},
        {"DependsOn": ["First"]},
    ],
)
def test_a_chain_follows_every_way_to_refer_to_a_resource(reference: dict[str, object]) -> None:
    assert longest_chain({"Resources": {"Second": reference, "First": {}}}) == ["First", "Second"]


def test_what_refers_to_nothing_of_the_template_waits_for_nothing() -> None:
    alone = {"Properties": {"A": {"Ref": "AWS::Region"}, "B": {"Fn::Sub": ["${First}", {"First": "text"}]}}}
    assert longest_chain({"Resources": {"Second": alone, "First": {}}}) == ["Second"]
