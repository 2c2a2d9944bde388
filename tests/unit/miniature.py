"""A customization job of the embedded AWS without the AWS around it: the real trainer and the real contract.

The miniature policy, the trainer and the handler of a reward function are those that `rft up` runs; here the
bucket is a dictionary and the reward function is called in place, so that a whole job takes seconds.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.config import load_platform, load_team
from lambdas.composition import compose, reward_range
from lambdas.contract import Reward, Sample, reward_handler
from lambdas.workflow.measure import read_rewards
from lambdas.workflow.report import read_steps
from rft.embedded import customization
from rft.embedded.customization import Job, Training
from rft.embedded.policy import AnswerSpace, Policy, tokens

REPOSITORY = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
Score = Callable[[Sample], Reward]


def rows_of(team: str, file: str = "train") -> list[Row]:
    """The rows of a sample team."""
    lines = (REPOSITORY / f"teams/{team}/data/{file}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def reward_of(team: str) -> tuple[Score, tuple[float, float]]:
    """What a sample team deploys as its reward function, and the range of it."""
    settings = load_team(REPOSITORY, team, load_platform(REPOSITORY)).reward.document()
    return compose(settings), reward_range(settings)


def training_of(team: str) -> dict[str, Any]:
    """The hyperparameters of a sample team, in the service's words."""
    return load_team(REPOSITORY, team, load_platform(REPOSITORY)).training.request()


@dataclass
class Account:
    """The two services that a job uses: S3, and Lambda with one function."""

    handler: Callable[[object, object], Any]
    objects: dict[str, bytes]
    printed: io.StringIO = field(default_factory=io.StringIO)

    def get_object(self, **asked: Any) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.objects["s3://{Bucket}/{Key}".format(**asked)])}

    def put_object(self, **asked: Any) -> None:
        self.objects["s3://{Bucket}/{Key}".format(**asked)] = asked["Body"]

    def invoke(self, **asked: Any) -> dict[str, Any]:
        with redirect_stdout(self.printed):
            answer = self.handler(json.loads(asked["Payload"]), None)
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}


@dataclass(frozen=True)
class Trained:
    """What a job leaves behind: the metric lines of the reward function, the metrics file, and the model."""

    lines: Sequence[Mapping[str, Any]]
    steps: Sequence[Mapping[str, float | None]]
    policy: Policy


def train(rows: Iterable[Row], score: Score, *, floor: float = 0.0, **training: Any) -> Trained:
    """Runs a job to its end; `training` overrides the hyperparameters, in the service's words."""
    body = "\n".join(json.dumps(row) for row in rows).encode()
    account = Account(
        reward_handler(score, floor=floor, environment="rft-test-dev"), {"s3://datasets/train.jsonl": body}
    )
    document = {
        "jobArn": "arn:aws:bedrock:us-east-1:000000000000:model-customization-job/base/abcdefghijkl",
        "roleArn": "arn:aws:iam::000000000000:role/Customization",
        "trainingDataConfig": {"s3Uri": "s3://datasets/train.jsonl"},
        "validationDataConfig": {"validators": []},
        "outputDataConfig": {"s3Uri": "s3://artifacts/output"},
        "customizationConfig": {
            "rftConfig": {
                "graderConfig": {"lambdaGrader": {"lambdaArn": "arn:aws:lambda:::function:Reward:1"}},
                "hyperParameters": training,
            }
        },
        "statusDetails": {
            name: {} for name in ("validationDetails", "dataProcessingDetails", "trainingDetails")
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        # One after the other, so that equal jobs leave equal logs.
        patch.setattr(customization, "_INVOCATIONS_AT_A_TIME", 1)
        job = Training(job=Job(document), lock=nullcontext(), s3=account, function=account, pause=0)
        policy = job.run()
    [table] = [body for uri, body in account.objects.items() if uri.endswith("training_metrics.csv")]
    printed = [json.loads(line) for line in account.printed.getvalue().splitlines()]
    return Trained(
        lines=[line for line in printed if "reward_mean" in line],
        steps=read_steps(table.decode()),
        policy=policy,
    )


def measure(
    policy: Policy | None, rows: Sequence[Row], score: Score, *, count: int = 4, max_tokens: int = 1024
) -> list[dict[str, Any]]:
    """Measures a model, the base model without one, into what the workflow writes of each prompt."""
    handler = reward_handler(score)
    measured = []
    model = policy or Policy.base(AnswerSpace.of(row["reference_answer"] for row in rows))
    for index, row in enumerate(rows):
        name = row.get("id", str(index))
        task = model.task(row["messages"])
        sampled = model.sample(task, count, seed=f"measured {name}", temperature=0.7, max_tokens=max_tokens)
        metadata = {key: value for key, value in row.items() if key not in ("id", "messages")}
        batch = [
            {
                "id": f"{name}-{number}",
                "messages": [*row["messages"], {"role": "assistant", "content": one.text}],
                "metadata": metadata,
            }
            for number, one in enumerate(sampled)
        ]
        rewards = read_rewards(handler(batch, None), [sample["id"] for sample in batch])
        completions = [
            {
                "text": one.text,
                "output_tokens": tokens(one.text),
                "stop_reason": "max_tokens" if one.truncated else "end_turn",
                **reward,
            }
            for one, reward in zip(sampled, rewards, strict=True)
        ]
        mean = sum(each["score"] for each in completions) / count
        measured.append(
            {
                "index": index,
                "id": name,
                "messages": row["messages"],
                "reference_answer": row["reference_answer"],
                "completions": completions,
                "mean": mean,
            }
        )
    return measured
