"""How long `rft check` of the sample teams takes, beside a Python that only imports the settings."""

import sys

from tests.benchmarks.commands import ROOT, Command, measure, show

ROUNDS = 5
CHECKS = (("quotes",), ("support",), ("quotes", "--against", "HEAD"))


def check() -> None:
    """Times what a person waits for at a terminal."""
    bare = [sys.executable, "-c", "import infra.config"]
    commands = [Command(name="import infra.config", arguments=bare, folder=ROOT)]
    for words in CHECKS:
        arguments = [sys.executable, "-m", "rft", "check", *words]
        commands.append(Command(name=f"rft check {' '.join(words)}", arguments=arguments, folder=ROOT))
    measure(commands, ROUNDS)
    show(commands, commands[0])
