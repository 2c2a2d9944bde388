"""The embedded AWS does what AWS does where this project depends on it; the plain emulator does not.

Each `test_..._still_open` runs the plain emulator: when one fails, that gap has closed there and the
function in rft/embedded/emulator.py that closes it can go.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rft.embedded.aws import ACCOUNT, REGION, EmbeddedAws
from rft.embedded.faults import Fault

ALLOWED_MODEL = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/aaaaaaaaaaaa"

WORKER = """
import boto3, json, os
s3 = boto3.client("s3")

class Flaky(Exception):
    pass

def handler(event, context):
    if event.get("do") == "fail":
        raise Flaky(event.get("why", "this one failed"))
    if event.get("do") == "forbidden":
        s3.get_object(Bucket=os.environ["BUCKET"], Key="secret")
    if event.get("do") == "environment":
        return dict(os.environ)
    if event.get("do") == "pid":
        return os.getpid()
    print("a line of the handler")
    key = event.get("key") or "seen/" + event["detail-type"].replace(" ", "-") + "/" + event["id"]
    s3.put_object(Bucket=os.environ["BUCKET"], Key=key, Body=json.dumps(event).encode())
    return {"key": key}
"""


def fan_out() -> dict[str, Any]:
    """A Distributed Map over the lines of an object; a line with "do": "fail" is retried, then caught."""
    return {
        "Type": "Map",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Arguments": {"Bucket": "${Bucket}", "Key": "{% $states.input.lines %}"},
        },
        "ItemSelector": {
            "key": "{% 'out/' & $string($states.context.Map.Item.Index) %}",
            "do": "{% $states.context.Map.Item.Value.do %}",
            "who": "{% $states.input.who %}",
        },
        "MaxConcurrency": "{% $states.input.concurrency %}",
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Work",
            "States": {
                "Work": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::lambda:invoke",
                    "Arguments": {"FunctionName": "${Worker}", "Payload": "{% $states.input %}"},
                    "Retry": [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 5, "MaxAttempts": 2}],
                    "Catch": [
                        {
                            "ErrorEquals": ["Flaky"],
                            "Output": {"failed": "{% $parse($states.errorOutput.Cause).errorMessage %}"},
                            "Next": "Caught",
                        }
                    ],
                    "Output": "{% $states.result.Payload %}",
                    "End": True,
                },
                "Caught": {"Type": "Pass", "End": True},
            },
        },
        "Output": {"results": "{% $states.result %}"},
        "End": True,
    }


def in_parallel() -> dict[str, Any]:
    def branch(output: str) -> dict[str, Any]:
        return {"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "Output": output, "End": True}}}

    return {
        "Type": "Parallel",
        "Arguments": {"n": "{% $states.input.n + 1 %}"},
        "Branches": [branch("{% $states.input.n * 10 %}"), branch("{% $states.input.n * 100 %}")],
        "Output": {"sum": "{% $sum($states.result) %}"},
        "End": True,
    }


def asking() -> dict[str, Any]:
    """A task that gives its token to the worker, which writes it to an object, and waits for an answer."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "Arguments": {
            "FunctionName": "${Worker}",
            "Payload": {
                "key": "{% $states.input.key %}",
                "do": "{% $states.input.do %}",
                "token": "{% $states.context.Task.Token %}",
            },
        },
        "TimeoutSeconds": "{% $states.input.seconds %}",
        "End": True,
    }


def sdk_task(resource: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"Type": "Task", "Resource": resource, "Arguments": arguments, "End": True}


def machine(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": "Only", "States": {"Only": state}}


def trust(service: str, **conditions: Any) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
        **conditions,
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def role(service: str, statements: list[dict[str, Any]], **conditions: Any) -> dict[str, Any]:
    """A role for a service; these tests, which are root, may assume it too."""
    document = {"Version": "2012-10-17", "Statement": statements}
    trusted = trust(service, **conditions)
    root = {"AWS": {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}}
    trusted["Statement"].append({"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"})
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": trusted,
            "Policies": [{"PolicyName": "Given", "PolicyDocument": document}],
        },
    }


def allow(actions: str | list[str], resource: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def arn(logical_id: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [logical_id, "Arn"]}


def within(logical_id: str) -> dict[str, Any]:
    return {"Fn::Sub": "${" + logical_id + ".Arn}/*"}


def workflow(state: Mapping[str, Any], role_id: str) -> dict[str, Any]:
    return {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {
            "RoleArn": arn(role_id),
            "DefinitionString": {"Fn::Sub": json.dumps(machine(state))},
            "Tags": [{"Key": "own", "Value": "machine"}],
        },
    }


def listener(pattern: Mapping[str, Any], function: str = "Worker") -> dict[str, Any]:
    return {
        "Type": "AWS::Events::Rule",
        "Properties": {"EventPattern": pattern, "Targets": [{"Id": "Only", "Arn": arn(function)}]},
    }


def may_invoke_worker(rule: str) -> dict[str, Any]:
    return {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "Action": "lambda:InvokeFunction",
            "FunctionName": arn("Worker"),
            "Principal": "events.amazonaws.com",
            "SourceArn": arn(rule),
        },
    }


def template() -> dict[str, Any]:
    all_machines = {"Fn::Sub": "arn:aws:states:${AWS::Region}:${AWS::AccountId}:stateMachine:*"}
    from_job = {
        "Condition": {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnEquals": {
                "aws:SourceArn": {
                    "Fn::Sub": "arn:aws:bedrock:${AWS::Region}:${AWS::AccountId}:model-customization-job/*"
                }
            },
        }
    }
    missing_job = sdk_task(
        "arn:aws:states:::aws-sdk:bedrock:getModelCustomizationJob", {"JobIdentifier": "no-such-job"}
    )
    parameter = sdk_task("arn:aws:states:::aws-sdk:ssm:getParameter", {"Name": "{% $states.input.name %}"})
    resources: dict[str, Any] = {
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "Tags": [{"Key": "own", "Value": "bucket"}],
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [
                        {
                            "BucketKeyEnabled": True,
                            "ServerSideEncryptionByDefault": {
                                "SSEAlgorithm": "aws:kms",
                                "KMSMasterKeyID": arn("Key"),
                            },
                        }
                    ]
                },
                "LifecycleConfiguration": {
                    "Rules": [
                        {
                            "Id": "old",
                            "Status": "Enabled",
                            "Prefix": "runs/",
                            "ExpirationInDays": 30,
                            "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
                            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                        }
                    ]
                },
                "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
            },
        },
        "BucketPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": "Bucket"},
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Deny",
                            "Principal": {"AWS": "*"},
                            "Action": "s3:*",
                            "Resource": [arn("Bucket"), within("Bucket")],
                            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                        }
                    ],
                },
            },
        },
        "Key": {
            "Type": "AWS::KMS::Key",
            "Properties": {
                "KeyPolicy": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"AWS": {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}},
                            "Action": "kms:*",
                            "Resource": "*",
                        }
                    ],
                }
            },
        },
        "WorkerRole": role(
            "lambda.amazonaws.com",
            [
                allow("s3:PutObject", {"Fn::Sub": "${Bucket.Arn}/*"}),
                allow("kms:GenerateDataKey", arn("Key")),
                allow(["logs:CreateLogStream", "logs:PutLogEvents"], arn("WorkerLogs")),
            ],
        ),
        "Guest": role(
            "lambda.amazonaws.com",
            [
                allow(["s3:GetObject", "s3:PutObject"], within("Bucket")),
                allow("sns:Publish", {"Ref": "Topic"}),
                allow("bedrock:InvokeModel", ALLOWED_MODEL),
                allow("bedrock:CreateModelCustomizationJob", "*"),
            ],
        ),
        "Stranger": role("lambda.amazonaws.com", [allow("s3:ListAllMyBuckets", "*")]),
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"KmsMasterKeyId": arn("Key")}},
        "PlainTopic": {"Type": "AWS::SNS::Topic", "Properties": {}},
        "QuietLogs": {"Type": "AWS::Logs::LogGroup", "Properties": {}},
        "Quiet": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.14",
                "Handler": "index.handler",
                "Role": arn("Stranger"),
                "Code": {"ZipFile": "def handler(event, context):\n    print('unheard')\n    return 1\n"},
                "LoggingConfig": {"LogGroup": {"Ref": "QuietLogs"}},
            },
        },
        "UploadsUnheard": listener(
            {"source": ["test"], "detail-type": ["Nobody May Hear This"]}, function="Quiet"
        ),
        "Reader": role("lambda.amazonaws.com", [allow("s3:GetObject", "*")]),
        "WorkerLogs": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 7}},
        "Worker": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.14",
                "Handler": "index.handler",
                "Role": arn("WorkerRole"),
                "Code": {"ZipFile": WORKER},
                "Environment": {"Variables": {"BUCKET": {"Ref": "Bucket"}}},
                "LoggingConfig": {"LogGroup": {"Ref": "WorkerLogs"}},
                "Timeout": 60,
            },
        },
        "Fails": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {"source": ["test"], "detail-type": ["Fail"]},
                "Targets": [
                    {
                        "Id": "Only",
                        "Arn": arn("Worker"),
                        "Input": json.dumps({"do": "fail", "why": "by the rule"}),
                    }
                ],
            },
        },
        **{f"MayInvokeFrom{rule}": may_invoke_worker(rule) for rule in ("Uploads", "Ends", "Fails")},
        "MachineRole": role(
            "states.amazonaws.com",
            [
                allow("lambda:InvokeFunction", arn("Worker")),
                allow("s3:GetObject", within("Bucket")),
                allow("kms:Decrypt", arn("Key")),
                allow("states:StartExecution", all_machines),
                allow(["ssm:GetParameter", "bedrock:GetModelCustomizationJob", "sns:Publish"], "*"),
            ],
        ),
        "PowerlessRole": role("states.amazonaws.com", [allow("s3:ListAllMyBuckets", "*")]),
        "ForeignRole": role("ec2.amazonaws.com", [allow("*", "*")]),
        "JobRole": role(
            "bedrock.amazonaws.com",
            [
                allow("s3:GetObject", within("Bucket")),
                allow("kms:Decrypt", arn("Key")),
                allow("lambda:InvokeFunction", arn("Worker")),
            ],
            **from_job,
        ),
        "OwnJobs": role(
            "lambda.amazonaws.com",
            [
                {
                    **allow(["bedrock:GetModelCustomizationJob", "bedrock:StopModelCustomizationJob"], "*"),
                    "Condition": {"StringEquals": {"aws:ResourceTag/team": "quotes"}},
                }
            ],
        ),
        "Named": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "none"}},
        "Publish": workflow(
            sdk_task("arn:aws:states:::sns:publish", {"TopicArn": "${PlainTopic}", "Message": "done"}),
            "MachineRole",
        ),
        "Unknown": workflow(sdk_task("arn:aws:states:::sqs:sendMessage", {}), "MachineRole"),
        "FanOut": workflow(fan_out(), "MachineRole"),
        "FanOutPowerless": workflow(fan_out(), "PowerlessRole"),
        "InParallel": workflow(in_parallel(), "MachineRole"),
        "Asking": workflow(asking(), "MachineRole"),
        "Job": workflow(missing_job, "MachineRole"),
        "Parameter": workflow(parameter, "MachineRole"),
        "ParameterPowerless": workflow(parameter, "PowerlessRole"),
        "ParameterForeign": workflow(parameter, "ForeignRole"),
        "Uploads": listener(
            {
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [{"Ref": "Bucket"}]},
                    "object": {"key": [{"prefix": "incoming/"}]},
                },
            }
        ),
        "Ends": listener(
            {
                "source": ["aws.states"],
                "detail-type": ["Step Functions Execution Status Change"],
                "detail": {"status": ["ABORTED", "FAILED"], "stateMachineArn": [{"Ref": "Parameter"}]},
            }
        ),
    }
    outputs = {
        name: {"Value": arn(name) if resource["Type"].endswith("::Role") else {"Ref": name}}
        for name, resource in resources.items()
        if not resource["Type"].endswith(("Permission", "Policy"))
    }
    return {"Resources": resources, "Outputs": outputs}


Clients = Callable[[str], Any]
ActingAs = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def stack(client: Clients, deploy_template: Callable[..., dict[str, str]]) -> dict[str, str]:
    return deploy_template(client, "emulator", {"team": "quotes"}, TemplateBody=json.dumps(template()))


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, clients_of: Callable[[str], Clients]
) -> Iterator[Clients]:
    """Clients of the emulator as it is, without any change of ours."""
    folder = tmp_path_factory.mktemp("plain")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "SFN_WAIT_SCALE": "0.01",
        "DOCKER_HOST": f"unix://{folder}/no-docker",
    }
    command = [sys.executable, "-m", "ministack.app"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/_ministack/health"), 60)
        yield clients_of(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def plain_stack(plain: Clients, deploy_template: Callable[..., dict[str, str]]) -> dict[str, str]:
    return deploy_template(plain, "emulator", {"team": "quotes"}, TemplateBody=json.dumps(template()))


def answers(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing after {seconds} s")


def run(client: Clients, state_machine: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a workflow to its end; its description, with the output parsed."""
    states = client("stepfunctions")
    started = states.start_execution(stateMachineArn=state_machine, input=json.dumps(given))["executionArn"]

    def ended() -> Any:
        found = states.describe_execution(executionArn=started)
        return found if found["status"] != "RUNNING" else None

    found: dict[str, Any] = wait_for(ended, 60)
    return {**found, "output": json.loads(found.get("output") or "null")}


def invoke(client: Clients, function: str, event: Mapping[str, Any]) -> tuple[Any, str | None]:
    answer = client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
    return json.loads(answer["Payload"].read()), answer.get("FunctionError")


def put_lines(client: Clients, bucket: str) -> str:
    lines = [{"do": "write"}, {"do": "fail"}, {"do": "write"}]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    client("s3").put_object(Bucket=bucket, Key="lines.jsonl", Body=body)
    return "lines.jsonl"


HELLO = {"role": "user", "content": [{"text": "hello"}]}
UNHEARD = {"Source": "test", "DetailType": "Nobody May Hear This", "Detail": "{}"}
FAN_OUT = {"lines": "lines.jsonl", "who": "me", "concurrency": 2}

# --- Lambda -------------------------------------------------------------------------------------


def test_a_failed_function_gives_the_name_of_its_exception(client: Clients, stack: dict[str, str]) -> None:
    payload, error = invoke(client, stack["Worker"], {"do": "fail"})
    assert error == "Unhandled"
    assert payload["errorType"] == "Flaky"
    assert payload["errorMessage"] == "this one failed"
    assert "raise Flaky" in payload["stackTrace"][-1]


def test_a_failure_costs_no_cold_start(client: Clients, stack: dict[str, str]) -> None:
    before = invoke(client, stack["Worker"], {"do": "pid"})
    invoke(client, stack["Worker"], {"do": "fail"})
    assert invoke(client, stack["Worker"], {"do": "pid"}) == before


def test_a_failure_is_in_the_log(client: Clients, stack: dict[str, str]) -> None:
    invoke(client, stack["Worker"], {"do": "fail", "why": "for the log"})
    found = client("logs").filter_log_events(
        logGroupName=stack["WorkerLogs"], filterPattern='"[ERROR] Flaky: for the log"'
    )
    assert found["events"][0]["message"] == "[ERROR] Flaky: for the log"


def test_the_failure_of_a_function_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    before = invoke(plain, plain_stack["Worker"], {"do": "pid"})
    payload, _ = invoke(plain, plain_stack["Worker"], {"do": "fail"})
    assert payload["errorType"] == "Runtime.HandlerError"
    assert invoke(plain, plain_stack["Worker"], {"do": "pid"}) != before


def test_a_function_may_only_do_what_its_role_allows(
    aws: EmbeddedAws, client: Clients, stack: dict[str, str]
) -> None:
    client("s3").put_object(Bucket=stack["Bucket"], Key="secret", Body=b"1")
    payload, _ = invoke(client, stack["Worker"], {"do": "forbidden"})
    assert "AccessDenied" in payload["errorMessage"]
    assert f"s3:GetObject on resource: arn:aws:s3:::{stack['Bucket']}/secret" in payload["errorMessage"]
    [call] = [call for call in aws.calls() if call["resource"].endswith("/secret") and not call["allowed"]]
    assert call["principal"] == stack["WorkerRole"]
    assert (call["action"], call["status"], call["service"]) == ("s3:GetObject", 403, "s3")


def test_a_function_sees_nothing_of_this_environment(
    client: Clients, stack: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, _ = invoke(client, stack["Worker"], {"do": "environment"})
    leaked = {name for name, value in os.environ.items() if environment.get(name) == value} - {
        "PATH",
        "LC_CTYPE",
    }
    assert leaked == set()
    assert environment["AWS_ACCESS_KEY_ID"].startswith("ASIA")


def test_what_a_function_prints_is_in_its_log_group(client: Clients, stack: dict[str, str]) -> None:
    invoke(client, stack["Worker"], {"key": "printed"})
    found = client("logs").filter_log_events(
        logGroupName=stack["WorkerLogs"], filterPattern='"a line of the handler"'
    )
    assert "a line of the handler" in found["events"][-1]["message"]


# --- CloudFormation -----------------------------------------------------------------------------


def test_a_bucket_has_the_properties_of_the_template(client: Clients, stack: dict[str, str]) -> None:
    s3, bucket = client("s3"), stack["Bucket"]
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}
    assert tags["own"] == "bucket"
    assert tags["team"] == "quotes"
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert stack["Key"] in rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["Filter"] == {"Prefix": "runs/"}
    assert rule["Expiration"] == {"Days": 30}
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_the_properties_of_a_bucket_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    s3, bucket = plain("s3"), plain_stack["Bucket"]
    with pytest.raises(ClientError, match="NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_stack_tags_reach_the_state_machine(client: Clients, stack: dict[str, str]) -> None:
    found = client("stepfunctions").list_tags_for_resource(resourceArn=stack["FanOut"])["tags"]
    tags = {tag["key"]: tag["value"] for tag in found}
    assert tags["own"] == "machine"
    assert tags["team"] == "quotes"
    assert tags["aws:cloudformation:stack-name"] == "emulator"


def test_a_parameter_without_a_name_gets_one_without_a_slash(client: Clients, stack: dict[str, str]) -> None:
    assert stack["Named"].startswith("CFN-Named-")
    assert client("ssm").get_parameter(Name=stack["Named"])["Parameter"]["Value"] == "none"


def test_the_name_of_a_parameter_still_open(plain_stack: dict[str, str]) -> None:
    assert plain_stack["Named"].startswith("/")


# --- loopback counts as TLS ---------------------------------------------------------------------


BUDGET = {
    "Type": "AWS::Budgets::Budget",
    "Properties": {
        "Budget": {
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": {"Amount": 200, "Unit": "USD"},
            "CostFilters": {"TagKeyValue": ["user:rft:environment$here"]},
        },
        "NotificationsWithSubscribers": [
            {
                "Notification": {
                    "NotificationType": "ACTUAL",
                    "ComparisonOperator": "GREATER_THAN",
                    "Threshold": 80,
                },
                "Subscribers": [{"SubscriptionType": "SNS", "Address": "arn:aws:sns:us-east-1:1:topic"}],
            }
        ],
    },
}


def budget_template(**limit: Any) -> str:
    budget = json.loads(json.dumps(BUDGET))
    budget["Properties"]["Budget"]["BudgetLimit"].update(limit)
    return json.dumps({"Resources": {"Budget": budget}, "Outputs": {"Name": {"Value": {"Ref": "Budget"}}}})


def test_a_stack_may_have_a_budget(client: Clients, deploy_template: Callable[..., dict[str, str]]) -> None:
    name = deploy_template(client, "budgeted", {}, TemplateBody=budget_template())["Name"]
    asked = {"AccountId": ACCOUNT, "BudgetName": name}

    def limit() -> str:
        return str(client("budgets").describe_budget(**asked)["Budget"]["BudgetLimit"]["Amount"])

    assert limit() == "200"
    (notice,) = client("budgets").describe_notifications_for_budget(**asked)["Notifications"]
    assert (notice["NotificationType"], notice["Threshold"]) == ("ACTUAL", 80)
    assert deploy_template(client, "budgeted", {}, TemplateBody=budget_template(Amount=300))["Name"] == name
    assert limit() == "300"
    client("cloudformation").delete_stack(StackName="budgeted")
    wait_for(
        lambda: (
            name
            not in [
                each["BudgetName"]
                for each in client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]
            ]
        )
    )


def test_budgets_of_a_stack_still_open(
    plain: Clients, deploy_template: Callable[..., dict[str, str]]
) -> None:
    with pytest.raises((AssertionError, ClientError), match=r"(?i)unrecognized|unsupported"):
        deploy_template(plain, "budgeted", {}, TemplateBody=budget_template())


def test_a_role_may_use_a_bucket_that_wants_tls(client: Clients, stack: dict[str, str]) -> None:
    payload, error = invoke(client, stack["Worker"], {"key": "tls"})
    assert (payload, error) == ({"key": "tls"}, None)


def test_a_bucket_that_wants_tls_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    payload, _ = invoke(plain, plain_stack["Worker"], {"key": "tls"})
    assert "explicit deny" in payload["errorMessage"]


# --- what a call needs besides its own action ---------------------------------------------------


@pytest.fixture(scope="module")
def acting_as(client: Clients, stack: dict[str, str]) -> ActingAs:
    """Makes a client with the permissions of a role of the stack: acting_as(role, service)."""
    return partial(client_as, client, stack)


@pytest.fixture(scope="module")
def plain_acting_as(plain: Clients, plain_stack: dict[str, str]) -> ActingAs:
    return partial(client_as, plain, plain_stack)


def client_as(client: Clients, stack: dict[str, str], role_id: str, service: str) -> Any:
    assumed = client("sts").assume_role(RoleArn=stack[role_id], RoleSessionName="test")["Credentials"]
    # Typed for every service by name, which is not known here.
    session: Any = boto3.session.Session()
    return session.client(
        service,
        region_name=REGION,
        endpoint_url=client("sts").meta.endpoint_url,
        aws_access_key_id=assumed["AccessKeyId"],
        aws_secret_access_key=assumed["SecretAccessKey"],
        aws_session_token=assumed["SessionToken"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def test_an_encrypted_object_needs_its_key(
    client: Clients, stack: dict[str, str], acting_as: ActingAs
) -> None:
    client("s3").put_object(Bucket=stack["Bucket"], Key="encrypted", Body=b"1")
    guest, here = acting_as("Guest", "s3"), {"Bucket": stack["Bucket"], "Key": "encrypted"}
    assert guest.head_object(**here)["SSEKMSKeyId"].endswith(stack["Key"])
    with pytest.raises(ClientError, match=r"kms:Decrypt on resource: arn:aws:kms:.*" + stack["Key"]):
        guest.get_object(**here)
    with pytest.raises(ClientError, match="kms:GenerateDataKey on resource"):
        guest.put_object(**here, Body=b"2")
    with pytest.raises(ClientError, match="kms:GenerateDataKey on resource"):
        guest.create_multipart_upload(**here)


def test_only_who_may_list_is_told_that_an_object_is_missing(
    client: Clients, stack: dict[str, str], acting_as: ActingAs
) -> None:
    with pytest.raises(ClientError, match="NoSuchKey"):
        client("s3").get_object(Bucket=stack["Bucket"], Key="missing")
    with pytest.raises(ClientError, match=r"AccessDenied.*s3:ListBucket"):
        acting_as("Guest", "s3").get_object(Bucket=stack["Bucket"], Key="missing")


def test_a_topic_takes_messages_only_from_who_may_send_them(
    client: Clients, stack: dict[str, str], acting_as: ActingAs
) -> None:
    client("sns").publish(TopicArn=stack["Topic"], Message="from root")
    with pytest.raises(ClientError, match="kms:GenerateDataKey on resource"):
        acting_as("Guest", "sns").publish(TopicArn=stack["Topic"], Message="without the key")
    with pytest.raises(ClientError, match=r"AuthorizationError.*sns:Publish"):
        acting_as("Stranger", "sns").publish(TopicArn=stack["PlainTopic"], Message="not allowed")


def test_a_function_without_permission_leaves_no_log(client: Clients, stack: dict[str, str]) -> None:
    assert invoke(client, stack["Quiet"], {}) == (1, None)
    assert client("logs").filter_log_events(logGroupName=stack["QuietLogs"])["events"] == []


def test_a_rule_without_permission_invokes_nothing(
    aws: EmbeddedAws, client: Clients, stack: dict[str, str]
) -> None:
    assert client("events").put_events(Entries=[UNHEARD])["FailedEntryCount"] == 0
    wait_for(lambda: f"may not be invoked by {rule_arn(client, stack)}" in aws.log_file.read_text())


def rule_arn(client: Clients, stack: dict[str, str]) -> str:
    return str(client("events").describe_rule(Name=stack["UploadsUnheard"].split("/")[-1])["Arn"])


def test_a_model_is_invoked_under_the_action_and_resource_of_aws(
    aws: EmbeddedAws, stack: dict[str, str], acting_as: ActingAs
) -> None:
    guest = acting_as("Guest", "bedrock-runtime")
    other = ALLOWED_MODEL.replace("aaaaaaaaaaaa", "bbbbbbbbbbbb")
    with pytest.raises(ClientError, match=f"AccessDenied.*bedrock:InvokeModel on resource: {other}"):
        guest.converse(modelId=other, messages=[HELLO])
    # Allowed: there is no such deployment, but that is another refusal.
    with pytest.raises(ClientError, match=r"^(?!.*AccessDenied)"):
        guest.converse(modelId=ALLOWED_MODEL, messages=[HELLO])
    mine = [call for call in aws.calls() if call["principal"] == stack["Guest"]]
    asked = {(call["action"], call["resource"], call["allowed"]) for call in mine}
    assert ("bedrock:InvokeModel", ALLOWED_MODEL, True) in asked
    assert ("bedrock:InvokeModel", other, False) in asked


def test_a_job_needs_the_right_to_pass_its_role(stack: dict[str, str], acting_as: ActingAs) -> None:
    with pytest.raises(ClientError, match=f"iam:PassRole on resource: {stack['JobRole']}"):
        acting_as("Guest", "bedrock").create_model_customization_job(**job(stack))


def test_the_key_of_an_object_still_open(
    plain: Clients, plain_stack: dict[str, str], plain_acting_as: ActingAs
) -> None:
    bucket = "unencrypted-policy"
    plain("s3").create_bucket(Bucket=bucket)
    encryption = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": plain_stack["Key"]}
    plain("s3").put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": encryption}]},
    )
    plain("s3").put_object(Bucket=bucket, Key="encrypted", Body=b"1")
    assert plain_acting_as("Reader", "s3").get_object(Bucket=bucket, Key="encrypted")["Body"].read() == b"1"


def test_a_missing_object_still_open(plain: Clients, plain_acting_as: ActingAs) -> None:
    plain("s3").create_bucket(Bucket="empty-bucket")
    with pytest.raises(ClientError, match="NoSuchKey"):
        plain_acting_as("Reader", "s3").get_object(Bucket="empty-bucket", Key="missing")


def test_the_default_policy_of_a_topic_still_open(
    plain_stack: dict[str, str], plain_acting_as: ActingAs
) -> None:
    stranger = plain_acting_as("Stranger", "sns")
    assert stranger.publish(TopicArn=plain_stack["PlainTopic"], Message="not allowed")["MessageId"]


def test_the_action_of_converse_still_open(plain_acting_as: ActingAs) -> None:
    with pytest.raises(ClientError, match="bedrock:Converse"):
        plain_acting_as("Guest", "bedrock-runtime").converse(modelId=ALLOWED_MODEL, messages=[HELLO])


def test_the_right_to_pass_a_role_still_open(plain_stack: dict[str, str], plain_acting_as: ActingAs) -> None:
    assert plain_acting_as("Guest", "bedrock").create_model_customization_job(**job(plain_stack))["jobArn"]


def test_the_log_of_a_function_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    invoke(plain, plain_stack["Quiet"], {})
    assert plain("logs").filter_log_events(logGroupName=plain_stack["QuietLogs"])["events"]


def test_a_job_is_reached_by_its_tags(client: Clients, stack: dict[str, str], acting_as: ActingAs) -> None:
    rows = b"".join(
        json.dumps(
            {"messages": [{"role": "user", "content": f"{n} + {n}?"}], "reference_answer": {"answer": n}}
        ).encode()
        + b"\n"
        for n in range(100)
    )
    client("s3").put_object(Bucket=stack["Bucket"], Key="train.jsonl", Body=rows)
    own = acting_as("OwnJobs", "bedrock")
    for team, name in (("quotes", "ours"), ("support", "theirs")):
        tags = [{"key": "team", "value": team}]
        client("bedrock").create_model_customization_job(
            **{**job(stack), "jobName": name, "customModelName": name, "jobTags": tags}
        )
    assert own.get_model_customization_job(jobIdentifier="ours")["jobName"] == "ours"
    with pytest.raises(ClientError, match=r"bedrock:GetModelCustomizationJob on resource: arn:.*-job/amazon"):
        own.get_model_customization_job(jobIdentifier="theirs")


def test_the_tags_of_a_job_still_open(plain_stack: dict[str, str], plain_acting_as: ActingAs) -> None:
    tags = [{"key": "team", "value": "quotes"}]
    made = plain_acting_as("Guest", "bedrock").create_model_customization_job(
        **{**job(plain_stack), "jobName": "tagged", "customModelName": "tagged", "jobTags": tags}
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        plain_acting_as("OwnJobs", "bedrock").get_model_customization_job(jobIdentifier=made["jobArn"])


def test_a_rule_without_permission_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    plain("events").put_events(Entries=[UNHEARD])
    group = plain_stack["QuietLogs"]
    wait_for(lambda: len(plain("logs").filter_log_events(logGroupName=group)["events"]) > 4)


def job(stack: dict[str, str]) -> dict[str, Any]:
    return {
        "jobName": "job",
        "customModelName": "model",
        "roleArn": stack["JobRole"],
        "baseModelIdentifier": "amazon.nova-2-lite-v1:0:256k",
        "trainingDataConfig": {"s3Uri": f"s3://{stack['Bucket']}/train.jsonl"},
        "outputDataConfig": {"s3Uri": f"s3://{stack['Bucket']}/output/"},
        "customizationType": "REINFORCEMENT_FINE_TUNING",
        "customizationConfig": {
            "rftConfig": {"graderConfig": {"lambdaGrader": {"lambdaArn": function_arn(stack["Worker"])}}}
        },
    }


def function_arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


# --- Step Functions -----------------------------------------------------------------------------


def test_a_distributed_map_reads_fans_out_retries_and_catches(
    aws: EmbeddedAws, client: Clients, stack: dict[str, str]
) -> None:
    put_lines(client, stack["Bucket"])
    before = len(list(aws.calls()))
    found = run(client, stack["FanOut"], FAN_OUT)
    assert found["status"] == "SUCCEEDED", found
    assert found["output"] == {"results": [{"key": "out/0"}, {"failed": "this one failed"}, {"key": "out/2"}]}
    written = json.loads(client("s3").get_object(Bucket=stack["Bucket"], Key="out/2")["Body"].read())
    assert written == {"key": "out/2", "do": "write", "who": "me"}
    calls = list(aws.calls())[before:]
    by_machine = [call["action"] for call in calls if call["principal"] == stack["MachineRole"]]
    # The failing line is tried three times.
    assert by_machine.count("lambda:InvokeFunction") == 5
    assert {"s3:GetObject", "states:StartExecution"} <= set(by_machine)


def test_a_distributed_map_needs_its_permissions(client: Clients, stack: dict[str, str]) -> None:
    put_lines(client, stack["Bucket"])
    found = run(client, stack["FanOutPowerless"], FAN_OUT)
    assert (found["status"], found["error"]) == ("FAILED", "States.Permissions")
    assert "states:StartExecution" in found["cause"]


def test_distributed_map_in_jsonata_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    put_lines(plain, plain_stack["Bucket"])
    found = run(plain, plain_stack["FanOut"], FAN_OUT)
    assert found["status"] == "FAILED"
    assert "{%" in found["cause"]


def test_branches_run_in_parallel_on_their_arguments(client: Clients, stack: dict[str, str]) -> None:
    assert run(client, stack["InParallel"], {"n": 1})["output"] == {"sum": 220}


def test_parallel_in_jsonata_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    assert run(plain, plain_stack["InParallel"], {"n": 1})["output"] == [10, 100]


def asked(client: Clients, stack: dict[str, str], key: str) -> tuple[str, str]:
    """The ARN of a workflow that waits for an answer, and the token to answer it with."""
    given = {"key": key, "do": "write", "seconds": 60}
    execution = client("stepfunctions").start_execution(
        stateMachineArn=stack["Asking"], input=json.dumps(given)
    )["executionArn"]

    def written() -> Any:
        found = client("s3").list_objects_v2(Bucket=stack["Bucket"], Prefix=key)
        return found.get("Contents")

    wait_for(written)
    event = json.loads(client("s3").get_object(Bucket=stack["Bucket"], Key=key)["Body"].read())
    return execution, event["token"]


def test_a_task_waits_for_whoever_has_its_token_and_the_permission(
    client: Clients, stack: dict[str, str], acting_as: ActingAs
) -> None:
    execution, token = asked(client, stack, "token/answered")
    with pytest.raises(ClientError) as caught:
        acting_as("WorkerRole", "stepfunctions").send_task_success(taskToken=token, output="{}")
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    # A policy can name the state machine, and needs to.
    assert f"states:SendTaskSuccess on resource: {stack['Asking']}" in str(caught.value)
    client("stepfunctions").send_task_success(taskToken=token, output='{"said": "yes"}')

    def output() -> Any:
        return client("stepfunctions").describe_execution(executionArn=execution).get("output")

    assert json.loads(wait_for(output)) == {"said": "yes"}
    with pytest.raises(client("stepfunctions").exceptions.TaskDoesNotExist):
        client("stepfunctions").send_task_success(taskToken=token, output="{}")


def test_a_task_waits_as_long_as_it_says(client: Clients, stack: dict[str, str]) -> None:
    found = run(client, stack["Asking"], {"key": "token/late", "do": "write", "seconds": 1})
    assert (found["status"], found["error"]) == ("FAILED", "States.Timeout")


def test_a_task_whose_function_fails_waits_for_nobody(client: Clients, stack: dict[str, str]) -> None:
    found = run(client, stack["Asking"], {"key": "token/none", "do": "fail", "seconds": 60})
    assert (found["status"], found["error"]) == ("FAILED", "Flaky")


def test_the_token_of_a_workflow_that_was_stopped_is_void(client: Clients, stack: dict[str, str]) -> None:
    execution, token = asked(client, stack, "token/stopped")
    states = client("stepfunctions")
    states.stop_execution(executionArn=execution)

    def void() -> bool:
        try:
            states.send_task_heartbeat(taskToken=token)
        except states.exceptions.TaskDoesNotExist:
            return True
        return False

    wait_for(void)
    assert states.describe_execution(executionArn=execution)["status"] == "ABORTED"


def test_waiting_for_a_token_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    # The expression is no number to it; on AWS it is evaluated.
    found = run(plain, plain_stack["Asking"], {"key": "token/plain", "do": "write", "seconds": 1})
    assert found["error"] == "States.Runtime"


def attempts_after_the_end(client: Clients, stack: dict[str, str]) -> int:
    """How often an execution goes on trying something that never works when it was stopped."""
    states = client("stepfunctions")
    role = states.describe_state_machine(stateMachineArn=stack["Job"])["roleArn"]
    retry = {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 1000}
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:ssm:getParameter",
        "Arguments": {"Name": "/not/there"},
        "Retry": [retry],
        "End": True,
    }
    machine_arn = states.create_state_machine(
        name="Tireless", definition=json.dumps(machine(state)), roleArn=role
    )["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine_arn)["executionArn"]

    def attempts() -> int:
        history = states.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return sum(event["type"] == "TaskScheduled" for event in history)

    wait_for(lambda: attempts() >= 2)
    states.stop_execution(executionArn=execution)
    time.sleep(0.3)
    before = attempts()
    time.sleep(0.3)
    more = attempts() - before
    states.delete_state_machine(stateMachineArn=machine_arn)
    return more


def test_an_execution_that_was_stopped_tries_nothing_more(client: Clients, stack: dict[str, str]) -> None:
    assert attempts_after_the_end(client, stack) == 0


def test_a_stopped_execution_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    assert attempts_after_the_end(plain, plain_stack) > 0


def test_a_call_meets_the_fault_it_was_given(aws: EmbeddedAws, client: Clients) -> None:
    client("ssm").put_parameter(Name="/faulty", Value="1", Type="String", Overwrite=True)
    fault = Fault(
        action="ssm:GetParameter", about="/faulty", error="InternalServerError", status=500, times=1
    )
    with aws.give(fault) as given:
        with pytest.raises(ClientError, match="InternalServerError"):
            client("ssm").get_parameter(Name="/faulty")
        # Once it was, and of others it never is.
        assert client("ssm").get_parameter(Name="/faulty")["Parameter"]["Value"] == "1"
        assert given.lift() == 1


def test_a_call_is_held_until_its_fault_is_lifted(aws: EmbeddedAws, client: Clients) -> None:
    held = aws.give(Fault(action="ssm:PutParameter", about="/held", does="hold"))
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(client("ssm").put_parameter, Name="/held", Value="1", Type="String")
        assert held.held(10)
        with pytest.raises(client("ssm").exceptions.ParameterNotFound):
            client("ssm").get_parameter(Name="/held")
        held.lift()
        put.result()
    assert client("ssm").get_parameter(Name="/held")["Parameter"]["Value"] == "1"


def test_an_sdk_task_calls_bedrock(client: Clients, stack: dict[str, str]) -> None:
    found = run(client, stack["Job"], {})
    assert found["error"] == "Bedrock.ResourceNotFoundException"


def test_sdk_tasks_for_bedrock_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    found = run(plain, plain_stack["Job"], {})
    assert "Service 'bedrock' is not supported" in found["cause"]


def test_an_sdk_task_speaks_the_names_of_step_functions(client: Clients, stack: dict[str, str]) -> None:
    client("ssm").put_parameter(Name="/a", Value="1", Type="String", Overwrite=True)
    found = run(client, stack["Parameter"], {"name": "/a"})
    assert found["output"]["Parameter"]["Value"] == "1"
    assert found["output"]["Parameter"]["Arn"].endswith(":parameter/a")
    assert run(client, stack["Parameter"], {"name": "/none"})["error"] == "Ssm.ParameterNotFoundException"


def test_a_task_runs_as_the_role_of_its_state_machine(client: Clients, stack: dict[str, str]) -> None:
    found = run(client, stack["ParameterPowerless"], {"name": "/a"})
    assert found["error"] == "Ssm.AccessDeniedException"
    assert "is not authorized to perform: ssm:GetParameter on resource" in found["cause"]
    assert stack["PowerlessRole"].rsplit("/", 1)[-1] in found["cause"]
    found = run(client, stack["ParameterForeign"], {"name": "/a"})
    assert found["error"] == "States.Permissions"
    assert "sts:AssumeRole" in found["cause"]


def test_a_workflow_may_publish(aws: EmbeddedAws, client: Clients, stack: dict[str, str]) -> None:
    found = run(client, stack["Publish"], {})
    assert found["output"]["MessageId"]
    mine = [call for call in aws.calls() if call["action"] == "sns:Publish" and call["allowed"]]
    assert (mine[-1]["principal"], mine[-1]["resource"]) == (stack["MachineRole"], stack["PlainTopic"])


def test_a_task_that_would_not_be_authorized_is_refused(client: Clients, stack: dict[str, str]) -> None:
    found = run(client, stack["Unknown"], {})
    assert found["error"] == "States.Runtime"
    assert "sqs:sendMessage does not run on the embedded AWS" in found["cause"]


def test_tasks_without_a_role_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    plain("ssm").put_parameter(Name="/a", Value="1", Type="String", Overwrite=True)
    assert run(plain, plain_stack["ParameterPowerless"], {"name": "/a"})["status"] == "SUCCEEDED"


# --- events -------------------------------------------------------------------------------------


def seen(client: Clients, bucket: str, kind: str) -> list[dict[str, Any]]:
    found = client("s3").list_objects_v2(Bucket=bucket, Prefix=f"seen/{kind}/").get("Contents", [])
    return [
        json.loads(client("s3").get_object(Bucket=bucket, Key=each["Key"])["Body"].read()) for each in found
    ]


def test_an_upload_reaches_a_function_by_its_prefix(client: Clients, stack: dict[str, str]) -> None:
    s3, bucket = client("s3"), stack["Bucket"]
    s3.put_object(Bucket=bucket, Key="elsewhere/train.jsonl", Body=b"x")
    s3.put_object(Bucket=bucket, Key="incoming/a/train.jsonl", Body=b"x")
    [event] = wait_for(lambda: seen(client, bucket, "Object-Created"))
    assert event["detail"]["object"]["key"] == "incoming/a/train.jsonl"
    assert event["detail"]["bucket"]["name"] == bucket


def test_the_end_of_a_workflow_is_an_event(client: Clients, stack: dict[str, str]) -> None:
    run(client, stack["Parameter"], {"name": "/none"})
    kind = "Step-Functions-Execution-Status-Change"
    event = wait_for(lambda: seen(client, stack["Bucket"], kind))[0]
    assert event["detail"]["status"] == "FAILED"
    assert event["detail"]["stateMachineArn"] == stack["Parameter"]


def test_a_function_that_fails_is_called_again(client: Clients, stack: dict[str, str]) -> None:
    client("events").put_events(Entries=[{"Source": "test", "DetailType": "Fail", "Detail": "{}"}])
    wait_for(lambda: attempts(client, stack) == 3)


def test_a_function_that_fails_still_open(plain: Clients, plain_stack: dict[str, str]) -> None:
    plain("events").put_events(Entries=[{"Source": "test", "DetailType": "Fail", "Detail": "{}"}])
    wait_for(lambda: attempts(plain, plain_stack) == 1)
    # The second attempt would come after a second.
    time.sleep(2)
    assert attempts(plain, plain_stack) == 1


def attempts(client: Clients, stack: dict[str, str]) -> int:
    """How often the function was called by the rule "Fails": each time its log says so."""
    found = client("logs").filter_log_events(logGroupName=stack["WorkerLogs"])["events"]
    return len({event["logStreamName"] for event in found if "Flaky: by the rule" in event["message"]})
