"""A private network for the teams of one account and region, for platform teams that have none to give.

Once per account and region, by a person: `cdk deploy rft-network -c network=true`. Its outputs are what
`[network.vpcs]` of platform.toml and `[network]` of a team's file ask for.
"""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.config import Platform
from infra.encryption import TeamKey
from infra.permissions import allow, bound_roles, grant

_CIDR = "10.0.0.0/16"
# Jobs and functions take many addresses at a time, and nothing else is in here.
_SUBNET_CIDRS = ("10.0.0.0/18", "10.0.64.0/18")
_HTTPS = 443
# Everything that a job, a reward function with a judge, or a workflow of a team's own could call.
_INTERFACES = {
    "Kms": "kms",
    "Logs": "logs",
    "Bedrock": "bedrock",
    "BedrockRuntime": "bedrock-runtime",
    "Lambda": "lambda",
    "StepFunctions": "states",
    "Sns": "sns",
}


class PrivateNetwork(cdk.Stack):
    """Two private subnets without a way out, endpoints for the services, and a record of who spoke to whom.

    No internet gateway and no NAT: what is not behind an endpoint cannot be reached, whatever a security
    group says. Written in the resources themselves: the library's VPC asks the account for its availability
    zones at synthesis, and closes the default security group with a function of its own.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, platform: Platform, env: cdk.Environment
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            description="Private network of the fine-tuning environments of one account and region",
            # CloudFormation's policy tells our keys by the tag `team`.
            tags={**platform.tags, "team": "platform"},
            termination_protection=True,
            analytics_reporting=False,
        )
        bound_roles(self, platform.permissions_boundary)
        vpc = ec2.CfnVPC(self, "Vpc", cidr_block=_CIDR, enable_dns_hostnames=True, enable_dns_support=True)
        routes = ec2.CfnRouteTable(self, "Routes", vpc_id=vpc.attr_vpc_id)
        subnets = [
            self._subnet(f"Subnet{number}", vpc, routes, number - 1, cidr)
            for number, cidr in enumerate(_SUBNET_CIDRS, 1)
        ]
        self._endpoints(vpc, routes, subnets)
        self._flow_logs(vpc)
        # Endpoints stand in the VPC; S3 has addresses of its own, and only its endpoint's route leads to any.
        jobs = self._group(
            "Jobs",
            vpc,
            "Customization jobs, and functions that call a service",
            ec2.CfnSecurityGroup.EgressProperty(
                description="Endpoints; no route leads elsewhere",
                ip_protocol="tcp",
                from_port=_HTTPS,
                to_port=_HTTPS,
                cidr_ip="0.0.0.0/0",
            ),
        )
        closed = self._group(
            "Closed",
            vpc,
            "Functions that reach nothing",
            _nowhere(),
        )
        for name, value, description in (
            ("VpcId", vpc.attr_vpc_id, "vpc_id, and the key of a table under [network.vpcs]"),
            ("SubnetIds", cdk.Fn.join(",", [each.attr_subnet_id for each in subnets]), "subnet_ids"),
            ("JobSecurityGroupId", jobs.attr_group_id, "security_group_ids"),
            ("ClosedSecurityGroupId", closed.attr_group_id, "reward_security_group_ids; reaches nothing"),
            (
                "BilledByTheHour",
                str(len(_INTERFACES) * len(subnets)),
                "Interfaces of endpoints that are billed by the hour, used or not",
            ),
        ):
            cdk.CfnOutput(self, name, value=value, description=description)

    def _subnet(
        self, construct_id: str, vpc: ec2.CfnVPC, routes: ec2.CfnRouteTable, zone: int, cidr: str
    ) -> ec2.CfnSubnet:
        subnet = ec2.CfnSubnet(
            self,
            construct_id,
            vpc_id=vpc.attr_vpc_id,
            cidr_block=cidr,
            # The zones' names are for the account to know.
            availability_zone=cdk.Fn.select(zone, cdk.Fn.get_azs()),
            map_public_ip_on_launch=False,
        )
        ec2.CfnSubnetRouteTableAssociation(
            self,
            f"{construct_id}Routes",
            subnet_id=subnet.attr_subnet_id,
            route_table_id=routes.attr_route_table_id,
        )
        return subnet

    def _endpoints(
        self, vpc: ec2.CfnVPC, routes: ec2.CfnRouteTable, subnets: Sequence[ec2.CfnSubnet]
    ) -> None:
        policy = iam.PolicyDocument(
            statements=[
                iam.PolicyStatement(
                    # Whoever is in here may go through with credentials of this account, which say what they
                    # are good for, and not with credentials that somebody brought along to carry data out.
                    principals=[iam.AnyPrincipal()],
                    actions=["*"],
                    resources=["*"],
                    conditions={"StringEquals": {"aws:PrincipalAccount": self.account}},
                )
            ]
        )
        group = self._group(
            "Endpoints",
            vpc,
            "Endpoints of services",
            _nowhere(),
            ec2.CfnSecurityGroup.IngressProperty(
                description="Everybody in this network",
                ip_protocol="tcp",
                from_port=_HTTPS,
                to_port=_HTTPS,
                cidr_ip=_CIDR,
            ),
        )
        ec2.CfnVPCEndpoint(
            self,
            "S3",
            vpc_id=vpc.attr_vpc_id,
            service_name=f"com.amazonaws.{self.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[routes.attr_route_table_id],
            policy_document=policy,
        )
        for name, service in _INTERFACES.items():
            ec2.CfnVPCEndpoint(
                self,
                name,
                vpc_id=vpc.attr_vpc_id,
                service_name=f"com.amazonaws.{self.region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=[each.attr_subnet_id for each in subnets],
                security_group_ids=[group.attr_group_id],
                private_dns_enabled=True,
                policy_document=policy,
            )

    def _group(
        self,
        name: str,
        vpc: ec2.CfnVPC,
        description: str,
        egress: ec2.CfnSecurityGroup.EgressProperty,
        *ingress: ec2.CfnSecurityGroup.IngressProperty,
    ) -> ec2.CfnSecurityGroup:
        return ec2.CfnSecurityGroup(
            self,
            f"{name}SecurityGroup",
            group_description=description,
            vpc_id=vpc.attr_vpc_id,
            security_group_egress=[egress],
            security_group_ingress=list(ingress) or None,
        )

    def _flow_logs(self, vpc: ec2.CfnVPC) -> None:
        key = TeamKey(self, "Key", encryption=None, lasting=True)
        group = logs.LogGroup(
            self,
            "FlowLogs",
            encryption_key=key.key,
            retention=logs.RetentionDays.ONE_YEAR,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        role = iam.Role(
            self,
            "FlowLogsRole",
            description="Lets the VPC write its flow logs",
            assumed_by=iam.ServicePrincipal(
                "vpc-flow-logs.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": self.account},
                    # The flow log's own ARN would be a circle: it is made with this role.
                    "ArnLike": {
                        "aws:SourceArn": self.format_arn(
                            service="ec2", resource="vpc-flow-log", resource_name="*"
                        )
                    },
                },
            ),
        )
        # The ARN of a log group ends in ":*", which stands for its streams: each interface has one.
        grant(
            role,
            allow(
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
                on=[group.log_group_arn],
            ),
        )
        ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=vpc.attr_vpc_id,
            resource_type="VPC",
            traffic_type="ALL",
            log_group_name=group.log_group_name,
            deliver_logs_permission_arn=role.role_arn,
        )


def _nowhere() -> ec2.CfnSecurityGroup.EgressProperty:
    """A rule that lets nothing out; without any rule EC2 lets everything out."""
    return ec2.CfnSecurityGroup.EgressProperty(
        description="Nobody has this address",
        ip_protocol="tcp",
        from_port=1,
        to_port=1,
        cidr_ip="255.255.255.255/32",
    )
