"""A run's names fit the service, and its steps start fast."""

import re
import subprocess
import sys
from pathlib import Path

import botocore.session
import pytest

from lambdas.workflow import runs
from tests.unit.workflow.conftest import ARTIFACTS, RUN, Aws

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
