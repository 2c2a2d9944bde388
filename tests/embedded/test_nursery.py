"""Workers of the workflow's functions are forked, and are as good as those that were started."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

from rft.embedded.aws import ACCOUNT

Clients = Callable[[str], Any]

STEP = """
import os, sys

def handler(event, context):
    if event == "end":
        os._exit(3)
    return {
        "pid": os.getpid(),
        "has_boto3": "boto3" in sys.modules,
        "folder": os.path.realpath(__file__),
        "who": os.environ["WHO"],
        "names": sorted(os.environ),
        "region": sys.modules["boto3"].client("s3").meta.region_name if "boto3" in sys.modules else None,
    }
"""
ROLE = {
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ]
}


def created(client: Clients, name: str, module: str) -> str:
    """A function whose code is STEP, in that module."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        # Without a time, so that equal packages are equal bytes.
        archive.writestr(zipfile.ZipInfo(f"{module.replace('.', '/')}.py"), STEP)
    client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(ROLE))
    client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.14",
        Role=f"arn:aws:iam::{ACCOUNT}:role/{name}",
        Handler=f"{module}.handler",
        Code={"ZipFile": package.getvalue()},
        Environment={"Variables": {"WHO": name}},
    )
    return name


def invoked(client: Clients, name: str, event: Any = None) -> Any:
    answer = client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    return json.loads(answer["Payload"].read())


def test_a_forked_worker_knows_its_own_function_and_nothing_of_others(client: Clients) -> None:
    names = [created(client, name, "lambdas.workflow.step") for name in ("forked-one", "forked-two")]
    one, two = (invoked(client, name) for name in names)
    assert one["has_boto3"]
    assert two["has_boto3"]
    assert [one["who"], two["who"]] == names
    assert one["pid"] != two["pid"]
    # The same package lies in one folder.
    assert one["folder"] == two["folder"]
    assert one["region"] == "us-east-1"
    started = invoked(client, created(client, "started", "index"))
    assert not started["has_boto3"]
    assert started["folder"] != one["folder"]
    assert one["names"] == started["names"]


def test_a_forked_worker_that_ends_is_told_and_followed_by_another(client: Clients) -> None:
    name = created(client, "forked-ending", "lambdas.workflow.step")
    before = invoked(client, name)["pid"]
    assert "errorMessage" in invoked(client, name, "end")
    assert invoked(client, name)["pid"] != before
