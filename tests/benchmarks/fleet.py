"""How a whole fleet is synthesized: all checks on, in one app, beside one team in the same rounds.

`python -m tests.benchmarks.fleet`; each count of teams is a process of its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.config import load_platform
from infra.guardrails import guardrail_faults, stacks
from tests.infra.fleet import fleet

COUNTS = (1, 20, 200)


def synthesize(count: int) -> None:
    """Synthesizes that many teams under every check, and says what it took as JSON."""
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        start = time.perf_counter()
        members, assembly, project = fleet(Path(name), count)
        seconds = time.perf_counter() - start
        platform = load_platform(project)
        known = stacks(json.loads((assembly.folder / "manifest.json").read_text()))
        start = time.perf_counter()
        for member in members:
            file = f"{member.stack}.template.json"
            faults = guardrail_faults(assembly.template(member.stack), known[file], platform)
            if faults:
                sys.exit(f"bench: {faults[0]}")
        guardrails = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "guardrails": guardrails}))


def main() -> None:
    """Prints a line for each count of teams, and each as a multiple of the first."""
    print(f"{'teams':>8}{'synthesis':>12}{'each':>10}{'guardrails':>13}{'peak':>10}   times one team")
    first = None
    for count in COUNTS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.fleet", str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        took = json.loads(done.stdout.splitlines()[-1])
        first = first or took["seconds"]
        # The largest process that has ended, which is the library's with the most teams, so the last one.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{count:8}{took['seconds']:10.2f} s{took['seconds'] / count:8.2f} s{took['guardrails']:11.3f} s"
            f"{largest:7.0f} MB{took['seconds'] / first:10.2f}"
        )


if __name__ == "__main__":
    synthesize(int(sys.argv[1])) if sys.argv[1:] else main()
