"""What fails a synthesis: the library's security rules and the platform's guardrails."""

import json
from pathlib import Path

import aws_cdk as cdk
import jsii
from cdk_nag import AwsSolutionsChecks

from infra.config import Platform
from infra.guardrails import guardrail_faults, stacks


def check(app: cdk.App, platform: Platform) -> None:
    """Has every synthesis of the app, whole or in part, look at all of its templates."""
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), Guardrails(platform))


@jsii.implements(cdk.IPolicyValidationPlugin)
class Guardrails:
    """Runs infra/guardrails.py on what was synthesized, just before the CDK CLI gets to see it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @property
    def name(self) -> str:
        """What reports call it."""
        return "Guardrails"

    @property
    def version(self) -> str | None:
        """None: it is as old as the project."""
        return None

    @property
    def rule_ids(self) -> list[str] | None:
        """None: the library would only count them."""
        return None

    def validate(self, context: cdk.IPolicyValidationContext) -> cdk.PolicyValidationPluginReport:
        """Reports one violation for each fault, in words."""
        violations = []
        manifests = {}
        for path in map(Path, context.template_paths):
            if path.parent not in manifests:
                manifests[path.parent] = stacks(json.loads((path.parent / "manifest.json").read_bytes()))
            stack = manifests[path.parent][path.name]
            violations += [
                cdk.PolicyViolation(
                    rule_name=fault.rule,
                    description=str(fault),
                    # What is fatal cannot be acknowledged away where the construct is made.
                    severity="fatal",
                    violating_resources=[
                        cdk.PolicyViolatingResource(
                            resource_logical_id=fault.on or None, template_path=str(path), locations=[]
                        )
                    ],
                )
                for fault in guardrail_faults(json.loads(path.read_bytes()), stack, self._platform)
            ]
        return cdk.PolicyValidationPluginReport(success=not violations, violations=violations)
