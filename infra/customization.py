"""The role a Bedrock customization job works under."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.config import Network
from infra.encryption import TeamKey
from infra.permissions import Permission, allow


class CustomizationRole(Construct):
    """What Bedrock may do for this team's customization jobs, and only for them.

    The stack grants it: what every job needs, the datasets, the output, the version of the reward function.
    """

    def __init__(self, scope: Construct, construct_id: str, *, key: TeamKey, network: Network | None) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        jobs = stack.format_arn(service="bedrock", resource="model-customization-job", resource_name="*")
        self.role = iam.Role(
            self,
            "Default",
            description="Lets Bedrock run the customization jobs of one environment",
            # Both conditions belong to the one statement: a second one without them would undo the first.
            assumed_by=iam.ServicePrincipal(
                "bedrock.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": stack.account},
                    # Bedrock gives a job its id when the job is made.
                    "ArnEquals": {"aws:SourceArn": jobs},
                },
            ),
        )
        self._needed = [key.use_through("s3"), key.use_for_models()]
        if network:
            self._needed += _use_of(network, stack, jobs)

    def run_jobs(self) -> list[Permission]:
        """Lets a customization job use the key and, where the team has a network, be in it."""
        return self._needed


def _use_of(network: Network, stack: cdk.Stack, jobs: str) -> list[Permission]:
    """What Bedrock needs to put a job's network interfaces into the subnets, and to take them away again."""

    def ec2(resource: str, name: str) -> str:
        return stack.format_arn(service="ec2", resource=resource, resource_name=name)

    subnets = [ec2("subnet", each) for each in network.subnet_ids]
    groups = [ec2("security-group", each) for each in network.security_group_ids]
    interfaces = ec2("network-interface", "*")
    tagged = "EC2 chooses the id of an interface; the tags that Bedrock puts on it narrow it down."
    job_tag = "BedrockModelCustomizationJobArn"
    return [
        allow(
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
            on=["*"],
            because="EC2 knows no resources for these actions.",
        ),
        allow(
            "ec2:CreateNetworkInterface",
            on=[interfaces],
            when={
                "StringEquals": {"aws:RequestTag/BedrockManaged": "true"},
                "ArnEquals": {f"aws:RequestTag/{job_tag}": jobs},
            },
            because=tagged,
        ),
        allow("ec2:CreateNetworkInterface", on=[*subnets, *groups]),
        allow(
            "ec2:CreateNetworkInterfacePermission",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
            on=[interfaces],
            when={
                "ArnEquals": {"ec2:Subnet": subnets, f"ec2:ResourceTag/{job_tag}": jobs},
                "StringEquals": {"ec2:ResourceTag/BedrockManaged": "true"},
            },
            because=tagged,
        ),
        allow(
            "ec2:CreateTags",
            on=[interfaces],
            when={
                "StringEquals": {"ec2:CreateAction": ["CreateNetworkInterface"]},
                "ForAllValues:StringEquals": {"aws:TagKeys": ["BedrockManaged", job_tag]},
            },
            because=tagged,
        ),
    ]
