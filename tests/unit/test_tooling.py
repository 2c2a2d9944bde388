"""What installs and checks the project: the Makefile, the locks, the toolchain check and the CI workflow."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from rft import toolchain
from rft.toolchain import ToolchainError, require_node

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = sorted((REPOSITORY / "requirements").rglob("*.txt"))
DEPLOYED = [path for path in LOCKS if path.name != "dev.txt"]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def pins(lock: Path) -> dict[str, set[str]]:
    """The locked versions by package; more than one where they differ by Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def check_toolchain(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rft.toolchain"],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


# The machine's tools


def test_this_machine_has_what_it_takes() -> None:
    assert require_node() >= toolchain.MINIMUM_NODE
    done = check_toolchain(os.environ["PATH"])
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_tools_are_all_named_at_once(tmp_path: Path) -> None:
    done = check_toolchain(str(tmp_path))
    assert done.returncode == 1
    node, npm = done.stderr.splitlines()
    assert node.startswith("toolchain: node is not on the PATH, and CDK runs on it: install Node 20 or newer")
    assert npm.startswith("toolchain: npm is not on the PATH")


def test_a_node_that_is_too_old_is_named_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = executable(tmp_path / "node", "echo v18.20.4")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        require_node()
    assert str(caught.value).startswith(
        f"{node} is v18.20.4, too old for this project: install Node 20 or newer"
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo nonsense", "nonsense"), ("echo broken library >&2; exit 127", "broken library")],
)
def test_a_node_that_does_not_work_is_shown_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    executable(tmp_path / "node", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=rf"answers '{said}' and no version"):
        require_node()


def test_a_node_past_its_end_of_life_is_mentioned_in_one_line(tmp_path: Path) -> None:
    executable(tmp_path / "npm", "exit 0")
    executable(tmp_path / "node", "echo v20.1.0")
    old = check_toolchain(str(tmp_path))
    executable(tmp_path / "node", "echo v24.1.0")
    new = check_toolchain(str(tmp_path))
    assert (old.returncode, new.returncode) == (0, 0)
    assert old.stdout == "toolchain: Node 20 works, but is without fixes since April 2026; prefer 24\n"
    assert new.stdout == ""


def test_jsii_knows_the_variable_that_keeps_it_quiet() -> None:
    spec = find_spec("jsii")
    assert spec
    assert spec.origin
    runtime = (Path(spec.origin).parent / "_embedded" / "jsii" / "bin__jsii-runtime.js").read_text()
    (name,) = re.findall(r"^export JSII(_\w+) :=", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert f"}}{name}`" in runtime


def test_an_old_python_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "MINIMUM_PYTHON", (4, 0))
    (fault,) = toolchain.faults()
    assert "install Python 4.0 or newer" in fault
    assert "make install PYTHON=python4.0" in fault
    # It can say so only if an old Python can read the file.
    source = Path(toolchain.__file__).read_text()
    ast.parse(source, feature_version=(3, 8))
    imported = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported <= sys.stdlib_module_names


# The Makefile and what calls it


def test_make_install_without_node_says_so_and_installs_nothing(tmp_path: Path) -> None:
    for name in ("Makefile", "rft/__init__.py", "rft/toolchain.py", "requirements/install.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    done = subprocess.run(
        ["make", "install", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "toolchain: node is not on the PATH" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_help_lists_every_verb() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)
    assert listed == re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE)
    assert {"install", "lint", "types", "unit", "infra", "embedded", "test"} <= set(listed)
    assert {"local", "bench", "lock", "clean"} <= set(listed)


def test_make_lets_python_keep_its_bytecode_and_jsii_its_peace() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-f", "-", "show"],
        input="include Makefile\nshow:\n\t@env\n",
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout
    assert "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=20\n" in done.stdout


def test_ci_runs_make_test_at_the_root_from_anywhere(tmp_path: Path) -> None:
    executable(tmp_path / "make", 'echo "$PWD $CI $*"; exit 7')
    done = subprocess.run(
        [REPOSITORY / ".ci" / "run"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{REPOSITORY} true test\n"
    assert done.returncode == 7


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_grant_nothing_by_default_and_pin_what_they_use(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for line in path.read_text().splitlines():
        if "uses:" in line:
            assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_what_tests_on_github_is_what_tests_here() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "check.yml").read_text())
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test"]
    assert job["permissions"] == {"contents": "read"}


# The locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_is_nothing_but_pinned_packages_and_their_hashes(lock: Path) -> None:
    text = lock.read_text()
    pin = r"[a-z0-9][a-z0-9-]*==[^ ;\\]+(?: ; [^\\\n]+)?"
    entry = rf"{pin}(?: \\\n    --hash=sha256:[0-9a-f]{{64}})+\n"
    assert re.fullmatch(rf"(?:{entry})+", text)
    assert "://" not in text


def test_everything_declared_is_locked_within_its_bounds() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"]]
    for group in project["dependency-groups"].values():
        declared += [entry for entry in group if isinstance(entry, str)]
    for path in (REPOSITORY / "requirements").rglob("*.in"):
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
        declared += [line for line in lines if line]
    locked = pins(REPOSITORY / "requirements" / "dev.txt")
    for requirement in map(Requirement, declared):
        versions = locked.get(requirement.name, set())
        assert versions, f"{requirement.name} is not in requirements/dev.txt: run make lock"
        assert all(version in requirement.specifier for version in versions), f"{requirement}: run make lock"


def test_every_import_is_of_a_locked_package() -> None:
    ours = {"app", "infra", "lambdas", "rft", "tests", "team_reward"}
    distributions = packages_distributions()
    locked = pins(REPOSITORY / "requirements" / "dev.txt").keys()
    sources = [REPOSITORY / "app.py"]
    for room in ("infra", "lambdas", "rft", "teams", "tests"):
        sources += (REPOSITORY / room).rglob("*.py")
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for top in {name.partition(".")[0] for name in names} - ours - sys.stdlib_module_names:
                found = {canonicalize_name(name) for name in distributions.get(top, [])}
                assert found & locked, f"{source.relative_to(REPOSITORY)} imports {top}, which no list names"


@pytest.mark.parametrize("lock", DEPLOYED, ids=lambda path: path.stem)
def test_what_is_deployed_is_what_is_tested(lock: Path) -> None:
    tested = pins(REPOSITORY / "requirements" / "dev.txt")
    for name, versions in pins(lock).items():
        assert versions <= tested[name], f"{name} in {lock.name}: run make lock"


def test_the_lambdas_carry_the_boto3_that_everything_else_runs_on() -> None:
    assert pins(REPOSITORY / "requirements" / "workflow.txt")["boto3"] == {"1.43.106"}
    assert pins(REPOSITORY / "requirements" / "workflow.txt")["botocore"] == {"1.43.106"}


def test_the_npm_lock_names_content_and_no_registry() -> None:
    text = (REPOSITORY / "package-lock.json").read_text()
    assert '"resolved"' not in text
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert all(re.fullmatch(r"sha512-[\w+/]{86}==", entry["integrity"]) for entry in packages.values())
    declared = json.loads((REPOSITORY / "package.json").read_text())["devDependencies"]
    for name, version in declared.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    assert "omit-lockfile-registry-resolved=true" in (REPOSITORY / ".npmrc").read_text().splitlines()


def test_the_cdk_cli_is_the_one_the_library_asks_for_or_a_newer_one_of_its_line() -> None:
    # npm's latest, 3.0.0, is no newer one: it is an old program under a high number.
    spec = find_spec("aws_cdk.cloud_assembly_schema._jsii")
    assert spec
    assert spec.origin
    (assembly,) = Path(spec.origin).parent.glob("*.tgz")
    with tarfile.open(assembly) as archive:
        member = archive.extractfile("package/cli-version.json")
        assert member
        asked = Version(json.load(member)["version"])
    pinned = Version(json.loads((REPOSITORY / "package.json").read_text())["devDependencies"]["aws-cdk"])
    assert asked <= pinned < Version("3")


# The checker of state machine definitions


def diagnostics(definition: object) -> list[dict[str, object]]:
    done = subprocess.run(
        ["node", "tests/infra/validate_asl.cjs"],
        cwd=REPOSITORY,
        input=json.dumps(definition),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def machine(**states: object) -> dict[str, object]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states}


def test_a_sound_definition_has_no_diagnostics() -> None:
    wait = {"Type": "Wait", "Seconds": "{% $states.input.seconds %}", "Next": "Done"}
    assert diagnostics(machine(Wait=wait, Done={"Type": "Succeed"})) == []


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (machine(A={"Type": "Pass", "Next": "B"}), "must be the name of an existing state"),
        (machine(A={"Type": "Succeed"}, B={"Type": "Succeed"}), "cannot be reached"),
        (machine(A={"Type": "Pass", "Output": {"x": ["{% $sum( %}"]}, "End": True}), "JSONata: Expected"),
        ({"StartAt": "A"}, 'Missing property "States"'),
    ],
)
def test_a_planted_fault_is_found(definition: object, message: str) -> None:
    assert any(message in str(found["message"]) for found in diagnostics(definition))


def test_a_broken_expression_is_found_where_it_stands() -> None:
    (found,) = diagnostics(machine(A={"Type": "Pass", "Output": {"x": ["{% $sum( %}"]}, "End": True}))
    assert found["path"] == "/States/A/Output/x/0"
