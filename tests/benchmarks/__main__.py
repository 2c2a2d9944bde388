"""`make bench`: what a person waits for and what a reward costs, as ratios to a baseline of the same run.

`python -m tests.benchmarks rewards` runs one section: check, synthesis, fleet, deployment, rehearsal, dataset
or rewards.
"""

import sys
from importlib import import_module

# By module and function: what one section imports would count as memory of another one's processes.
SECTIONS = {
    "check": ("check", "check"),
    "synthesis": ("synthesis", "synthesis"),
    "fleet": ("fleet", "main"),
    "deployment": ("deployment", "deployment"),
    "rehearsal": ("synthesis", "rehearsal"),
    "dataset": ("dataset", "main"),
    "rewards": ("rewards", "rewards"),
}


def main() -> None:
    """Runs the sections that are named, or all of them."""
    wanted = sys.argv[1:] or [*SECTIONS]
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        sys.exit(f"bench: there is no section {unknown[0]!r}; there is {', '.join(SECTIONS)}")
    for name in wanted:
        module, function = SECTIONS[name]
        getattr(import_module(f"tests.benchmarks.{module}"), function)()


if __name__ == "__main__":
    main()
