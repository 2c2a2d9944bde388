"""Retirements against an AWS in memory: what goes and what stays, also when any single call is the last."""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import boto3
import botocore.client
import pytest
from botocore import xform_name
from botocore.validate import validate_parameters

from infra.config import Prices
from rft.cloud import Cloud, CloudError
from rft.retirement import Item, Retirement
from tests.unit.workflow.conftest import RefusedError, hold_to

STACK = "rft-quotes-prod"
STACK_ID = f"arn:aws:cloudformation:us-east-1:111122223333:stack/{STACK}/0123"
NEIGHBOUR = "rft-quotes-prod2"
BEDROCK = "arn:aws:bedrock:us-east-1:111122223333"
MODELS = f"{BEDROCK}:custom-model/amazon.nova-2-lite-v1:0:256k"
JOBS = f"{BEDROCK}:model-customization-job/amazon.nova-2-lite-v1:0:256k"
BASE = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-lite-v1:0:256k"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
PRICES = Prices(
    date=date(2026, 11, 23), currency="USD", kms_key_month=1.0, alarm_month=0.1, s3_gb_month=0.023
)


class KilledError(Exception):
    """The machine went away."""


@dataclass
class World:
    """One account: a stack with data, what its runs made, and a neighbour whose names begin the same."""

    lasting: bool = True
    status: str | None = "UPDATE_COMPLETE"
    protected: bool = True
    runs: dict[str, str] = field(default_factory=lambda: {"run-1": "RUNNING", "run-0": "SUCCEEDED"})
    rules: dict[str, str] = field(default_factory=lambda: {"upload": "ENABLED", "cleanup": "ENABLED"})
    jobs: dict[str, str] = field(default_factory=dict)
    deployments: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    uploads: dict[str, list[str]] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=lambda: {"key-id": "Enabled"})
    groups: set[str] = field(default_factory=lambda: {f"{STACK}-reward-logs", f"{STACK}-reward-logs-2"})
    parameters: set[str] = field(default_factory=lambda: {"CFN-Champion"})
    events: list[tuple[str, str, str]] = field(default_factory=list)
    bought: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    tagged: list[str] = field(default_factory=list)
    calls: int = 0
    last_call: int | None = None

    def __post_init__(self) -> None:
        for owner, letter in ((STACK, "a"), (NEIGHBOUR, "b")):
            job, model = f"{JOBS}/{letter * 12}", f"{MODELS}/{letter * 12}"
            deployment = f"{BEDROCK}:custom-model-deployment/{letter * 12}"
            self.jobs[job], self.models[model], self.deployments[deployment] = "InProgress", owner, model
            self.tags |= dict.fromkeys((job, model, deployment), owner)
        for bucket in ("datasets", "logs"):
            self.versions[f"{STACK}-{bucket}"] = [(f"k{n}", 1_000_000) for n in range(3)]
        self.versions[f"{NEIGHBOUR}-datasets"] = [("k", 1)]
        self.uploads[f"{STACK}-datasets"] = ["u"]

    @property
    def resources(self) -> dict[str, tuple[str, str, str]]:
        """Logical id: type, physical id, deletion policy."""
        keep = "Retain" if self.lasting else "Delete"
        found = {
            "Key": ("AWS::KMS::Key", "key-id", keep),
            "Datasets": ("AWS::S3::Bucket", f"{STACK}-datasets", keep),
            "AccessLogs": ("AWS::S3::Bucket", f"{STACK}-logs", keep),
            "Logs": ("AWS::Logs::LogGroup", f"{STACK}-reward-logs", keep),
            "Champion": ("AWS::SSM::Parameter", "CFN-Champion", keep),
            "Machine": (
                "AWS::StepFunctions::StateMachine",
                "arn:aws:states:us-east-1:111122223333:stateMachine:M",
                "Delete",
            ),
            "Version": (
                "AWS::Lambda::Version",
                "arn:aws:lambda:us-east-1:111122223333:function:R:3",
                "Retain",
            ),
            "Alarm": ("AWS::CloudWatch::Alarm", f"{STACK}-alarm", "Delete"),
        }
        return found if self.status not in (None, "DELETE_COMPLETE") else {}

    # --- the services

    def call(self, client: Any, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        model = client.meta.service_model.operation_model(operation)
        validate_parameters(params, model.input_shape)
        if model.service_model.service_name == "bedrock":
            # The patterns of this model mean the same in Python; not all of AWS's do.
            hold_to(model.input_shape, params, operation)
        self.calls += 1
        if self.calls == self.last_call:
            raise KilledError
        try:
            answer: dict[str, Any] = getattr(self, xform_name(operation))(params)
        except RefusedError as refused:
            error = {"Error": {"Code": refused.code, "Message": refused.message}}
            raise client.exceptions.from_code(refused.code)(error, operation) from None
        if model.output_shape is not None:
            validate_parameters({k: v for k, v in answer.items() if k != "TemplateBody"}, model.output_shape)
        return answer

    def describe_stacks(self, asked: Any) -> Any:
        by_id = asked["StackName"] == STACK_ID
        if self.status == "DELETE_IN_PROGRESS":
            self._finish_deletion()
        if self.status is None or (self.status == "DELETE_COMPLETE" and not by_id):
            raise RefusedError("ValidationError", f"Stack with id {asked['StackName']} does not exist")
        return {
            "Stacks": [
                {
                    "StackName": STACK,
                    "StackId": STACK_ID,
                    "StackStatus": self.status,
                    "CreationTime": NOW,
                    "EnableTerminationProtection": self.protected,
                    "Outputs": [{"OutputKey": "Start", "OutputValue": "start"}],
                }
            ]
        }

    def _finish_deletion(self) -> None:
        for bucket in self.late:
            self.versions[bucket].append(("late", 1))
        self.late = []
        full = [
            name
            for name, (kind, id_, policy) in self.resources.items()
            if kind == "AWS::S3::Bucket" and policy == "Delete" and self.versions.get(id_)
        ]
        for name, (kind, id_, policy) in self.resources.items():
            if name in full:
                self.events.append((kind, id_, "DELETE_FAILED"))
            elif policy == "Retain":
                self.events.append((kind, id_, "DELETE_SKIPPED"))
            elif kind == "AWS::S3::Bucket":
                self.versions.pop(id_, None)
            elif kind == "AWS::KMS::Key" and not full:
                self.keys[id_] = "PendingDeletion"
            elif kind == "AWS::Logs::LogGroup":
                self.groups.discard(id_)
            elif kind == "AWS::SSM::Parameter":
                self.parameters.discard(id_)
        self.status = "DELETE_FAILED" if full else "DELETE_COMPLETE"

    def list_stacks(self, asked: Any) -> Any:
        assert asked["StackStatusFilter"] == ["DELETE_COMPLETE"]
        gone = self.status == "DELETE_COMPLETE"
        summary = {"StackName": STACK, "StackId": STACK_ID, "StackStatus": self.status, "CreationTime": NOW}
        return {"StackSummaries": [summary] if gone else []}

    def list_stack_resources(self, asked: Any) -> Any:
        return {
            "StackResourceSummaries": [
                {
                    "LogicalResourceId": name,
                    "PhysicalResourceId": id_,
                    "ResourceType": kind,
                    "ResourceStatus": "CREATE_COMPLETE",
                    "LastUpdatedTimestamp": NOW,
                }
                for name, (kind, id_, _) in self.resources.items()
            ]
        }

    def describe_stack_events(self, asked: Any) -> Any:
        assert asked["StackName"] == STACK_ID
        return {
            "StackEvents": [
                {
                    "StackId": STACK_ID,
                    "EventId": str(number),
                    "StackName": STACK,
                    "Timestamp": NOW,
                    "LogicalResourceId": id_,
                    "ResourceType": kind,
                    "PhysicalResourceId": id_,
                    "ResourceStatus": status,
                    "ResourceStatusReason": "the bucket is not empty",
                }
                for number, (kind, id_, status) in enumerate(self.events)
            ]
        }

    def get_template(self, asked: Any) -> Any:
        body = {
            name: {"Type": kind, "DeletionPolicy": policy}
            for name, (kind, _, policy) in self.resources.items()
        }
        return {"TemplateBody": json.dumps({"Resources": body})}

    def update_termination_protection(self, asked: Any) -> Any:
        self.protected = asked["EnableTerminationProtection"]
        return {"StackId": STACK_ID}

    def delete_stack(self, asked: Any) -> Any:
        if self.protected:
            raise RefusedError("ValidationError", "TerminationProtection is enabled")
        if self.status != "DELETE_COMPLETE":
            self.status = "DELETE_IN_PROGRESS"
        return {}

    def get_function_configuration(self, asked: Any) -> Any:
        if asked["FunctionName"] != "start" or not self.resources:
            raise RefusedError("ResourceNotFoundException")
        return {"FunctionArn": "arn:aws:lambda:us-east-1:111122223333:function:start"}

    def list_rule_names_by_target(self, asked: Any) -> Any:
        return {"RuleNames": ["upload"]}

    def disable_rule(self, asked: Any) -> Any:
        self.rules[asked["Name"]] = "DISABLED"
        return {}

    def list_executions(self, asked: Any) -> Any:
        machine = asked["stateMachineArn"]
        return {
            "executions": [
                {
                    "executionArn": f"{machine}:{name}",
                    "stateMachineArn": machine,
                    "name": name,
                    "status": status,
                    "startDate": NOW,
                }
                for name, status in self.runs.items()
                if status == asked["statusFilter"]
            ]
        }

    def stop_execution(self, asked: Any) -> Any:
        self.runs[asked["executionArn"].rpartition(":")[2]] = "ABORTED"
        return {"stopDate": NOW}

    def list_model_customization_jobs(self, asked: Any) -> Any:
        for job, status in self.jobs.items():
            # It takes a look to stop.
            if status == asked["statusEquals"] == "Stopping":
                self.jobs[job] = "Stopped"
        return {
            "modelCustomizationJobSummaries": [
                {
                    "jobArn": job,
                    "baseModelArn": BASE,
                    "jobName": f"{self.tags[job]}-run-1",
                    "status": status,
                    "creationTime": NOW,
                }
                for job, status in self.jobs.items()
                if status == asked["statusEquals"] and asked["nameContains"] in f"{self.tags[job]}-run-1"
            ]
        }

    def stop_model_customization_job(self, asked: Any) -> Any:
        if self.jobs[asked["jobIdentifier"]] != "InProgress":
            raise RefusedError("ConflictException")
        self.jobs[asked["jobIdentifier"]] = "Stopping"
        return {}

    def list_custom_model_deployments(self, asked: Any) -> Any:
        return {
            "modelDeploymentSummaries": [
                {
                    "customModelDeploymentArn": arn,
                    "customModelDeploymentName": f"{self.tags.get(arn, 'others')}-run-0",
                    "modelArn": model,
                    "createdAt": NOW,
                    "status": "Active",
                }
                for arn, model in self.deployments.items()
                if asked.get("modelArnEquals") in (None, model)
            ]
        }

    def delete_custom_model_deployment(self, asked: Any) -> Any:
        del self.deployments[asked["customModelDeploymentIdentifier"]]
        return {}

    def list_custom_models(self, asked: Any) -> Any:
        return {
            "modelSummaries": [
                {
                    "modelArn": arn,
                    "modelName": f"{owner}-run-0",
                    "creationTime": NOW,
                    "baseModelArn": BASE,
                    "baseModelName": "nova",
                }
                for arn, owner in self.models.items()
                if asked["nameContains"] in owner
            ]
        }

    def delete_custom_model(self, asked: Any) -> Any:
        model = asked["modelIdentifier"]
        if model in self.deployments.values():
            raise RefusedError("ConflictException", "it is deployed")
        del self.models[model]
        return {}

    def list_provisioned_model_throughputs(self, asked: Any) -> Any:
        return {
            "provisionedModelSummaries": [
                {
                    "provisionedModelName": "bought",
                    "provisionedModelArn": f"{BEDROCK}:provisioned-model/aaaaaaaaaaaa",
                    "modelArn": model,
                    "desiredModelArn": model,
                    "foundationModelArn": BASE,
                    "modelUnits": 1,
                    "desiredModelUnits": 1,
                    "status": "InService",
                    "creationTime": NOW,
                    "lastModifiedTime": NOW,
                }
                for model in self.bought
                if model == asked["modelArnEquals"]
            ]
        }

    def list_tags_for_resource(self, asked: Any) -> Any:
        owner = self.tags.get(asked["resourceARN"])
        return {"tags": [{"key": "rft:environment", "value": owner}] if owner else []}

    def _bucket(self, asked: Any, code: str = "NoSuchBucket") -> list[tuple[str, int]]:
        if asked["Bucket"] not in self.versions:
            raise RefusedError(code)
        return self.versions[asked["Bucket"]]

    def head_bucket(self, asked: Any) -> Any:
        self._bucket(asked, "404")
        return {}

    def list_object_versions(self, asked: Any) -> Any:
        found = self._bucket(asked)
        start = int(asked.get("KeyMarker", 0))
        # Pages of two, so that who reads the first page only is found out; the last one is a delete marker.
        page, more = found[:2], len(found) > 2
        if start:
            page, more = [each for each in found if each[0] > f"k{start - 1}"], False
        answer: dict[str, Any] = {"IsTruncated": more}
        if more:
            answer |= {"NextKeyMarker": "2", "NextVersionIdMarker": "v"}
        answer["Versions"] = [{"Key": k, "VersionId": "v", "Size": size} for k, size in page if k != "k2"]
        answer["DeleteMarkers"] = [{"Key": k, "VersionId": "v"} for k, _ in page if k == "k2"]
        return answer

    def delete_objects(self, asked: Any) -> Any:
        found = self._bucket(asked)
        names = {each["Key"] for each in asked["Delete"]["Objects"]}
        assert all(each["VersionId"] for each in asked["Delete"]["Objects"])
        self.versions[asked["Bucket"]] = [each for each in found if each[0] not in names - self.locked]
        denied = {"Code": "AccessDenied", "Message": "it is locked"}
        return {"Errors": [{"Key": name, **denied} for name in sorted(names & self.locked)]}

    def list_multipart_uploads(self, asked: Any) -> Any:
        self._bucket(asked)
        return {"Uploads": [{"Key": "k", "UploadId": each} for each in self.uploads.get(asked["Bucket"], [])]}

    def abort_multipart_upload(self, asked: Any) -> Any:
        self.uploads[asked["Bucket"]].remove(asked["UploadId"])
        return {}

    def delete_bucket(self, asked: Any) -> Any:
        if self._bucket(asked) or self.uploads.get(asked["Bucket"]):
            raise RefusedError("BucketNotEmpty")
        del self.versions[asked["Bucket"]]
        return {}

    def describe_key(self, asked: Any) -> Any:
        return {"KeyMetadata": {"KeyId": asked["KeyId"], "KeyState": self.keys[asked["KeyId"]]}}

    def schedule_key_deletion(self, asked: Any) -> Any:
        if self.keys[asked["KeyId"]] == "PendingDeletion":
            raise RefusedError("KMSInvalidStateException")
        self.keys[asked["KeyId"]] = "PendingDeletion"
        return {}

    def describe_log_groups(self, asked: Any) -> Any:
        prefix = asked["logGroupNamePrefix"]
        return {
            "logGroups": [{"logGroupName": name} for name in sorted(self.groups) if name.startswith(prefix)]
        }

    def delete_log_group(self, asked: Any) -> Any:
        self.groups.remove(asked["logGroupName"])
        return {}

    def get_parameter(self, asked: Any) -> Any:
        if asked["Name"] not in self.parameters:
            raise RefusedError("ParameterNotFound")
        return {"Parameter": {"Name": asked["Name"], "Value": "none"}}

    def delete_parameter(self, asked: Any) -> Any:
        self.parameters.remove(asked["Name"])
        return {}

    def get_resources(self, asked: Any) -> Any:
        assert asked["TagFilters"] == [{"Key": "rft:environment", "Values": [STACK]}]
        return {"ResourceTagMappingList": [{"ResourceARN": arn} for arn in self.tagged]}


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    """Its clients take longer to make than everything else here."""
    session = boto3.Session("AKIDEXAMPLE", "example", region_name="us-east-1")
    return Cloud(name="a world", endpoint=None, session=session)


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, cloud: Cloud) -> Any:
    """Makes the retirement of a world's stack: enter(world, purge=...)."""

    def enter(world: World, *, purge: bool = False, patience: float = 5) -> Retirement:
        monkeypatch.setattr(
            botocore.client.BaseClient,
            "_make_api_call",
            lambda client, operation, params: world.call(client, operation, params),
        )
        return Retirement(cloud, STACK, purge=purge, prices=PRICES, pause=0.001, patience=patience)

    return enter


def finish(retirement: Retirement) -> list[Item]:
    for _, step in retirement.steps():
        step(lambda _said: None)
    return retirement.rest()


def others(world: World) -> list[Any]:
    """What belongs to the neighbour, whose names begin the same."""
    return [
        [job for job, status in world.jobs.items() if status == "InProgress"],
        list(world.models.values()),
        list(world.deployments.values()),
        world.versions.get(f"{NEIGHBOUR}-datasets"),
        world.rules["cleanup"],
        f"{STACK}-reward-logs-2" in world.groups,
    ]


UNTOUCHED = [[f"{JOBS}/{'b' * 12}"], [NEIGHBOUR], [f"{MODELS}/{'b' * 12}"], [("k", 1)], "ENABLED", True]


def test_a_plan_says_what_goes_what_stays_and_what_it_costs(enter: Any):
    plan = enter(World()).plan()
    told = {(item.kind, item.name): (item.fate, item.month) for item in plan}
    assert told == {
        ("run", "run-1"): ("stopped", 0.0),
        ("customization job", f"{STACK}-run-1"): ("stopped", 0.0),
        ("deployment", f"{STACK}-run-0"): ("deleted", 0.0),
        ("model", f"{STACK}-run-0"): ("deleted", None),
        ("key", "key-id"): ("kept", 1.0),
        ("bucket", f"{STACK}-datasets"): ("kept", pytest.approx(0.023 * 0.002)),
        ("bucket", f"{STACK}-logs"): ("kept", pytest.approx(0.023 * 0.002)),
        ("log group", f"{STACK}-reward-logs"): ("kept", 0.0),
        ("parameter", "CFN-Champion"): ("kept", 0.0),
        ("stack", STACK): ("deleted", 0.1),
    }
    [stack] = [item for item in plan if item.kind == "stack"]
    assert stack.note == "UPDATE_COMPLETE, 8 resources, protected from deletion"


def test_planning_changes_nothing(enter: Any):
    world, before = World(), World()
    retirement = enter(world, purge=True)
    retirement.plan()
    retirement.obstacles()
    retirement.data_goes_along()
    retirement.purges()
    retirement.rest()
    world.calls = 0
    assert world == before


def test_a_lasting_stage_keeps_its_data_and_nothing_else(enter: Any):
    world = World()
    rest = finish(enter(world))
    assert {item.fate for item in rest} == {"kept"}
    assert sorted(item.kind for item in rest) == ["bucket", "bucket", "key", "log group", "parameter"]
    assert len(world.versions[f"{STACK}-datasets"]) == 3
    assert world.keys == {"key-id": "Enabled"}
    assert world.status == "DELETE_COMPLETE"
    assert world.rules["upload"] == "DISABLED"
    assert others(world) == UNTOUCHED
    # And what was kept can go at any later time.
    assert enter(world, purge=True).purges()
    assert finish(enter(world, purge=True)) == []
    assert world.keys == {"key-id": "PendingDeletion"}


def test_a_throwaway_stage_takes_its_data_along(enter: Any):
    world = World(lasting=False)
    assert enter(world).data_goes_along()
    assert not enter(world, purge=True).purges()
    assert finish(enter(world)) == []
    assert f"{STACK}-datasets" not in world.versions
    assert others(world) == UNTOUCHED


@pytest.mark.parametrize("lasting", [True, False])
def test_a_retirement_that_dies_at_any_call_is_begun_again_and_ends_the_same(enter: Any, lasting: bool):
    whole = World(lasting=lasting)
    assert finish(enter(whole, purge=True)) == []
    for last in range(1, whole.calls + 1):
        world = World(lasting=lasting, last_call=last)
        with pytest.raises(KilledError):
            finish(enter(world, purge=True))
        assert finish(enter(world, purge=True)) == [], f"after call {last}"
        assert (world.versions, world.keys, world.groups) == (whole.versions, whole.keys, whole.groups)
        assert others(world) == UNTOUCHED, f"after call {last}"
    assert whole.calls > 60


def test_what_arrives_late_in_a_bucket_is_deleted_as_well(enter: Any):
    world = World(lasting=False, late=[f"{STACK}-logs"])
    assert finish(enter(world)) == []


def test_a_stack_that_cannot_be_deleted_is_told_with_the_reason(enter: Any):
    world = World(lasting=False)
    world.late = [f"{STACK}-logs"]
    finish_deletion = world._finish_deletion

    def always_late() -> None:
        world.late = [f"{STACK}-logs"]
        finish_deletion()

    world._finish_deletion = always_late  # type: ignore[method-assign]  # a fake
    with pytest.raises(CloudError, match=r"cannot be deleted: .*the bucket is not empty"):
        finish(enter(world))


def test_a_locked_object_is_left_with_the_key_it_is_under(enter: Any):
    world = World(locked={"k1"})
    rest = finish(enter(world, purge=True))
    assert {(item.kind, item.fate) for item in rest} == {("bucket", "left"), ("key", "left")}
    assert "k1 (AccessDenied: it is locked): a retention that forbids it" in rest[0].note
    assert rest[-1].note == "stays, because what is left is under it"
    assert world.keys == {"key-id": "Enabled"}


@pytest.mark.parametrize("bought", [True, False])
def test_what_others_made_of_a_model_is_in_the_way(enter: Any, bought: bool):
    world, model = World(), f"{MODELS}/{'a' * 12}"
    if bought:
        world.bought = [model]
    else:
        world.deployments[f"{BEDROCK}:custom-model-deployment/{'c' * 12}"] = model
    [obstacle] = enter(world).obstacles()
    assert "delete it" in obstacle
    with pytest.raises(CloudError, match="is served by"):
        finish(enter(world))
    assert world.status == "UPDATE_COMPLETE"
    assert len(world.versions[f"{STACK}-datasets"]) == 3


def test_a_job_that_does_not_end_is_told(enter: Any):
    world = World()
    world.stop_model_customization_job = lambda _asked: {}  # type: ignore[method-assign]  # a fake
    with pytest.raises(CloudError, match=f"customization job {STACK}-run-1 does not end"):
        finish(enter(world, patience=0.05))


def test_nothing_at_all_is_retired_at_once(enter: Any):
    world = World(status=None, runs={}, jobs={}, deployments={}, models={})
    world.jobs, world.deployments, world.models = {}, {}, {}
    retirement = enter(world, purge=True)
    assert retirement.plan() == []
    assert finish(retirement) == []


def test_what_bears_the_tags_without_a_stack_is_left_for_a_person(enter: Any):
    world = World()
    world.tagged = [
        f"arn:aws:s3:::{STACK}-datasets",
        "arn:aws:kms:us-east-1:111122223333:key/key-id",
        f"arn:aws:logs:us-east-1:111122223333:log-group:{STACK}-reward-logs:*",
        f"{MODELS}/{'a' * 12}",
        "arn:aws:s3:::long-gone",
        "arn:aws:dynamodb:us-east-1:111122223333:table/made-by-hand",
    ]
    [left] = [item for item in finish(enter(world)) if item.fate == "left"]
    assert left.name.endswith("table/made-by-hand")
    assert "delete it by hand" in left.note


def test_the_error_of_a_service_is_not_swallowed(enter: Any):
    world = World()

    def throttled(_asked: Any) -> Any:
        raise RefusedError("AccessDeniedException", "you may not")

    world.delete_custom_model_deployment = throttled  # type: ignore[method-assign]  # a fake
    with pytest.raises(Exception, match="you may not"):
        finish(enter(world))
    assert f"{MODELS}/{'a' * 12}" in world.models


def test_bytes_are_told_in_words():
    from rft.retirement import _bytes

    assert [_bytes(n) for n in (0, 999, 1500, 2_000_000, 3e9, 4e12)] == [
        "0 B", "999 B", "1.5 kB", "2.0 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip
