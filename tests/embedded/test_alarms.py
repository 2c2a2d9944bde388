"""Each alarm of an environment is made to ring, by what it is there for, and tells the topic."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from rft.cloud import Cloud, Deployed
from rft.embedded.aws import ACCOUNT, REGION, EmbeddedAws
from tests.embedded.test_environment import Clients, Project, Synthesize, ended

REWARD = """
import time

from lambdas.contract import InfrastructureError, Reward, Sample


def score(sample: Sample) -> Reward:
    if sample.completion == "slow":
        time.sleep(2.5)
    if sample.completion == "down":
        raise InfrastructureError("the price list is gone")
    return Reward(1.0)
"""


class Watched:
    """An environment whose topic is read through a queue."""

    def __init__(self, client: Clients, deployed: Deployed) -> None:
        self.client = client
        self.deployed = deployed
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:alarms"
        topic = deployed.outputs["Topic"]
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        queue = client("sqs").create_queue(QueueName="alarms", Attributes={"Policy": policy})
        self.queue = queue["QueueUrl"]
        client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def score(self, completion: str, reference: str | None = "1") -> None:
        sample: dict[str, Any] = {"id": "1", "messages": [{"role": "assistant", "content": completion}]}
        sample["messages"].insert(0, {"role": "user", "content": "?"})
        if reference is not None:
            sample["metadata"] = {"reference_answer": reference}
        else:
            # There is nothing to score where the last word is the user's.
            sample["messages"].pop()
        self.client("lambda").invoke(FunctionName=self.function, Payload=json.dumps([sample]).encode())

    @property
    def function(self) -> str:
        """The reward function's name. Of its versions the emulator keeps no limit of concurrency."""
        return self.deployed.outputs["RewardVersion"].split(":")[6]

    def ringing(self) -> dict[str, str]:
        """The alarms that ring, by their name in the template, with what they say."""
        alarms = self.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
        return {
            re.findall(r"-Alarms([A-Za-z]+?)[0-9A-F]{8}", alarm["AlarmName"])[0]: alarm["AlarmDescription"]
            for alarm in alarms
        }

    def rings(self, name: str) -> str:
        """Waits for an alarm to ring and to be told; returns what it says."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            messages = self.client("sqs").receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10)
            for message in messages.get("Messages", ()):
                text = json.loads(message["Body"])["Message"]
                # What a run says of its end, for people, comes the same way.
                told = json.loads(text) if text.startswith("{") else {"AlarmName": ""}
                if f"-Alarms{name}" in told["AlarmName"] and told["NewStateValue"] == "ALARM":
                    return str(told["AlarmDescription"])
            time.sleep(0.1)
        raise AssertionError(f"{name} does not ring; what rings: {self.ringing()}")


@pytest.fixture(scope="module")
def watched(
    aws: EmbeddedAws,
    client: Clients,
    tmp_path_factory: pytest.TempPathFactory,
    synthesize: Synthesize,
    deploy: Callable[..., Any],
) -> Watched:
    project = Project(tmp_path_factory.mktemp("watched"), synthesize, deploy, "watched")
    (project.settings.parent / "reward.py").write_text(REWARD)
    text = project.settings.read_text()
    text = text.replace('train_when = "on-deploy"', 'train_when = "manual"')
    text = re.sub(r"(?m)^\[reward\.components.*\n(?:.+\n)*", "", text)
    text = text.replace("[reward]\n", "[reward]\ntimeout_seconds = 3\n")
    project.settings.write_text(text + '\n[reward.components.answer]\nfunction = "reward.py"\n')
    outputs = project.deploy()
    return Watched(
        client, Deployed(cloud=Cloud.embedded(aws), stack="rft-watched-dev", status="", outputs=outputs)
    )


def test_no_alarm_rings_while_all_is_well(watched: Watched) -> None:
    watched.score("1")
    assert watched.ringing() == {}


def test_a_batch_that_fails_rings(watched: Watched) -> None:
    watched.score("down")
    assert "docs/operations.md#rewardfailed" in watched.rings("RewardFailed")


def test_a_row_that_cannot_be_scored_rings(watched: Watched) -> None:
    watched.score("1", reference=None)
    assert watched.rings("RewardUnscorable").startswith("Rows reach the reward function")


def test_a_slow_batch_rings(watched: Watched) -> None:
    watched.score("slow")
    assert watched.rings("RewardSlow")


def test_a_throttled_batch_rings(watched: Watched) -> None:
    functions, name = watched.client("lambda"), watched.function
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(functions.exceptions.TooManyRequestsException):
        watched.score("1")
    functions.delete_function_concurrency(FunctionName=name)
    assert watched.rings("RewardThrottled")


def test_a_run_that_stops_rings(watched: Watched) -> None:
    source = {"train": f"s3://{watched.deployed.outputs['DatasetBucket']}/incoming/x/train.jsonl"}
    watched.client("s3").put_object(
        Bucket=watched.deployed.outputs["DatasetBucket"], Key="incoming/x/train.jsonl", Body=b"{}\n"
    )
    run, _ = watched.deployed.start({"source": source})
    assert ended(watched.deployed, run).status == "FAILED"
    assert watched.rings("RunFailed")
