"""A run's names fit the service, and its steps start fast."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from lambdas.workflow import runs
from tests.unit.workflow.conftest import ARTIFACTS, RUN, Aws


class RawResponse:
    """The body of an answer, as the HTTP library of botocore hands it over."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


STEPS = ("start", "prepare", "measure", "train", "decide", "promote", "clean_up")


def test_the_longest_name_is_one_bedrock_takes_for_all_three(monkeypatch: pytest.MonkeyPatch) -> None:
    # A team's name has up to 24 characters, a stage's up to 10.
    monkeypatch.setenv("STACK", f"rft-a{'-b' * 11}c-{'d' * 10}")
    name = runs.name(RUN)
    model = botocore.session.get_session().get_service_model("bedrock")
    for shape in ("JobName", "CustomModelName", "ModelDeploymentName"):
        rule = model.shape_for(shape).metadata
        assert len(name) <= rule["max"]
        assert re.fullmatch(rule["pattern"], name)


def test_the_output_place_is_one_bedrock_takes(aws: Aws) -> None:
    rule = botocore.session.get_session().get_service_model("bedrock").shape_for("S3Uri").metadata
    assert re.fullmatch(rule["pattern"], runs.uri(RUN, "output/"))


def test_what_is_written_is_read_back(aws: Aws) -> None:
    runs.write(RUN, "a/b.json", {"é": [1.5, None]})
    assert runs.read(RUN, "a/b.json") == {"é": [1.5, None]}
    assert runs.read(RUN, "a/c.json") is None
    runs.write(RUN, "a.jsonl", b"{}\n")
    assert aws.objects[ARTIFACTS, f"runs/{RUN}/a.jsonl"].body == b"{}\n"


def test_all_pages_of_a_folder_are_listed_and_no_other_folder(aws: Aws) -> None:
    names = [f"measured/base/{index:05}.json" for index in range(10)]
    for name in [*reversed(names), "measured/baseline/1.json", "measured/candidate/1.json"]:
        aws.write(name, {})
    aws.write("measured/base/1.json", {}, run=f"{RUN}0")
    assert runs.paths(RUN, "measured/base") == names


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        (503, "SlowDown", "ServiceBusyError"),
        (500, "InternalError", "ServiceBusyError"),
        (403, "AccessDenied", "AccessDenied"),
        (404, "NoSuchKey", "NoSuchKey"),
    ],
)
def test_s3_without_time_is_told_from_s3_that_refuses(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, name: str
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(runs._PATIENCE, "s3", (5, 1))
    runs.client.cache_clear()
    s3 = runs.client("s3")
    body = f"<Error><Code>{code}</Code><Message>No</Message></Error>".encode()
    # In the place of the network.
    s3.meta.events.register("before-send.s3.*", lambda **_: AWSResponse("", status, {}, RawResponse(body)))
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="a-bucket", Key="a")
    runs.client.cache_clear()
    assert type(caught.value).__name__ == name
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("step", STEPS)
def test_importing_a_step_does_not_import_boto3(step: str) -> None:
    probe = (
        f"import sys, lambdas.workflow.{step}; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
