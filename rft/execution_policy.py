"""What CloudFormation needs to deploy these stacks, read off their templates, instead of AdministratorAccess.

CloudFormation's own schemas say which permissions it takes to make, read, change and delete a resource of
each type; the names of what our stacks make say on what. The result is attached to the role that
CloudFormation deploys with (`cdk bootstrap --cloudformation-execution-policies`). It has not been tried on
AWS.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Statement = dict[str, Any]

# A managed policy may have this many characters besides white space.
LARGEST_POLICY = 6144

# CloudFormation begins the names it makes up with the stack's, and all of our stacks' begin with this.
_OURS = "rft-"
_ACTION = re.compile(r"[a-z0-9-]+:[A-Za-z]+")
# Of the actions of other services that the schemas name, what our properties lead to.
_FROM_ELSEWHERE = frozenset({"iam:PassRole"})
# In its schema the type that puts a policy on a role is also the one for groups and users.
_NOT_OURS = re.compile(r"iam:\w*(Group|User)\w*")
# What watches over the deployments must not be theirs to change. Capital letters: no stack of a team has any.
_DELIVERY_ROLES = tuple(f"{_OURS}delivery-{name}*" for name in ("Read", "Deploy", "Smoke", "Retire"))
# The identity provider of GitHub's workflows, whose ARN is its address.
_PROVIDER = "oidc-provider/token.actions.githubusercontent.com"
# Every handler may end a resource; these also make, or hand on, what outlives the stack.
_BOUNDED = frozenset({"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:DetachRolePolicy"})


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the policies are for."""

    account: str
    region: str
    qualifier: str = "hnb659fds"
    """The bootstrap's, which is in the names of its bucket and its roles."""
    partition: str = "aws"


def execution_policies(
    templates: Iterable[Mapping[str, Any]], place: Place, *, boundary: str | None
) -> list[dict[str, Any]]:
    """Returns as many policy documents as it takes to stay below the size that IAM allows.

    Args:
        templates: The synthesized templates of everything that is deployed there.
        place: The account, the region and the bootstrap.
        boundary: ARN of the permissions boundary; where there is one, no role can be made without it.

    Raises:
        ValueError: CloudFormation has no schema of a type in the templates.
    """
    resources: dict[str, set[str]] = {}
    for template in templates:
        for name, resource in template["Resources"].items():
            resources.setdefault(resource["Type"], set()).add(name)
    statements: list[Statement] = []
    for kind, names in sorted(resources.items()):
        if kind.startswith("Custom::"):
            statements.append(
                _allow({"lambda:InvokeFunction"}, [_arn(place, "lambda", f"function:{_OURS}*")])
            )
        elif kind != "AWS::CDK::Metadata":
            statements += _statements(kind, sorted(names), place, boundary)
    assets = f"cdk-{place.qualifier}-assets-{place.account}-{place.region}"
    version = f"parameter/cdk-bootstrap/{place.qualifier}/version"
    statements += [
        # The code of functions, and datasets, from where the CDK CLI put them.
        _allow({"s3:GetObject"}, [f"arn:{place.partition}:s3:::{assets}/*"]),
        _allow({"ssm:GetParameters"}, [_arn(place, "ssm", version)]),
    ]
    return _packed(_merged(statements))


def shield(policies: Iterable[Mapping[str, Any]], place: Place) -> dict[str, Any]:
    """Returns the policy that keeps the roles of `rft-delivery` from whoever has the given policies.

    Their names begin as all of ours do, and whoever could change them could give a pull request any right.
    """
    allowed = (action for policy in policies for each in policy["Statement"] for action in each["Action"])
    actions = sorted({action for action in allowed if action.startswith("iam:")})
    on = [f"arn:{place.partition}:iam::{place.account}:role/{name}" for name in _DELIVERY_ROLES]
    denied = {"Effect": "Deny", "Action": actions, "Resource": on}
    return {"Version": "2012-10-17", "Statement": [denied]}


def _statements(kind: str, names: list[str], place: Place, boundary: str | None) -> list[Statement]:
    """What it takes to keep the resources of one type, with these logical ids."""
    actions = permissions_of(kind)
    on = arns(kind, names, place)
    found: list[Statement] = []
    if "iam:PassRole" in actions:
        found.append(_allow({"iam:PassRole"}, [_role(place)]))
        actions = actions - {"iam:PassRole"}
    if kind == "AWS::KMS::Key":
        # A key has no name; the tags of the stack tell ours apart. KMS wants them as the key is made.
        made = {"kms:CreateKey"}
        found.append(_allow(made, ["*"], {"Null": {"aws:RequestTag/team": "false"}}))
        return [*found, _allow(actions - made, on, {"Null": {"aws:ResourceTag/team": "false"}})]
    if _service(kind) == "ec2":
        return [*found, *_network_statements(actions, on)]
    bounded = actions & _BOUNDED if boundary else frozenset[str]()
    if bounded:
        found.append(_allow(bounded, on, {"StringEquals": {"iam:PermissionsBoundary": boundary}}))
        # With it a role could shed its boundary.
        actions = actions - bounded - {"iam:DeleteRolePermissionsBoundary"}
    return [*found, _allow(actions, on)]


def _network_statements(actions: frozenset[str], on: list[str]) -> Iterator[Statement]:
    """What EC2 asks for: it tells resources apart by their tags, of which the stack gives `team` to all."""
    described = {action for action in actions if action.startswith("ec2:Describe")}
    tagging = actions & {"ec2:CreateTags"}
    tagged = {action for action in actions if re.match(r"ec2:(Delete|Modify)", action)}
    ours = {"Null": {"aws:ResourceTag/team": "false"}}
    yield _allow(described, ["*"])
    # As something is made, or on what is ours: else a tag would make anything ours.
    yield _allow(tagging, on, {"Null": {"ec2:CreateAction": "false"}})
    yield _allow(tagging | tagged, on, ours)
    yield _allow(actions - described - tagging - tagged, on)


def permissions_of(kind: str) -> frozenset[str]:
    """Returns the actions that CloudFormation takes to make, read, change and delete a resource of a type.

    Those of its own service, and what it hands on to others: a schema lists what any property could need.

    Raises:
        ValueError: There is no schema of the type.
    """
    schemas = _schemas()
    if kind not in schemas:
        raise ValueError(
            f"CloudFormation's schemas know no type {kind}: what it needs has to be added by hand"
        )
    handlers = schemas[kind]
    named = {action for handler, actions in handlers.items() if handler != "list" for action in actions}
    service = _service(kind)
    return frozenset(
        action
        for action in named
        if _ACTION.fullmatch(action)
        and (action.startswith(f"{service}:") or action in _FROM_ELSEWHERE)
        and not _NOT_OURS.fullmatch(action)
    )


def arns(kind: str, names: Iterable[str], place: Place) -> list[str]:
    """Returns the ARNs that resources of a type can have, given their logical ids."""
    own = f"{_OURS}*"
    # These two services make names of the logical id alone.
    by_id = {
        "AWS::StepFunctions::StateMachine": ("states", "stateMachine:{}-*"),
        "AWS::SSM::Parameter": ("ssm", "parameter/CFN-{}-*"),
        "AWS::CloudWatch::Dashboard": ("cloudwatch", "dashboard/{}-*"),
    }
    if kind == "AWS::IAM::OIDCProvider":
        return [f"arn:{place.partition}:iam::{place.account}:{_PROVIDER}"]
    if kind in by_id:
        service, pattern = by_id[kind]
        found = [_arn(place, service, pattern.format(name)) for name in names]
        return [arn.replace(f":{place.region}:", "::") for arn in found] if service == "cloudwatch" else found
    match _service(kind):
        case "s3":
            return [f"arn:{place.partition}:s3:::{own}"]
        case "iam":
            return [_role(place)]
        case "kms":
            return [_arn(place, "kms", "key/*")]
        case "lambda":
            return [_arn(place, "lambda", f"function:{own}")]
        case "logs":
            groups = (f"log-group:{own}", f"log-group:/aws/vendedlogs/states/{own}")
            return [_arn(place, "logs", group) for group in groups]
        case "sns":
            return [_arn(place, "sns", own)]
        case "events":
            return [_arn(place, "events", f"rule/{own}")]
        case "cloudwatch":
            return [_arn(place, "cloudwatch", f"alarm:{own}")]
        case "budgets":
            # They belong to no region, and how CloudFormation names one is not documented.
            return [f"arn:{place.partition}:budgets::{place.account}:budget/*"]
        case service:
            # What is left has no name of the stack's, and holds neither data nor rights.
            return [_arn(place, service, "*")]


def _role(place: Place) -> str:
    return f"arn:{place.partition}:iam::{place.account}:role/{_OURS}*"


def _arn(place: Place, service: str, resource: str) -> str:
    return f"arn:{place.partition}:{service}:{place.region}:{place.account}:{resource}"


def _service(kind: str) -> str:
    """Returns the prefix that the actions of a type's service have."""
    service = kind.split("::")[1].lower()
    return {"stepfunctions": "states"}.get(service, service)


@cache
def _schemas() -> dict[str, dict[str, list[str]]]:
    """Every handler's permissions, by type; cfn-lint carries the schemas that CloudFormation publishes."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in (files("cfnlint.data.schemas") / "resources").iterdir():
        if path.name.endswith(".json"):
            schema = json.loads(path.read_bytes())
            if handlers := schema.get("handlers"):
                found[schema["typeName"]] = {
                    name: handler.get("permissions", []) for name, handler in handlers.items()
                }
    return found


def _allow(actions: Iterable[str], on: list[str], when: Mapping[str, Any] | None = None) -> Statement:
    statement: Statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": on}
    return {**statement, "Condition": dict(when)} if when else statement


def _merged(statements: Iterable[Statement]) -> list[Statement]:
    """Puts the actions on the same resources into one statement."""
    found: dict[str, Statement] = {}
    for statement in statements:
        where = json.dumps([statement["Resource"], statement.get("Condition")], sort_keys=True)
        if where in found:
            found[where]["Action"] = sorted({*found[where]["Action"], *statement["Action"]})
        else:
            found[where] = statement
    return [statement for statement in found.values() if statement["Action"]]


def _packed(statements: Iterable[Statement]) -> list[dict[str, Any]]:
    """Distributes statements over policies, the largest first into the first that has room."""
    policies: list[dict[str, Any]] = []
    for statement in sorted(statements, key=size, reverse=True):
        for policy in policies:
            if size(policy) + size(statement) < LARGEST_POLICY:
                policy["Statement"].append(statement)
                break
        else:
            policies.append({"Version": "2012-10-17", "Statement": [statement]})
    return policies


def size(document: Mapping[str, Any]) -> int:
    """Returns the characters that IAM counts: all but white space."""
    return len(re.sub(r"\s", "", json.dumps(document)))
