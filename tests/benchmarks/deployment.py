"""How long CloudFormation on the embedded AWS takes to make, change and delete an environment.

Beside a stack of one parameter. What AWS itself takes for each resource is not in it: only the order in which
a template lets resources be made, and how many there are, carry over.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from rft.embedded.aws import EmbeddedAws
from rft.packaging import package
from tests.benchmarks.commands import environment, progress
from tests.benchmarks.synthesis import with_teams
from tests.embedded.conftest import clients_of, deploy_assembly, deploy_template

ROUNDS = 3
TEAM = "team-000"
STACK = f"rft-{TEAM}-dev"
SMALLEST = json.dumps(
    {
        "Resources": {
            "Only": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "none"}}
        }
    }
)

# What a pull request changes: the text of the team's file before and after.
CHANGES = {
    "change a setting of its runs": (r"(?m)^epoch_count = .*$", "epoch_count = 2"),
    "change its reward": (r"(?m)^weight = 1.0$", "weight = 1.0\nabsolute_tolerance = 0.01"),
}


def deployment() -> None:
    """Times each deployment from a synthesized assembly, uploads included, to its end."""
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        scratch = Path(name)
        project = with_teams(scratch / "project", 1)
        assemblies = {"create": _assembly(project, scratch / "0")}
        settings = project / "teams" / TEAM / "team.toml"
        for number, (what, (before, after)) in enumerate(CHANGES.items(), 1):
            text, count = re.subn(before, after, settings.read_text())
            if not count:
                sys.exit(f"bench: {before} is not in the sample team's file any more")
            settings.write_text(text)
            assemblies[what] = _assembly(project, scratch / str(number))
        templates = {(each / f"{STACK}.template.json").read_text() for each in assemblies.values()}
        if len(templates) != len(assemblies):
            sys.exit("bench: a change of the team's file changed nothing in its template")
        seconds: dict[str, list[float]] = {}
        with EmbeddedAws(scratch / "aws", wait_scale=0.003) as aws:
            client = clients_of(aws.endpoint)
            for number in range(ROUNDS):

                def timed(what: str, action: Callable[[], Any], said: str = f"round {number + 1}") -> None:
                    progress(f"{said} of {ROUNDS}: {what}")
                    start = time.perf_counter()
                    action()
                    seconds.setdefault(what, []).append(time.perf_counter() - start)

                timed(
                    "a stack of one parameter",
                    lambda: deploy_template(client, "s", {}, TemplateBody=SMALLEST),
                )
                _delete(client, "s")
                for what, assembly in assemblies.items():
                    timed(what, lambda made=assembly: deploy_assembly(client, made, STACK))
                timed("delete", lambda: _delete(client, STACK))
        progress("")
    _show(seconds)


def _show(seconds: dict[str, list[float]]) -> None:
    unit = statistics.median(seconds["a stack of one parameter"])
    print(f"{'':36}{'median':>9}{'fastest':>9}{'slowest':>9}   times a stack of one parameter")
    for what, took in seconds.items():
        middle = statistics.median(took)
        print(f"{what:36}{middle:7.2f} s{min(took):7.2f} s{max(took):7.2f} s{middle / unit:8.1f}")
    print()


def _assembly(project: Path, folder: Path) -> Path:
    """Packages and synthesizes the team as it is now."""
    progress(f"synthesizing {folder.name}")
    package(project, "embedded", [TEAM], report=lambda _line: None)
    context = json.loads((project / "cdk.json").read_text())["context"]
    context |= {"team": TEAM, "stage": "dev", "target": "embedded"}
    account = {"CDK_DEFAULT_ACCOUNT": "000000000000", "CDK_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=project,
        env=environment() | account | {"CDK_OUTDIR": str(folder), "CDK_CONTEXT_JSON": json.dumps(context)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"bench: app.py failed:\n{done.stdout}{done.stderr}")
    return folder


def _delete(client: Callable[[str], Any], stack: str) -> None:
    cloudformation = client("cloudformation")
    [found] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    cloudformation.delete_stack(StackName=stack)
    while True:
        try:
            [found] = cloudformation.describe_stacks(StackName=found["StackId"])["Stacks"]
        except ClientError as error:
            if "does not exist" not in str(error):
                raise
            return
        if found["StackStatus"] == "DELETE_COMPLETE":
            return
        if found["StackStatus"] == "DELETE_FAILED":
            sys.exit(f"bench: {stack} cannot be deleted: {found.get('StackStatusReason')}")
        time.sleep(0.05)
