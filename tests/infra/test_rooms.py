"""Who may import whom: the boundary between the rooms is the time their code runs at."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.conftest import REPOSITORY

AWS_CDK = {"aws_cdk", "cdk_nag", "constructs", "jsii"}
BOTO3 = {"boto3", "botocore"}
# What code at synthesis would see more by than its arguments: the network, the clock, chance, other programs.
OUTSIDE = {"asyncio", "datetime", "getpass", "http", "platform", "random", "requests", "secrets", "socket"}
OUTSIDE |= {"subprocess", "time", "urllib", "uuid"}

# What no file of a room may import. A dotted name stands for all below it.
FORBIDDEN = {
    "app.py": {"lambdas", "rft", "tests", *BOTO3},
    "infra": {"rft", "tests", "app", "lambdas", *BOTO3, *OUTSIDE},
    "lambdas": {"infra", "rft", "tests", "app", *AWS_CDK},
    "rft": {"infra", "tests", "app", *AWS_CDK},
}
# What single files may import all the same.
ALLOWED = {
    # The date of a price list is data, not the clock. What a reward may be is what its code says.
    "infra/config.py": {"datetime", "lambdas.composition", "lambdas.rewards"},
    # What a run is named by is decided in one place, and so is how a mistake in a file is told.
    "rft": {"infra.config", "infra.faults", "infra.runs"},
}
# Without aws_cdk these are read in milliseconds: `rft check` and unit tests need no synthesis.
PURE = ["infra/config.py", "infra/guardrails.py", "infra/runs.py", "infra/states.py"]


def files(room: str) -> list[Path]:
    place = REPOSITORY / room
    found = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert found, f"there is no {room}"
    return found


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The full names a file imports, by line; also those of imports inside functions and of importlib."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                for each in names:
                    yield node.lineno, each.name
            case ast.ImportFrom(module=module, names=names, level=level):
                package = path.relative_to(REPOSITORY).parent.parts
                start = [*package[: len(package) - level + 1]] if level else []
                base = ".".join([*start, *([module] if module else [])])
                for each in names:
                    yield node.lineno, f"{base}.{each.name}"
            case ast.Call(func=function, args=[argument, *_]) if ast.unparse(function).endswith(
                "import_module"
            ):
                name = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
                if isinstance(name, ast.Constant):
                    yield node.lineno, str(name.value)


def inside(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def offences(room: str) -> list[str]:
    found = []
    for path in files(room):
        name = path.relative_to(REPOSITORY).as_posix()
        allowed = {each for place, names in ALLOWED.items() if name.startswith(place) for each in names}
        forbidden = FORBIDDEN[room]
        found += [
            f"{name}:{line} imports {imported}"
            for line, imported in imports(path)
            if inside(imported, forbidden) and not inside(imported, allowed)
        ]
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_imports_only_what_it_may(room: str) -> None:
    assert offences(room) == []


@pytest.mark.parametrize("name", PURE)
def test_module_needs_no_aws_cdk(name: str) -> None:
    assert [imported for _, imported in imports(REPOSITORY / name) if inside(imported, AWS_CDK)] == []


def test_reward_library_needs_only_the_standard_library_to_be_imported() -> None:
    for path in [*files("lambdas/rewards"), REPOSITORY / "lambdas" / "contract.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top:
            names = (
                [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            for name in names:
                root = name.split(".")[0]
                assert root in sys.stdlib_module_names or root == "lambdas", f"{path.name}: {name}"


@pytest.mark.parametrize("path", files("infra"), ids=lambda path: path.name)
def test_synthesis_sees_nothing_but_its_arguments(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    seen = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not [each for each in seen if each.startswith(("os.environ", "os.getenv", "sys.argv"))]
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not [
        each for each in called if each.endswith((".from_lookup", ".now", ".today", ".try_get_context"))
    ]


def test_fails_when_a_room_imports_what_it_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lambdas" / "workflow").mkdir(parents=True)
    (tmp_path / "lambdas" / "workflow" / "bad.py").write_text(
        "import importlib\n"
        "from ...infra import config\n"
        "def handler(event):\n"
        "    import aws_cdk.aws_s3 as s3\n"
        "    importlib.import_module('rft.cli')\n"
        "    from lambdas import contract\n"
    )
    monkeypatch.setattr("tests.infra.test_rooms.REPOSITORY", tmp_path)
    assert offences("lambdas") == [
        "lambdas/workflow/bad.py:2 imports infra.config",
        "lambdas/workflow/bad.py:4 imports aws_cdk.aws_s3",
        "lambdas/workflow/bad.py:5 imports rft.cli",
    ]
