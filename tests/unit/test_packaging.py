"""Lambda packages, built for real: wheels come from the package registry, and what is built is run."""

import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from rft import packaging
from rft.packaging import PackagingError, package

REPOSITORY = Path(__file__).resolve().parents[2]
AARCH64 = 183


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it was when these tests began."""
    return copied(REPOSITORY, tmp_path_factory.mktemp("source") / "project")


@pytest.fixture
def project(source: Path, tmp_path: Path) -> Path:
    return copied(source, tmp_path / "project")


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample teams packaged once for both targets; tests only look at it."""
    root = copied(source, tmp_path_factory.mktemp("built") / "project")
    package(root, "aws", report=lambda _line: None)
    package(root, "embedded", report=lambda _line: None)
    return root / "build"


def copied(project: Path, to: Path) -> Path:
    for folder in ("lambdas", "requirements", "teams"):
        shutil.copytree(project / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return to


def built_now(root: Path, teams: Sequence[str] | None = None, target: packaging.Target = "aws") -> list[str]:
    """Packages and returns the names of what was built rather than found unchanged."""
    lines: list[str] = []
    package(root, target, teams, report=lines.append)
    return [line.split()[0] for line in lines if not line.endswith("unchanged")]


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Mode and content hash of every file and folder by its path."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mode,
            "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
    }


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def alone(folder: Path, program: str) -> str:
    """Runs a program that sees the standard library and one package, as Lambda would; returns its output."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); sys.dont_write_bytecode = True\n"
    command = [sys.executable, "-I", "-S", "-c", start + textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lock_of(name: str) -> str:
    """One package's entry in the workflow's lock."""
    lock = (REPOSITORY / "requirements" / "workflow.txt").read_text()
    found = re.search(rf"^{name}==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def change_a_step(root: Path) -> None:
    step = root / "lambdas" / "workflow" / "decide.py"
    step.write_text(step.read_text() + "\n# changed\n")


def add_team(root: Path, name: str, function: str) -> Path:
    folder = root / "teams" / name
    (folder / "data").mkdir(parents=True)
    for rows in ("train.jsonl", "evaluation.jsonl"):
        shutil.copy(root / "teams" / "quotes" / "data" / rows, folder / "data" / rows)
    settings = (root / "teams" / "quotes" / "team.toml").read_text()
    component = f'[reward.components.mine]\nfunction = "{function}"\n\n'
    settings, replaced = re.subn(
        r"^\[reward\.components\.\w+\]\n(?:[^\[].*\n|\n)*", component, settings, flags=re.MULTILINE
    )
    assert replaced
    (folder / "team.toml").write_text(settings)
    return folder


def add_own_team(root: Path, reward: str) -> Path:
    folder = add_team(root, "own", "reward.py")
    (folder / "reward.py").write_text(textwrap.dedent(reward))
    return folder


@pytest.mark.parametrize(
    ("team", "function", "other"),
    [("quotes", "numeric_answer", "json_match"), ("support", "json_match", "numeric_answer")],
)
def test_a_reward_package_carries_only_what_its_team_needs(
    built: Path, team: str, function: str, other: str
) -> None:
    inside = files(built / "aws" / team / "reward")
    assert {"reward.json", "lambdas/reward_function.py", f"lambdas/rewards/{function}.py"} <= inside
    assert f"lambdas/rewards/{other}.py" not in inside
    assert not any(path.startswith(("lambdas/workflow/", "team_reward")) for path in inside)
    assert {path.split("/")[0] for path in inside} == {"reward.json", "lambdas"}


def test_a_reward_package_is_the_same_for_both_targets_when_it_has_no_third_party_code(built: Path) -> None:
    assert tree(built / "aws" / "quotes" / "reward") == tree(built / "embedded" / "quotes" / "reward")


def test_a_reward_package_scores_with_nothing_but_the_standard_library(source: Path, built: Path) -> None:
    rows = (source / "teams" / "quotes" / "data" / "train.jsonl").read_text().splitlines()
    row = json.loads(rows[0])

    def answered(name: str, answer: str) -> dict[str, object]:
        completion = {"role": "assistant", "content": f"It comes to this.\n#### {answer}"}
        return {**row, "id": name, "messages": [*row["messages"], completion]}

    event = [answered("right", row["reference_answer"]), answered("wrong", "17")]
    printed = alone(
        built / "aws" / "quotes" / "reward",
        f"""
        import json, os
        os.environ["STACK"] = "rft-quotes-dev"
        from lambdas.reward_function import handler
        print("RESULT", json.dumps(handler(json.loads({json.dumps(event)!r}), None)))
        """,
    )
    results = json.loads(printed.split("RESULT ")[1].splitlines()[0])
    assert {result["id"]: result["aggregate_reward_score"] for result in results} == {
        "right": 1.0,
        "wrong": 0.0,
    }


def test_a_package_with_algebra_brings_the_process_that_does_it(project: Path, built: Path) -> None:
    add_team(project, "algebra", "math_answer")
    # The workflow is packaged along with every team; what it needs is installed already.
    shutil.copytree(built / ".cache", project / "build" / ".cache")
    package(project, "aws", ["algebra"], report=lambda _line: None)
    folder = project / "build" / "aws" / "algebra" / "reward"
    inside = files(folder)
    ours = {"lambdas/rewards/math_answer.py", "lambdas/algebra.py", "lambdas/equivalence.py"}
    assert ours | {"math_verify/grader.py", "sympy/__init__.py"} <= inside
    # A sixth of what Lambda takes: it is unpacked at every cold start.
    assert sum((folder / path).stat().st_size for path in inside) < packaging.LARGEST_BYTES / 6
    # Nothing in it is compiled, so that what is built for Lambda runs here as well.
    assert not any(path.endswith(".so") for path in inside)
    messages = [{"role": "assistant", "content": r"\boxed{\sqrt{8}}"}]
    event = [
        {"id": "right", "messages": messages, "reference_answer": r"2\sqrt{2}"},
        {"id": "wrong", "messages": messages, "reference_answer": r"2\sqrt{3}"},
    ]
    printed = alone(
        folder,
        f"""
        import importlib.util, json, os
        os.environ["STACK"] = "rft-algebra-dev"
        from lambdas.reward_function import handler
        results = handler(json.loads({json.dumps(event)!r}), None)
        print("RESULT", json.dumps([result["aggregate_reward_score"] for result in results]))
        # The child looks where this process does, and in what is installed on this machine after that.
        for library in ("sympy", "mpmath", "math_verify", "latex2sympy2_extended", "antlr4"):
            assert importlib.util.find_spec(library).origin.startswith({str(folder)!r}), library
        """,
    )
    assert json.loads(printed.split("RESULT ")[1].splitlines()[0]) == [1.0, 0.0]


def test_the_settings_in_a_reward_package_are_sorted_and_the_teams_own(built: Path) -> None:
    text = (built / "aws" / "quotes" / "reward" / "reward.json").read_text()
    settings = json.loads(text)
    assert text == json.dumps(settings, indent=2, sort_keys=True) + "\n"
    assert [part["function"] for part in settings["components"].values()] == ["numeric_answer"]


def test_compiled_code_for_aws_is_for_arm64_and_the_deployed_python(built: Path) -> None:
    libraries = list((built / "aws" / "workflow").rglob("*.so"))
    assert {"_core", "_speedups"} <= {path.name.split(".")[0] for path in libraries}
    for path in libraries:
        (machine,) = struct.unpack_from("<H", path.read_bytes(), 18)
        assert machine == AARCH64, path
        assert "cpython-314-aarch64" in path.name


def test_a_package_holds_nothing_of_the_machine_that_built_it(built: Path) -> None:
    for path in (built / "aws").rglob("*"):
        assert path.name not in {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "__pycache__", "bin"}
        assert path.suffix != ".pyc"
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
        assert path.is_dir() or str(built).encode() not in path.read_bytes()


def test_every_step_imports_and_makes_its_clients_from_its_own_package(built: Path) -> None:
    folder = built / "embedded" / "workflow"
    steps = [path.stem for path in (folder / "lambdas" / "workflow").glob("*.py") if path.stem != "__init__"]
    sources = [path.read_text() for path in (folder / "lambdas").rglob("*.py")]
    services = {name for text in sources for name in re.findall(r"""client\(\s*["']([a-z0-9-]+)["']""", text)}
    assert {"bedrock", "s3"} <= services
    alone(
        folder,
        f"""
        import importlib, os
        os.environ |= {{"AWS_DEFAULT_REGION": "us-east-1", "STACK": "s", "DATASETS": "d", "ARTIFACTS": "a"}}
        for step in {steps}:
            assert importlib.import_module(f"lambdas.workflow.{{step}}").__file__
        import boto3, jinja2, msgspec, pygal
        for library in (boto3, jinja2, msgspec, pygal):
            assert library.__file__.startswith({str(folder)!r}), library.__file__
        for service in {sorted(services | {"sts"})}:
            boto3.client(service)
        assert "ec2" not in boto3.Session().get_available_services()
        """,
    )


def test_what_lies_beside_a_step_comes_along(source: Path, built: Path) -> None:
    beside = source / "lambdas" / "workflow"
    expected = {
        f"lambdas/workflow/{path.name}"
        for path in beside.iterdir()
        if path.is_file() and path.suffix != ".pyc"
    }
    assert expected <= files(built / "aws" / "workflow")
    assert not any(path.startswith("lambdas/rewards/") for path in files(built / "aws" / "workflow"))


def test_the_same_input_gives_the_same_bytes_in_another_folder(
    source: Path, built: Path, tmp_path: Path
) -> None:
    again = copied(source, tmp_path / "somewhere" / "else")
    assert built_now(again) == ["quotes/reward", "support/reward", "workflow"]
    for name in ("quotes/reward", "support/reward", "workflow"):
        assert tree(again / "build" / "aws" / name) == tree(built / "aws" / name)
        key = f"{name}.key"
        assert (again / "build" / "aws" / key).read_text() == (built / "aws" / key).read_text()


def test_a_second_call_installs_nothing_and_touches_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []
    run = subprocess.run

    def counted(*arguments, **options):
        commands.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(packaging.subprocess, "run", counted)
    package(project, "aws", report=lambda _line: None)
    assert len(commands) == 1
    before = {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (project / "build/aws").rglob("*")
    }
    assert built_now(project) == []
    after = {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (project / "build/aws").rglob("*")
    }
    assert len(commands) == 1
    assert after == before
    # Our own code changed: the package is built again from the third-party code at hand.
    change_a_step(project)
    assert built_now(project) == ["workflow"]
    assert len(commands) == 1


def test_a_changed_setting_builds_that_teams_package_and_no_other(project: Path) -> None:
    package(project, "aws", report=lambda _line: None)
    settings = project / "teams" / "quotes" / "team.toml"
    changed = re.sub(
        r"^\[reward\]$", "[reward]\nlog_sampling_rate = 0.5", settings.read_text(), flags=re.MULTILINE
    )
    assert changed != settings.read_text()
    settings.write_text(changed)
    assert built_now(project) == ["quotes/reward"]
    assert (
        json.loads((project / "build/aws/quotes/reward/reward.json").read_text())["log_sampling_rate"] == 0.5
    )


def test_a_setting_that_no_reward_function_reads_builds_nothing(project: Path) -> None:
    package(project, "aws", ["quotes"], report=lambda _line: None)
    settings = project / "teams" / "quotes" / "team.toml"
    settings.write_text(re.sub(r"epoch_count = \d+", "epoch_count = 3", settings.read_text()))
    assert built_now(project, ["quotes"]) == []


def test_only_the_named_teams_are_built(project: Path) -> None:
    assert built_now(project, ["support"]) == ["support/reward", "workflow"]
    assert not (project / "build" / "aws" / "quotes").exists()


def test_what_a_killed_packaging_left_is_built_again(project: Path) -> None:
    package(project, "aws", ["quotes"], report=lambda _line: None)
    reward = project / "build" / "aws" / "quotes" / "reward"
    whole = tree(reward)
    reward.with_name("reward.key").unlink()
    (reward / "reward.json").unlink()
    (project / "build" / ".work" / "half").mkdir(parents=True)
    assert built_now(project, ["quotes"]) == ["quotes/reward"]
    assert tree(reward) == whole
    assert not (project / "build" / ".work").exists()


def test_two_packagings_at_once_give_one_whole_result(project: Path, built: Path) -> None:
    program = (
        f"from pathlib import Path; from rft.packaging import package; package(Path({str(project)!r}), 'aws')"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(text.count("unchanged") for text, _ in said) == [0, 3]
    assert tree(project / "build" / "aws" / "workflow") == tree(built / "aws" / "workflow")


def test_a_teams_own_reward_comes_with_the_library_code_it_imports(project: Path) -> None:
    add_own_team(
        project,
        """
        from lambdas.contract import Reward, Sample

        def score(sample: Sample) -> Reward:
            from lambdas.rewards import numeric_answer
            return numeric_answer.NumericAnswer().score(sample)
        """,
    )
    package(project, "aws", ["own"], report=lambda _line: None)
    inside = files(project / "build" / "aws" / "own" / "reward")
    assert {"team_reward.py", "lambdas/rewards/numeric_answer.py", "lambdas/contract.py"} <= inside
    assert "lambdas/rewards/json_match.py" not in inside


def test_however_a_module_is_imported_it_comes_along(project: Path) -> None:
    rewards = project / "lambdas" / "rewards"
    ways = {
        "numeric_answer": "from . import first\nfrom .second import anything\nfrom .. import numbers",
        "first": "def late():\n    import lambdas.rewards.third\n    from lambdas.rewards import fourth, X",
        "second": "from ..contract import Sample",
        "third": "",
        "fourth": "import json\nfrom lambdas.rewards import first",
        "unused": "",
    }
    for name, source in ways.items():
        (rewards / f"{name}.py").write_text(source + "\n")
    (project / "lambdas" / "numbers").mkdir()
    (project / "lambdas" / "numbers" / "__init__.py").write_text("from .exact import x\n")
    (project / "lambdas" / "numbers" / "exact.py").write_text("x = 1\n")
    package(project, "aws", ["quotes"], report=lambda _line: None)
    inside = files(project / "build" / "aws" / "quotes" / "reward")
    carried = {path.rpartition("/")[2] for path in inside if path.startswith("lambdas/rewards/")}
    assert carried == {f"{name}.py" for name in ("__init__", *ways)} - {"unused.py"}
    assert {"lambdas/numbers/__init__.py", "lambdas/numbers/exact.py"} <= inside


def test_third_party_code_goes_only_to_the_reward_that_declares_it(project: Path) -> None:
    own = add_own_team(
        project, "from lambdas.contract import Reward\ndef score(sample): return Reward(0.0)\n"
    )
    (own / "requirements.txt").write_text(lock_of("markupsafe"))
    rewards = project / "requirements" / "rewards"
    rewards.mkdir(exist_ok=True)
    (rewards / "numeric_answer.txt").write_text(lock_of("msgspec"))
    package(project, "aws", report=lambda _line: None)
    build = project / "build" / "aws"
    assert {path.name for path in build.glob("*/reward/*") if path.is_dir()} - {"lambdas"} >= {
        "msgspec",
        "markupsafe",
    }
    assert (build / "quotes" / "reward" / "msgspec").is_dir()
    assert not (build / "quotes" / "reward" / "markupsafe").exists()
    assert (build / "own" / "reward" / "markupsafe").is_dir()
    assert not (build / "own" / "reward" / "msgspec").exists()
    assert {path.name for path in (build / "support" / "reward").iterdir()} == {"lambdas", "reward.json"}


def test_a_changed_lock_replaces_the_third_party_code(project: Path) -> None:
    lock = project / "requirements" / "rewards" / "numeric_answer.txt"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(lock_of("markupsafe"))
    package(project, "aws", ["quotes"], report=lambda _line: None)
    lock.write_text(lock_of("msgspec"))
    assert built_now(project, ["quotes"]) == ["quotes/reward"]
    reward = project / "build" / "aws" / "quotes" / "reward"
    assert (reward / "msgspec").is_dir()
    assert not (reward / "markupsafe").exists()


def test_without_the_registry_the_message_says_so_and_nothing_is_left(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(PackagingError) as caught:
        package(project, "aws", ["quotes"], report=lambda _line: None)
    message = str(caught.value)
    assert message.startswith(
        "cannot install requirements/workflow.txt for CPython 3.14 on aarch64-manylinux_2_28:"
    )
    assert "boto3" in message
    assert "The package registry cannot be reached" in message
    assert not (project / "build" / "aws" / "workflow").exists()
    assert not (project / "build" / ".work").exists()


def test_offline_is_no_obstacle_once_packaged(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package(project, "aws", ["quotes"], report=lambda _line: None)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    change_a_step(project)
    assert built_now(project, ["quotes"]) == ["workflow"]


def test_a_file_that_is_not_the_locked_one_is_refused(project: Path) -> None:
    own = add_own_team(project, "def score(sample): ...\n")
    (own / "requirements.txt").write_text(f"six==1.17.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(
        PackagingError, match=r"(?s)teams/own/requirements.txt.*Hash mismatch.*not the one that was locked"
    ):
        package(project, "aws", ["own"], report=lambda _line: None)


def test_a_requirement_without_a_hash_is_refused(project: Path) -> None:
    own = add_own_team(project, "def score(sample): ...\n")
    (own / "requirements.txt").write_text("six==1.17.0\n")
    with pytest.raises(
        PackagingError, match=r"(?s)teams/own/requirements.txt.*must have a hash.*`make lock`"
    ):
        package(project, "aws", ["own"], report=lambda _line: None)


def test_a_missing_module_is_named_with_who_needs_it(project: Path) -> None:
    add_own_team(project, "from lambdas.contracts import Reward\ndef score(sample): ...\n")
    expected = "lambdas/contracts.py does not exist, but teams/own/reward.py needs it"
    with pytest.raises(PackagingError, match=f"^{re.escape(expected)}$"):
        package(project, "aws", ["own"], report=lambda _line: None)


def test_a_source_that_python_cannot_read_is_named_with_its_line(project: Path) -> None:
    (project / "lambdas" / "workflow" / "decide.py").write_text("x = 1\ndef handler(:\n")
    with pytest.raises(PackagingError, match=r"^lambdas/workflow/decide.py line 2: invalid syntax"):
        package(project, "aws", ["quotes"], report=lambda _line: None)


def test_a_package_too_large_for_lambda_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "LARGEST_BYTES", 2**20)
    with pytest.raises(PackagingError, match=r"workflow for aws is .* MB unzipped, more than the 1.0 MB"):
        package(project, "aws", ["quotes"], report=lambda _line: None)


def test_what_is_left_out_is_said(project: Path) -> None:
    lines: list[str] = []
    package(project, "aws", ["quotes"], report=lines.append)
    assert re.search(
        r"botocore knows bedrock, .*s3, .*sts, without \d{3} more services \(\d+\.\d MB\)", lines[-1]
    )
    assert re.fullmatch(r"quotes/reward for aws: \d+ files, \d+ kB, \d+ kB zipped", lines[0])
