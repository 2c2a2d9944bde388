"""How a whole fleet is synthesized, beside as many stacks written in the library's own language.

The baseline is tests/benchmarks/fleet.js: ordinary constructs of the very same library, which the Python
package brings along. Both sides run without the checks for the comparison, and ours with them as well.
`python -m tests.benchmarks.fleet COUNT PROCESSES CHECKED` is one run of our side.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from infra.states import WORKFLOW
from tests.benchmarks.commands import ROOT, environment, progress
from tests.infra.chains import longest_chain
from tests.infra.fleet import fleet

COUNTS = (1, 10, 200)
ARCHIVES = (
    "aws-cdk-lib",
    "asset-awscli-v1",
    "asset-node-proxy-agent-v6",
    "cloud-assembly-schema",
    "constructs",
)


@dataclass(frozen=True, kw_only=True)
class Took:
    """What one run took: seconds on the clock, seconds of processors, MB of all its processes at the peak."""

    seconds: float
    processor: float
    megabytes: float


def synthesize(count: int, processes: int, *, checked: bool) -> None:
    """Synthesizes that many teams of one shape and prints what one template is made of."""
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        made = fleet(Path(name), count, shapes=["plain"], processes=processes, checked=checked)
        print(made.text(made.members[0]))


def run(arguments: list[str]) -> tuple[Took, str]:
    """Runs a program and all it starts, and returns what it took and what it printed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.PIPE, text=True
        )
        peak = 0.0
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.2):
                peak = max(peak, _megabytes(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        said = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"bench: {' '.join(arguments)} failed:\n{said[-3000:]}")
        output.seek(0)
        took = Took(seconds=seconds, processor=usage.ru_utime + usage.ru_stime, megabytes=peak)
        return took, output.read()


def _megabytes(root: int) -> float:
    """What a process and all below it hold; what they share counts for each by its part."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    tree, size = {root}, 0
    while len(tree) > size:
        size = len(tree)
        tree |= {child for child, parent in parents.items() if parent in tree}
    total = 0
    for pid in tree:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def library(folder: Path) -> None:
    """Unpacks the library that the Python package carries to where Node looks for it."""
    found = {
        path.name.rpartition("@")[0]: path
        for name in ("aws_cdk", "constructs")
        for place in importlib.util.find_spec(name).submodule_search_locations or []  # type: ignore[union-attr]  # it is there
        for path in Path(place).rglob("*.jsii.tgz")
    }
    for name in ARCHIVES:
        with tarfile.open(found[name]) as archive:
            archive.extractall(folder / "unpacked" / name, filter="data")
        package = folder / "unpacked" / name / "package"
        target = folder / "node_modules" / json.loads((package / "package.json").read_text())["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        package.rename(target)


def made_of(text: str) -> tuple[Counter[str], int]:
    """How many resources of each type a template has, and how many statements its roles have."""
    resources = json.loads(text)["Resources"].values()
    policies = [each for each in resources if each["Type"] == "AWS::IAM::Policy"]
    statements = sum(len(each["Properties"]["PolicyDocument"]["Statement"]) for each in policies)
    return Counter(each["Type"] for each in resources), statements


def main() -> None:
    """Prints a line for each way and count, and each as a multiple of the baseline at that count."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        scratch = Path(name)
        library(scratch)
        for file, content in (("workflow.json", json.dumps(WORKFLOW)), ("package/package.txt", "workflow")):
            (scratch / file).parent.mkdir(exist_ok=True)
            (scratch / file).write_text(content)
        program = scratch / "fleet.js"
        program.write_bytes((Path(__file__).parent / "fleet.js").read_bytes())

        def theirs(count: int) -> tuple[Took, str]:
            out = scratch / str(count)
            place = [ROOT / "cdk.json", out, count, scratch / "workflow.json", scratch / "package"]
            took, _ = run(["node", *map(str, [program, *place])])
            return took, (out / "rft-team-0-dev.template.json").read_text()

        def ours(count: int, processes: int, checks: str) -> tuple[Took, str]:
            took, said = run([sys.executable, "-m", __spec__.name, str(count), str(processes), checks])
            return took, said

        progress("warming up")
        _, their_template = theirs(1)
        _, our_template = ours(1, 1, "checked")
        if made_of(our_template) != made_of(their_template):
            sys.exit(
                f"bench: fleet.js makes other resources than infra/: {made_of(their_template)}, not "
                f"{made_of(our_template)}"
            )
        types, statements = made_of(our_template)
        print(f"a stack: {types.total()} resources of {len(types)} types, {statements} statements of roles")
        chain = longest_chain(json.loads(our_template))
        print(f"its longest chain, {len(chain)} deep: {' > '.join(chain)}")
        print(f"{'':36}{'teams':>6}{'clock':>10}{'processor':>12}{'peak':>10}   times L2 in Node")
        for count in COUNTS:
            progress(f"{count} teams")
            ways = [("L2 constructs in Node", theirs(count)[0]), ("ours", ours(count, 1, "bare")[0])]
            if count > 1:
                ways.append((f"ours, {cores} processes", ours(count, cores, "bare")[0]))
            ways.append(("ours under every check", ours(count, 1, "checked")[0]))
            if count > 1:
                ways.append((f"the same, {cores} processes", ours(count, cores, "checked")[0]))
            base = ways[0][1]
            progress("")
            for way, took in ways:
                print(
                    f"{way:36}{count:6}{took.seconds:8.2f} s{took.processor:10.2f} s{took.megabytes:7.0f} MB"
                    f"   clock {took.seconds / base.seconds:.2f}, processor "
                    f"{took.processor / base.processor:.2f}"
                )
    print()


if __name__ == "__main__":
    if sys.argv[1:]:
        synthesize(int(sys.argv[1]), int(sys.argv[2]), checked=sys.argv[3] == "checked")
    else:
        main()
