"""Says what a team was at another revision, and scores completions with the reward function of then.

A program of its own: `python -P rescore.py ROOT TEAM ANSWER [EVENTS]`, with ROOT first on the path. All code
but this file is that revision's, so it keeps to what has been there for long, and who asks has to live with
its failing. EVENTS is a JSON list of samples in the shape in which Bedrock sends them. What it finds goes to
the file ANSWER, for a reward function may print: {"faults"}, or {"settings", "run", "reward"}, or with EVENTS
{"range", "scores"}, a score per event.
"""

import json
import sys
from pathlib import Path
from typing import Any

# As many samples as a batch of the service has by default.
_BATCH = 64


def main(root: Path, name: str, answer: Path, events: Path | None) -> None:
    """Writes the answer."""
    import lambdas
    from infra.config import SettingsError, Team, load_platform, load_team

    # Installed packages are no other revision's.
    if root not in Path(lambdas.__file__ or "/").parents:
        sys.exit(f"the code is not that of {root}")
    try:
        team: Team = load_team(root, name, load_platform(root))
    except SettingsError as error:
        found: dict[str, Any] = {"faults": str(error).splitlines()}
    else:
        found = _settings(team) if events is None else _scores(team, json.loads(events.read_bytes()))
    answer.write_text(json.dumps(found), encoding="utf-8")


def _settings(team: Any) -> dict[str, Any]:
    from infra.runs import run_settings

    return {
        "settings": team.model_dump(mode="json", exclude={"folder", "name"}),
        "run": run_settings(team, source={}, reward_version=""),
        "reward": team.reward.document(),
    }


def _scores(team: Any, events: list[dict[str, Any]]) -> dict[str, Any]:
    from lambdas.composition import compose, reward_range
    from lambdas.contract import BrokenRewardError, parse_event, score_samples

    document = team.reward.document()
    low, high = reward_range(document)
    reward = compose(document, team.folder / "reward.py")
    bounds = {name: document[name] for name in ("seconds_per_sample", "completion_limit") if name in document}
    scores: list[float] = []
    for start in range(0, len(events), _BATCH):
        samples = parse_event(events[start : start + _BATCH])
        try:
            outcomes = [*score_samples(reward, samples, floor=low, **bounds)]
        except BrokenRewardError as error:
            outcomes = [*error.outcomes]
        scores += [outcome.reward.score for outcome in outcomes]
    return {"range": [low, high], "scores": scores}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]) if sys.argv[4:] else None)
