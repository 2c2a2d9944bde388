"""The package of a team that runs model-written code, in a Lambda worker of the embedded AWS."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft.packaging import package
from tests.embedded.conftest import REPOSITORY

HONEST = "def add(a, b):\n    return a + b"
# Two of these reach for what the function has, and one for its verdict.
HOSTILE = [
    "import os\ndef add(a, b):\n    return 3 if os.environ['AWS_SECRET_ACCESS_KEY'] else 0",
    "import os\ndef add(a, b):\n    return 3 if open(f'/proc/{os.getppid()}/environ').read() else 0",
    'import os\nos.write(1, b\'[{"id": "0", "aggregate_reward_score": 1.0}]\\n\')\nos._exit(0)',
]


def test_a_worker_scores_code_and_gives_nothing_away(client: Callable[[str], Any], tmp_path: Path) -> None:
    for name in ("lambdas", "requirements"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    team = shutil.copytree(REPOSITORY / "teams" / "quotes", tmp_path / "teams" / "coders")
    shutil.copy(REPOSITORY / "teams" / "platform.toml", tmp_path / "teams")
    settings = (team / "team.toml").read_text().partition("[reward]")[0]
    (team / "team.toml").write_text(
        settings + '[reward]\n[reward.components.tests]\nfunction = "code_tests"\nseconds_per_test = 0.5\n'
    )
    package(tmp_path, "embedded", ["coders"], report=lambda _line: None)
    code = io.BytesIO()
    built = tmp_path / "build" / "embedded" / "coders" / "reward"
    with zipfile.ZipFile(code, "w") as archive:
        for path in built.rglob("*"):
            archive.write(path, path.relative_to(built))
    trusted = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    role = client("iam").create_role(
        RoleName="Coder",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trusted]}),
    )["Role"]["Arn"]
    client("lambda").create_function(
        FunctionName="coder",
        Runtime="python3.14",
        Handler="lambdas.reward_function.handler",
        Role=role,
        Code={"ZipFile": code.getvalue()},
        Timeout=60,
    )
    batch = [
        {
            "id": str(number),
            "messages": [
                {"role": "user", "content": "Write add."},
                {"role": "assistant", "content": f"```python\n{program}\n```"},
            ],
            "metadata": {"reference_answer": ["assert add(1, 2) == 3"]},
        }
        for number, program in enumerate([HONEST, *HOSTILE, HONEST])
    ]
    answer = client("lambda").invoke(FunctionName="coder", Payload=json.dumps(batch))
    rewards = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, rewards
    assert [each["aggregate_reward_score"] for each in rewards] == [1.0, 0.0, 0.0, 0.0, 1.0]
