"""One embedded AWS for all embedded tests, and what `cdk deploy` does, without Node."""

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rft.embedded.aws import ACCOUNT, REGION, EmbeddedAws
from rft.packaging import package

REPOSITORY = Path(__file__).resolve().parents[2]

Clients = Callable[[str], Any]
Deploy = Callable[..., dict[str, str]]
Synthesize = Callable[[Path, str, str], Path]


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAws]:
    """The embedded AWS of the session."""
    with EmbeddedAws(tmp_path_factory.mktemp("aws"), wait_scale=0.003) as running:
        yield running


@pytest.fixture(scope="session")
def client(aws: EmbeddedAws) -> Clients:
    """Makes a boto3 client of a service, as the account's root."""
    return clients_of(aws.endpoint)


@pytest.fixture(scope="session")
def deploy(client: Clients) -> Deploy:
    """Creates or updates a stack of a synthesized assembly: deploy(assembly, stack) -> its outputs."""
    return partial(deploy_assembly, client)


@pytest.fixture(scope="session", name="deploy_assembly")
def deploy_assembly_fixture() -> Deploy:
    """Creates or updates a stack with any clients: deploy_assembly(client, assembly, stack) -> outputs."""
    return deploy_assembly


@pytest.fixture(scope="session", name="deploy_template")
def deploy_template_fixture() -> Deploy:
    """Creates or updates a stack: deploy_template(client, stack, tags, TemplateBody=...) -> its outputs."""
    return deploy_template


@pytest.fixture(scope="session")
def synthesize(
    aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path, str, str], Path]:
    """Runs a project's CDK app: synthesize(root, teams, stage or "") -> the folder of the assembly."""

    def synthesize(root: Path, teams: str, stage: str) -> Path:
        folder = tmp_path_factory.mktemp("assembly")
        context = {"team": teams, "target": "embedded", "revision": "54f6bc3"}
        context |= {"stage": stage} if stage else {}
        environment = aws.environment(os.environ) | {
            "CDK_OUTDIR": str(folder),
            "CDK_CONTEXT_JSON": json.dumps(json.loads((root / "cdk.json").read_text())["context"] | context),
        }
        # Without bytecode files every synthesis compiles aws_cdk again.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return synthesize


@pytest.fixture(scope="session")
def assembly(synthesize: Synthesize) -> Path:
    """Both sample teams' dev stages, synthesized for the embedded AWS."""
    package_repository()
    return synthesize(REPOSITORY, "quotes,support", "dev")


@pytest.fixture(scope="session", name="clients_of")
def clients_of_fixture() -> Callable[..., Clients]:
    """Makes the clients of an endpoint: clients_of(endpoint, region)(service); the region may be left out."""
    return clients_of


@pytest.fixture(scope="session")
def zipped() -> Callable[[str], bytes]:
    """Makes the code package of a function of one module, index.py."""

    def make(source: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("index.py", source)
        return buffer.getvalue()

    return make


def package_repository() -> Path:
    """Packages what the repository holds, which changes nothing the second time; returns the folder."""
    package(REPOSITORY, "embedded", None, report=lambda _line: None)
    return REPOSITORY / "build" / "embedded"


def shorten(settings: Path) -> None:
    """Lets a copy of a sample team train for one epoch and be measured on a few prompts."""
    text = re.sub(r"(?m)^epoch_count = .*$", "epoch_count = 1", settings.read_text())
    text = re.sub(r"(?m)^\[measurement\]\n(?:.+\n)*", "", text)
    settings.write_text(f"{text}\n[measurement]\nprompts = 12\nsamples_per_prompt = 2\n")


def clients_of(endpoint: str, region: str = REGION) -> Clients:
    session, made = botocore.session.Session(), {}

    def client(service: str) -> Any:
        if service not in made:
            made[service] = session.create_client(
                service,
                region_name=region,
                endpoint_url=endpoint,
                aws_access_key_id=ACCOUNT,
                aws_secret_access_key="test",
                config=Config(
                    proxies={},
                    inject_host_prefix=False,
                    read_timeout=60,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                ),
            )
        return made[service]

    return client


def deploy_assembly(client: Clients, assembly: Path, stack: str) -> dict[str, str]:
    manifest = json.loads((assembly / "manifest.json").read_text())
    tags = manifest["artifacts"][stack]["properties"].get("tags", {})
    files = json.loads((assembly / f"{stack}.assets.json").read_text())["files"]
    destinations = [each for file in files.values() for each in file["destinations"].values()]
    region = client("s3").meta.region_name
    for bucket in {_resolved(each["bucketName"], region) for each in destinations}:
        _create_bucket(client, bucket)
    client("ssm").put_parameter(
        Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String", Overwrite=True
    )
    with ThreadPoolExecutor(4) as pool:
        urls = list(pool.map(partial(_publish, client, assembly), files.values()))
    template = f"{stack}.template.json"
    [url] = [
        url for url, file in zip(urls, files.values(), strict=True) if file["source"]["path"] == template
    ]
    return deploy_template(client, stack, tags, TemplateURL=url)


def deploy_template(client: Clients, stack: str, tags: Mapping[str, str], **template: str) -> dict[str, str]:
    cloudformation = client("cloudformation")
    request = {
        "StackName": stack,
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        **template,
    }
    try:
        cloudformation.describe_stacks(StackName=stack)
    except ClientError:
        cloudformation.create_stack(**request)
    else:
        try:
            cloudformation.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
    return wait_for_stack(client, stack)


def wait_for_stack(client: Clients, stack: str, seconds: float = 180) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        [found] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        status = found["StackStatus"]
        if not status.endswith("IN_PROGRESS"):
            break
        time.sleep(0.1)
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        events = client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
        reasons = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in events
            if event["ResourceStatus"].endswith("FAILED")
        ]
        raise AssertionError("\n".join([f"{stack} ended as {status}", *reasons]))
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def _create_bucket(client: Clients, bucket: str) -> None:
    try:
        client("s3").head_bucket(Bucket=bucket)
    except ClientError:
        region = client("s3").meta.region_name
        place = {} if region == REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        client("s3").create_bucket(Bucket=bucket, **place)


def _publish(client: Clients, assembly: Path, file: Mapping[str, Any]) -> str:
    source = assembly / file["source"]["path"]
    url = ""
    for destination in file["destinations"].values():
        region = client("s3").meta.region_name
        bucket, key = (_resolved(destination[each], region) for each in ("bucketName", "objectKey"))
        # Assets are named by their content, as the CDK CLI knows as well.
        if "Contents" not in client("s3").list_objects_v2(Bucket=bucket, Prefix=key):
            body = _zipped(source) if file["source"]["packaging"] == "zip" else source.read_bytes()
            client("s3").put_object(Bucket=bucket, Key=key, Body=body)
        url = f"{client('s3').meta.endpoint_url}/{bucket}/{key}"
    return url


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def _resolved(text: str, region: str) -> str:
    for placeholder, value in (("AccountId", ACCOUNT), ("Region", region), ("Partition", "aws")):
        text = text.replace("${AWS::" + placeholder + "}", value)
    return text
