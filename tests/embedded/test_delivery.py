"""The way of a change to an account, by the very shell steps of the workflows, on the embedded AWS."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from rft import lineage
from rft.cloud import Cloud, Deployed
from rft.comment import LIMIT
from rft.delivery import Cdk
from rft.embedded.aws import ACCOUNT, REGION, EmbeddedAws
from rft.retire import missing_teams
from tests import documented
from tests.embedded.conftest import package_repository, shorten
from tests.embedded.test_environment import Clients, ended

REPOSITORY = Path(__file__).resolve().parents[2]
COPIED = (
    *("app.py", "cdk.json", "Makefile", "pyproject.toml", "package.json", "package-lock.json", ".npmrc"),
    *("infra", "lambdas", "requirements", "rft", ".github"),
)
# GitHub's own command, which is not here: it writes down what it is asked for, keeps what is posted, and
# knows which pull requests it has opened.
GH = """\
#!/bin/sh
echo "$@" >>build/gh.log
head="$(echo "$*" | sed -n 's/.*--head \\([^ ]*\\).*/\\1/p')"
body="$(echo "$*" | sed -n 's/.*--body-file \\([^ ]*\\).*/\\1/p')"
case "$1 $2" in
"pr comment") cp "$body" build/gh-comment.md ;;
"pr list")
  touch build/gh-open
  grep --count --line-regexp "$head" build/gh-open || true ;;
"pr create")
  if [ -e build/gh-refuses ]; then
    echo "GitHub Actions is not permitted to create or approve pull requests" >&2
    exit 1
  fi
  cp "$body" build/gh-body.md
  echo "$head" >>build/gh-open ;;
esac
"""
_EXPRESSION = re.compile(r"\$\{\{ *(.+?) *\}\}")


ALLOWED = "contains(github.event.pull_request.labels.*.name, 'allow-loss') && 'yes' || ''"


def filled(text: str, known: Mapping[str, str]) -> str:
    """What GitHub makes of a text with expressions."""
    return _EXPRESSION.sub(lambda found: known[found[1]], text)


class Repository:
    """A checkout of the project with two small teams, and a runner of its workflows' shell steps."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        for name in (".venv", "node_modules"):
            (root / name).symlink_to(REPOSITORY / name)
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        shutil.copytree(package_repository(), root / "build" / "embedded")
        for name, when in (("north", "on-deploy"), ("south", "manual")):
            folder = shutil.copytree(REPOSITORY / "teams" / "quotes", root / "teams" / name)
            text = (folder / "team.toml").read_text()
            text = re.sub(r"(?m)^train_when = .*$", f'train_when = "{when}"', text)
            (folder / "team.toml").write_text(text)
            shorten(folder / "team.toml")
        shutil.copy(REPOSITORY / "teams" / "platform.toml", root / "teams")
        (root / ".gitignore").write_text("/.venv\n/node_modules\n/build\n/cdk.out\n__pycache__\n")
        (root / "bin").mkdir()
        (root / "bin" / "gh").write_text(GH)
        # The installation is the other checkout's, and this one must not touch it.
        installed = "-o .venv/.installed -o node_modules/.installed"
        (root / "bin" / "make").write_text(f'#!/bin/sh\nexec {shutil.which("make")} {installed} "$@"\n')
        for program in (root / "bin").iterdir():
            program.chmod(0o755)
        self.environment = {**environment, "TARGET": "embedded"}
        self.environment["PATH"] = f"{root / 'bin'}{os.pathsep}{environment['PATH']}"
        # The command's own entry points belong to the other checkout.
        self.environment["PYTHONPATH"] = str(root)
        self.git("init", "--initial-branch", "main")
        self.commit("teams as they are")

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        done = subprocess.run(
            ["git", *who, *words], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "--message", message)

    def run(
        self, workflow: str, job: str, values: Mapping[str, Any], *, fails: bool = False
    ) -> dict[str, str]:
        """Runs the shell steps of a job; `values` are what expressions stand for. Returns the outputs."""
        document = yaml.safe_load((self.root / ".github/workflows" / f"{workflow}.yml").read_text())
        outputs: dict[str, str] = {}
        output = self.root / "build" / "github-output"
        output.parent.mkdir(exist_ok=True)
        for step in document["jobs"][job]["steps"]:
            if "run" not in step or ("teams != ''" in step.get("if", "") and not outputs.get("teams")):
                continue
            known = {**values, **{f"steps.changed.outputs.{key}": value for key, value in outputs.items()}}
            given = {**document["jobs"][job].get("env", {}), **step.get("env", {})}
            own = {key: filled(text, known) for key, text in given.items()}
            output.write_text("")
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
                cwd=self.root,
                env={
                    **self.environment,
                    **own,
                    "GITHUB_OUTPUT": str(output),
                    "GITHUB_STEP_SUMMARY": str(output.with_name("github-summary")),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if fails and done.returncode != 0:
                return {"failure": done.stdout + done.stderr}
            assert done.returncode == 0, f"{step['run']}\n{done.stdout}\n{done.stderr}"
            lines = output.read_text().splitlines()
            outputs |= dict(line.split("=", 1) for line in lines)
        assert not fails, "nothing failed"
        return outputs

    def merge(self, *, fails: bool = False) -> dict[str, str]:
        """What happens when the last commit reaches main: synthesis, and the wave of dev."""
        outputs = self.run("deploy", "synthesize", {"github.event.before": self.git("rev-parse", "HEAD~1")})
        result: dict[str, str] = {}
        for deployment in json.loads(outputs["dev"]):
            values = {f"matrix.{key}": value for key, value in deployment.items()}
            result = self.run("deploy", "dev", values, fails=fails)
        return outputs | result


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAws]:
    """An embedded AWS of its own: the other tests deploy without the bootstrap that is needed here."""
    with EmbeddedAws(tmp_path_factory.mktemp("aws"), wait_scale=0.003) as running:
        yield running


@pytest.fixture(scope="module")
def client(aws: EmbeddedAws, clients_of: Callable[[str], Clients]) -> Clients:
    """Makes a boto3 client of a service, as the account's root."""
    return clients_of(aws.endpoint)


@pytest.fixture(scope="module")
def repository(aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    environment = aws.environment(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    root = tmp_path_factory.mktemp("delivered")
    Cdk(REPOSITORY, environment, root / "bootstrap.log").bootstrap(ACCOUNT, REGION)
    (root / "bootstrap.log").unlink()
    return Repository(root, environment)


@pytest.fixture(scope="module")
def north(aws: EmbeddedAws) -> Deployed:
    return Cloud.embedded(aws).deployed("rft-north-dev")


def updated(client: Clients, stack: str) -> Any:
    [found] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return found.get("LastUpdatedTime", found["CreationTime"]), found["StackStatus"]


def test_a_merge_deploys_what_it_touches_and_starts_one_run(
    repository: Repository, aws: EmbeddedAws, client: Clients
) -> None:
    for team in ("north", "south"):
        settings = repository.root / "teams" / team / "team.toml"
        settings.write_text(settings.read_text() + "\n# first\n")
    repository.commit("both teams")
    assert repository.merge()["teams"] == "north,south"
    north = Cloud.embedded(aws).deployed("rft-north-dev")
    [run] = north.runs()
    assert ended(north, run).status == "SUCCEEDED", north.document(run, "failure.json")
    south = updated(client, "rft-south-dev")

    rows = repository.root / "teams/north/data/train.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    repository.commit("one row less for north")
    assert repository.merge()["teams"] == "north"
    assert len(north.runs()) == 2
    assert ended(north, north.runs()[0]).status == "SUCCEEDED"
    assert updated(client, "rft-south-dev") == south


def test_a_change_on_a_branch_gives_a_comment(
    repository: Repository, north: Deployed, client: Clients
) -> None:
    before = updated(client, "rft-south-dev"), len(north.runs())
    main = repository.git("rev-parse", "HEAD")
    repository.git("update-ref", "refs/remotes/origin/main", main)
    settings = repository.root / "teams/south/team.toml"
    settings.write_text(settings.read_text().replace("epoch_count = 1", "epoch_count = 2"))
    repository.commit("two epochs for south")
    build = repository.root / "build"

    review = repository.run("check", "review", {"github.base_ref": "main"})
    [place] = json.loads(review["stacks"])[:1]
    values = {f"matrix.{key}": value for key, value in place.items()}
    # The label that lets state go is not on it.
    repository.run("check", "diff", {**values, ALLOWED: ""})
    # What the artifacts of the two jobs do between machines.
    for job, name in (("review", "1-teams.md"), ("diff-0", "2-diff.md")):
        (build / "parts" / job).mkdir(parents=True)
        shutil.move(build / "review" / name, build / "parts" / job)
    server = {"github.server_url": "https://example.com", "github.run_id": "7"}
    repository.run("check", "summary", {**server, "github.repository": "example/rft"})
    (repository.root / "comment").mkdir()
    shutil.move(build / "comment/comment.md", repository.root / "comment")
    event = {"github.token": "t", "github.repository": "example/rft", "github.event.number": "12"}
    repository.run("check", "comment", event)

    [asked] = [line for line in (build / "gh.log").read_text().splitlines() if line.startswith("pr comment")]
    assert asked == "pr comment 12 --body-file comment/comment.md --edit-last --create-if-none"
    posted = (build / "gh-comment.md").read_text()
    assert len(posted) <= LIMIT
    assert posted.index("### ✅ `south`") < posted.index("### rft-south-dev")
    assert "`training.epoch_count`" in posted
    assert "another run" in posted
    # And what the template's difference is, from the deployed stack.
    assert "AWS::Lambda::Function" in posted
    assert "north" not in posted
    assert (updated(client, "rft-south-dev"), len(north.runs())) == before
    shutil.rmtree(repository.root / "comment")
    repository.git("reset", "--hard", main)


def test_a_merge_without_relevant_change_deploys_and_starts_nothing(
    repository: Repository, north: Deployed, client: Clients
) -> None:
    before = updated(client, "rft-north-dev"), len(north.runs())
    (repository.root / "README.md").write_text("More words.\n")
    repository.commit("more words")
    outputs = repository.merge()
    assert (outputs["teams"], outputs["dev"]) == ("", "[]")
    assert (updated(client, "rft-north-dev"), len(north.runs())) == before


def test_a_deployment_that_fails_leaves_the_champion_serving(
    repository: Repository, north: Deployed, client: Clients
) -> None:
    champion = north.champion()
    assert champion
    start = repository.root / "lambdas/workflow/start.py"
    good = start.read_text()
    start.write_text(good.replace('    if event["RequestType"] != "Delete":', "    if 1 / 0:"))
    rows = repository.root / "teams/north/data/train.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    repository.commit("a starter that cannot start")
    failure = repository.merge(fails=True)["failure"]
    assert "ZeroDivisionError" in failure
    assert updated(client, "rft-north-dev")[1] == "UPDATE_ROLLBACK_COMPLETE"
    assert north.champion() == champion
    found = client("bedrock").get_custom_model_deployment(customModelDeploymentIdentifier=champion)
    assert found["status"] == "Active"
    start.write_text(good)


def test_a_change_by_hand_becomes_an_issue(repository: Repository, north: Deployed, client: Clients) -> None:
    values = {
        "matrix.stacks": "rft-north-dev",
        "github.token": "token",
        "github.repository": "example/rft",
    }
    asked = repository.root / "build" / "gh.log"
    asked.unlink(missing_ok=True)
    repository.run("drift", "look", values)
    assert asked.read_text().splitlines() == [
        "issue list --label drift --state open --limit 500 --json title --jq .[].title"
    ]
    client("lambda").update_function_configuration(FunctionName=north.outputs["Start"], MemorySize=512)
    repository.run("drift", "look", values)
    [issue] = [line for line in asked.read_text().splitlines() if line.startswith("issue create")]
    assert "Drift: rft-north-dev: RunStarterFunction" in issue
    assert "MemorySize" in issue


def test_every_command_of_the_operations_page_works(
    repository: Repository, north: Deployed, client: Clients
) -> None:
    champion = north.champion()
    bedrock = client("bedrock")
    model = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=champion)["modelArn"]
    serving = bedrock.get_custom_model(modelIdentifier=model)["modelName"].removeprefix("rft-north-dev-")
    other = next(run for run in north.runs() if run.status == "SUCCEEDED" and run.name != serving)
    [trace] = lineage.of(model, [north])
    assert trace.dataset_sha256
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD")
    (repository.root / "rows.csv").write_text(
        "prompt,answer\n" + "".join(f"What is {n} + {n}?,{2 * n}\n" for n in range(300))
    )
    # What an example is called, and what there is here.
    known = {
        r"\bquotes\b": "north",
        r"arn:aws:bedrock:\S+:custom-model/\S+": model,
        r"\brun-[0-9a-f]{16}\b": other.name,
        r"--dataset \w+": f"--dataset {trace.dataset_sha256[:12]}",
    }
    for command in documented.commands():
        if documented.elsewhere(command):
            continue
        line = command
        for pattern, value in known.items():
            line = re.sub(pattern, value, line)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=repository.root,
            env=repository.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    # Promoted and rolled back.
    now = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=champion)["modelArn"]
    assert now == model
    assert (repository.root / "teams/prices/team.toml").is_file()
    assert "<title>Fleet" in (repository.root / "build/fleet.html").read_text()
    repository.git("clean", "--quiet", "--force", "-d")


def proposed(repository: Repository, place: Mapping[str, str]) -> None:
    """The job that proposes what has been retired: once, again, and where it may open no pull request."""
    build, root = repository.root / "build", repository.root
    origin = root / "build/origin.git"
    main = repository.git("rev-parse", "HEAD")
    repository.git("init", "--bare", "--quiet", str(origin))
    repository.git("remote", "add", "origin", str(origin))
    values = {
        **place,
        "github.token": "t",
        "github.repository": "example/rft",
        "github.server_url": "https://example.com",
        "github.ref_name": "main",
    }

    def propose() -> None:
        # A machine of its own, which has what the job before it has uploaded.
        written = (root / "teams/retired.toml").read_text()
        repository.git("checkout", "--quiet", "--", ".")
        (root / "teams/retired.toml").unlink()
        (build / "retired").mkdir(exist_ok=True)
        (build / "retired/retired.toml").write_text(written)
        repository.run("retire", "propose", values)
        repository.git("reset", "--quiet", "--soft", main)
        repository.git("reset", "--quiet")

    propose()
    branch = ["--git-dir", str(origin), "show", "retired/north-dev:teams/north/team.toml"]
    settings = repository.git(*branch)
    assert "[stages.dev]" not in settings
    assert "[stages.prod]" in settings
    assert (build / "gh-body.md").read_text().startswith("`rft-north-dev` was retired on ")
    # What the check of that pull request asks of it.
    assert missing_teams(root, main) == []
    first = repository.git("--git-dir", str(origin), "rev-parse", "retired/north-dev")
    asked = (build / "gh.log").read_text().splitlines()
    assert "auth setup-git" in asked
    assert asked[-1].startswith("pr create --base main --head retired/north-dev --title Retire north dev ")

    # The next night it is found gone again; the pull request that is open is left alone.
    propose()
    assert repository.git("--git-dir", str(origin), "rev-parse", "retired/north-dev") == first
    assert "pr create" not in (build / "gh.log").read_text().partition(asked[-1])[2]

    # Interrupted between the two, or not permitted: what was pushed can be proposed by hand.
    (build / "gh-open").unlink()
    (build / "gh-refuses").touch()
    propose()
    address = "https://example.com/example/rft/compare/main...retired/north-dev?expand=1"
    assert address in (build / "github-summary").read_text()
    repository.git("checkout", "--quiet", "--", "teams/north")


def test_retiring_takes_the_stage_away_and_writes_it_down(
    repository: Repository, north: Deployed, client: Clients
) -> None:
    champion = north.champion()
    nothing = repository.run("retire", "stages", {"inputs.team": "", "inputs.stage": ""})
    assert nothing["stages"] == "[]"
    asked = repository.run("retire", "stages", {"inputs.team": "north", "inputs.stage": "dev"})
    [place] = json.loads(asked["stages"])
    assert place == {"team": "north", "stage": "dev", "account": "default", "region": "default"}
    values = {f"matrix.{key}": value for key, value in place.items()} | {"inputs.purge": ""}
    repository.run("retire", "retire", values)
    with pytest.raises(ClientError, match="does not exist"):
        client("cloudformation").describe_stacks(StackName="rft-north-dev")
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client("bedrock").get_custom_model_deployment(customModelDeploymentIdentifier=champion)
    assert "of it is left that costs money" in (repository.root / "build/github-summary").read_text()
    proposed(repository, values)
    shutil.rmtree(repository.root / "teams/north")
    # Its other stage has not been retired.
    [fault] = missing_teams(repository.root, "HEAD")
    assert "its stack rft-north-prod stays behind" in fault
    (repository.root / "teams/retired.toml").unlink()
    assert "its stack rft-north-dev stays behind" in missing_teams(repository.root, "HEAD")[0]
    repository.commit("north is gone")
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD~1")
    refused = repository.run("check", "review", {"github.base_ref": "main"}, fails=True)["failure"]
    assert "its stack rft-north-dev stays behind" in refused
