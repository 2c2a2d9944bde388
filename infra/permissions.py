"""What a role may do, written the same way everywhere.

Every policy of the stack is made of these and not of the library's `grant_*`, which hand out whole families
of actions: a reader sees exactly what a role may do where the role is made, and why each wildcard is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct

from infra.config import ENVIRONMENT_TAG, AllowedJudge, InferenceProfile

# Asked of the library once: what is the same in every stack is not worth a trip to its process each time.
STACK_NAME = cdk.Aws.STACK_NAME


@dataclass(frozen=True, kw_only=True)
class Permission:
    """Actions on ARNs under conditions; `because` gives the reason where an ARN holds a wildcard."""

    actions: tuple[str, ...]
    on: tuple[str, ...]
    when: Mapping[str, Mapping[str, Any]] | None
    because: str
    effect: Literal["Allow", "Deny"] = "Allow"

    def statement(self) -> dict[str, Any]:
        """Returns the statement of a policy that says so."""
        condition = {"Condition": self.when} if self.when else {}
        return {"Effect": self.effect, "Action": list(self.actions), "Resource": list(self.on), **condition}


def allow(
    *actions: str,
    on: Sequence[str],
    when: Mapping[str, Mapping[str, Any]] | None = None,
    because: str = "",
) -> Permission:
    """Returns the permission for exactly these actions on these ARNs."""
    return Permission(actions=actions, on=tuple(on), when=when, because=because)


def deny(*actions: str, on: Sequence[str], when: Mapping[str, Mapping[str, Any]], because: str) -> Permission:
    """Returns what takes these actions away again where the conditions hold."""
    return Permission(actions=actions, on=tuple(on), when=when, because=because, effect="Deny")


def bedrock_arns(stack: cdk.Stack) -> tuple[str, str, str]:
    """Returns what stands for all customization jobs, custom models and deployments of the account."""
    jobs, models, deployments = (
        stack.format_arn(service="bedrock", resource=kind, resource_name="*")
        for kind in ("model-customization-job", "custom-model", "custom-model-deployment")
    )
    return jobs, models, deployments


def allow_ours(*actions: str, on: Sequence[str]) -> Permission:
    """Returns the permission for these actions on what this environment made in Bedrock.

    It cannot touch the models of another environment in the same account.
    """
    return allow(
        *actions,
        on=on,
        when={"StringEquals": {f"aws:ResourceTag/{ENVIRONMENT_TAG}": STACK_NAME}},
        because="Bedrock chooses the id; the tag narrows it down to what this environment made.",
    )


def allow_unless_others(*actions: str, on: Sequence[str]) -> Permission:
    """Returns the permission for these actions on what no other environment made in Bedrock.

    What does not exist has no tags: it can be tagged as it is made, and asking for it says that it is not
    there instead of that it is forbidden.
    """
    return allow(
        *actions,
        on=on,
        when={"StringEqualsIfExists": {f"aws:ResourceTag/{ENVIRONMENT_TAG}": STACK_NAME}},
        because="Bedrock chooses the id; what bears the tag of another environment is out of reach.",
    )


def allow_profile(profile: InferenceProfile, stack: cdk.Stack) -> tuple[Permission, Permission]:
    """Returns what it takes to call a model through an inference profile, and through nothing else.

    Bedrock asks for the profile and for the model in the region it routes to.
    """
    arn = stack.format_arn(service="bedrock", resource="inference-profile", resource_name=profile.profile)
    return _allow_through(arn, _model_arns(profile.profile.partition(".")[2], profile.regions, stack))


def allow_judge(name: str, judge: AllowedJudge, stack: cdk.Stack) -> tuple[Permission, ...]:
    """Returns what it takes to ask a judge by the name that its settings call it, and no other model.

    Behind an inference profile Bedrock asks for the model where the call is made and wherever it may be
    routed to; a global profile routes to a model that is in no region.
    """
    if not judge.regions:
        [model] = [name] if name.startswith("arn:") else _model_arns(name, [stack.region], stack)
        return (allow("bedrock:InvokeModel", on=[model]),)
    profile = name.rpartition("/")[2]
    model = judge.model or profile.partition(".")[2]
    routed = [*judge.regions, *([""] if profile.startswith("global.") else [])]
    arn = (
        name
        if name.startswith("arn:")
        else stack.format_arn(service="bedrock", resource="inference-profile", resource_name=name)
    )
    return _allow_through(arn, _model_arns(model, dict.fromkeys([stack.region, *routed]), stack))


def _allow_through(profile_arn: str, model_arns: Sequence[str]) -> tuple[Permission, Permission]:
    through = {"ArnEquals": {"bedrock:InferenceProfileArn": profile_arn}}
    return (
        allow("bedrock:InvokeModel", on=[profile_arn]),
        allow("bedrock:InvokeModel", on=model_arns, when=through),
    )


def _model_arns(model: str, regions: Iterable[str], stack: cdk.Stack) -> list[str]:
    return [
        stack.format_arn(
            service="bedrock", region=region, account="", resource="foundation-model", resource_name=model
        )
        for region in regions
    ]


def grant(role: iam.Role, *permissions: Permission) -> None:
    """Says, once for each role, all that it may do."""
    # The id that the library gives the policy to which it adds statements, one by one.
    grant_apart(role, "DefaultPolicy", [role], *permissions)


def grant_apart(
    scope: Construct, construct_id: str, roles: Sequence[iam.Role], *permissions: Permission
) -> None:
    """Says in a policy of its own what else roles may do, for what cannot wait for a role's own policy.

    The reasons go to the security check; a wildcard without one fails the synthesis. The statements are
    handed to the library as one document: each as an object of its own is two trips to its process, for
    every one of some 160 statements in a stack.
    """
    policy = iam.Policy(scope, construct_id, document=_document(permissions), roles=roles)
    _explain(policy, permissions)


def regrant(policy: iam.CfnPolicy, *permissions: Permission) -> None:
    """Puts permissions in place of those that the library wrote into a policy, with their reasons."""
    policy.policy_document = _document(permissions)
    _explain(policy, permissions)


def _document(permissions: Iterable[Permission]) -> iam.PolicyDocument:
    return iam.PolicyDocument.from_json({"Statement": [each.statement() for each in permissions]})


def _explain(policy: iam.Policy | iam.CfnPolicy, permissions: Iterable[Permission]) -> None:
    """Tells the security check why there are wildcards in permissions."""
    reasoned = [(arn, each.because) for each in permissions if each.because for arn in each.on]
    if reasoned:
        arns = map(_spelled, policy.stack.resolve([arn for arn, _ in reasoned]))
        reasons = {
            f"AwsSolutions-IAM5[Resource::{arn}]": because
            for arn, (_, because) in zip(arns, reasoned, strict=True)
            if "*" in arn
        }
        accept(policy, reasons)


def bound_roles(stack: cdk.Stack, boundary: str | None) -> None:
    """Puts the boundary, an ARN or the name of a policy of the account, on every role of a stack."""
    if boundary:
        by = iam.ManagedPolicy
        find = by.from_managed_policy_arn if boundary.startswith("arn:") else by.from_managed_policy_name
        iam.PermissionsBoundary.of(stack).apply(find(stack, "Boundary", boundary))


def accept(scope: IConstruct, findings: Mapping[str, str]) -> None:
    """Accepts findings of the security check for one resource: `{finding: reason}`."""
    cdk.Validations.of(scope).acknowledge(
        *(cdk.Acknowledgment(id=finding, reason=reason) for finding, reason in findings.items())
    )


def _spelled(arn: Any) -> str:
    """An ARN as the security check names it: references as `<Id>` or `<Id.Attribute>`."""
    match arn:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_spelled(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Ref": resource}:
            return f"<{resource}>"
        case _:
            return str(arn)
