"""Requests are checked as far as the AWS service model goes, not as far as botocore's validator does."""

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from rft.embedded.bedrock import Bedrock
from rft.embedded.service_model import Api, Refusal, _pattern, violations

BEDROCK = ServiceModel(Loader().load_service_model("bedrock", "service-2"))
RUNTIME = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
API = Api(
    ("bedrock", "bedrock-runtime"),
    ("ListCustomModels", "StopModelCustomizationJob", "InvokeModel", "TagResource"),
)
JOB = (
    "arn:aws:bedrock:us-east-1:000000000000:model-customization-job/amazon.nova-2-lite-v1:0:256k/abcdefabcdef"
)


def wrong(shape: str, value: Any, model: ServiceModel = BEDROCK) -> list[str]:
    return list(violations(model.shape_for(shape), value, "x"))


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ("EpochCount", 50),
        ("RFTLearningRate", 1e-7),
        ("RFTLearningRate", 0.001),
        ("JobName", "a-b.c+d"),
        ("CustomModelName", "a_b-c"),
        ("S3Uri", "s3://bucket/some/key.jsonl"),
        ("TagList", []),
        ("RequestMetadataFilters", {"andAll": [{"equals": {"team": "a"}}]}),
        ("LambdaArn", "arn:aws:lambda:us-east-1:000000000000:function:reward:7"),
        ("Timestamp", "2026-11-23T10:00:00.000Z"),
        ("Boolean", True),
        # An absent member may be spelled null.
        ("RFTHyperParameters", {"epochCount": None}),
    ],
)
def test_what_fits_has_no_violation(shape: str, value: Any) -> None:
    assert wrong(shape, value) == []


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        ("EpochCount", 0, "Value 0 at 'x' failed to satisfy constraint: Member must have value greater than"),
        ("EpochCount", 51, "Member must have value less than or equal to 50"),
        ("EpochCount", True, "Member must be of type integer"),
        ("EpochCount", 1.5, "Member must be of type integer"),
        ("EpochCount", "1", "Member must be of type integer"),
        ("RFTLearningRate", float("nan"), "Member must be of type float"),
        ("RFTLearningRate", 0.0011, "Member must have value less than or equal to 0.001"),
        ("JobName", "", "Member must have length greater than or equal to 1"),
        ("JobName", "a" * 64, "Member must have length less than or equal to 63"),
        ("JobName", "-a", "Member must satisfy regular expression pattern"),
        ("JobName", "a\n", "Member must satisfy regular expression pattern"),
        ("S3Uri", "s3://bucket/run=1/x", "Member must satisfy regular expression pattern"),
        ("S3Uri", "s3://bucket//x", "Member must satisfy regular expression pattern"),
        ("ReasoningEffort", "max", "Member must satisfy enum value set: [low, medium, high]"),
        ("TagList", {}, "Member must be of type list"),
        ("TagList", [{"key": "a", "value": "b"}] * 201, "Member must have length less than or equal to 200"),
        ("TagList", [{"key": "a"}], "Value null at 'x.1.member.value' failed to satisfy"),
        ("TagList", [{"key": "a", "value": "b", "to": "c"}], "Member must not have the unknown member to"),
        ("GraderConfig", {}, "Member must have exactly one of: [lambdaGrader]"),
        ("RequestMetadataFilters", {"equals": {"a": "b"}, "orAll": []}, "Member must have exactly one of"),
        ("RequestMetadataMap", {"a": "1", "b": "2"}, "Member must have length less than or equal to 1"),
        ("RequestMetadataMap", {"a": 1}, "Value 1 at 'x.a' failed to satisfy constraint: Member must be"),
        ("Timestamp", "yesterday", "Member must be of type timestamp"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_the_words_of_the_service(shape: str, value: Any, said: str) -> None:
    [found] = [violation for violation in wrong(shape, value) if said in violation]
    assert "failed to satisfy constraint" in found


def test_documents_may_hold_anything_and_blobs_are_base64() -> None:
    assert wrong("ToolInputSchema", {"json": {"any": [1, None]}}, RUNTIME) == []
    assert wrong("Body", "aGk=", RUNTIME) == []
    assert "of type blob" in wrong("Body", "not base64!", RUNTIME)[0]


def patterns_of(shape: Shape | None, seen: set[str]) -> Iterator[str]:
    """The patterns that a value of the shape may meet."""
    if shape is None or shape.name in seen:
        return
    seen.add(shape.name)
    if "pattern" in shape.metadata:
        yield shape.metadata["pattern"]
    if isinstance(shape, StructureShape):
        parts = list(shape.members.values())
    elif isinstance(shape, ListShape):
        parts = [shape.member]
    else:
        parts = [shape.key, shape.value] if isinstance(shape, MapShape) else []
    for part in parts:
        yield from patterns_of(part, seen)


def test_every_pattern_of_what_bedrock_offers_can_be_used(tmp_path: Path) -> None:
    offered = Bedrock(client=lambda *_: None, account="0", region="r", data_dir=tmp_path)._operations
    seen: set[str] = set()
    patterns = {
        pattern
        for model in (BEDROCK, RUNTIME)
        for name in model.operation_names
        if name in offered
        for shape in (model.operation_model(name).input_shape, model.operation_model(name).output_shape)
        for pattern in patterns_of(shape, seen)
    }
    assert len(patterns) > 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pattern in patterns:
            _pattern(pattern)


def test_a_row_of_dashes_is_refused_in_no_time() -> None:
    started = time.perf_counter()
    assert wrong("JobName", "a" + "-" * 61 + "_")
    assert wrong("ModelCustomizationJobIdentifier", "a" + "-" * 1000 + "_")
    assert time.perf_counter() - started < 1


def test_a_request_is_read_from_path_query_and_body() -> None:
    for path in (
        f"/model-customization-jobs/{JOB}/stop",
        f"/model-customization-jobs/{JOB.replace('/', '%2F')}/stop",
    ):
        assert API.request("POST", path, {}, b"") == ("StopModelCustomizationJob", {"jobIdentifier": JOB})
    found = API.request("GET", "/custom-models", {"maxResults": "5", "nameContains": ["a"]}, b"")
    assert found == ("ListCustomModels", {"maxResults": 5, "nameContains": "a"})
    body = json.dumps({"resourceARN": JOB, "tags": [{"key": "a", "value": "b"}]}).encode()
    assert API.request("POST", "/tagResource", {}, body) == ("TagResource", json.loads(body))
    assert API.request("POST", "/model/m/invoke", {}, b"hi") == (
        "InvokeModel",
        {"modelId": "m", "body": "aGk="},
    )
    nothing = b'{"resourceARN": null, "tags": null}'
    with pytest.raises(Refusal, match="2 validation errors detected"):
        API.request("POST", "/tagResource", {}, nothing)
    assert API.request("DELETE", "/custom-models", {}, b"") is None
    assert API.request("GET", "/custom-models/a", {}, b"") is None


@pytest.mark.parametrize("query", [{"maxResults": "many"}, {"maxResults": "0"}, {"isOwned": "perhaps"}])
def test_a_query_that_does_not_fit_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Refusal, match="1 validation error detected") as caught:
        API.request("GET", "/custom-models", query, b"")
    assert API.status(caught.value.code) == 400
