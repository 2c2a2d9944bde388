"""What the platform team fixes, held against every template: a team's settings and our own code alike.

`infra/config.py` refuses a team file that asks for more than the platform allows, and says so best. This
looks at what would be deployed, however it got there: a setting, a mistake in `infra/`, or a change to it.
What has no key in `teams/platform.toml` is fixed here, so changing it is a reviewed change of this file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.config import Platform, camel_case, decided_by
from infra.faults import listed

Template = Mapping[str, Any]
Resource = Mapping[str, Any]

_ALWAYS = "(always so: infra/guardrails.py)"
# Every stack of a team is called rft-<team>-<stage>; the platform's own have a single word after rft-.
_TEAM_STACK = re.compile(r"rft-.+-[^-]+")
_TEAM_TAGS = ("team", "stage", "owner")
_KEEPS_DATA = ("AWS::KMS::Key", "AWS::Logs::LogGroup", "AWS::S3::Bucket", "AWS::SSM::Parameter")
# The stack that delivers all others, and what it hands templates on with.
_PIPELINE = "rft-delivery"
_HANDED_ON = ("AWS::KMS::Key", "AWS::S3::BucketPolicy")
_PUBLIC_ACCESS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
_NETWORK_IDS = re.compile(r"\b(?:subnet|sg|vpc)-(?:[0-9a-f]{17}|[0-9a-f]{8})\b")
_MODEL = re.compile(r":(foundation-model|inference-profile|application-inference-profile)/(.+)")
_REWARD_HANDLER = "lambdas.reward_function.handler"

# By one of these a statement says on whose behalf somebody may act: the account, or an ARN that holds it.
_CALLERS = frozenset(
    {
        "aws:principalaccount",
        "aws:sourceaccount",
        "aws:sourceowner",
        "aws:sourcearn",
        "kms:calleraccount",
        # CloudWatch Logs passes the ARN of the log group and nothing else.
        "kms:encryptioncontext:aws:logs:arn",
    }
)
# These restrict; an operator like StringNotEquals, or one that ends in IfExists, lets others in.
_OPERATORS = frozenset({"StringEquals", "StringLike", "ArnEquals", "ArnLike"})
# Lambda passes no source when it assumes the role of a function.
_WITHOUT_SOURCE = frozenset({"lambda.amazonaws.com"})


@dataclass(frozen=True, kw_only=True)
class DeployedStack:
    """What the CDK CLI knows of a stack besides its template; `unknown-…` where a deploy decides."""

    name: str
    account: str
    region: str
    tags: Mapping[str, str]
    termination_protection: bool

    @property
    def of_a_team(self) -> bool:
        """Whether it is a team's environment, and not the platform's own."""
        return _TEAM_STACK.fullmatch(self.name) is not None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that must not be deployed: in which stack, on what, what is wrong, and who decides."""

    rule: str
    stack: str
    on: str
    problem: str

    def __str__(self) -> str:
        """One readable line."""
        return ": ".join(part for part in (self.stack, self.on, self.problem) if part)


def stacks(manifest: Mapping[str, Any]) -> dict[str, DeployedStack]:
    """Returns the stacks of an assembly's manifest, by the name of their template's file."""
    found = {}
    for name, artifact in manifest["artifacts"].items():
        if artifact["type"] == "aws:cloudformation:stack":
            properties = artifact["properties"]
            account, region = artifact["environment"].removeprefix("aws://").split("/")
            found[properties["templateFile"]] = DeployedStack(
                name=properties.get("stackName", name),
                account=account,
                region=region,
                tags=properties.get("tags", {}),
                termination_protection=properties.get("terminationProtection", False),
            )
    return found


def guardrail_faults(template: Template, stack: DeployedStack, platform: Platform) -> list[Fault]:
    """Returns everything about a stack that the platform does not allow, rule by rule."""
    rules = {
        "PermissionsBoundary": _unbounded,
        "Tags": _untagged,
        "Place": _elsewhere,
        "Models": _models,
        "Caps": _caps,
        "Encryption": _unencrypted,
        "Retention": _unprotected,
        "Grants": _strangers,
        "Network": _outside,
    }
    return [
        Fault(rule=rule, stack=stack.name, on=on, problem=problem)
        for rule, found in rules.items()
        for on, problem in found(template, stack, platform)
    ]


# Where, or nothing when it is the stack itself, and what is wrong.
Found = Iterator[tuple[str, str]]


def _unbounded(template: Template, _: DeployedStack, platform: Platform) -> Found:
    boundary = platform.permissions_boundary
    if not boundary:
        return
    for name, role in _of(template, "AWS::IAM::Role", "AWS::IAM::User"):
        arn = _text(role["Properties"].get("PermissionsBoundary", ""))
        if arn != boundary and not arn.endswith(f":policy/{boundary}"):
            problem = f"is not bounded by {boundary} {decided_by('permissions_boundary')}"
            yield name, problem


def _untagged(_: Template, stack: DeployedStack, platform: Platform) -> Found:
    if not stack.of_a_team:
        return
    for key in dict.fromkeys([*_TEAM_TAGS, *platform.required_tags]):
        if not stack.tags.get(key):
            yield "", f"has no tag {key} {_ALWAYS if key in _TEAM_TAGS else decided_by('required_tags')}"
    for key, value in platform.tags.items():
        if stack.tags.get(key) != value:
            yield "", f"has {stack.tags.get(key)!r} as its tag {key}, not {value!r} {decided_by('tags')}"
    if stack.name != f"rft-{stack.tags.get('team')}-{stack.tags.get('stage')}":
        yield "", f"is not called as its tags team and stage say {_ALWAYS}"


def _elsewhere(template: Template, stack: DeployedStack, platform: Platform) -> Found:
    stage = stack.tags.get("stage", "")
    if stack.of_a_team and not stack.account.startswith("unknown"):
        if platform.accounts and stage not in platform.accounts:
            yield "", f"is of a stage {stage!r} that is not allowed {decided_by('accounts')}"
        elif fault := platform.account_fault(stage, stack.account):
            yield "", f"account {stack.account}: {fault}"
    if stack.region.startswith("unknown"):
        return
    if stack.of_a_team:
        model = _settings(template).get("base_model")
        if model in platform.models and (fault := platform.region_fault(model, stack.region)):
            decided = decided_by(f'models."{model}".regions')
            yield "", f"region {stack.region}: {fault} {decided}"
    elif stack.region not in {region for model in platform.models.values() for region in model.regions}:
        yield "", f"region {stack.region}: no model is tuned there {decided_by('models')}"


def _models(template: Template, stack: DeployedStack, platform: Platform) -> Found:
    profiles = [each.inference.profile for each in platform.models.values()]
    judges = [name.rpartition("/")[2] for name in platform.judges]
    named = [*platform.models, *profiles, *judges]
    behind = [each.model for each in platform.judges.values() if each.model]
    # What follows the first dot of a profile's id is the model behind it.
    allowed = {*named, *behind, *(each.partition(".")[2] for each in (*profiles, *judges))}
    for name, statement in _statements(template):
        # Listing knows no resources, and shows no more than names.
        actions = [
            each
            for each in _listed(statement.get("Action"))
            if str(each).startswith("bedrock:") and not str(each).startswith("bedrock:List")
        ]
        if statement["Effect"] != "Allow" or not actions:
            continue
        for resource in map(_text, _listed(statement["Resource"])):
            model = _MODEL.search(resource)
            if resource == "*" or resource.endswith(":*"):
                yield name, f"may {listed(actions)} with any model {_ALWAYS}"
            elif model and model[2] not in allowed:
                decided = decided_by("models and judges")
                yield name, f"may use {model[2]}; allowed: {listed(sorted(allowed))} {decided}"
    if stack.of_a_team and (base := _settings(template).get("base_model")) not in platform.models:
        yield "", f"tunes {base}; allowed: {listed(platform.models)} {decided_by('models')}"


def _caps(template: Template, stack: DeployedStack, platform: Platform) -> Found:
    if not stack.of_a_team:
        return
    settings = _settings(template)
    for limit in platform.limits.each():
        key, of_training = ".".join(limit.path), limit.path[0] == "training"
        *outer, last = limit.path
        last = camel_case(last) if of_training else last
        table: Any = settings
        for name in outer:
            table = table.get(name, {})
        if last in table and limit.exceeded_by(table[last]):
            yield "", f"{key} is {json.dumps(table[last])}, and must be {limit.words} {limit.decided}"
        if of_training and settings.get("limits", {}).get(last) != limit.value:
            yield "", f"a single run may set {key} beyond {limit.value} {limit.decided}"
    of_function = {"timeout_seconds": "Timeout", "memory_mb": "MemorySize"}
    for name, function in _of(template, "AWS::Lambda::Function"):
        if function["Properties"].get("Handler") == _REWARD_HANDLER:
            for limit in platform.limits.each():
                key = limit.path[-1]
                value = function["Properties"].get(of_function.get(key, ""), 0)
                if limit.path[0] == "reward" and limit.exceeded_by(value):
                    yield name, f"{key} is {value}, and must be {limit.words} {limit.decided}"


def _unencrypted(template: Template, _: DeployedStack, __: Platform) -> Found:
    buckets = dict(_of(template, "AWS::S3::Bucket"))
    logged_to = {
        _text(bucket["Properties"].get("LoggingConfiguration", {}).get("DestinationBucketName", ""))
        for bucket in buckets.values()
    }
    for name, bucket in buckets.items():
        rules = bucket["Properties"].get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [])
        defaults = [rule.get("ServerSideEncryptionByDefault", {}) for rule in rules]
        under_key = [each for each in defaults if each.get("KMSMasterKeyID")]
        # S3 cannot deliver access logs under a KMS key.
        if not defaults or (not under_key and f"<{name}>" not in logged_to):
            yield name, f"is not encrypted with a KMS key {_ALWAYS}"
        blocked = bucket["Properties"].get("PublicAccessBlockConfiguration", {})
        if not all(blocked.get(each) is True for each in _PUBLIC_ACCESS):
            yield name, f"does not block all public access {_ALWAYS}"
    for kind, key in (("AWS::Logs::LogGroup", "KmsKeyId"), ("AWS::SNS::Topic", "KmsMasterKeyId")):
        for name, resource in _of(template, kind):
            if not resource["Properties"].get(key):
                yield name, f"is not encrypted with a KMS key {_ALWAYS}"
    for name, group in _of(template, "AWS::Logs::LogGroup"):
        if not group["Properties"].get("RetentionInDays"):
            yield name, f"keeps its logs for ever: it needs a retention {_ALWAYS}"
    for name, each in _of(template, "AWS::KMS::Key"):
        if each["Properties"].get("EnableKeyRotation") is not True:
            yield name, f"is a key that does not rotate {_ALWAYS}"


def _unprotected(template: Template, stack: DeployedStack, platform: Platform) -> Found:
    kept = dict(_of(template, *_KEEPS_DATA))
    retained = {name for name, each in kept.items() if each.get("DeletionPolicy") == "Retain"}
    must = stack.tags.get("stage") in platform.lasting_stages
    # What lasts in part was meant to last: one thing that is left out would be gone with the stack.
    if not must and not stack.termination_protection and not retained:
        return
    decided = decided_by("lasting_stages") if must else _ALWAYS
    if not stack.termination_protection:
        yield "", f"lasts, but is not protected from deletion {decided}"
    for name, each in kept.items():
        if (each.get("DeletionPolicy"), each.get("UpdateReplacePolicy")) != ("Retain", "Retain"):
            yield name, f"is deleted or replaced with the stack, which lasts {decided}"


def _strangers(template: Template, stack: DeployedStack, platform: Platform) -> Found:
    ours = {"${AWS::AccountId}", stack.account}
    deployers = _deployers(stack, platform)
    for name, resource in template["Resources"].items():
        guests = deployers if resource["Type"] in _HANDED_ON else set()
        for statement in _grants(resource.get("Properties", {})):
            if statement.get("Effect") == "Allow" and (problem := _stranger(statement, ours, guests)):
                yield name, f"{problem} {_ALWAYS}"
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::Lambda::Permission":
                source = _text(properties.get("SourceArn", "")) + _text(properties.get("SourceAccount", ""))
                principal = _text(properties["Principal"])
                if principal not in ours and not _holds(source, ours):
                    yield name, f"lets {principal} call a function for any account {_ALWAYS}"
            case "AWS::Lambda::Url" if properties.get("AuthType") != "AWS_IAM":
                yield name, f"lets anybody call a function {_ALWAYS}"
            case "AWS::Lambda::LayerVersionPermission":
                yield name, f"shares code {_ALWAYS}"
            case "AWS::IAM::AccessKey":
                yield name, f"is a key that does not expire {_ALWAYS}"


def _deployers(stack: DeployedStack, platform: Platform) -> set[str]:
    """The one exception: who deploys to the accounts of stages may read what the pipeline hands to them.

    It is CDK's role in each account that `accounts` names, in the region of the pipeline.
    """
    if stack.name != _PIPELINE or platform.delivery is None:
        return set()
    return {
        f"arn:${{AWS::Partition}}:iam::{account}:role/"
        f"cdk-{platform.delivery.qualifier}-deploy-role-{account}-{stack.region}"
        for accounts in platform.accounts.values()
        for account in accounts
    }


def _stranger(statement: Mapping[str, Any], ours: set[str], guests: set[str]) -> str:
    """What is wrong with whom a statement lets in, or nothing."""
    if "NotPrincipal" in statement:
        return "lets in everybody but some"
    principal = statement["Principal"]
    for kind, names in principal.items() if isinstance(principal, Mapping) else [("AWS", principal)]:
        for name in map(_text, _listed(names)):
            match kind:
                case "AWS" if name == "*":
                    if not _on_behalf(statement, ours):
                        return "lets in everybody"
                case "AWS":
                    if name not in {*ours, *guests} and not _holds(name, ours):
                        return f"lets in {name}, which is not of this account"
                case "Service":
                    if name not in _WITHOUT_SOURCE and not _on_behalf(statement, ours):
                        return f"lets in {name} on behalf of any account"
                case "Federated":
                    equal = {
                        key.rpartition(":")[2]
                        for key in statement.get("Condition", {}).get("StringEquals", {})
                    }
                    if not _holds(name, ours) or not {"aud", "sub"} <= equal:
                        return f"lets in {name} without naming whom of it"
                case _:
                    return f"lets in {kind} {name}"
    return ""


def _on_behalf(statement: Mapping[str, Any], ours: set[str]) -> bool:
    """Whether a condition says that only what belongs to this account may be behind a call."""
    return any(
        operator in _OPERATORS
        and key.lower() in _CALLERS
        and all(each in ours or _holds(each, ours) for each in map(_text, _listed(values)))
        for operator, pairs in statement.get("Condition", {}).items()
        for key, values in pairs.items()
    )


def _holds(text: str, ours: set[str]) -> bool:
    """Whether an ARN is one of this account: by its number, or as a resource of the same template."""
    return text.startswith("<") or any(f":{account}:" in text or text == account for account in ours)


def _outside(template: Template, _: DeployedStack, platform: Platform) -> Found:
    if platform.network is None:
        return
    allowed = {
        each
        for vpc, parts in platform.network.vpcs.items()
        for each in (vpc, *parts.subnet_ids, *parts.security_group_ids)
    }
    for name, resource in template["Resources"].items():
        for found in dict.fromkeys(_NETWORK_IDS.findall(json.dumps(resource))):
            if found not in allowed:
                yield name, f"is in {found}; allowed: {listed(sorted(allowed))} {decided_by('network.vpcs')}"


def _of(template: Template, *kinds: str) -> Iterator[tuple[str, Resource]]:
    """The resources of these types, by their logical ids."""
    for name, resource in template["Resources"].items():
        if resource["Type"] in kinds:
            yield name, {"Properties": {}, **resource}


def _statements(template: Template) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every statement that says what a role may do, by the id of its policy."""
    for name, resource in template["Resources"].items():
        if resource["Type"].startswith("AWS::IAM::"):
            properties = resource.get("Properties", {})
            inline = [each["PolicyDocument"] for each in properties.get("Policies", [])]
            documents = [*inline, *([properties["PolicyDocument"]] if "PolicyDocument" in properties else [])]
            for statement in (each for document in documents for each in _listed(document["Statement"])):
                yield name, statement


def _grants(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every statement that lets somebody in, wherever in a resource it stands: a trust or resource policy."""
    if isinstance(value, Mapping):
        for statement in _listed(value.get("Statement")):
            if isinstance(statement, Mapping) and {"Principal", "NotPrincipal"} & statement.keys():
                yield statement
        for each in value.values():
            yield from _grants(each)
    elif isinstance(value, list):
        for each in value:
            yield from _grants(each)


def _settings(template: Template) -> Mapping[str, Any]:
    """The settings of a run as they are deployed: those that the function which starts it is given."""
    for _, function in _of(template, "AWS::Lambda::Function"):
        variables = function["Properties"].get("Environment", {}).get("Variables", {})
        if "SETTINGS" in variables:
            # References stand inside JSON strings there, and any text will do for them.
            settings: Mapping[str, Any] = json.loads(_text(variables["SETTINGS"]))
            return settings
    return {}


def _text(value: Any) -> str:
    """A value with its references in place: the account and partition as `${…}`, a resource as `<Id>`."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(_text, parts))
        case {"Fn::Sub": str(text)}:
            return text
        case {"Ref": str(name)}:
            return f"${{{name}}}" if name.startswith("AWS::") else f"<{name}>"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}>" if attribute == "Arn" else f"<{name}.{attribute}>"
        case str():
            return value
        case _:
            return json.dumps(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
