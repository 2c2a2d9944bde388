"""The commands of docs/operations.md: a test runs each of them, or it is listed here with the reason."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations.md"


@dataclass(frozen=True)
class Elsewhere:
    """Why a command does not run on the embedded AWS, and which test shows what can be shown of it."""

    why: str
    test: str


# By how they begin.
ELSEWHERE = {
    "npx cdk deploy rft-delivery": Elsewhere(
        "needs an administrator of an account, and what leads to the repository",
        "tests/infra/test_delivery.py",
    ),
    "npx cdk deploy rft-network": Elsewhere(
        "is deployed without its flow log, which the emulator does not know", "tests/embedded/test_network.py"
    ),
    ".venv/bin/rft execution-policy": Elsewhere(
        "packages for AWS, from the registries", "tests/infra/test_execution_policy.py"
    ),
    "make lock": Elsewhere("asks the registries for newer versions", "tests/unit/test_tooling.py"),
    "make test": Elsewhere("runs this", "tests/unit/test_tooling.py"),
}


def commands() -> list[str]:
    """Every command of the page's shell blocks, in their order, without comments."""
    fenced = r"^```(?:sh|console|bash|shell)\n(.*?)^```$"
    blocks = re.findall(fenced, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [command for line in lines if (command := line.partition(" #")[0].strip())]


def elsewhere(command: str) -> Elsewhere | None:
    """Where a command is tested that does not run on the embedded AWS; None for all others."""
    return next((each for start, each in ELSEWHERE.items() if _begins(command, start)), None)


def _begins(command: str, start: str) -> bool:
    return shlex.split(command)[: len(shlex.split(start))] == shlex.split(start)
