"""The report: self-contained, safe against what a model writes, and of one story with its manifest."""

import io
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from lambdas.workflow import charts, decide, model_card, provenance, report, runs

ROOT = Path(__file__).parents[3]
ACCOUNT = "111122223333"
REWARD = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:rft-quotes-dev-Reward4F1A:7"
MODEL = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model/amazon.nova-2-lite-v1:0:256k/k3h2l1m4n5o6"
DEPLOYMENT = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model-deployment/q7r8s9t0u1v2"
JOB = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:model-customization-job/amazon.nova-2-lite-v1:0:256k/a1b2c3d4e5f6"
RUN = "run-0123456789abcdef"
STACK_ID = f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/rft-quotes-dev/0a1b2c3d"
HOSTILE = (
    "</td></div><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)>"
    "</text></svg><svg onload=alert(1)><style>@import url(https://evil.example/a.css)</style>"
    "{{ 7 * 7 }}{% raw %}\x00\x1b[31m\u202egnp.exe\ud800"
)


# --- a run that never was, in the shapes the workflow writes ---


Rows = list[dict[str, Any]]


def synthetic(prompts: int = 100, *, measured: dict[str, Rows] | None = None, **changes: Any) -> report.Facts:
    """A finished run of a sales-quote desk: the candidate learned the arithmetic and to say less."""
    measured = measured or measurements(prompts)
    facts: dict[str, Any] = {
        "environment": "rft-quotes-dev",
        "run": RUN,
        "made_at": datetime(2026, 11, 22, 16, 40, tzinfo=UTC),
        "embedded": False,
        "document": document(),
        "dataset": {
            "sha256": "9f" * 32,
            "train": {"rows": 320},
            "evaluation": {"rows": prompts},
            "leaked": 0,
        },
        "gates": [
            {
                "gate": gate,
                "verdict": "pass",
                "sentence": f"{gate.capitalize()}: nothing to object to.",
                "findings": [{"level": "info", "sentence": f"What {gate} found."}],
                "facts": {},
            }
            for gate in ("cost", "signal", "lock")
        ],
        "decision": decision(measured),
        "champion": {"champion_arn": DEPLOYMENT, "adopted": False, "previous_model": MODEL[:-1] + "1"},
        "job": job(),
        "model_arn": MODEL,
        "deployment": deployment(),
        "reward_sha256": "6Jk0Z2wZ1b8YbXl0bTnLJkz3oYQH1m0mQm3xk0m1m2E=",
        "steps": steps(40),
        "measured": measured,
        "inputs": {f"runs/{RUN}/run.json": "ab" * 32},
    }
    return report.Facts(**(facts | changes))


def document() -> dict[str, Any]:
    return {
        "run": RUN,
        "trigger": "deploy",
        "source": {"train": "s3://assets/1a2b.jsonl", "evaluation": "s3://assets/3c4d.jsonl"},
        "base_model": "amazon.nova-2-lite-v1:0:256k",
        "reward_version": REWARD,
        "training": {"epochCount": 2, "batchSize": 32, "learningRate": 1e-4, "reasoningEffort": "low"},
        "measurement": {"prompts": 100, "samples_per_prompt": 4, "temperature": 0.7, "concurrency": 10},
        "promotion": {"minimum_gain": 0.0, "confidence": 0.95},
    }


def deployment() -> dict[str, Any]:
    return {
        "stack_id": STACK_ID,
        "team": "quotes",
        "stage": "dev",
        "owner": "quotes-ml@example.com",
        "description": "Answers the arithmetic of a sales-quote desk.",
        "revision": "54f6bc3e0b1c4f0d9a7e54f6bc3e0b1c4f0d9a7e",
        "template_sha256": "c0" * 32,
        "deployed_at": datetime(2026, 11, 20, 9, 15, tzinfo=UTC),
        "changed_during_run": False,
    }


def measurements(prompts: int, *, samples: int = 4, seed: int = 7) -> dict[str, Rows]:
    rng = random.Random(seed)
    measured: dict[str, Rows] = {"base": [], "candidate": []}
    for index in range(prompts):
        units, price, rebate = rng.randint(3, 60), rng.randint(4, 180), rng.choice([0, 5, 10, 15])
        right = round(units * price * (100 - rebate) / 100, 2)
        asked = {
            "index": index,
            "id": f"quote-{index:04}",
            "messages": [
                {"role": "system", "content": "Give one line of reasoning and then `Answer: <number>`."},
                {
                    "role": "user",
                    "content": f"A customer orders {units} brackets at {price} EUR each and gets {rebate} "
                    "percent off the whole order. What is the total of the quote in EUR?",
                },
            ],
            "reference_answer": str(right),
        }
        luck = rng.betavariate(2, 2)
        for subject, skill, length in (("base", 0.75 * luck, 130), ("candidate", 0.35 + 0.8 * luck, 70)):
            said = [completion(rng, f"{units} x {price}", right, skill, length) for _ in range(samples)]
            mean = sum(each["score"] for each in said) / samples
            measured[subject].append({**asked, "completions": said, "mean": mean})
    return measured


def completion(rng: random.Random, sum_: str, right: float, skill: float, length: int) -> dict[str, Any]:
    answers, knows = rng.random() < 0.35 + 0.6 * skill, rng.random() < skill
    number = right if knows else round(right * rng.choice([0.9, 1.1, 10]), 2)
    answer, form = float(answers and knows), float(answers)
    return {
        "text": f"{sum_}, less the rebate.\n"
        + (f"Answer: {number}" if answers else f"About {number}, I think."),
        "score": round(0.8 * answer + 0.2 * form, 4),
        "components": {"answer": answer, "form": form},
        "metrics": {"extracted": form},
        "output_tokens": max(8, round(rng.lognormvariate(math.log(length), 0.45))),
        "stop_reason": "max_tokens" if rng.random() < 0.02 else "end_turn",
    }


def decision(measured: dict[str, Rows], **changes: Any) -> dict[str, Any]:
    models = [decide.collect(measured[subject]) for subject in ("base", "candidate")]
    return decide.decide(*models, bar=decide.Bar(), seed=RUN) | changes


def judged() -> report.Facts:
    """A run with a guard that did not hold, against a champion that scored as the candidate does."""
    measured = measurements(60, seed=5)
    base, candidate = (decide.collect(measured[subject]) for subject in ("base", "candidate"))
    bar = decide.Bar(guards=("form", "politeness"), tolerated_drop=0.02)
    found = decide.decide(base, candidate, candidate, bar=bar, seed=RUN)
    return synthetic(60, measured=measured, decision=found, champion=None)


def waiting() -> report.Facts:
    """A run that waits for a person."""
    measured = measurements(30)
    asked = decision(measured, approval_seconds=3600, sentence="Cleared for promotion: it is better.")
    return synthetic(30, measured=measured, decision=asked, champion=None)


def approved() -> report.Facts:
    """A run that a person has approved."""
    measured = measurements(30)
    answer = {"approved": True, "by": "arn:aws:iam::111122223333:user/eve", "why": "", "at": "2026-11-22"}
    return synthetic(30, measured=measured, decision=decision(measured, approval=answer))


def job() -> dict[str, Any]:
    started = datetime(2026, 11, 22, 13, 2, tzinfo=UTC)
    return {
        "jobArn": JOB,
        "jobName": f"rft-quotes-dev-{RUN}",
        "status": "Completed",
        "outputModelArn": MODEL,
        "baseModelArn": "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-lite-v1:0:256k",
        "roleArn": f"arn:aws:iam::{ACCOUNT}:role/rft-quotes-dev-Customization",
        "creationTime": started,
        "endTime": started + timedelta(hours=3, minutes=12),
        "customizationType": "REINFORCEMENT_FINE_TUNING",
        "customizationConfig": {
            "rftConfig": {
                "graderConfig": {"lambdaGrader": {"lambdaArn": REWARD}},
                "hyperParameters": {"epochCount": 2, "batchSize": 32, "learningRate": 1e-4},
            }
        },
        "outputDataConfig": {"s3Uri": f"s3://artifacts/runs/{RUN}/output/"},
    }


def steps(count: int) -> list[dict[str, float | None]]:
    rng = random.Random(count)
    rows: list[dict[str, float | None]] = []
    for step in range(1, count + 1):
        done = 1 - math.exp(-3 * step / count)
        mean = 0.38 + 0.42 * done + rng.gauss(0, 0.02)
        length = 138 - 62 * done + rng.gauss(0, 4)
        rows.append(
            {
                "step_number": float(step),
                "epoch_number": float(1 + 2 * step // (count + 1)),
                "critic/rewards/mean": mean,
                "critic/rewards/max": 1.0,
                "critic/rewards/min": max(0.0, mean - 0.45),
                "val-score/rewards/mean@1": 0.36 + 0.4 * done if step % 10 == 0 else None,
                "actor/entropy": 1.1 - 0.6 * done + rng.gauss(0, 0.01),
                "actor/pg_loss": -0.02 + rng.gauss(0, 0.01),
                "response_length/mean": length,
                "response_length/max": length * 2.1,
                "response_length/min": length * 0.3,
            }
        )
    return rows


def one_prompt() -> report.Facts:
    return synthetic(1, measured=measurements(1, samples=1))


def kept() -> report.Facts:
    """A run whose gain does not clear the bar its team has set."""
    measured = measurements(30, seed=3)
    kept = decision(
        measured, promote=False, minimum_gain=0.3, sentence="Not promoted: the gain may be chance."
    )
    return synthetic(30, measured=measured, decision=kept, champion=None)


def failed_in_training() -> report.Facts:
    cause = "the reward function keeps failing"
    sentence = "The customization job failed. Look at the reward function's log."
    return replace(
        nothing(),
        document=document(),
        job=job() | {"status": "Failed", "failureMessage": cause},
        measured={"base": measurements(20)["base"], "candidate": []},
        failure={"step": "Train", "error": "JobFailed", "cause": cause, "sentence": sentence, "left": []},
    )


def nothing() -> report.Facts:
    return report.Facts(
        environment="rft-quotes-dev", run=RUN, made_at=datetime(2026, 11, 22, tzinfo=UTC), embedded=False
    )


def failed_at_once() -> report.Facts:
    sentence = "Line 3 of train.jsonl is not JSON."
    return replace(nothing(), failure={"error": "DatasetError", "cause": sentence, "sentence": sentence})


def hostile() -> report.Facts:
    """A run in which every word that is not the platform's own tries to break out of the page."""
    measured = measurements(8)
    for row in (*measured["base"], *measured["candidate"]):
        row["id"] = HOSTILE
        row["messages"] = [{"role": HOSTILE, "content": [{"type": "text", "text": HOSTILE}]}]
        row["reference_answer"] = {"text": HOSTILE}
        for each in row["completions"]:
            each |= {"text": HOSTILE * 40, "components": {HOSTILE: 0.5}}
    return synthetic(
        environment=HOSTILE,
        measured=measured,
        decision=decision(measured, sentence=HOSTILE),
        failure={"error": HOSTILE, "cause": HOSTILE, "sentence": HOSTILE},
        dataset={HOSTILE: HOSTILE},
        steps=[{name + HOSTILE * ("_number" not in name): row[name] for name in row} for row in steps(40)],
    )


# --- reading the page as a browser does ---


class Page(HTMLParser):
    """The elements, attributes, numbers and words of a page; fails where elements do not nest."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without an element to close"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and self.open[-1] == "data":
            attributes = self.elements[-1][1]
            self.numbers.append((str(attributes["data-field"]), str(attributes["value"]), data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def at(manifest: Any, field: str) -> Any:
    for step in field.split("."):
        manifest = manifest[int(step) if isinstance(manifest, list) else step]
    return manifest


def head(html: str) -> str:
    return html[html.index("<header>") : html.index("</header>") + len("</header>")]


RUNS: dict[str, Callable[[], report.Facts]] = {
    "promoted": synthetic,
    "embedded": lambda: synthetic(embedded=True),
    "one prompt": one_prompt,
    "many prompts": lambda: synthetic(500),
    "kept": kept,
    "failed in training": failed_in_training,
    "failed at once": failed_at_once,
    "nothing at all": nothing,
    "hostile": hostile,
}


@pytest.fixture(params=RUNS.values(), ids=list(RUNS), scope="module")
def built(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    html, manifest = report.build(request.param())
    return html, manifest


# --- what must hold of every report ---


def test_needs_nothing_but_itself(built: tuple[str, dict[str, Any]]) -> None:
    html, _ = built
    page = Page(html)
    assert "default-src 'none'" in str(page.elements), (
        "the page's own policy forbids every request and script"
    )
    for tag, attributes in page.elements:
        assert tag not in {
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "img",
            "image",
            "use",
            "base",
            "form",
            "a",
        }
        for name, value in attributes.items():
            assert name not in {"src", "href", "xlink:href", "srcset", "action", "style"}, (
                f"{tag} {name}={value}"
            )
            assert not name.startswith("on"), f"{tag} has a handler: {name}"
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]


def test_shows_the_numbers_of_the_manifest(built: tuple[str, dict[str, Any]]) -> None:
    html, manifest = built
    for field, value, text in Page(html).numbers:
        exact = at(manifest, field)
        assert float(value) == exact
        shown = text.replace("\u2212", "-").replace(",", "").strip()
        decimals = len(shown.rstrip("%").partition(".")[2].partition("e")[0])
        if shown.endswith("%"):
            assert float(shown[:-1]) / 100 == pytest.approx(exact, abs=0.0051)
        else:
            assert float(shown) == pytest.approx(exact, abs=0.51 * 10**-decimals, rel=1e-3)


def test_is_the_same_for_the_same_facts_and_fits_a_mail(built: tuple[str, dict[str, Any]]) -> None:
    html, manifest = built
    html.encode()
    assert len(html) < 400_000
    assert len(json.dumps(manifest, allow_nan=False)) < 600_000


def test_says_what_happened_first(built: tuple[str, dict[str, Any]]) -> None:
    html, manifest = built
    words = Page(head(html)).text
    titles = {"promoted": "Promoted", "kept": "Not promoted", "failed": "Failed", "undecided": "No decision"}
    assert titles[manifest["outcome"]] in words
    reason = charts.visible(manifest["sentence"]).removeprefix(f"{titles[manifest['outcome']]}: ")
    assert reason[1:60] in words
    assert charts.visible(manifest["environment"])[:40] in words
    assert "22 November 2026" in words


# --- outcomes ---


def test_a_promotion_shows_the_decision_and_its_picture() -> None:
    html, manifest = report.build(synthetic())
    assert manifest["outcome"] == "promoted"
    fields = {
        field for field, _, _ in Page(html[: html.index("</header>")] + "</header></body></html>").numbers
    }
    assert {
        "decision.base_mean",
        "decision.candidate_mean",
        "decision.gain",
        "decision.lower",
        "decision.upper",
    } <= fields
    picture = html[html.index('class="interval"') :][:3000]
    where = dict(re.findall(r'class="(base|candidate|bar)" (?:cx|x1)="([\d.]+)%"', picture))
    assert float(where["bar"]) == float(where["base"]), "no gain is asked for, so the bar is the base's mean"
    low, high = re.findall(r'class="whisker" x1="([\d.]+)%" x2="([\d.]+)%"', picture)[0]
    assert float(where["bar"]) < float(low) < float(where["candidate"]) < float(high) < 100


def test_guards_and_the_champion_are_shown_with_their_intervals() -> None:
    html, manifest = report.build(judged())
    text = Page(html).text
    fields = {field for field, _, _ in Page(html).numbers}
    assert {
        "decision.tolerated_drop",
        "decision.champion.mean",
        "decision.champion.lower",
        "decision.guards.0.before",
        "decision.guards.0.lower",
    } <= fields
    assert "What must not get worse" in text
    assert "held" in text
    assert "did not hold" in text
    guards = {(each["name"], each["against"]): each["held"] for each in manifest["decision"]["guards"]}
    assert guards["politeness", "base"] is False
    assert "What must not get worse" not in report.build(synthetic())[0]


def test_regression_prompts_are_shown_and_counted_in_nothing_else() -> None:
    measured = measurements(60, seed=5)
    models = [decide.collect(measured[subject]) for subject in ("base", "candidate")]
    known = {
        "base": decide.Measured(scores=dict.fromkeys(range(60, 80), 0.9)),
        "candidate": decide.Measured(scores=dict.fromkeys(range(60, 80), 0.6)),
    }
    found = decide.decide(*models, bar=decide.Bar(), seed=RUN, regression=known)
    page, manifest = report.build(synthetic(60, measured=measured, decision=found, champion=None))
    assert manifest["outcome"] == "kept"
    assert 'data-field="decision.regression.0.change" value="-0.3' in page
    assert "regression prompts</small>" in page
    assert "they count in no other number here" in page
    card = model_card.pages(manifest)["model-card.md"]
    assert "mean reward on 20 regression prompts" in card
    assert "broken" in card


def test_what_was_left_out_of_training_is_part_of_the_lineage() -> None:
    facts = {"drop": "flat", "tried": 200, "flat": 12, "rows": 360, "left_out": 12, "kept": 348}
    filtered = {**facts, "sha256": "fe" * 32, "uri": f"s3://artifacts/runs/{RUN}/filtered/{'fe' * 32}.jsonl"}
    gate = {
        "gate": "filter",
        "verdict": "pass",
        "sentence": "Filter: nothing to object to.",
        "findings": [{"level": "info", "sentence": "The job trains on the other 348 rows."}],
        "facts": {**filtered, "lines": [3, 7]},
    }
    page, manifest = report.build(synthetic(gates=[gate, *synthetic().gates]))
    assert manifest["lineage"]["dataset"]["filtered"] == filtered
    assert [each["gate"] for each in manifest["gates"]] == ["signal", "lock", "cost", "filter"]
    assert "The job trains on the other 348 rows." in page
    assert "fe" * 32 in page
    card = model_card.pages(manifest)["model-card.html"]
    assert "12 of 200 that were tried" in card
    assert "fe" * 32 in card
    assert "filtered" not in report.build(synthetic())[1]["lineage"]["dataset"]


def test_each_component_is_shown_with_the_interval_of_its_change() -> None:
    html, manifest = report.build(synthetic())
    at = {part["name"]: number for number, part in enumerate(manifest["decision"]["parts"])}
    fields = {field for field, _, _ in Page(html).numbers}
    for component in manifest["components"]:
        assert f"decision.parts.{at[component['name']]}.lower" in fields


def test_a_run_that_waits_says_how_to_answer_it() -> None:
    html, manifest = report.build(waiting())
    assert manifest["outcome"] == "cleared"
    assert "rft approve" in html
    assert "rft approve" not in report.build(synthetic())[0]


def test_who_approved_is_part_of_the_lineage() -> None:
    assert "arn:aws:iam::111122223333:user/eve" in report.build(approved())[0]


def test_the_bar_to_clear_stands_where_the_team_has_put_it() -> None:
    facts = kept()
    place = charts.interval(report.build(facts)[1])
    assert place is not None
    assert facts.decision is not None
    # The bar is the gain asked for away from the base, as the candidate is the gain it made.
    asked = (place["bar"] - place["base"]) / (place["candidate"] - place["base"])
    assert asked == pytest.approx(0.3 / facts.decision["gain"], abs=0.001)


def test_the_manifest_recounts_the_measured_files() -> None:
    facts = synthetic(50)
    _, manifest = report.build(facts)
    assert facts.decision is not None
    assert manifest["reward"]["base"]["mean"] == pytest.approx(facts.decision["base_mean"])
    assert manifest["reward"]["candidate"]["completions"] == 200
    said = [each for row in facts.measured["candidate"] for each in row["completions"]]
    for share, counted in (
        ("zero_share", [each["score"] == 0 for each in said]),
        ("full_share", [each["score"] == 1 for each in said]),
        ("cut_share", [each["stop_reason"] == "max_tokens" for each in said]),
    ):
        assert manifest["reward"]["candidate"][share] == sum(counted) / 200
    paired = manifest["paired"]
    assert paired["better"] + paired["same"] + paired["worse"] == paired["prompts"] == 50
    shown = manifest["distributions"]["differences"]
    assert sum(shown["better"]) == paired["better"]
    assert sum(shown["worse"]) == paired["worse"]
    assert shown["same"] == paired["same"]
    assert sum(manifest["distributions"]["scores"]["candidate"]) == 200
    scores = [each["score"] for row in facts.measured["candidate"] for each in row["completions"]]
    assert manifest["distributions"]["scores"]["candidate"][-1] == sum(score >= 0.9 for score in scores)
    answer = next(row for row in manifest["components"] if row["name"] == "answer")
    exact = [each["components"]["answer"] for row in facts.measured["base"] for each in row["completions"]]
    assert answer["base"] == pytest.approx(sum(exact) / len(exact))
    assert answer["optimized"] is True
    assert next(row for row in manifest["components"] if row["name"] == "extracted")["optimized"] is False


def test_examples_are_the_extremes() -> None:
    _, manifest = report.build(synthetic(100))
    differences = [row["difference"] for row in manifest["prompts"]]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for example in manifest["examples"]:
        by_kind.setdefault(example["kind"], []).append(example)
    assert by_kind["gain"][0]["difference"] == max(differences)
    assert by_kind["loss"][0]["difference"] == min(differences)
    assert all(example["difference"] == pytest.approx(0) for example in by_kind["wrong"])
    assert all(example["candidate"]["mean"] < 0.5 for example in by_kind["wrong"])
    for example in manifest["examples"]:
        scores = example["candidate"]["scores"]
        assert example["candidate"]["score"] == sorted(scores)[(len(scores) - 1) // 2]


def test_says_when_no_real_model_was_trained() -> None:
    assert "Rehearsal on the embedded AWS" in Page(report.build(synthetic(5, embedded=True))[0]).text
    assert "say nothing about a real model" in Page(report.build(synthetic(5, embedded=True))[0]).text
    assert "embedded" not in Page(report.build(synthetic(5))[0]).text.lower()


def test_a_failed_run_shows_what_there_is() -> None:
    html, manifest = report.build(failed_in_training())
    words = Page(html).text
    assert "Failed" in words
    assert "the reward function keeps failing" in words
    assert "Mean reward of the base model" in words
    assert manifest["paired"] is None
    assert [example["kind"] for example in manifest["examples"]] == ["hard"] * 3


def test_a_prompt_measured_once_only_is_not_paired() -> None:
    measured = measurements(20)
    facts = synthetic(20)
    _, manifest = report.build(replace(facts, measured={**measured, "candidate": measured["candidate"][5:]}))
    assert manifest["paired"]["prompts"] == 15
    assert manifest["prompts"][0]["candidate"] is None
    assert manifest["prompts"][0]["difference"] is None


# --- what a model writes ---


def test_hostile_words_stay_words() -> None:
    html, _ = report.build(hostile())
    assert "<script" not in html
    assert "<img" not in html
    assert "onload=alert" not in html.replace("&lt;svg onload=alert", "")
    words = Page(html).text
    assert "<script>alert(1)</script>" in words, "the reader sees what the model wrote"
    assert "{{ 7 * 7 }}" in words
    assert "\u2400\u241b[31m\u27e8U+202E\u27e9gnp.exe\u27e8U+D800\u27e9" in words
    assert not re.search("[\x00\x1b\u202e\ud800]", html)


def test_a_megabyte_of_completion_is_cut() -> None:
    measured = measurements(30, samples=16)
    for row in (*measured["base"], *measured["candidate"]):
        for each in row["completions"]:
            each["text"] = "many words " * 100_000
    html, _ = report.build(synthetic(measured=measured))
    assert len(html) < 500_000
    assert "cut after 6,000 characters" in html


def test_the_other_completions_of_an_example_can_be_read_with_their_scores() -> None:
    measured = measurements(1)
    for number, each in enumerate(measured["candidate"][0]["completions"]):
        each |= {"text": f"completion {number}", "score": number / 4}
    words = Page(report.build(synthetic(measured=measured))[0]).text
    # The second of four is the one of middling score; the others are listed behind it, each once.
    shown, others = words.split("all 4 scores: 0.000 , 0.250 , 0.500 , 0.750")
    assert "completion 1" in shown
    assert "0.000 completion 0 0.500 completion 2 0.750 completion 3" in others


def test_metrics_of_unknown_names_are_all_listed() -> None:
    rows = report.read_steps(
        "step_number,epoch_number,training_loss,perplexity,odd\n1,1,0.5,nan,\n2,1,0.25,3.5,x\n"
    )
    assert rows[0] == {
        "step_number": 1.0,
        "epoch_number": 1.0,
        "training_loss": 0.5,
        "perplexity": None,
        "odd": None,
    }
    html, manifest = report.build(synthetic(4, steps=rows))
    assert manifest["training"]["columns"] == [
        {"name": "training_loss", "first": 0.5, "last": 0.25, "lowest": 0.25, "highest": 0.5},
        {"name": "perplexity", "first": 3.5, "last": 3.5, "lowest": 3.5, "highest": 3.5},
    ]
    assert set(manifest["training"]["roles"].values()) == {None}
    assert "training_loss" in Page(html).text


def test_finds_the_curves_under_the_names_seen_so_far() -> None:
    open_weight = {
        "step": 1.0,
        "critic_rewards_mean": 0.5,
        "actor_entropy": 1.0,
        "response_length_mean": 90.0,
    }
    roles = report.build(synthetic(2, steps=[open_weight]))[1]["training"]["roles"]
    assert (roles["reward"], roles["entropy"], roles["length"]) == (
        "critic_rewards_mean", "actor_entropy", "response_length_mean",
    )  # fmt: skip
    roles = report.build(synthetic(2))[1]["training"]["roles"]
    assert roles["reward"] == "critic/rewards/mean"
    assert roles["validation"] == "val-score/rewards/mean@1"


def test_long_trainings_are_thinned_but_keep_their_end() -> None:
    training = report.build(synthetic(2, steps=steps(3001)))[1]["training"]
    assert training["steps"] == 3001
    assert len(training["series"]["step_number"]) <= 200
    assert training["series"]["step_number"][-1] == 3001


# --- the handler, with boto3's real requests answered in this process ---


class Body(io.BytesIO):
    """A response's body as urllib3 gives it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


class Cloud:
    """Answers S3 and Bedrock requests from memory, two keys to a page of a listing."""

    def __init__(self, objects: Mapping[str, bytes], found: Mapping[str, Any] | None) -> None:
        self.objects = dict(objects)
        self.types: dict[str, str] = {}
        self.job = found
        self.asked: list[str] = []
        self.locked: dict[str, str] = {}
        self.deployed = "2026-11-20T09:15:00Z"
        self.formation_is_down = False

    def client(self, service: Any, **settings: Any) -> Any:
        client = boto3.session.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        ).client(service, **settings)
        client.meta.events.register("before-send.*.*", self.answer)
        return client

    def answer(self, request: Any, event_name: str, **_: Any) -> AWSResponse:
        url = urlsplit(request.url)
        query = parse_qs(url.query)
        status, headers, body = 200, {}, b""
        if event_name.endswith("GetModelCustomizationJob"):
            self.asked.append(unquote(url.path.rpartition("customization-jobs/")[2]))
            if self.job is None:
                status, headers = 404, {"x-amzn-errortype": "ResourceNotFoundException"}
            body = json.dumps(self.job or {"message": "no such job"}, default=str).encode()
        elif event_name.endswith("ListObjectsV2"):
            body = self.listing(query).encode()
        elif event_name.endswith("GetObject"):
            body = self.objects[unquote(url.path[1:])]
        elif "cloudformation" in event_name:
            status, body = self.formation(event_name)
        elif event_name.endswith("GetFunctionConfiguration"):
            assert parse_qs(url.query) == {"Qualifier": ["7"]}
            body = json.dumps({"CodeSha256": "c29tZSBwYWNrYWdl"}).encode()
        elif event_name.endswith("PutObjectRetention"):
            self.locked[unquote(url.path[1:])] = unchunked(request).decode()
        else:
            assert event_name.endswith("PutObject")
            self.objects[unquote(url.path[1:])] = unchunked(request)
            self.types[unquote(url.path[1:])] = request.headers["Content-Type"].decode()
        return AWSResponse(request.url, status, HTTPHeaders.from_pairs(headers.items()), Body(body))

    def formation(self, event_name: str) -> tuple[int, bytes]:
        if self.formation_is_down:
            error = "<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>"
            return 403, f"<ErrorResponse>{error}</ErrorResponse>".encode()
        if event_name.endswith("GetTemplate"):
            template = {"Metadata": {"revision": "54f6bc3"}, "Resources": {}}
            found = f"<TemplateBody>{escape(json.dumps(template))}</TemplateBody>"
        else:
            tags = {"team": "quotes", "owner": "quotes-ml@example.com", "other": "x"}
            tags |= {"description": "Quotes=2C =E2=82=AC and more."}
            listed = "".join(
                f"<member><Key>{key}</Key><Value>{value}</Value></member>" for key, value in tags.items()
            )
            times = "<CreationTime>2026-01-01T00:00:00Z</CreationTime>"
            times += f"<LastUpdatedTime>{self.deployed}</LastUpdatedTime>"
            found = f"<Stacks><member>{times}<Tags>{listed}</Tags></member></Stacks>"
        name = event_name.rpartition(".")[2]
        return 200, f"<{name}Response><{name}Result>{found}</{name}Result></{name}Response>".encode()

    def listing(self, query: Mapping[str, list[str]]) -> str:
        keys = sorted(key for key in self.objects if key.startswith(query["prefix"][0]))
        start = int(query.get("continuation-token", ["0"])[0])
        more = start + 2 < len(keys)
        when = "<LastModified>2026-11-22T10:00:00Z</LastModified>"
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key>{when}</Contents>" for key in keys[start : start + 2]
        )
        token = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        return f"<ListBucketResult>{truncated}{token}{items}</ListBucketResult>"


def unchunked(request: Any) -> bytes:
    body: bytes = request.body.read() if hasattr(request.body, "read") else request.body
    if b"aws-chunked" in request.headers.get("Content-Encoding", b""):
        size, _, rest = body.partition(b"\r\n")
        return rest[: int(size, 16)]
    return body


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("RFT_EMBEDDED", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    settings = {"STACK": "rft-quotes-dev", "STACK_ID": STACK_ID, "ARTIFACTS": "artifacts"}
    for name, value in {**settings, "DATASETS": "datasets"}.items():
        monkeypatch.setenv(name, value)
    # Another test's client may still be there.
    runs.client.cache_clear()
    yield monkeypatch
    runs.client.cache_clear()


def stored(facts: report.Facts) -> dict[str, bytes]:
    folder = f"runs/{RUN}/"
    rows = facts.steps
    table = ",".join(rows[0]) + "\n" if rows else ""
    table += "".join(",".join("" if v is None else str(v) for v in row.values()) + "\n" for row in rows)
    files: dict[str, Any] = {
        "run.json": facts.document,
        "dataset.json": facts.dataset,
        "decision.json": facts.decision,
        **{f"measured/base/{each['index']:05}.json": each for each in facts.measured["base"]},
        **{f"measured/candidate/{each['index']:05}.json": each for each in facts.measured["candidate"]},
    }
    return {folder + name: json.dumps(value).encode() for name, value in files.items()} | {
        f"{folder}output/job-a1b2/training_artifacts/step_wise_training_metrics.csv": table.encode(),
        f"{folder}output/other.json": b"not JSON at all",
        f"{folder}prompts.jsonl": b"{}\n",
    }


def test_reads_the_bucket_and_writes_both_files(environment: pytest.MonkeyPatch) -> None:
    facts = synthetic(6)
    cloud = Cloud(stored(facts), job())
    environment.setattr(boto3, "client", cloud.client)
    event = {
        "run": RUN, "document": document(), "job_arn": JOB, "model_arn": MODEL,
        "decision": facts.decision, "champion": facts.champion,
    }  # fmt: skip
    written = report.handler(event, None)
    assert written == {
        "report": f"s3://artifacts/runs/{RUN}/report.html",
        "manifest": f"s3://artifacts/runs/{RUN}/manifest.json",
    }
    assert cloud.asked == [JOB]
    manifest = json.loads(cloud.objects[f"runs/{RUN}/manifest.json"])
    assert cloud.types[f"runs/{RUN}/report.html"] == "text/html; charset=utf-8"
    assert "Promoted" in cloud.objects[f"runs/{RUN}/report.html"].decode()
    expected = report.build(facts)[1]
    for part in ("reward", "paired", "prompts", "components", "distributions", "examples", "decision"):
        assert manifest[part] == json.loads(json.dumps(expected[part])), part
    assert manifest["training"]["series"] == json.loads(json.dumps(expected["training"]["series"]))
    assert manifest["training"]["seconds"] == 3 * 3600 + 12 * 60
    assert manifest["embedded"] is False
    assert len(manifest["inputs"]) == 3 + 12 + 1
    assert manifest["lineage"]["models"]["reward_sha256"] == "c29tZSBwYWNrYWdl"
    assert manifest["lineage"]["deployment"] == {
        "stack_id": STACK_ID,
        "team": "quotes",
        "stage": None,
        "owner": "quotes-ml@example.com",
        "description": "Quotes, € and more.",
        "revision": "54f6bc3",
        "template_sha256": provenance.template_sha256('{ "Resources" : {} }'),
        "deployed_at": "2026-11-20T09:15:00Z",
        "changed_during_run": None,
    }
    assert cloud.types[f"runs/{RUN}/model-card.md"] == "text/markdown; charset=utf-8"
    assert "Quotes, € and more." in cloud.objects[f"runs/{RUN}/model-card.html"].decode()
    assert cloud.locked == {}, "no lock where none is asked for"


def test_locks_what_a_model_is_judged_by_and_nothing_else(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LOCK_DAYS", "365")
    environment.setenv("LOCK_MODE", "COMPLIANCE")
    facts = synthetic(2)
    cloud = Cloud(stored(facts), job())
    environment.setattr(boto3, "client", cloud.client)
    report.handler({"run": RUN, "document": document(), "decision": facts.decision}, None)
    names = ("manifest.json", "model-card.md", "model-card.html", "decision.json")
    assert set(cloud.locked) == {f"runs/{RUN}/{name}" for name in names}
    until = json.loads(cloud.objects[f"runs/{RUN}/manifest.json"])["locked_until"]
    assert timedelta(364) < datetime.fromisoformat(until) - datetime.now(UTC) < timedelta(366)
    for retention in cloud.locked.values():
        assert "<Mode>COMPLIANCE</Mode>" in retention
        assert f"<RetainUntilDate>{until}</RetainUntilDate>" in retention


def test_a_run_that_made_no_model_gets_no_card_and_locks_its_manifest(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("LOCK_DAYS", "1")
    environment.setenv("LOCK_MODE", "GOVERNANCE")
    cloud = Cloud({}, None)
    environment.setattr(boto3, "client", cloud.client)
    report.handler({"run": RUN, "document": document()}, None)
    assert set(cloud.objects) == {f"runs/{RUN}/report.html", f"runs/{RUN}/manifest.json"}
    assert set(cloud.locked) == {f"runs/{RUN}/manifest.json"}


@pytest.mark.parametrize(
    ("deployed", "changed"), [("2026-11-22T12:59:59Z", False), ("2026-11-22T13:00:01Z", True)]
)
def test_says_when_the_stack_was_deployed_again_during_the_run(
    environment: pytest.MonkeyPatch, deployed: str, changed: bool
) -> None:
    cloud = Cloud({}, None)
    cloud.deployed = deployed
    environment.setattr(boto3, "client", cloud.client)
    settings = document() | {"requested": "2026-11-22T13:00:00.000000+00:00"}
    report.handler({"run": RUN, "document": settings}, None)
    found = json.loads(cloud.objects[f"runs/{RUN}/manifest.json"])["lineage"]["deployment"]
    assert found["changed_during_run"] is changed


def test_a_stack_that_cannot_be_read_costs_a_line_and_not_the_report(environment: pytest.MonkeyPatch) -> None:
    cloud = Cloud({}, None)
    cloud.formation_is_down = True
    environment.setattr(boto3, "client", cloud.client)
    report.handler({"run": RUN, "document": document()}, None)
    found = json.loads(cloud.objects[f"runs/{RUN}/manifest.json"])["lineage"]["deployment"]
    assert "not yours" in found.pop("unknown")
    assert found == {"stack_id": STACK_ID}


def test_works_before_anything_was_written(environment: pytest.MonkeyPatch) -> None:
    cloud = Cloud({}, None)
    environment.setattr(boto3, "client", cloud.client)
    cause = json.dumps({"errorMessage": "train.jsonl, line 3: not JSON", "errorType": "DatasetError"})
    report.handler(
        {"run": RUN, "document": document(), "error": {"Error": "DatasetError", "Cause": cause}}, None
    )
    assert cloud.asked == [f"rft-quotes-dev-{RUN}"], "without an ARN the job is looked up by its name"
    manifest = json.loads(cloud.objects[f"runs/{RUN}/manifest.json"])
    assert manifest["outcome"] == "failed"
    assert manifest["failure"]["cause"] == "train.jsonl, line 3: not JSON"
    assert "train.jsonl, line 3: not JSON" in Page(cloud.objects[f"runs/{RUN}/report.html"].decode()).text


@pytest.mark.parametrize(
    ("variable", "account", "embedded"),
    [(None, ACCOUNT, False), ("1", ACCOUNT, True), (None, "000000000000", True)],
)
def test_knows_the_embedded_aws(
    environment: pytest.MonkeyPatch, variable: str | None, account: str, embedded: bool
) -> None:
    if variable:
        environment.setenv("RFT_EMBEDDED", variable)
    cloud = Cloud({}, None)
    environment.setattr(boto3, "client", cloud.client)
    settings = document() | {"reward_version": REWARD.replace(ACCOUNT, account)}
    report.handler({"run": RUN, "document": settings}, None)
    assert json.loads(cloud.objects[f"runs/{RUN}/manifest.json"])["embedded"] is embedded


def test_importing_the_handler_loads_no_drawing_and_no_aws() -> None:
    code = "import sys, lambdas.workflow.report; print({'pygal', 'jinja2', 'boto3'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


if __name__ == "__main__":
    # To look at: python tests/unit/workflow/test_report.py FOLDER
    for name, make in RUNS.items():
        folder = Path(sys.argv[1]) / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        page, facts_of_it = report.build(make())
        (folder / "report.html").write_text(page, encoding="utf-8")
        (folder / "manifest.json").write_text(json.dumps(facts_of_it, indent=1), encoding="utf-8")
        for card, text in model_card.pages(facts_of_it).items():
            (folder / card).write_text(text, encoding="utf-8")


def test_every_gate_says_what_it_found_in_the_order_of_the_workflow() -> None:
    stop = {
        "gate": "signal",
        "verdict": "stop",
        "sentence": f"Signal: stops the run. {HOSTILE}",
        "findings": [{"level": "stop", "sentence": "It is."}, {"level": "info", "sentence": "By the way."}],
        "facts": {},
    }
    own = {**stop, "gate": "a-gate-to-come", "verdict": "pass", "findings": []}
    cost = {**stop, "gate": "cost", "verdict": "warn", "sentence": "Cost: goes on with a warning."}
    page, manifest = report.build(synthetic(gates=[own, cost, stop]))
    assert [(each["gate"], each["verdict"], each["notes"]) for each in manifest["gates"]] == [
        ("signal", "stop", ["By the way."]),
        ("cost", "warn", ["By the way."]),
        ("a-gate-to-come", "pass", []),
    ]
    assert page.index("Signal: stops the run.") < page.index("Cost: goes on with a warning.")
    assert "<script" not in page
    assert "By the way." in page
