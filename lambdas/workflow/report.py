"""Writes a run's report: a page for people, a manifest with the same facts for machines, and a model card.

The page is drawn from the manifest: every number on it is a `<data>` element that names the manifest's field,
so the two cannot tell different stories. What a model wrote is hostile input: the template escapes it,
characters that hide or reorder text are made visible, and the page's content security policy forbids scripts
and requests, should an escape ever be missed.

Event: {"run", "document"?: the run document (see `start`), "job_arn"?, "model_arn"?, "decision"?,
    "champion"?: what `promote` returned, "error"?: {"Error", "Cause"}}. What is missing is read from the
    run's files where they have it, and the job is looked up by the run's name: a run that failed gets a
    report of what there is.
Returns: {"report", "manifest"}: the s3:// URIs of what it wrote.
Writes: runs/<run>/report.html, runs/<run>/manifest.json as below and, where the run has made a model,
    runs/<run>/model-card.md and model-card.html (see `model_card`). Where the stage asks for a lock, it locks
    the manifest, the cards and decision.json: from then on nobody can change how this model came about.
Errors: botocore's own errors by their own names.
Environment: STACK, STACK_ID, ARTIFACTS; with a lock LOCK_DAYS and
    LOCK_MODE (GOVERNANCE or COMPLIANCE); RFT_EMBEDDED is set where an embedded AWS runs this.
IAM:
    - bedrock:GetModelCustomizationJob on model-customization-job/* (the service makes the ids);
    - s3:ListBucket on ARTIFACTS, s3:GetObject on ARTIFACTS/runs/*;
    - s3:PutObject on ARTIFACTS/runs/*/ report.html, manifest.json, model-card.md and model-card.html;
    - with a lock: s3:PutObjectRetention on ARTIFACTS/runs/*/ manifest.json, decision.json and the cards;
    - cloudformation:DescribeStacks, cloudformation:GetTemplate on the stack;
    - lambda:GetFunctionConfiguration on the versions of the reward function;
    - kms:Decrypt, kms:GenerateDataKey on the key of ARTIFACTS.

`manifest.json`: scores are in the reward's units, shares in 0..1, lengths in tokens, times in UTC; null and
empty lists mean that the run did not get that far.

    schema          1
    environment     the stack's name; run and trigger: what the workflow calls them; made_at: when
    embedded        true where an embedded AWS made the run, with a miniature policy in the model's place
    outcome         promoted | cleared (to be promoted) | kept (not promoted) | failed | undecided
    sentence        why, for a person
    failure         failure.json as it is; decision: decision.json, with guards, champion and approval;
                    champion: what promoting did
    gates           [{gate, verdict, sentence, notes}]: what let the run pass, or stopped it (lambdas/gate.py)
    approver        who approved or rejected the model, null where nobody was asked
    intended_use    what the team says it trains, at most some 250 characters of it
    locked_until    until when nobody can change this file, null where the stage does not ask for a lock
    reward          {base, candidate}: {prompts, completions, mean, zero_share, full_share, cut_share,
                    output_tokens}; cut_share: of completions that met the token limit
    paired          {prompts, better, same, worse}: the candidate's mean against the base's, prompt by prompt
    prompts         [{index, id, base, candidate, difference}]: mean scores of each prompt's completions
    components      [{name, optimized, base, candidate, change}]: means over completions
    distributions   {scores, output_tokens: {edges, base, candidate},
                    differences: {edges, worse, same, better}}: numbers of completions, and of prompts
    training        {steps, seconds, every, series: {column: [number or null]}, roles: {role: column},
                    columns: [{name, first, last, lowest, highest}]}; series hold every `every`-th step
    examples        [{kind, index, id, base, candidate, difference}]; base and candidate:
                    {mean, scores, shown, score, components}: completion number `shown` stands for the others
    lineage         {run, deployment, dataset, models, settings, job}: names, versions, hashes and ARNs;
                    deployment as `provenance` has it; dataset.filtered: {drop, tried, flat, rows, left_out,
                    kept, sha256, uri} of what was trained on, where a filter may leave prompts out
    inputs          {key: sha256} of every object the report was made from; inputs_sha256: of that list
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from lambdas.workflow import charts, model_card, provenance, runs
from lambdas.workflow.charts import SUBJECTS

if TYPE_CHECKING:
    from types_boto3_bedrock import BedrockClient
    from types_boto3_s3 import S3Client

_READERS: Final = 10
_BINS: Final = 10
_POINTS_OF_A_SERIES: Final = 200
_EXAMPLES_OF_A_KIND: Final = 3
# A prompt whose completions score less than this on average was not answered.
_ANSWERED: Final = 0.5
_INPUTS: Final = re.compile(
    r"(run|dataset|decision|failure)\.json|gates/[^/]+\.json|measured/(base|candidate)/[^/]+\.json"
    r"|output/(.+/)?step_wise_training_metrics\.csv"
)


# In workflow order; a gate that is not among them comes last.
_GATES: Final = ("dataset", "rehearsal", "signal", "lock", "cost", "filter", "tripwires")

_STEP: Final = frozenset({"step_number", "epoch_number"})
# The service does not document the names of its metrics: these words are in all that were seen so far.
_ROLES: Final = {
    "reward": ("reward", "mean"),
    "reward_lowest": ("reward", "min"),
    "reward_highest": ("reward", "max"),
    "validation": ("val", "reward"),
    "entropy": ("entropy",),
    "length": ("response", "length", "mean"),
    "length_lowest": ("response", "length", "min"),
    "length_highest": ("response", "length", "max"),
}

# The measured files of one model, one for each prompt (see `measure`).
Measured = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run; whatever it did not get to is None or empty.

    `steps` are the rows of the training metrics file, `measured` the measured files of "base" and of
    "candidate" on the evaluation file, `inputs` the sha256 of every object read, by its key.
    """

    environment: str
    run: str
    made_at: datetime
    embedded: bool
    document: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] | None = None
    gates: Sequence[Mapping[str, Any]] = ()
    decision: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    champion: Mapping[str, Any] | None = None
    job: Mapping[str, Any] | None = None
    model_arn: str | None = None
    deployment: Mapping[str, Any] = field(default_factory=dict)
    reward_sha256: str | None = None
    locked_until: datetime | None = None
    steps: Sequence[Mapping[str, float | None]] = ()
    measured: Mapping[str, Measured] = field(default_factory=lambda: dict.fromkeys(SUBJECTS, ()))
    inputs: Mapping[str, str] = field(default_factory=dict)


def handler(event: Mapping[str, Any], _context: object) -> dict[str, str]:
    """Writes the report of a run (see the module)."""
    run = event["run"]
    facts = _facts(event)
    page, manifest = build(facts)
    cards = model_card.pages(manifest)
    s3: S3Client = runs.client("s3")
    for name, content_type, text in (
        ("report.html", "text/html; charset=utf-8", page),
        *((name, model_card.FILES[name], text) for name, text in cards.items()),
        ("manifest.json", "application/json", json.dumps(manifest, indent=1, allow_nan=False)),
    ):
        key = runs.key(run, name)
        s3.put_object(Bucket=os.environ["ARTIFACTS"], Key=key, Body=text.encode(), ContentType=content_type)
    decided = [name for name in ("decision.json",) if runs.key(run, name) in manifest["inputs"]]
    if facts.locked_until:
        provenance.lock(run, ["manifest.json", *cards, *decided], facts.locked_until)
    return {"report": runs.uri(run, "report.html"), "manifest": runs.uri(run, "manifest.json")}


def build(facts: Facts) -> tuple[str, dict[str, Any]]:
    """Returns the page and the manifest of a run; the same facts give the same bytes."""
    manifest = _manifest(facts)
    measured = _by_index(facts)
    texts = [_texts(example, measured) for example in manifest["examples"]]
    return _page(manifest, texts), manifest


# --- reading ---


def _facts(event: Mapping[str, Any]) -> Facts:
    """Collects what the event, the run's files and Bedrock know of the run."""
    run = event["run"]
    read = _read(run)
    loaded: dict[str, Any] = {path: json.loads(body) for path, body in read.items() if path.endswith(".json")}
    measured: dict[str, list[Mapping[str, Any]]] = {subject: [] for subject in SUBJECTS}
    for path, content in loaded.items():
        # What regression prompts say stands in the decision; they count in nothing else.
        if path.startswith("measured/") and content.get("part") != "regression":
            measured[path.split("/")[1]].append(content)
    metrics = [body for path, body in read.items() if path.endswith(".csv")]
    document = event.get("document") or loaded.get("run.json") or {}
    return Facts(
        environment=os.environ["STACK"],
        run=run,
        made_at=datetime.now(UTC),
        embedded=_is_embedded(document.get("reward_version", "")),
        document=document,
        dataset=loaded.get("dataset.json"),
        gates=[content for path, content in sorted(loaded.items()) if path.startswith("gates/")],
        decision=event.get("decision") or loaded.get("decision.json"),
        failure=loaded.get("failure.json") or _failure(event.get("error")),
        champion=event.get("champion"),
        job=_job(event.get("job_arn") or runs.name(run)),
        model_arn=event.get("model_arn"),
        deployment=provenance.deployment(document.get("requested")),
        reward_sha256=provenance.reward_sha256(document.get("reward_version")),
        locked_until=provenance.locked_until(),
        steps=read_steps(metrics[-1].decode()) if metrics else (),
        measured=measured,
        inputs={runs.key(run, path): hashlib.sha256(body).hexdigest() for path, body in sorted(read.items())},
    )


def _read(run: str) -> dict[str, bytes]:
    """Returns what of the run's files a report is made of, by path, the oldest first."""
    s3: S3Client = runs.client("s3")
    bucket, start = os.environ["ARTIFACTS"], len(runs.key(run, ""))
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=runs.key(run, ""))
    listed = [entry for page in pages for entry in page.get("Contents", [])]
    listed.sort(key=lambda entry: (entry["LastModified"], entry["Key"]))
    paths = [path for entry in listed if _INPUTS.fullmatch(path := entry["Key"][start:])]
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(
            lambda path: s3.get_object(Bucket=bucket, Key=runs.key(run, path))["Body"].read(), paths
        )
        return dict(zip(paths, found, strict=True))


def _job(identifier: str) -> dict[str, Any] | None:
    """Returns what Bedrock says of the customization job, None where the run never started one."""
    bedrock: BedrockClient = runs.client("bedrock")
    try:
        answer = bedrock.get_model_customization_job(jobIdentifier=identifier)
    except bedrock.exceptions.ResourceNotFoundException:
        return None
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _is_embedded(reward_version: str) -> bool:
    """Says whether an embedded AWS runs this: it says so, or its account is the one that no customer has."""
    return bool(os.environ.get("RFT_EMBEDDED")) or ":000000000000:" in reward_version


def _failure(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Puts a Step Functions error in the shape of failure.json; a failed Lambda's cause is JSON itself."""
    if not error:
        return None
    cause = str(error.get("Cause") or "")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        cause = str(json.loads(cause)["errorMessage"])
    name = str(error.get("Error") or "error")
    return {"error": name, "cause": cause, "sentence": f"The run failed: {cause or name}"}


def read_steps(text: str) -> list[dict[str, float | None]]:
    """Returns the rows of a training metrics file; what is not a finite number is None."""
    return [
        {name: _finite(value) for name, value in row.items() if name}
        for row in csv.DictReader(io.StringIO(text))
    ]


# --- the manifest ---


def _manifest(facts: Facts) -> dict[str, Any]:
    prompts = _prompts(facts)
    differences = [row["difference"] for row in prompts if row["difference"] is not None]
    manifest = {
        "schema": 1,
        "environment": facts.environment,
        "run": facts.run,
        "trigger": facts.document.get("trigger"),
        "made_at": facts.made_at,
        "embedded": facts.embedded,
        **_outcome(facts),
        "failure": facts.failure,
        "decision": facts.decision,
        "approver": ((facts.decision or {}).get("approval") or {}).get("by"),
        "intended_use": facts.deployment.get("description"),
        "locked_until": facts.locked_until,
        "champion": facts.champion,
        "gates": _gates(facts),
        "reward": {subject: _rewards(facts.measured[subject]) for subject in SUBJECTS},
        "paired": _paired(differences),
        "prompts": prompts,
        "components": _components(facts),
        "distributions": {
            "scores": _distribution(facts, "score"),
            "output_tokens": _distribution(facts, "output_tokens"),
            "differences": _changes(differences),
        },
        "training": _training(facts),
        "examples": _examples(facts, prompts),
        "lineage": _lineage(facts),
        "inputs": facts.inputs,
        "inputs_sha256": hashlib.sha256(json.dumps(facts.inputs, sort_keys=True).encode()).hexdigest(),
    }
    plain: dict[str, Any] = _plain(manifest)
    return plain


def _outcome(facts: Facts) -> dict[str, str]:
    decision, failure = facts.decision, facts.failure
    if failure:
        outcome, sentence = "failed", failure.get("sentence") or failure.get("cause") or failure.get("error")
    elif decision and decision["promote"]:
        outcome, sentence = "promoted" if facts.champion else "cleared", decision.get("sentence")
    elif decision:
        outcome, sentence = "kept", decision.get("sentence")
    else:
        outcome, sentence = "undecided", "The run has not come to a decision yet."
    return {"outcome": outcome, "sentence": sentence or "No reason was recorded."}


def _gates(facts: Facts) -> list[dict[str, Any]]:
    """Returns what each gate said; `notes` are what it said for information."""
    order = {gate: place for place, gate in enumerate(_GATES)}
    return [
        {
            "gate": verdict["gate"],
            "verdict": verdict["verdict"],
            "sentence": verdict["sentence"],
            "notes": [each["sentence"] for each in verdict["findings"] if each["level"] == "info"],
        }
        for verdict in sorted(facts.gates, key=lambda each: order.get(each["gate"], len(order)))
    ]


def _values(measured: Measured, key: str) -> list[Any]:
    """Returns what the completions have under `key`; those without it are left out."""
    found = (completion.get(key) for each in measured for completion in each["completions"])
    return [value for value in found if value is not None]


def _rewards(measured: Measured) -> dict[str, Any] | None:
    if not measured:
        return None
    scores, tokens, reasons = (_values(measured, key) for key in ("score", "output_tokens", "stop_reason"))
    return {
        "prompts": len(measured),
        "completions": len(scores),
        "mean": fmean(each["mean"] for each in measured),
        "zero_share": fmean(score <= 0 for score in scores),
        "full_share": fmean(score >= 1 for score in scores),
        "cut_share": fmean(reason == "max_tokens" for reason in reasons) if reasons else None,
        "output_tokens": fmean(tokens) if tokens else None,
    }


def _by_index(facts: Facts) -> dict[str, dict[int, Mapping[str, Any]]]:
    return {subject: {each["index"]: each for each in facts.measured[subject]} for subject in SUBJECTS}


def _prompts(facts: Facts) -> list[dict[str, Any]]:
    found = _by_index(facts)
    rows = []
    for index in sorted({*found["base"], *found["candidate"]}):
        both = [found[subject].get(index) for subject in SUBJECTS]
        base, candidate = (each["mean"] if each else None for each in both)
        row = {"index": index, "id": next(each["id"] for each in both if each)}
        rows.append({**row, **_change(base, candidate, "difference")})
    return rows


def _change(base: float | None, candidate: float | None, name: str) -> dict[str, float | None]:
    change = None if base is None or candidate is None else candidate - base
    return {"base": base, "candidate": candidate, name: change}


def _paired(differences: Sequence[float]) -> dict[str, int] | None:
    if not differences:
        return None
    better = sum(each > charts.SAME for each in differences)
    worse = sum(each < -charts.SAME for each in differences)
    count = len(differences)
    return {"prompts": count, "better": better, "same": count - better - worse, "worse": worse}


def _components(facts: Facts) -> list[dict[str, Any]]:
    """Returns the mean over completions of each component of the reward, the optimized ones first."""
    rows = []
    for kind in ("components", "metrics"):
        parts = {subject: _values(facts.measured[subject], kind) for subject in SUBJECTS}
        for name in dict.fromkeys(name for found in parts.values() for part in found for name in part):
            scores = ([part[name] for part in parts[subject] if name in part] for subject in SUBJECTS)
            base, candidate = (fmean(each) if each else None for each in scores)
            rows.append(
                {"name": name, "optimized": kind == "components", **_change(base, candidate, "change")}
            )
    return rows


def _distribution(facts: Facts, key: str) -> dict[str, Any] | None:
    values = {subject: _values(facts.measured[subject], key) for subject in SUBJECTS}
    everything = [*values["base"], *values["candidate"]]
    if not everything:
        return None
    top = max(1.0, *everything) if key == "score" else charts.round_up(max(everything))
    edges = _edges(min(0.0, *everything), top)
    return {"edges": edges, **{subject: _counts(values[subject], edges) for subject in SUBJECTS}}


def _changes(differences: Sequence[float]) -> dict[str, Any] | None:
    if not differences:
        return None
    edges = _edges(0.0, charts.round_up(max(map(abs, differences))))
    return {
        "edges": edges,
        "worse": _counts([-each for each in differences if each < -charts.SAME], edges),
        "same": sum(abs(each) <= charts.SAME for each in differences),
        "better": _counts([each for each in differences if each > charts.SAME], edges),
    }


def _edges(low: float, high: float) -> list[float]:
    return [low + (high - low) * step / _BINS for step in range(_BINS + 1)]


def _counts(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    counts = [0] * _BINS
    width = (edges[-1] - edges[0]) / _BINS
    for value in values:
        # The tolerance keeps 0.3 in the bin that begins at 0.3, whatever its last binary digit.
        counts[min(_BINS - 1, math.floor((value - edges[0]) / width + charts.SAME))] += 1
    return counts


def _training(facts: Facts) -> dict[str, Any] | None:
    """Returns the curves of the training metrics file, thinned to what a picture can show."""
    rows = [{"step_number": float(at), **_known(row)} for at, row in enumerate(facts.steps, 1)]
    if not rows:
        return None
    every = math.ceil(len(rows) / _POINTS_OF_A_SERIES)
    # Counted from the end: the last step is the one that everybody looks for.
    kept = rows[(len(rows) - 1) % every :: every]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in _STEP))
    columns = []
    for name in names:
        values = [row[name] for row in rows if name in row]
        ends = {"first": values[0], "last": values[-1], "lowest": min(values), "highest": max(values)}
        columns.append({"name": name, **ends})
    job = facts.job or {}
    started, ended = job.get("creationTime"), job.get("endTime")
    return {
        "steps": len(rows),
        "seconds": (ended - started).total_seconds() if started and ended else None,
        "every": every,
        "series": {name: [row.get(name) for row in kept] for name in ("step_number", *names)},
        "roles": {role: _column(names, *words) for role, words in _ROLES.items()},
        "columns": columns,
    }


def _known(row: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in row.items() if value is not None}


def _column(names: Iterable[str], *words: str) -> str | None:
    """Returns the first column whose name holds all `words`."""
    for name in names:
        said = {word.removesuffix("s") for word in re.findall("[a-z]+", name.lower())}
        if said.issuperset(words) and ("val" in words or "val" not in said):
            return name
    return None


def _examples(facts: Facts, prompts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Chooses the biggest gains, the biggest losses and the prompts neither model answers."""
    paired = [row for row in prompts if row["difference"] is not None]
    by_change = sorted(paired, key=lambda row: row["difference"])
    losses = [row for row in by_change if row["difference"] < -charts.SAME]
    gains = [row for row in reversed(by_change) if row["difference"] > charts.SAME]
    same = [row for row in paired if abs(row["difference"]) <= charts.SAME]
    wrong = [row for row in same if row["candidate"] < _ANSWERED]
    # A run that stopped before its candidate still shows what the base model finds hard.
    hard = [] if paired else [row for row in prompts if row["base"] is not None and row["base"] < _ANSWERED]
    kinds = {"gain": gains, "loss": losses, "wrong": sorted(wrong, key=lambda row: row["candidate"])}
    kinds["hard"] = sorted(hard, key=lambda row: row["base"])
    measured = _by_index(facts)
    return [
        {
            "kind": kind,
            "index": row["index"],
            "id": row["id"],
            "difference": row["difference"],
            **{subject: _example(measured[subject].get(row["index"])) for subject in SUBJECTS},
        }
        for kind, rows in kinds.items()
        for row in rows[:_EXAMPLES_OF_A_KIND]
    ]


def _example(measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Picks the completion of middling score: neither the luckiest nor the worst of the samples."""
    if measured is None:
        return None
    scores = [completion["score"] for completion in measured["completions"]]
    shown = sorted(range(len(scores)), key=lambda at: scores[at])[(len(scores) - 1) // 2]
    completion = measured["completions"][shown]
    parts = {**(completion.get("components") or {}), **(completion.get("metrics") or {})}
    return {
        "mean": measured["mean"],
        "scores": scores,
        "shown": shown,
        "score": scores[shown],
        "components": [{"name": name, "value": value} for name, value in parts.items()],
    }


def _lineage(facts: Facts) -> dict[str, dict[str, Any]]:
    document, job, champion = facts.document, facts.job or {}, facts.champion or {}
    grader = ((job.get("customizationConfig") or {}).get("rftConfig") or {}).get("graderConfig") or {}
    return {
        "run": {
            "environment": facts.environment,
            "run": facts.run,
            "trigger": document.get("trigger"),
            "source": document.get("source"),
        },
        "deployment": dict(facts.deployment),
        "dataset": {**(facts.dataset or {}), **_filtered(facts)},
        "models": {
            "base_model": document.get("base_model"),
            "base_model_arn": job.get("baseModelArn"),
            "custom_model_arn": facts.model_arn or job.get("outputModelArn"),
            "champion_deployment_arn": champion.get("champion_arn"),
            "previous_model": champion.get("previous_model"),
            "reward_version": document.get("reward_version"),
            "reward_sha256": facts.reward_sha256,
            "reward_version_of_the_job": (grader.get("lambdaGrader") or {}).get("lambdaArn"),
        },
        "settings": {name: document.get(name) for name in ("training", "measurement", "promotion")},
        "job": dict(job),
    }


def _filtered(facts: Facts) -> dict[str, Any]:
    """Returns what the filter made of the training file; the lines it left out are in its own verdict."""
    found = next((gate["facts"] for gate in facts.gates if gate["gate"] == "filter"), None)
    return {"filtered": {key: found[key] for key in found if key != "lines"}} if found else {}


def _finite(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _plain(value: Any) -> Any:
    """Returns `value` as JSON can hold it: times as ISO 8601, what is not a finite number as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, float):
        return _finite(value)
    return value


# --- the page ---


def _page(manifest: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]) -> str:
    # Here, as is pygal in `charts`: what only reads a run's facts need not wait for them.
    import jinja2
    from markupsafe import Markup

    def number(path: str, form: str) -> Markup:
        value = _at(manifest, path)
        if value is None:
            return Markup('<span class="soft">none</span>')
        element = Markup('<data data-field="{}" value="{}">{}</data>')
        return element.format(path, json.dumps(value), _FORMS[form](value))

    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # The type and not isinstance: what is markup already is a kind of str and stays as it is.
        finalize=lambda value: charts.visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"flat": flat, "day": _day, "clock": _clock, "duration": _duration}
    return pages.get_template("report.html.jinja").render(
        m=manifest,
        n=number,
        texts=texts,
        charts={name: Markup(svg) for name, svg in charts.draw(manifest)},  # noqa: S704  # an XML serializer's
        interval=charts.interval(manifest),
    )


def _texts(
    example: Mapping[str, Any], measured: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> dict[str, Any]:
    """Returns the words of an example: its prompt, its reference answer and the completions of each model."""
    sides = {name: each for name in SUBJECTS if (each := measured[name].get(example["index"]))}
    asked = next(iter(sides.values()))
    reference = asked["reference_answer"]
    if not isinstance(reference, str):
        reference = "" if reference is None else json.dumps(reference, ensure_ascii=False)
    return {
        "messages": [(message["role"], _said(message)) for message in asked["messages"]],
        "reference": reference,
        **{name: [each["text"] for each in found["completions"]] for name, found in sides.items()},
    }


def _said(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yields the (dotted name, text) of every leaf of nested JSON that holds something."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from flat(each, f"{name}.{at}")
    elif value not in (None, ""):
        yield name, value if isinstance(value, str) else json.dumps(value)


def _at(manifest: Any, path: str) -> Any:
    for step in path.split("."):
        manifest = manifest[int(step) if isinstance(manifest, list) else step]
    return manifest


# How a number reads on the page.
_FORMS: Final[dict[str, Callable[[float], str]]] = {
    "score": lambda value: charts.decimals(value, ".3f"),
    "gain": lambda value: charts.decimals(value, "+.3f"),
    "share": lambda value: charts.decimals(value, ".0%"),
    "level": lambda value: f"{100 * value:.4g}%",
    "count": lambda value: charts.decimals(value, ",.0f"),
    "tokens": lambda value: charts.decimals(value, ",.1f"),
    "metric": lambda value: charts.decimals(value, ".4g"),
}


def _day(moment: str) -> str:
    when = datetime.fromisoformat(moment)
    return f"{when.day} {when:%B %Y}"


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%H:%M} UTC"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
