"""What a run of the training workflow is made of, as the function that starts it wants to know it."""

from collections.abc import Mapping
from typing import Any

from infra.config import Platform, Team


def run_settings(team: Team, *, source: Mapping[str, str], reward_version: str) -> dict[str, Any]:
    """Returns all that a run is named by: a change of any of it is another run."""
    return {
        "source": dict(source),
        "base_model": team.model.base,
        "reward_version": reward_version,
        "training": team.training.request(),
        "measurement": team.measurement.model_dump(),
        "promotion": team.promotion.model_dump(mode="json"),
        **_filter(team),
    }


def _filter(team: Team) -> dict[str, Any]:
    """Returns which training prompts are left out, if any may be: the one gate that changes what is trained.

    Without a filter there is no such key, and a run is called as if there were no filters at all.
    """
    gate, signal = team.gates.filter, team.gates.signal
    if gate.drop == "none":
        return {}
    passing = {"passing": signal.passing} if gate.drop == "solved" else {}
    return {"filter": {"drop": gate.drop, "prompts": gate.prompts, **passing}}


def gate_settings(team: Team, *, cases: str | None) -> dict[str, Any]:
    """Returns what the gates of a run go by; a run is not named by it, since it changes no model.

    Which prompts the filter leaves out does change it, and stands in `run_settings`.
    `cases` is the URI of the team's own cases for the rehearsal; without any the key is left out.
    """
    gates = team.gates.model_dump(mode="json", exclude_none=True)
    own = {} if cases is None else {"cases": cases}
    return {
        **gates,
        "rehearsal": {**gates["rehearsal"], **team.reward.rehearsed(), **own},
        "tripwires": {**gates["tripwires"], "range": list(team.reward.range)},
        "signal": {**gates["signal"], "range": list(team.reward.range)},
        "filter": {"max_dropped": team.gates.filter.max_dropped, "range": list(team.reward.range)},
    }


def cost_basis(team: Team, platform: Platform) -> dict[str, Any]:
    """Returns what a cost estimate goes by besides the run itself; see lambdas/cost.py for its shape.

    A run does not carry it, so that it is judged by the prices and the budget of the last deploy.
    """
    judges = {
        name: component.parameters["model"]
        for name, component in team.reward.components.items()
        if component.function == "judge"
    }
    asked = {"date", "currency", "lambda_gb_second", "models"}
    prices = (
        platform.prices.model_dump(mode="json", exclude_none=True, include=asked) if platform.prices else {}
    )
    models = {team.model.base, *judges.values()}
    return {
        "prices": {
            **prices,
            "models": {name: each for name, each in prices.get("models", {}).items() if name in models},
        },
        "reward": {
            "memory_mb": team.reward.memory_mb,
            "seconds_per_sample": team.reward.seconds_per_sample,
            "judges": judges,
        },
        "budget": platform.budget_of(team).model_dump(exclude_none=True),
    }


def training_limits(team: Team, platform: Platform) -> dict[str, float]:
    """Returns how far a single run may override its training settings, under the service's names for them."""
    names = dict(zip(team.training.model_dump(), team.training.request(), strict=True))
    return {
        names[limit.path[1]]: limit.value for limit in platform.limits.each() if limit.path[0] == "training"
    }
