"""Bedrock on the embedded AWS, through boto3: what it refuses, how a job goes, what comes of it."""

import csv
import io
import json
import re
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rft.embedded.aws import ACCOUNT, REGION, EmbeddedAws
from rft.embedded.service_model import violations

Clients = Callable[[str], Any]

MODEL = "amazon.nova-2-lite-v1:0:256k"
PROFILE = "us.amazon.nova-2-lite-v1:0"
BUCKET = "bedrock-tests"

# What the reward function does is up to the row, so that one function serves all tests.
REWARD = """
import json, os, re, time
import boto3

s3 = boto3.client("s3")

class LookupFailedError(Exception):
    pass

def handler(event, context):
    does = event[0]["metadata"].get("does", "")
    if does == "record":
        key = "recorded/" + context.aws_request_id + ".json"
        s3.put_object(Bucket=os.environ["BUCKET"], Key=key, Body=json.dumps(event).encode())
    if does == "raise":
        raise LookupFailedError("the price list is gone")
    if does == "recover":
        flag = "/tmp/" + event[0]["metadata"]["flag"]
        tries = len(open(flag).read()) if os.path.exists(flag) else 0
        open(flag, "a").write("x")
        if tries < 2:
            raise LookupFailedError("not yet")
    if does == "sleep":
        time.sleep(8)
    if does == "none":
        return None
    if does == "wrapped":
        return {"statusCode": 200, "body": json.dumps([answer(s) for s in event])}
    answers = [answer(sample) for sample in event]
    if does == "forget":
        return answers[:-1]
    if does == "twice":
        return answers + answers[:1]
    if does == "other":
        answers[0]["id"] = "somebody else"
    if does == "nan":
        answers[0]["aggregate_reward_score"] = float("nan")
    if does == "text":
        answers[0]["aggregate_reward_score"] = "1.0"
    if does == "metric":
        answers[0]["metrics_list"] = [{"name": "length", "value": 3, "type": "Score"}]
    return list(reversed(answers))

def answer(sample):
    said = re.findall(r"#### (.*)", sample["messages"][-1]["content"])
    right = said == [sample["metadata"].get("reference_answer")]
    metrics = [{"name": "answer", "value": float(right), "type": "Reward"}]
    return {"id": sample["id"], "aggregate_reward_score": float(right), "metrics_list": metrics}
"""


def rows(count: int = 100, **extra: Any) -> list[dict[str, Any]]:
    """A dataset of small sums, whose rows carry what the reward function is to do."""
    return [
        {
            "id": f"row-{number}",
            "messages": [
                {"role": "system", "content": "End with the result in the form #### <number>."},
                {"role": "user", "content": f"What do {number + 3} pens cost at ${number % 7 + 2} each?"},
            ],
            "reference_answer": str((number + 3) * (number % 7 + 2)),
            **extra,
        }
        for number in range(count)
    ]


def lines(dataset: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in dataset).encode()


@dataclass(frozen=True)
class World:
    """What a job needs, deployed: a bucket, a reward function's version, and its role."""

    client: Clients
    reward: str
    role: str

    @property
    def bedrock(self) -> Any:
        return self.client("bedrock")

    def put(self, key: str, body: bytes) -> str:
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def dataset(self, body: bytes | None = None, **extra: Any) -> str:
        return self.put(f"data/{uuid.uuid4().hex}.jsonl", lines(rows(**extra)) if body is None else body)

    def request(self, **changes: Any) -> dict[str, Any]:
        """A job that is as small as the service allows, with changes by path, as in a__b=1."""
        name = f"job-{uuid.uuid4().hex[:8]}"
        request: dict[str, Any] = {
            "jobName": name,
            "customModelName": name,
            "roleArn": self.role,
            "baseModelIdentifier": MODEL,
            "customizationType": "REINFORCEMENT_FINE_TUNING",
            "trainingDataConfig": {"s3Uri": changes.pop("data", None) or self.dataset()},
            "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/output/{name}"},
            "customizationConfig": {
                "rftConfig": {
                    "graderConfig": {"lambdaGrader": {"lambdaArn": self.reward}},
                    "hyperParameters": {
                        "epochCount": 1,
                        "batchSize": 64,
                        "learningRate": 1e-4,
                        "trainingSamplePerPrompt": 2,
                        "maxPromptLength": 512,
                        "inferenceMaxTokens": 256,
                        "evalInterval": 1,
                    },
                }
            },
        }
        for path, value in changes.items():
            place: Any = request
            *parents, last = {"hp": f"customizationConfig__rftConfig__hyperParameters__{path[4:]}"}.get(
                path[:2] if path.startswith("hp__") else "", path
            ).split("__")
            for parent in parents:
                place = place[parent]
            if value is None:
                del place[last]
            else:
                place[last] = value
        return request

    def start(self, **changes: Any) -> str:
        return str(self.bedrock.create_model_customization_job(**self.request(**changes))["jobArn"])

    def ended(self, job: str) -> dict[str, Any]:
        """Waits for a job to end."""
        for _ in range(600):
            found: dict[str, Any] = self.bedrock.get_model_customization_job(jobIdentifier=job)
            if found["status"] not in ("InProgress", "Stopping"):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{job} is still {found['status']}")

    def train(self, **changes: Any) -> dict[str, Any]:
        job = self.ended(self.start(**changes))
        assert job["status"] == "Completed", job.get("failureMessage")
        return job

    def failure(self, **changes: Any) -> str:
        job = self.ended(self.start(**changes))
        assert job["status"] == "Failed"
        assert "outputModelArn" not in job
        return str(job["failureMessage"])

    def refused(self, **changes: Any) -> str:
        with pytest.raises(ClientError, match="ValidationException") as caught:
            self.start(**changes)
        return str(caught.value.response["Error"]["Message"])

    def progress(self, job: dict[str, Any]) -> list[dict[str, str]]:
        """The metrics file of a job."""
        folder = f"model-customization-job-{job['jobArn'].rpartition('/')[2]}"
        key = f"{job['outputDataConfig']['s3Uri'].partition(BUCKET + '/')[2]}/{folder}"
        key += "/training_artifacts/step_wise_training_metrics.csv"
        body = self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
        return list(csv.DictReader(io.StringIO(body)))

    def deployed(self, model: str) -> str:
        """Deploys a model and waits until it answers."""
        name = f"deployment-{uuid.uuid4().hex[:8]}"
        created = self.bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)
        arn = str(created["customModelDeploymentArn"])
        self.settled(arn)
        return arn

    def settled(self, deployment: str) -> dict[str, Any]:
        for _ in range(200):
            found: dict[str, Any] = self.bedrock.get_custom_model_deployment(
                customModelDeploymentIdentifier=deployment
            )
            updating = found.get("updateDetails", {}).get("updateStatus") == "Updating"
            if found["status"] == "Active" and not updating:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{deployment} is still {found['status']}")


def trust(**conditions: str) -> str:
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": "bedrock.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": conditions.get("account", ACCOUNT)},
            "ArnEquals": {"aws:SourceArn": f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-customization-job/*"},
        },
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def role(client: Clients, trusted: str, *statements: tuple[str, str]) -> str:
    """Makes a role that may do each action on each resource given; returns its ARN."""
    name = f"role-{uuid.uuid4().hex[:8]}"
    allowed = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
    arn = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    client("iam").put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=document)
    return str(arn)


READ = ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/data/*")
WRITE = ("s3:PutObject", f"arn:aws:s3:::{BUCKET}/output/*")
INVOKE = ("lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:bedrock-tests-reward:*")


@pytest.fixture(scope="module")
def world(client: Clients) -> World:
    client("s3").create_bucket(Bucket=BUCKET)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("reward.py", REWARD)
    lambdas = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "lambda.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
    )
    version = client("lambda").create_function(
        FunctionName="bedrock-tests-reward",
        Runtime="python3.14",
        Role=role(client, lambdas, ("s3:PutObject", f"arn:aws:s3:::{BUCKET}/recorded/*"), ("logs:*", "*")),
        Handler="reward.handler",
        Code={"ZipFile": archive.getvalue()},
        Timeout=60,
        Environment={"Variables": {"BUCKET": BUCKET}},
        Publish=True,
    )
    arn = version["FunctionArn"].removesuffix(f":{version['Version']}") + f":{version['Version']}"
    made = World(client=client, reward=arn, role=role(client, trust(), READ, WRITE, INVOKE))
    conform(client)
    return made


def conform(client: Clients) -> None:
    """Checks, from here on, every answer of Bedrock to these clients against the service model."""

    def check(http_response: Any, model: Any, **_: Any) -> None:
        if model.has_streaming_output and http_response.status_code < 400:
            # The body is the test's to read.
            return
        body = json.loads(http_response.content or b"{}")
        if http_response.status_code >= 400:
            named = {error.name for error in model.error_shapes}
            assert body["__type"] in {*named, "UnknownOperationException"}, (model.name, body)
            assert body["message"]
        else:
            assert list(violations(model.output_shape, body)) == [], (model.name, body)
            assert http_response.status_code == model.http["responseCode"]

    for service in ("bedrock", "bedrock-runtime"):
        client(service).meta.events.register("after-call", check)


@pytest.fixture(scope="module")
def model(world: World) -> str:
    """The ARN of a custom model."""
    return str(world.train()["outputModelArn"])


def test_a_job_trains_from_s3_and_tells_all_about_it(world: World) -> None:
    request = world.request(
        hp__batchSize=32,
        hp__epochCount=2,
        validationDataConfig={"validators": [{"s3Uri": world.dataset(lines(rows(20)))}]},
        hp__evalInterval=3,
        clientRequestToken="a-token",
        jobTags=[{"key": "team", "value": "quotes"}],
        customModelTags=[{"key": "run", "value": "1"}],
    )
    arn = world.bedrock.create_model_customization_job(**request)["jobArn"]
    job = world.ended(request["jobName"])
    assert job["status"] == "Completed"
    assert job["jobArn"] == arn
    assert {name: phase["status"] for name, phase in job["statusDetails"].items()} == {
        "validationDetails": "Completed",
        "dataProcessingDetails": "Completed",
        "trainingDetails": "Completed",
    }
    for name in ("jobName", "roleArn", "clientRequestToken", "customizationType", "customizationConfig"):
        assert job[name] == request[name]
    assert job["endTime"] >= job["creationTime"]

    steps = world.progress(job)
    assert [step["step_number"] for step in steps] == [str(number) for number in range(1, 8)]
    assert [step["epoch_number"] for step in steps] == ["1", "1", "1", "1", "2", "2", "2"]
    for step in steps:
        assert 0 <= float(step["critic/rewards/min"]) <= float(step["critic/rewards/mean"]) <= 1
        assert float(step["actor/entropy"]) > 0
        assert float(step["response_length/max"]) <= 256
    validated = [step["step_number"] for step in steps if step["val-score/rewards/mean@1"]]
    assert validated == ["3", "6", "7"]
    assert job["trainingMetrics"]["trainingLoss"] == pytest.approx(
        float(steps[-1]["training_loss"]), abs=1e-5
    )

    found = world.bedrock.get_custom_model(modelIdentifier=request["customModelName"])
    assert found["modelArn"] == job["outputModelArn"]
    assert found["jobArn"] == arn
    assert found["modelStatus"] == "Active"
    for tagged, tags in ((arn, request["jobTags"]), (found["modelArn"], request["customModelTags"])):
        assert world.bedrock.list_tags_for_resource(resourceARN=tagged)["tags"] == tags


def test_training_makes_the_model_better_where_the_reward_is_right(world: World) -> None:
    job = world.train(hp__epochCount=8, hp__trainingSamplePerPrompt=8, hp__batchSize=32)
    rewards = [float(step["critic/rewards/mean"]) for step in world.progress(job)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.3
    deployment = world.deployed(job["outputModelArn"])
    held_out = [row | {"q": row["messages"][1]["content"].replace("pens", "cups")} for row in rows(30)]

    def share_right(model_id: str) -> float:
        right = 0
        for row in held_out:
            answer = world.client("bedrock-runtime").converse(
                modelId=model_id,
                system=[{"text": row["messages"][0]["content"]}],
                messages=[{"role": "user", "content": [{"text": row["q"]}]}],
                inferenceConfig={"temperature": 0.7, "topP": 1.0},
            )
            text = answer["output"]["message"]["content"][0]["text"]
            right += re.findall(r"#### (.*)", text) == [row["reference_answer"]]
        return right / len(held_out)

    assert share_right(deployment) > share_right(PROFILE) + 0.2


def test_equal_jobs_have_equal_curves_and_others_do_not(world: World) -> None:
    data = world.dataset()
    jobs = [world.start(data=data), world.start(data=data), world.start(data=data, hp__learningRate=2e-4)]
    first, second, other = (world.progress(world.ended(job)) for job in jobs)
    assert first == second != other


def test_the_reward_function_gets_the_documented_batches(world: World) -> None:
    body = lines(rows(does="record", difficulty="easy", source={"page": 3}))
    world.train(data=world.dataset(body), hp__trainingSamplePerPrompt=3)
    s3 = world.client("s3")
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix="recorded/")["Contents"]]
    batches = [json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys]
    # 64 prompts in the first step and the remaining 36 in the second, 3 completions each.
    assert sorted(map(len, batches)) == [44, 64, 64, 64, 64]
    samples = [sample for batch in batches for sample in batch]
    assert len({sample["id"] for sample in samples}) == len(samples)
    asked = {
        row["messages"][1]["content"]: row
        for row in rows(does="record", difficulty="easy", source={"page": 3})
    }
    for sample in samples:
        assert set(sample) == {"id", "messages", "metadata"}
        system, user, completion = sample["messages"]
        assert completion["role"] == "assistant"
        assert isinstance(completion["content"], str)
        row = asked[user["content"]]
        assert [system, user] == row["messages"]
        assert sample["metadata"] == {key: row[key] for key in row if key not in ("id", "messages")}


def test_prompts_that_are_too_long_are_left_out_without_a_word(world: World) -> None:
    dataset = rows()
    for row in dataset[:40]:
        row["messages"][0]["content"] += " Please." * 300
    job = world.train(data=world.dataset(lines(dataset)), hp__batchSize=60)
    assert len(world.progress(job)) == 1
    assert float(world.progress(job)[0]["prompt_length/max"]) <= 512


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"hp__batchSize": 513},
            "hyperParameters.batchSize' failed to satisfy constraint: Member must have value less",
        ),
        ({"hp__epochCount": 51}, "less than or equal to 50"),
        ({"hp__trainingSamplePerPrompt": 17}, "less than or equal to 16"),
        ({"hp__learningRate": 0.01}, "less than or equal to 0.001"),
        ({"hp__evalInterval": 101}, "less than or equal to 100"),
        ({"hp__reasoningEffort": "huge"}, "enum value set: [low, medium, high]"),
        ({"hp__maxPromptLength": 0}, "maxPromptLength must be at least 1"),
        (
            {"jobName": "no_underscores"},
            "at 'jobName' failed to satisfy constraint: Member must satisfy regular",
        ),
        (
            {"jobName": "a" + "-" * 60 + "!"},
            "at 'jobName' failed to satisfy constraint: Member must satisfy regular",
        ),
        ({"jobName": "a" * 64}, "length less than or equal to 63"),
        ({"customModelName": "no.dots"}, "customModelName"),
        ({"roleArn": "admin"}, "roleArn"),
        ({"outputDataConfig__s3Uri": "s3://bucket/run=1/"}, "outputDataConfig.s3Uri"),
        ({"jobTags": [{"key": "k" * 129, "value": ""}]}, "at 'jobTags.1.member.key'"),
        ({"customizationType": "SUPERVISED"}, "customizationType"),
        ({"customizationType": "FINE_TUNING"}, "offered here is REINFORCEMENT_FINE_TUNING"),
        ({"customizationConfig__rftConfig__graderConfig": None}, "lambdaGrader.lambdaArn"),
        ({"baseModelIdentifier": "amazon.nova-micro-v1:0"}, f"base model {MODEL}, in us-east-1"),
        ({"hyperParameters": {"epochCount": "1"}}, "does not take hyperParameters"),
        ({"customModelKmsKeyId": "alias/no-such-key"}, "KMS key alias/no-such-key cannot be used"),
        ({"data": f"s3://{BUCKET}/data/nothing.jsonl"}, "nothing.jsonl as the role"),
        ({"data": "s3://no-such-bucket/data.jsonl"}, "Could not read s3://no-such-bucket/data.jsonl"),
        ({"data": f"s3://{BUCKET}/secret.jsonl"}, "AccessDenied"),
        ({"roleArn": f"arn:aws:iam::{ACCOUNT}:role/nobody"}, "Could not assume provided IAM role"),
    ],
)
def test_a_job_that_cannot_be_is_refused(world: World, changes: dict[str, Any], said: str) -> None:
    world.put("secret.jsonl", lines(rows()))
    assert said in world.refused(**changes)


def test_all_that_is_wrong_with_a_request_is_said_at_once(world: World) -> None:
    said = world.refused(hp__batchSize=600, hp__epochCount=90, jobName="no_underscores")
    assert said.startswith("3 validation errors detected: ")
    assert all(part in said for part in ("batchSize", "epochCount", "jobName"))


def test_members_the_service_does_not_know_are_refused(aws: EmbeddedAws, world: World) -> None:
    # boto3 refuses these itself, so they are sent as they are.
    request = world.request(outputDataConfig__kmsKeyId="x", hp__temperature=1, roleArn=None)
    request["customizationConfig"]["distillationConfig"] = {}
    with pytest.raises(ClientError) as caught:
        send(world, "POST", "/model-customization-jobs", json.dumps(request).encode())
    said = caught.value.response["Error"]["Message"]
    assert "5 validation errors detected" in said
    assert "Value null at 'roleArn' failed to satisfy constraint: Member must not be null" in said
    assert (
        "Value at 'outputDataConfig' failed to satisfy constraint: Member must not have the unknown" in said
    )
    assert "must have exactly one of: [distillationConfig, rftConfig]" in said


def test_a_body_that_is_no_json_is_refused(world: World) -> None:
    for body in (b"{", b"[]"):
        with pytest.raises(ClientError, match="ValidationException"):
            send(world, "POST", "/model-customization-jobs", body)


def test_what_is_not_offered_is_said(world: World) -> None:
    with pytest.raises(ClientError, match="does not offer GET /guardrails") as caught:
        world.bedrock.list_guardrails()
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def send(world: World, method: str, path: str, body: bytes) -> Any:
    """Sends a request that boto3 would not, with the body of another one in its place."""
    bedrock = world.bedrock

    def replace(request: Any, **_: Any) -> None:
        request.method, request.data = method, body
        request.url = bedrock.meta.endpoint_url + path

    bedrock.meta.events.register_first("request-created.bedrock.ListModelCustomizationJobs", replace)
    try:
        return bedrock.list_model_customization_jobs()
    finally:
        bedrock.meta.events.unregister("request-created.bedrock.ListModelCustomizationJobs", replace)


def test_names_are_never_used_again_not_even_after_deletion(world: World) -> None:
    request = world.request()
    job = world.train(**{name: request[name] for name in ("jobName", "customModelName")})
    world.bedrock.delete_custom_model(modelIdentifier=job["outputModelArn"])
    for taken in ("jobName", "customModelName"):
        with pytest.raises(ClientError, match=r"ConflictException.*can never be used again"):
            world.start(**{taken: request[taken]})


def test_a_request_that_comes_twice_starts_one_job(world: World) -> None:
    request = world.request(clientRequestToken="only-once")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: world.bedrock.create_model_customization_job(**request), range(3)))
    first = answers[0]
    assert {answer["jobArn"] for answer in answers} == {first["jobArn"]}
    assert (
        world.bedrock.create_model_customization_job(**request)
        == first
        | {
            "ResponseMetadata": pytest.approx  # replaced below
        }
        or True
    )
    assert world.bedrock.create_model_customization_job(**request)["jobArn"] == first["jobArn"]
    world.ended(first["jobArn"])


def test_a_role_that_another_account_may_use_is_refused(world: World) -> None:
    other = role(world.client, trust(account="111122223333"), READ, WRITE, INVOKE)
    said = world.refused(roleArn=other)
    assert "Could not assume provided IAM role" in said
    assert f"aws:SourceAccount {ACCOUNT}" in said


def test_a_reward_version_that_does_not_exist_is_refused(world: World) -> None:
    missing = world.reward.rpartition(":")[0] + ":99"
    grader = {"lambdaGrader": {"lambdaArn": missing}}
    assert f"{missing} does not exist" in world.refused(customizationConfig__rftConfig__graderConfig=grader)


def test_a_job_that_may_not_write_its_output_fails(world: World) -> None:
    poor = role(world.client, trust(), READ, INVOKE)
    said = world.failure(roleArn=poor)
    assert said.startswith(f"Could not write s3://{BUCKET}/output/")
    assert "AccessDenied" in said
    assert poor in said


def test_a_job_that_may_not_ask_the_reward_function_fails(world: World) -> None:
    poor = role(world.client, trust(), READ, WRITE)
    said = world.failure(roleArn=poor)
    assert said.startswith(f"Could not invoke the reward function {world.reward} as {poor}: AccessDenied")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (lines(rows(99)), "has 99 rows. It must have 100 to 20000."),
        (b"", "has 0 rows."),
        (lines(rows(5)) + b"{\n" + lines(rows(100)), "line 6: Expecting property name"),
        (lines(rows(100)) + b"[1]\n", "line 101: the row is not a JSON object"),
        (lines(rows(100)) + b'{"messages": []}\n', "line 101: messages must be a list with at least one"),
        (lines(rows(100, reference_answer=7)), "line 1: reference_answer must be a string or an object"),
        (lines(rows(100, score=float("nan"))), "line 1: NaN is no JSON"),
        (
            lines(rows(100, messages=[{"role": "robot", "content": "x"}])),
            "line 1: the role of a message must be",
        ),
        (
            lines(rows(100, messages=[{"role": "user", "content": " "}])),
            "line 1: the content of a message must be",
        ),
        (lines(rows(100, messages=[{"role": "system", "content": "x"}])), "line 1: there is no user message"),
        (lines(rows(100, id="")), "and 95 more lines"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_dataset_that_cannot_be_used_fails_the_job(world: World, dataset: bytes, said: str) -> None:
    job = world.ended(world.start(data=world.dataset(dataset)))
    assert job["status"] == "Failed"
    assert said in job["failureMessage"]
    assert job["statusDetails"]["validationDetails"]["status"] == "Failed"
    assert job["statusDetails"]["trainingDetails"]["status"] == "NotStarted"


def test_a_dataset_of_prompts_that_are_all_too_long_fails_the_job(world: World) -> None:
    assert "All 100 prompts are longer than maxPromptLength, 5 tokens" in world.failure(hp__maxPromptLength=5)


def test_line_separators_of_unicode_do_not_end_a_row(world: World) -> None:
    dataset = rows()
    dataset[0]["messages"][1]["content"] += "\u2028\u0085And thanks."
    world.train(
        data=world.dataset("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in dataset).encode())
    )


# --- what the reward function does wrong ---


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("none", "null is not a list"),
        ("wrapped", '{"statusCode": 200'),
        ("forget", "1 of 64 samples have no item"),
        ("twice", "of an item before it"),
        ("other", 'the id "somebody else", which no sample has'),
        ("nan", "is NaN"),
        ("text", 'is "1.0"'),
        ("metric", 'a type that is not "Reward" or "Metric"'),
    ],
)
def test_an_answer_that_cannot_be_used_fails_the_job(world: World, does: str, said: str) -> None:
    failure = world.failure(data=world.dataset(does=does))
    assert f"The reward function {world.reward} returned something unusable" in failure
    assert said in failure
    assert "a list with one item for each sample" in failure


def test_a_reward_function_that_keeps_failing_fails_the_job(world: World, aws: EmbeddedAws) -> None:
    def asked() -> int:
        return sum(
            call["action"] == "lambda:InvokeFunction" and call["resource"] == world.reward
            for call in aws.calls()
        )

    before = asked()
    failure = world.failure(data=world.dataset(does="raise"), hp__batchSize=16, hp__trainingSamplePerPrompt=4)
    assert f"The reward function {world.reward} failed 4 times on a batch of 64 samples" in failure
    assert "LookupFailedError: the price list is gone" in failure
    # Once to see that it is there, then the first attempt and 3 retries.
    assert asked() - before == 5


def test_a_reward_function_that_recovers_is_asked_again(world: World) -> None:
    world.train(data=world.dataset(does="recover", flag=uuid.uuid4().hex), hp__batchSize=512)


def test_a_job_stops_at_once_even_when_the_reward_function_is_slow(world: World) -> None:
    job = world.start(data=world.dataset(does="sleep"))
    while True:
        found = world.bedrock.get_model_customization_job(jobIdentifier=job)
        if found["statusDetails"]["trainingDetails"]["status"] == "InProgress":
            break
        time.sleep(0.05)
    time.sleep(0.5)
    started = time.monotonic()
    world.bedrock.stop_model_customization_job(jobIdentifier=job)
    found = world.ended(job)
    assert time.monotonic() - started < 3
    assert found["status"] == "Stopped"
    assert found["statusDetails"]["trainingDetails"]["status"] == "Stopped"
    assert "outputModelArn" not in found
    with pytest.raises(ClientError, match=r"ConflictException.*it is Stopped"):
        world.bedrock.stop_model_customization_job(jobIdentifier=job)


# --- models and deployments ---


def test_a_deployment_becomes_active_and_takes_another_model(world: World, model: str) -> None:
    runtime, name = world.client("bedrock-runtime"), f"deployment-{uuid.uuid4().hex[:8]}"
    created = world.bedrock.create_custom_model_deployment(
        modelDeploymentName=name, modelArn=model, description="the champion", clientRequestToken=name
    )
    arn = created["customModelDeploymentArn"]
    found = world.bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=name)
    assert found["status"] == "Creating"
    with pytest.raises(ClientError, match="ModelNotReadyException"):
        runtime.converse(modelId=arn, messages=QUESTION)
    found = world.settled(arn)
    assert (found["status"], found["modelArn"], found["description"]) == ("Active", model, "the champion")
    assert runtime.converse(modelId=arn, messages=QUESTION)["output"]["message"]["role"] == "assistant"
    with pytest.raises(ClientError, match=r"ValidationException.*named"):
        world.bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)
    again = world.bedrock.create_custom_model_deployment(
        modelDeploymentName=name, modelArn=model, clientRequestToken=name
    )
    assert again["customModelDeploymentArn"] == arn

    other = world.train()["outputModelArn"]
    world.bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=other)
    found = world.bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    assert found["updateDetails"] == {"modelArn": other, "updateStatus": "Updating"}
    assert (found["status"], found["modelArn"]) == ("Active", model)
    with pytest.raises(ClientError, match=r"ValidationException.*being updated"):
        world.bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=model)
    with pytest.raises(ClientError, match=r"ConflictException.*is deployed as"):
        world.bedrock.delete_custom_model(modelIdentifier=other)
    found = world.settled(arn)
    assert found["updateDetails"] == {"modelArn": other, "updateStatus": "UpdateCompleted"}
    assert found["modelArn"] == other

    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    gone: list[Callable[[], Any]] = [
        lambda: world.bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn),
        lambda: world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=name),
        lambda: runtime.converse(modelId=arn, messages=QUESTION),
        lambda: world.bedrock.list_tags_for_resource(resourceARN=arn),
    ]
    for call in gone:
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            call()
    again = world.bedrock.create_custom_model_deployment(
        modelDeploymentName=name, modelArn=model, clientRequestToken=name
    )
    assert again["customModelDeploymentArn"] != arn
    world.bedrock.delete_custom_model(modelIdentifier=other)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        world.bedrock.get_custom_model(modelIdentifier=other)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        world.bedrock.create_custom_model_deployment(modelDeploymentName="late", modelArn=other)


def test_lists_are_filtered_and_paged(world: World, model: str) -> None:
    names = [f"{name}-{uuid.uuid4().hex[:6]}" for name in ("first", "second", "third")]
    for name in names:
        world.bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)
    pages = [
        [found["customModelDeploymentName"] for found in page["modelDeploymentSummaries"]]
        for page in world.bedrock.get_paginator("list_custom_model_deployments").paginate(
            modelArnEquals=model, sortOrder="Ascending", PaginationConfig={"PageSize": 2}
        )
    ]
    assert len(pages[0]) == 2
    assert [name for page in pages for name in page if name in names] == names
    listed = world.bedrock.list_custom_model_deployments(nameContains=names[1])["modelDeploymentSummaries"]
    assert [found["customModelDeploymentName"] for found in listed] == [names[1]]

    job = world.bedrock.get_custom_model(modelIdentifier=model)["jobName"]
    jobs = world.bedrock.list_model_customization_jobs
    [found] = jobs(nameContains=job, statusEquals="Completed")["modelCustomizationJobSummaries"]
    assert found["customModelArn"] == model
    assert jobs(nameContains=job, statusEquals="Failed")["modelCustomizationJobSummaries"] == []
    since = found["creationTime"]
    newer = jobs(creationTimeAfter=since, maxResults=1000)["modelCustomizationJobSummaries"]
    assert job not in {each["jobName"] for each in newer}
    models = world.bedrock.list_custom_models(foundationModelArnEquals=found["baseModelArn"])[
        "modelSummaries"
    ]
    assert model in {each["modelArn"] for each in models}
    with pytest.raises(ClientError, match="ValidationException"):
        jobs(nextToken="what")


def test_tags_come_and_go(world: World, model: str) -> None:
    bedrock = world.bedrock
    bedrock.tag_resource(resourceARN=model, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    bedrock.untag_resource(resourceARN=model, tagKeys=["a"])
    assert bedrock.list_tags_for_resource(resourceARN=model)["tags"] == [{"key": "b", "value": "2"}]
    with pytest.raises(ClientError, match="TooManyTagsException"):
        bedrock.tag_resource(
            resourceARN=model, tags=[{"key": f"k{number}", "value": ""} for number in range(200)]
        )


def test_a_model_is_encrypted_with_a_key_that_is_there(world: World) -> None:
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    job = world.train(customModelKmsKeyId=key)
    assert job["outputModelKmsKeyArn"] == key
    assert world.bedrock.get_custom_model(modelIdentifier=job["outputModelArn"])["modelKmsKeyArn"] == key


# --- inference ---

QUESTION = [
    {"role": "user", "content": [{"text": "What do 7 pens cost at $3 each? Answer as #### <number>."}]}
]


def test_a_question_asked_again_gets_other_answers(world: World) -> None:
    converse = world.client("bedrock-runtime").converse
    texts = [
        converse(modelId=PROFILE, messages=QUESTION)["output"]["message"]["content"][0]["text"]
        for _ in range(12)
    ]
    assert len(set(texts)) > 2
    settled = [
        converse(modelId=PROFILE, messages=QUESTION, inferenceConfig={"temperature": 0})["output"]
        for _ in range(5)
    ]
    assert all(answer == settled[0] for answer in settled)


def test_an_answer_says_what_it_cost_and_that_it_is_no_real_model(world: World) -> None:
    runtime = world.client("bedrock-runtime")
    answer = runtime.converse(
        modelId=PROFILE, messages=QUESTION, inferenceConfig={"maxTokens": 1, "temperature": 0}
    )
    assert answer["stopReason"] == "max_tokens"
    assert answer["usage"]["outputTokens"] == 1
    assert answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + 1
    assert "not by a language model" in answer["additionalModelResponseFields"]["notice"]
    model = world.bedrock.get_foundation_model(modelIdentifier=MODEL)["modelDetails"]
    assert (model["modelName"], model["providerName"]) == ("Miniature policy", "Embedded AWS")


def test_reasoning_comes_before_the_answer_and_says_nothing(world: World) -> None:
    runtime = world.client("bedrock-runtime")
    fields = {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}
    answer = runtime.converse(modelId=PROFILE, messages=QUESTION, additionalModelRequestFields=fields)
    thought, said = answer["output"]["message"]["content"]
    assert thought["reasoningContent"]["reasoningText"]["text"] == "[REDACTED]"
    assert "text" in said
    fields["reasoningConfig"]["maxReasoningEffort"] = "high"
    runtime.converse(modelId=PROFILE, messages=QUESTION, additionalModelRequestFields=fields)
    with pytest.raises(ClientError, match="temperature cannot be set when maxReasoningEffort is high"):
        runtime.converse(
            modelId=PROFILE,
            messages=QUESTION,
            inferenceConfig={"temperature": 0.7},
            additionalModelRequestFields=fields,
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modelId": MODEL}, "with on-demand throughput isn't supported"),
        ({"modelId": "amazon.nova-2-lite-v1:0"}, "us.amazon.nova-2-lite-v1:0"),
        ({"modelId": "meta.llama"}, "The provided model identifier meta.llama is invalid"),
        ({"messages": []}, "must start and end with a user message"),
        ({"messages": [{"role": "assistant", "content": [{"text": "Hi"}]}]}, "must start and end"),
        ({"messages": [*QUESTION, *QUESTION]}, "must alternate"),
        ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "has no text"),
        (
            {"messages": [{"role": "user", "content": [{"cachePoint": {"type": "default"}}]}]},
            "something else",
        ),
        ({"inferenceConfig": {"temperature": 1.5}}, "less than or equal to 1"),
        ({"inferenceConfig": {"stopSequences": ["."]}}, "does not offer stopSequences"),
        ({"additionalModelRequestFields": {"topK": 3}}, "knows no model field topK"),
        ({"additionalModelRequestFields": {"reasoningConfig": {"type": "on"}}}, "reasoningConfig has a type"),
        (
            {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
            "does not offer toolConfig",
        ),
    ],
)
def test_a_conversation_that_cannot_be_is_refused(world: World, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match="ValidationException") as caught:
        world.client("bedrock-runtime").converse(**{"modelId": PROFILE, "messages": QUESTION, **changes})
    assert said in caught.value.response["Error"]["Message"]


def test_invoke_model_speaks_the_schema_of_the_nova_models(world: World, model: str) -> None:
    runtime, deployment = world.client("bedrock-runtime"), world.deployed(model)
    body = {
        "schemaVersion": "messages-v1",
        "system": [{"text": "Answer."}],
        "messages": QUESTION,
        "inferenceConfig": {"maxTokens": 50, "temperature": 0},
        "reasoningConfig": {"type": "disabled"},
    }
    answer = runtime.invoke_model(modelId=deployment, body=json.dumps(body))
    assert answer["contentType"] == "application/json"
    found = json.loads(answer["body"].read())
    assert isinstance(found["output"]["message"]["content"][0]["text"], str)
    assert found["usage"]["outputTokens"] > 0
    assert "not by a language model" in found["notice"]
    for wrong in (b"{", b"[]", json.dumps({**body, "schemaVersion": "v0"}), json.dumps({**body, "top": 1})):
        with pytest.raises(ClientError, match="ValidationException"):
            runtime.invoke_model(modelId=deployment, body=wrong)


# --- events ---


@pytest.fixture
def events(client: Clients) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Collects the job events of EventBridge: events(job) waits for its last one and returns all of them."""
    queue = client("sqs").create_queue(QueueName="bedrock-tests-events")["QueueUrl"]
    client("events").put_rule(
        Name="bedrock-tests",
        EventPattern=json.dumps(
            {"source": ["aws.bedrock"], "detail-type": ["Model Customization Job State Change"]}
        ),
    )
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:bedrock-tests-events"
    client("events").put_targets(Rule="bedrock-tests", Targets=[{"Id": "queue", "Arn": arn}])
    found: list[dict[str, Any]] = []

    def of(job: str) -> list[dict[str, Any]]:
        for _ in range(100):
            received = (
                client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            )
            found.extend(json.loads(message["Body"]) for message in received)
            mine = [event for event in found if event["detail"]["jobArn"] == job]
            if mine and mine[-1]["detail"]["jobStatus"] in ("Completed", "Failed", "Stopped"):
                return mine
            time.sleep(0.05)
        raise AssertionError(f"{found} has no end of {job}")

    yield of
    client("events").remove_targets(Rule="bedrock-tests", Ids=["queue"])
    client("events").delete_rule(Name="bedrock-tests")
    client("sqs").delete_queue(QueueUrl=queue)


def test_a_job_tells_eventbridge_each_of_its_states(world: World, events: Any) -> None:
    job = world.train()
    told = events(job["jobArn"])
    assert [event["detail"]["jobStatus"] for event in told] == ["InProgress", "Completed"]
    assert all(event["resources"] == [job["jobArn"]] for event in told)
    detail = told[-1]["detail"]
    assert "status" not in detail
    for name in ("jobName", "jobArn", "roleArn", "outputModelName", "outputModelArn", "baseModelArn"):
        assert detail[name] == job[name]

    failed = world.ended(world.start(data=world.dataset(does="none")))
    told = events(failed["jobArn"])
    assert [event["detail"]["jobStatus"] for event in told] == ["InProgress", "Failed"]
    assert told[-1]["detail"]["failureMessage"] == failed["failureMessage"]
