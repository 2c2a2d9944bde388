"""What the teams themselves call right earns everything from the reward function deployed for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Clients = Callable[[str], Any]

REPOSITORY = Path(__file__).resolve().parents[2]
# How a reference answer of a team is written as a completion.
WRITTEN = {"quotes": lambda answer: f"It is this.\n#### {answer}", "support": json.dumps}


@pytest.mark.parametrize("team", WRITTEN)
def test_every_reference_earns_the_maximum(
    team: str, client: Clients, deploy: Callable[..., dict[str, str]], assembly: Path
) -> None:
    version = deploy(assembly, f"rft-{team}-dev")["RewardVersion"]
    files = (REPOSITORY / "teams" / team / "data").glob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) >= 400
    missed = []
    for start in range(0, len(rows), 64):
        batch = rows[start : start + 64]
        samples = [
            {
                "id": f"{start + position}",
                "messages": [
                    *row["messages"],
                    {"role": "assistant", "content": WRITTEN[team](row["reference_answer"])},
                ],
                "metadata": {"reference_answer": row["reference_answer"]},
            }
            for position, row in enumerate(batch)
        ]
        answer = client("lambda").invoke(FunctionName=version, Payload=json.dumps(samples).encode())
        scores = [each["aggregate_reward_score"] for each in json.loads(answer["Payload"].read())]
        missed += [row["id"] for row, score in zip(batch, scores, strict=True) if score != 1.0]
    assert missed == []
