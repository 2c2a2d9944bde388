"""Checks for the tools this project needs and does not install itself: Python, Node, npm.

`make install` runs this file before there is any environment, on whatever Python the machine has: it imports
the standard library only and keeps to syntax that Python 3.8 can read, so that an old one gets a sentence.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

MINIMUM_PYTHON = (3, 11)
MINIMUM_NODE = 20

# jsii's banner about these at every start is silenced (Makefile, app.py); `main` says it once instead.
END_OF_LIFE = {20: "April 2026"}


class ToolchainError(Exception):
    """A tool of the machine is missing or too old; the message says what to install."""


def require_node() -> int:
    """Returns the major version of the Node that CDK will run on.

    Raises:
        ToolchainError: There is no `node` on the PATH, it does not run, or it is too old.
    """
    path = shutil.which("node")
    wanted = f"Node {MINIMUM_NODE} or newer (22 and 24 are supported longest)"
    if path is None:
        raise ToolchainError(f"node is not on the PATH, and CDK runs on it: install {wanted}")
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{path} --version does not run ({error}): install {wanted}") from error
    version = answer.stdout.strip()
    found = re.match(r"v(\d+)\.", version)
    if answer.returncode != 0 or found is None:
        said = (version + " " + answer.stderr.strip()).strip()[:200]
        raise ToolchainError(f"{path} --version answers {said!r} and no version: install {wanted}")
    if int(found[1]) < MINIMUM_NODE:
        raise ToolchainError(f"{path} is {version}, too old for this project: install {wanted}")
    return int(found[1])


def faults() -> list[str]:
    """All that is missing or too old on this machine, one sentence each; empty when nothing is."""
    found = []
    if sys.version_info[:2] < MINIMUM_PYTHON:
        has, needs = (".".join(map(str, version)) for version in (sys.version_info[:3], MINIMUM_PYTHON))
        found.append(
            f"{sys.executable} is Python {has}: install Python {needs} or newer, and if it is there under"
            f" another name, say so: make install PYTHON=python{needs}"
        )
    try:
        require_node()
    except ToolchainError as error:
        found.append(str(error))
    if shutil.which("npm") is None:
        found.append("npm is not on the PATH, and it installs the CDK CLI: install it (most Nodes bring it)")
    return found


def main() -> int:
    """Prints every fault and returns 1; without one returns 0, after a word about a Node past its end."""
    found = faults()
    for fault in found:
        sys.stderr.write(f"toolchain: {fault}\n")
    if found:
        return 1
    major = require_node()
    if major in END_OF_LIFE:
        sys.stdout.write(
            f"toolchain: Node {major} works, but is without fixes since {END_OF_LIFE[major]}; prefer 24\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
