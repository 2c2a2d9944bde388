"""The model card of a run: what its model is for, what it was made from, how good it is, and where that ends.

A card is made from a run's manifest and nothing else (see `report`). It is data first, and the two pages,
Markdown and HTML, are drawn from that: they cannot tell different stories. Names and sentences in it come
from people and from Bedrock, and are taken for hostile: the HTML is escaped, and so is the Markdown.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lambdas.workflow import charts

FILES: Final = {
    "model-card.md": "text/markdown; charset=utf-8",
    "model-card.html": "text/html; charset=utf-8",
}

_OUTCOMES: Final = {
    "promoted": "Promoted: it is the champion of this environment.",
    "cleared": "Cleared for promotion.",
    "kept": "Not promoted.",
    "failed": "The run failed after this model was trained. Do not use it.",
    "undecided": "Not decided yet.",
}
_MINIATURE: Final = (
    "Miniature. No real model was trained: an embedded AWS made this card in a rehearsal, and a small policy"
    " stood in for the base model. Every number was truly measured on that policy and says nothing about a"
    " real model."
)
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under headings."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what to say under it, a list, facts by name, and a table; whatever is empty is left out."""

    title: str
    text: str = ""
    points: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    table: Table | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model card as data."""

    title: str
    environment: str
    run: str
    made_at: str
    outcome: str
    status: str
    notice: str
    headline: Mapping[str, str] | None
    sections: Sequence[Section]


def pages(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Returns the card of a run's model as {file name: text}; none where the run has made no model."""
    # Here, as in `report`: what only reads a manifest need not wait for it.
    import jinja2

    if not manifest["lineage"]["models"]["custom_model_arn"]:
        return {}
    made = card(manifest)
    shared: dict[str, Any] = {
        "loader": jinja2.FileSystemLoader(Path(__file__).parent),
        "undefined": jinja2.StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    html = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: charts.visible(value) if type(value) is str else value,
        **shared,
    )
    # Markdown knows nothing that autoescaping could do; every value goes through `_escaped`.
    markdown = jinja2.Environment(autoescape=False, finalize=_escaped, **shared)  # noqa: S701 - Markdown is escaped by finalize
    found = {"model-card.md": markdown, "model-card.html": html}
    return {name: found[name].get_template(f"{name}.jinja").render(card=made) for name in FILES}


def card(manifest: Mapping[str, Any]) -> Card:
    """Returns the card of a run that has made a model."""
    lineage, decision = manifest["lineage"], manifest["decision"]
    gain = decision and {
        "base": _score(decision["base_mean"]),
        "candidate": _score(decision["candidate_mean"]),
        "gain": _change(decision["gain"]),
        "interval": _interval(decision),
        "confidence": f"{100 * decision['confidence']:.4g}%",
        "prompts": f"{decision['prompts']:,}",
    }
    sections = [
        _intended_use(manifest),
        _model(manifest),
        _data(lineage["dataset"]),
        _reward(manifest),
        _results(manifest),
        *_guards(decision or {}),
        *_checks(manifest.get("gates") or ()),
        _decision(manifest),
        Section(title="Limits", points=list(_limits(manifest))),
        _lineage(manifest),
    ]
    return Card(
        title=_name(manifest),
        environment=manifest["environment"],
        run=manifest["run"],
        made_at=manifest["made_at"],
        outcome=manifest["outcome"],
        status=_OUTCOMES[manifest["outcome"]],
        notice=_MINIATURE if manifest["embedded"] else "",
        headline=gain or None,
        sections=sections,
    )


def _name(manifest: Mapping[str, Any]) -> str:
    return str(
        manifest["lineage"]["job"].get("outputModelName") or f"{manifest['environment']}-{manifest['run']}"
    )


def _intended_use(manifest: Mapping[str, Any]) -> Section:
    return Section(
        title="Intended use",
        text=manifest["intended_use"] or "The team has not said what it is for.",
        points=[
            "Prompts like those of the dataset below, in the same form and language.",
            "Anything else was neither trained nor measured.",
        ],
    )


def _model(manifest: Mapping[str, Any]) -> Section:
    lineage = manifest["lineage"]
    models, deployed = lineage["models"], lineage["deployment"]
    training = lineage["settings"]["training"] or {}
    return Section(
        title="Model",
        facts=_known(
            ("Base model", models["base_model"]),
            ("Custom model", models["custom_model_arn"]),
            ("Method", "Reinforcement fine-tuning on Amazon Bedrock"),
            ("Deployment of the champion", models["champion_deployment_arn"]),
            ("Model it followed", models["previous_model"]),
            ("Training ended", lineage["job"].get("endTime")),
            ("Owner", deployed.get("owner")),
            *((f"Setting {name}", value) for name, value in training.items()),
        ),
    )


def _data(dataset: Mapping[str, Any]) -> Section:
    parts = {name: dataset.get(name) or {} for name in ("train", "evaluation", "regression")}
    source, filtered = dataset.get("source") or {}, dataset.get("filtered") or {}
    return Section(
        title="Data",
        text="The rows are kept as they were trained on, under the hash of their content.",
        facts=_known(
            ("Dataset (SHA-256)", dataset.get("sha256")),
            *((f"Source of {name}", source.get(name)) for name in parts),
            ("Training rows", _count(parts["train"].get("rows"))),
            ("Training rows left out, on which the base model earns all the same", _left_out(filtered)),
            ("Rows trained on", _count(filtered.get("kept"))),
            ("Rows trained on (SHA-256)", filtered.get("sha256")),
            ("Held-out rows", _count(parts["evaluation"].get("rows"))),
            ("Held-out prompts measured", _count(dataset.get("measured"))),
            ("Held-out prompts that were in training, not measured", _count(dataset.get("leaked"))),
            ("Regression rows", _count(parts["regression"].get("rows"))),
            ("Regression prompts measured", _count(dataset.get("measured_regression") or None)),
            ("Repeated training prompts", _count(parts["train"].get("duplicate_prompts"))),
        ),
    )


def _left_out(filtered: Mapping[str, Any]) -> str | None:
    return f"{filtered['left_out']:,} of {filtered['tried']:,} that were tried" if filtered else None


def _reward(manifest: Mapping[str, Any]) -> Section:
    models = manifest["lineage"]["models"]
    rows = [
        [
            each["name"],
            "optimized" if each["optimized"] else "watched",
            _score(each["base"]),
            _score(each["candidate"]),
            _change(each["change"]),
        ]
        for each in manifest["components"]
    ]
    head = ("Component", "Role", "Base", "This model", "Change")
    return Section(
        title="Reward",
        text="What training pursued. A watched component is measured and not pursued.",
        facts=_known(
            ("Reward function", models["reward_version"]),
            ("Its package (SHA-256, base64)", models["reward_sha256"]),
        ),
        table=Table(head=head, rows=rows) if rows else None,
    )


def _results(manifest: Mapping[str, Any]) -> Section:
    decision, paired, reward = manifest["decision"], manifest["paired"], manifest["reward"]
    if not decision:
        return Section(title="Results", text="The model was not compared with its base.")
    sides = [reward[subject] or {} for subject in charts.SUBJECTS]
    rows = [
        [label, *(_share(side.get(key)) for side in sides)]
        for label, key in (
            ("Score of 0 or below", "zero_share"),
            ("Score of 1 or above", "full_share"),
            ("Cut off at the token limit", "cut_share"),
        )
    ]
    rows.insert(0, ["Mean reward", _score(decision["base_mean"]), _score(decision["candidate_mean"])])
    rows.append(["Mean length in tokens", *(_tokens(side.get("output_tokens")) for side in sides)])
    return Section(
        title="Results",
        text=(
            f"Held out: the training job never saw these {decision['prompts']:,} prompts. The gain is"
            f" {_change(decision['gain'])}, with a {100 * decision['confidence']:.4g}% interval of"
            f" {_interval(decision)}: {decision['method']}."
            + (
                f" Prompt by prompt this model did better on {paired['better']:,}, the same on"
                f" {paired['same']:,} and worse on {paired['worse']:,}."
                if paired
                else ""
            )
        ),
        table=Table(head=("", "Base", "This model"), rows=rows),
    )


def _guards(decision: Mapping[str, Any]) -> Iterator[Section]:
    guards, rival = decision.get("guards") or (), decision.get("champion")
    kept = decision.get("regression") or ()
    tests = [
        *((each["name"], each) for each in guards),
        *((f"mean reward on {each['prompts']:,} regression prompts", each) for each in kept),
    ]
    rows = [
        [
            name,
            each["against"],
            _score(each["before"]),
            _score(each["candidate"]),
            "not measured" if each["change"] is None else f"{_change(each['change'])} ({_interval(each)})",
            "held" if each["held"] else "broken",
        ]
        for name, each in tests
    ]
    if rival:
        held = "held" if rival["held"] else "broken"
        change = f"{_change(rival['gain'])} ({_interval(rival)})"
        rows.insert(
            0,
            [
                "mean reward",
                "champion",
                _score(rival["mean"]),
                _score(decision["candidate_mean"]),
                change,
                held,
            ],
        )
    if rows:
        head = ("What must not drop", "Against", "Before", "This model", "Change", "")
        yield Section(title="Guards", table=Table(head=head, rows=rows))


def _checks(gates: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    if gates:
        rows = [[each["gate"], each["verdict"], each["sentence"]] for each in gates]
        yield Section(title="Checks before training", table=Table(head=("Gate", "Verdict", "Why"), rows=rows))


def _decision(manifest: Mapping[str, Any]) -> Section:
    approval = (manifest["decision"] or {}).get("approval") or {}
    return Section(
        title="Decision",
        text=manifest["sentence"],
        facts=_known(
            ("Approver", manifest["approver"] or ("" if approval else "nobody was asked")),
            ("Answered", approval.get("at")),
            ("Because", approval.get("why")),
        ),
    )


def _limits(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest["embedded"]:
        yield _MINIATURE
    decision, candidate = manifest["decision"], manifest["reward"]["candidate"] or {}
    yield (
        "A score is what the reward function gives, and no more than that: what it does not look at was"
        " neither trained nor measured."
    )
    if decision:
        yield (
            f"The interval covers the luck of which {decision['prompts']:,} prompts were drawn. It does not"
            " cover prompts of another kind, or a world that has changed since."
        )
    if candidate.get("cut_share"):
        yield (
            f"{_share(candidate['cut_share'])} of the measured completions met the token limit and were"
            " scored as they stood."
        )
    yield "Safety, fairness and robustness were not tested beyond what the reward and the guards look at."
    yield "A tuned model may have lost abilities that nothing here measures."


def _lineage(manifest: Mapping[str, Any]) -> Section:
    deployed, job = manifest["lineage"]["deployment"], manifest["lineage"]["job"]
    return Section(
        title="Lineage",
        text="manifest.json beside this card holds all of it, with the hash of every object that was read.",
        facts=_known(
            ("Environment", manifest["environment"]),
            ("Run", manifest["run"]),
            ("Started by", manifest["trigger"]),
            ("Customization job", job.get("jobArn")),
            ("Source revision", deployed.get("revision") or "not recorded"),
            ("Stack template (SHA-256)", deployed.get("template_sha256") or deployed.get("unknown")),
            ("Stack deployed", deployed.get("deployed_at")),
            ("Deployed again during the run", "yes" if deployed.get("changed_during_run") else None),
            ("Locked until", manifest["locked_until"]),
            ("Objects read (SHA-256)", manifest["inputs_sha256"]),
        ),
    )


def _known(*facts: tuple[str, Any]) -> list[tuple[str, str]]:
    """Returns the facts that there are."""
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _score(value: float | None) -> str:
    return "none" if value is None else charts.decimals(value, ".3f")


def _change(value: float | None) -> str:
    return "none" if value is None else charts.decimals(value, "+.3f")


def _interval(found: Mapping[str, Any]) -> str:
    return f"{_change(found['lower'])} to {_change(found['upper'])}"


def _share(value: float | None) -> str:
    return "none" if value is None else charts.decimals(value, ".0%")


def _tokens(value: float | None) -> str:
    return "none" if value is None else charts.decimals(value, ",.0f")


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _escaped(value: Any) -> Any:
    """Returns a text that is one line of Markdown and nothing but text."""
    if type(value) is not str:
        return value
    return _MARKDOWN.sub(r"\\\1", charts.visible(" ".join(value.split())))
