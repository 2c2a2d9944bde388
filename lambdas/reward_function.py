"""The Lambda entry of a team's reward function: built once per process from the package's ``reward.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lambdas.composition import compose, reward_range
from lambdas.contract import reward_handler

# What of a [reward] table is the handler's own; what is left out has the handler's default.
_HANDLER_SETTINGS = ("seconds_per_sample", "completion_limit", "log_sampling_rate", "log_completions")


def deployed(root: Path, environment: str | None) -> Callable[[object, object], list[dict[str, Any]]]:
    """Builds the handler of the package at ``root``.

    Args:
        root: The folder with ``reward.json``, the team's [reward] table.
        environment: The dimension of the printed metrics; None to print nothing.

    Raises:
        FileNotFoundError: The package has no ``reward.json``.
        CompositionError: The table does not describe a reward.
    """
    settings = json.loads((root / "reward.json").read_text(encoding="utf-8"))
    own = {name: settings[name] for name in _HANDLER_SETTINGS if settings.get(name) is not None}
    return reward_handler(compose(settings), floor=reward_range(settings)[0], environment=environment, **own)


# At import time, because Lambda initializes with full processor power whatever memory the function has.
handler = deployed(Path(__file__).resolve().parent.parent, os.environ.get("STACK", "unknown"))
