"""Builds the folders that become Lambda functions: build/<target>/<team>/reward and build/<target>/workflow.

It runs before synthesis and not inside a construct, so that `cdk synth` only ever reads finished folders:
nothing is installed while a template is made, and the same input gives the same bytes and so the same asset
hash. No Docker: third-party wheels of a hash-locked list are unpacked for the platform they will run on.
"""

import ast
import fcntl
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from uv import find_uv_bin

from infra.config import Team, load_teams

Target = Literal["aws", "embedded"]

# The Lambda runtime of the templates: arm64 on Amazon Linux 2023, whose glibc 2.34 runs wheels of this tag.
AWS_PYTHON = "3.14"
AWS_PLATFORM = "aarch64-manylinux_2_28"

# Lambda refuses a function that is larger than this once unzipped.
LARGEST_BYTES = 250 * 2**20

# What `function = ` says in team.toml for the reward function that lies in the team's own folder.
OWN_REWARD = "reward.py"

# Written by the installer about the installation: different on every machine, read by nothing in Lambda.
_INSTALLER_FILES = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}

_OFFLINE = re.compile(r"network|dns error|error sending request|timed out|failed to fetch|connect", re.I)


class PackagingError(Exception):
    """A package cannot be built; the message says which, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class _Package:
    """What one Lambda folder is made of, before anything is written."""

    name: str
    """Where it goes under build/<target>."""
    files: Mapping[str, bytes]
    """Our own files by their path in the package."""
    locks: Sequence[Path]
    """Hash-locked requirements files of the third-party code beside them."""


def package(
    root: Path,
    target: Target,
    teams: Iterable[str] | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Builds the packages of the named teams (of all without names) and of the workflow, where not current.

    Args:
        root: The project's folder; everything is written under its build/.
        target: "aws" for Lambda on arm64; "embedded" for this machine and this interpreter.
        teams: Names of teams.
        report: Hears one line per package.

    Raises:
        PackagingError: A source or a third-party package is missing, or the result is too large for Lambda.
        infra.config.SettingsError: A team's settings are wrong.
    """
    wanted = [*(_reward(root, team) for team in load_teams(root, teams)), _workflow(root)]
    with _alone(root / "build", report):
        for each in wanted:
            _build(root, target, each, report)


def reward_sources(
    root: Path, folder: Path, reward: Mapping[str, Any]
) -> tuple[dict[str, bytes], list[Path]]:
    """Returns what the reward function of a team is made of: a change of any of it is a new version of it.

    Args:
        root: The project's folder.
        folder: The team's.
        reward: The [reward] table, as `RewardSettings.document` gives it.

    Returns:
        Our own files by their path in the package, and the hash-locked lists of the third-party code beside
        them.

    Raises:
        PackagingError: A source is missing.
    """
    functions = {component["function"] for component in reward["components"].values()}
    settings = str((folder / "team.toml").relative_to(root))
    files = {"reward.json": (json.dumps(reward, indent=2, sort_keys=True) + "\n").encode()}
    modules = {f"lambdas.{name}": settings for name in ("contract", "composition", "reward_function")}
    modules |= {f"lambdas.rewards.{function}": settings for function in functions - {OWN_REWARD}}
    locks = [root / "requirements" / "rewards" / f"{function}.txt" for function in sorted(functions)]
    if OWN_REWARD in functions:
        own = folder / OWN_REWARD
        files["team_reward.py"] = _read(root, own)
        modules |= {name: str(own.relative_to(root)) for name in _imported(root, own, "")}
        locks.append(folder / "requirements.txt")
    files |= _modules(root, modules)
    return files, [lock for lock in locks if lock.exists()]


def _reward(root: Path, team: Team) -> _Package:
    files, locks = reward_sources(root, team.folder, team.reward.document())
    return _Package(name=f"{team.name}/reward", files=files, locks=locks)


def _workflow(root: Path) -> _Package:
    folder = root / "lambdas" / "workflow"
    steps = [path.stem for path in folder.glob("*.py") if path.name != "__init__.py"]
    files = _modules(root, {f"lambdas.workflow.{step}": "the workflow" for step in steps})
    # Page templates and the like, which lie beside the step that reads them.
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith("."):
            files[path.relative_to(root).as_posix()] = _read(root, path)
    return _Package(name="workflow", files=files, locks=[root / "requirements" / "workflow.txt"])


def _modules(root: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Reads modules, the packages around them and all of `lambdas` that they import, by path in the package.

    Args:
        root: The project's folder.
        wanted: Names of modules, each with who asks for it, which is said when there is no such module.
    """
    files: dict[str, bytes] = {}
    pending = list(wanted.items())
    while pending:
        name, asked_by = pending.pop()
        path = _module_path(root, name)
        if path is None:
            raise PackagingError(f"{name.replace('.', '/')}.py does not exist, but {asked_by} needs it")
        inside = path.relative_to(root).as_posix()
        if inside in files:
            continue
        files[inside] = _read(root, path)
        around = name.rpartition(".")[0]
        if around:
            pending.append((around, inside))
        here = name if path.name == "__init__.py" else around
        pending += [(found, inside) for found in _imported(root, path, here)]
    return files


def _module_path(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imported(root: Path, path: Path, here: str) -> set[str]:
    """The modules under `lambdas` that any import statement in a file of package `here` names."""
    try:
        named = _import_statements(_read(root, path), here)
    except SyntaxError as error:
        raise PackagingError(f"{path.relative_to(root)} line {error.lineno}: {error.msg}") from error
    # What is imported from a package may be one of its modules or a name in its __init__.py.
    return {name for name, surely in named if surely or _module_path(root, name) is not None}


@cache
def _import_statements(source: bytes, here: str) -> frozenset[tuple[str, bool]]:
    """Names under `lambdas`, each with whether it is surely a module; cached: teams share sources."""
    named: set[tuple[str, bool]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {(alias.name, True) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = here.split(".")
            above = around[: len(around) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            named |= {(module, True), *((f"{module}.{alias.name}", False) for alias in node.names)}
    return frozenset((name, surely) for name, surely in named if name.split(".")[0] == "lambdas")


def _read(root: Path, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackagingError(f"{path.relative_to(root)} cannot be read: {error.strerror}") from error


@contextmanager
def _alone(build: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Lets one packaging of the project run at a time, and removes what a killed one left behind."""
    build.mkdir(exist_ok=True)
    with (build / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another packaging to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        work = build / ".work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _build(root: Path, target: Target, wanted: _Package, report: Callable[[str], None]) -> None:
    folder = root / "build" / target / wanted.name
    stamp = folder.with_name(f"{folder.name}.key")
    libraries = [_read(root, lock) for lock in wanted.locks]
    key = _key(target, *libraries, *(part for item in sorted(wanted.files.items()) for part in item))
    if folder.is_dir() and stamp.is_file() and stamp.read_text() == key:
        report(f"{wanted.name} for {target}: unchanged")
        return
    new = Path(tempfile.mkdtemp(dir=root / "build" / ".work"))
    left_out = ""
    if wanted.locks:
        left_out = _link(_third_party(root, target, wanted.locks), new, _strings(wanted.files))
    for inside, content in wanted.files.items():
        path = new / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    _set_modes(new)
    size, zipped, count = sizes(new)
    if size > LARGEST_BYTES:
        raise PackagingError(
            f"{wanted.name} for {target} is {_readable(size)} unzipped, more than the"
            f" {_readable(LARGEST_BYTES)} that Lambda takes: drop packages from {_names(root, wanted.locks)}"
        )
    # Without its key a folder counts as unfinished, so a kill between these lines only costs a rebuild.
    stamp.unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(new.with_suffix(".old"))
    new.rename(folder)
    stamp.write_text(key)
    told = f"{count} files, {_readable(size)}, {_readable(zipped)} zipped"
    report(f"{wanted.name} for {target}: {told}{left_out}")


def _third_party(root: Path, target: Target, locks: Sequence[Path]) -> Path:
    """The folder with everything that the locks name, installed once per content and target."""
    folder = root / "build" / ".cache" / _key(target, *(lock.read_bytes() for lock in locks))
    if folder.is_dir():
        return folder
    new = Path(tempfile.mkdtemp(dir=root / "build" / ".work"))
    command = [_uv(), "pip", "install", "--quiet", "--target", str(new), "--python", sys.executable]
    if target == "aws":
        command += ["--python-version", AWS_PYTHON, "--python-platform", AWS_PLATFORM]
    # The certificates the machine trusts: behind a company's proxy nothing else works.
    command += ["--system-certs"]
    # Copies: through hard links the modes set below would reach into uv's own cache.
    command += ["--only-binary=:all:", "--no-compile-bytecode", "--require-hashes", "--link-mode=copy"]
    for lock in locks:
        command += ["-r", str(lock)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-12:])
        what = f"{_names(root, locks)} for {_platform(target)}"
        raise PackagingError(f"cannot install {what}:\n{said}\n{_advice(done.stderr)}")
    # Commands of the packages, and the installer's lock: nothing that Lambda runs.
    shutil.rmtree(new / "bin", ignore_errors=True)
    (new / ".lock").unlink(missing_ok=True)
    for path in new.glob("*.dist-info/*"):
        if path.name in _INSTALLER_FILES:
            path.unlink()
    _set_modes(new)
    folder.parent.mkdir(exist_ok=True)
    new.rename(folder)
    return folder


def _advice(stderr: str) -> str:
    if "ash mismatch" in stderr:
        return "A file is not the one that was locked: find out why before you run `make lock` to lock anew."
    if _OFFLINE.search(stderr):
        return (
            "The package registry cannot be reached: check the network and the proxy. It is needed once per"
            " requirements file; after that packaging works offline."
        )
    return "Each package needs a wheel for that platform: change the .in file beside it, then `make lock`."


def _uv() -> str:
    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise PackagingError("uv is not in this environment: run `make install`") from error


def _link(third_party: Path, new: Path, named: set[str]) -> str:
    """Fills a package with hard links to third-party files; returns in words what it left out.

    Left out is botocore's description of the services that no string in the package's sources names: some 400
    of them make six sevenths of the zip file, which every deploy uploads and every cold start unpacks.
    """
    data = third_party / "botocore" / "data"
    services = {path.name for path in data.iterdir() if path.is_dir()} if data.is_dir() else set()
    # botocore itself asks sts for a role's credentials.
    kept = services & (named | {"sts"})
    skipped = 0
    for path in third_party.rglob("*"):
        if path.is_dir():
            continue
        if data in path.parents and path.relative_to(data).parts[0] in services - kept:
            skipped += path.stat().st_size
            continue
        link = new / path.relative_to(third_party)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(path)
    if not services:
        return ""
    gone = len(services) - len(kept)
    return f"; botocore knows {', '.join(sorted(kept))}, without {gone} more services ({_readable(skipped)})"


def _strings(files: Mapping[str, bytes]) -> set[str]:
    trees = [ast.parse(content) for inside, content in files.items() if inside.endswith(".py")]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


def _set_modes(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def sizes(folder: Path) -> tuple[int, int, int]:
    """Counts the bytes of all files of a package, the bytes of them zipped, and the files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(folder))
    return sum(path.stat().st_size for path in files), packed.tell(), len(files)


def _readable(size: int) -> str:
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{-(-size // 1024)} kB"


def _names(root: Path, paths: Iterable[Path]) -> str:
    return " and ".join(str(path.relative_to(root)) for path in paths)


def _platform(target: Target) -> str:
    if target == "aws":
        return f"CPython {AWS_PYTHON} on {AWS_PLATFORM}"
    return f"{sys.implementation.cache_tag} on {sysconfig.get_platform()}"


def _key(target: Target, *parts: str | bytes) -> str:
    """Names content: the given parts, their platform, and this file, which decides what is made of them."""
    digest = hashlib.sha256()
    for part in (_platform(target), Path(__file__).read_bytes(), *parts):
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()
