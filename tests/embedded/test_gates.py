"""Each gate stops what it has to stop, in the real workflow: one small team for each case, run side by side.

What has to pass is in test_environment.py: a sample team, untouched.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft.cloud import Cloud, Deployed, Run
from rft.embedded.aws import ACCOUNT, EmbeddedAws
from rft.packaging import package
from tests.embedded.test_environment import Project, deployments, ended, jobs, lock_of

Clients = Callable[[str], Any]

EXACT = """\
from lambdas.contract import Reward, Sample


def score(sample: Sample) -> Reward:
    return Reward(1.0 if sample.completion.strip() == sample.reference_answer else {otherwise})
"""
LOOSE = """\
import re
from lambdas.contract import Reward, Sample


def score(sample: Sample) -> Reward:
    numbers = re.findall(r'[0-9]+(?:[.][0-9]+)?', sample.completion)
    return Reward(float([*map(float, numbers[-1:])] == [float(sample.reference_answer)]))
"""
MARKED = """\
from lambdas.contract import Reward, Sample


def score(sample: Sample) -> Reward:
    return Reward(float(sample.completion.startswith("The answer is " + str(sample.reference_answer))))
"""


def rewarded(source: str) -> Callable[[Path], None]:
    """Gives a team a reward function of its own."""

    def change(folder: Path) -> None:
        (folder / "reward.py").write_text(source)
        settings = folder / "team.toml"
        component = '[reward.components.answer]\nfunction = "reward.py"\n\n'
        text = re.sub(r"(?ms)^\[reward\.components.*?(?=^\[training\])", component, settings.read_text())
        settings.write_text(text)

    return change


def configured(text: str) -> Callable[[Path], None]:
    """Adds settings to a team."""

    def change(folder: Path) -> None:
        settings = folder / "team.toml"
        settings.write_text(f"{settings.read_text()}\n{text}")

    return change


def without_a_reference(folder: Path) -> None:
    file = folder / "data/train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[2]["reference_answer"]
    rows[5]["id"] = rows[4]["id"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def with_nothing_held_out(folder: Path) -> None:
    rows = (folder / "data/train.jsonl").read_text().splitlines(keepends=True)
    (folder / "data/evaluation.jsonl").write_text("".join(rows[:20]))


def with_a_shrug(folder: Path) -> None:
    rewarded(LOOSE)(folder)
    (folder / "rehearsal.jsonl").write_text(
        '{"row": 2, "completion": "Who knows?", "at_most": 0.0, "name": "a shrug"}\n'
    )


# By team: what makes it bad, the step that stops it, the gate's rules that say so, and words of the sentence.
STOPPED: dict[str, tuple[Callable[[Path], None], str, str, set[str], str]] = {
    "unanswered": (
        without_a_reference,
        "Prepare dataset",
        "dataset",
        {"row"},
        r"line 3: `reference_answer` is missing.*line 6: `id` was used before",
    ),
    "known": (
        with_nothing_held_out,
        "Prepare dataset",
        "",
        set(),
        r"holds 0 different prompts that are not in .* as well, and at least 10 are needed",
    ),
    "marked": (
        rewarded(MARKED),
        "Rehearse reward",
        "rehearsal",
        {"reference-below-maximum"},
        r"reference answers of \d+ earned less than the maximum of 1, on average",
    ),
    "fooled": (
        with_a_shrug,
        "Rehearse reward",
        "rehearsal",
        {"exploit-denial", "exploit-sign"},
        r"The reward function can be fooled: the answer inside a denial earns 100%",
    ),
    "good": (
        configured("[gates.signal]\nneedless = 0.01\n"),
        "Check signal",
        "signal",
        {"needless"},
        r"of the highest reward, more than 1%: it needs no training",
    ),
    "unsolved": (
        rewarded(EXACT.format(otherwise="0.0")),
        "Check signal",
        "signal",
        {"unsolved"},
        r"Not one of \d+ completions earns more than the lowest reward.*fine-tune the model with examples",
    ),
    "flat": (
        rewarded(EXACT.format(otherwise="0.3")),
        "Check signal",
        "signal",
        {"flat"},
        r"For 100.0% of the prompts all completions score the same, which is more than 90%",
    ),
    "capped": (
        configured("[budget]\nper_run = 1e-9\nper_month = 25.5\n"),
        "Estimate cost",
        "cost",
        {"over-run-cap"},
        r"USD, and a run may cost 0.0000000010 USD \(budget.per_run\)",
    ),
    "spent": (
        configured("[budget]\nper_month = 1e-9\n"),
        "Estimate cost",
        "cost",
        {"over-month"},
        r"budget.per_month",
    ),
}
MODEST = "modest"


@pytest.fixture(scope="module")
def runs(
    aws: EmbeddedAws,
    tmp_path_factory: pytest.TempPathFactory,
    synthesize: Callable[..., Path],
    deploy: Callable[..., dict[str, str]],
) -> dict[str, tuple[Deployed, Run]]:
    """The run that each team's deployment has started, by team."""
    project = Project(tmp_path_factory.mktemp("gates"), synthesize, deploy, MODEST)
    sample = project.root / "teams" / MODEST
    for team, (change, *_) in STOPPED.items():
        change(shutil.copytree(sample, sample.with_name(team)))
    configured("[promotion]\nminimum_gain = 0.99\n")(sample)
    teams = [*STOPPED, MODEST]
    package(project.root, "embedded", teams, report=lambda _line: None)
    assembly = synthesize(project.root, ",".join(teams), "dev")
    found = {}
    for team in teams:
        stack = f"rft-{team}-dev"
        outputs = deploy(assembly, stack)
        deployed = Deployed(cloud=Cloud.embedded(aws), stack=stack, status="", outputs=outputs)
        found[team] = deployed, deployed.runs()[0]
    return found


@pytest.mark.parametrize("team", STOPPED)
def test_a_gate_stops_the_run_and_says_why(
    team: str, runs: dict[str, tuple[Deployed, Run]], client: Clients, tmp_path: Path
) -> None:
    _, step, gate, rules, words = STOPPED[team]
    deployed, run = runs[team]
    run = ended(deployed, run)
    assert run.status == "FAILED"
    failure = deployed.document(run, "failure.json")
    assert failure
    assert failure["step"] == step
    assert re.search(words, failure["sentence"], re.DOTALL), failure["sentence"]
    assert failure["sentence"] in run.cause
    if gate:
        verdict = deployed.document(run, f"gates/{gate}.json")
        assert verdict
        assert verdict["verdict"] == "stop"
        assert {each["rule"] for each in verdict["findings"] if each["level"] == "stop"} >= rules
    assert f"{deployed.stack}-{run.name}" not in jobs(client)
    # Whoever was refused leaves the lock to others.
    assert (lock_of(deployed) or {}).get("run") is None
    page = deployed.save_report(run, tmp_path)
    assert page is not None
    assert step in page.read_text()


def test_a_candidate_below_the_bar_is_not_promoted(
    runs: dict[str, tuple[Deployed, Run]], client: Clients
) -> None:
    deployed, run = runs[MODEST]
    run = ended(deployed, run)
    assert run.status == "SUCCEEDED", deployed.document(run, "failure.json")
    decision = deployed.document(run, "decision.json")
    assert decision
    assert not decision["promote"]
    assert "0.99" in decision["sentence"]
    assert deployed.champion() is None
    assert not [arn for arn in deployments(client) if run.name in arn]


def test_aws_budgets_watches_what_a_month_may_cost(
    runs: dict[str, tuple[Deployed, Run]], client: Clients
) -> None:
    budgets = client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]
    filters = {"TagKeyValue": [f"user:rft:environment${runs['capped'][0].stack}"]}
    [budget] = [each for each in budgets if each["CostFilters"] == filters]
    assert budget["BudgetLimit"] == {"Amount": "25.5", "Unit": "USD"}
