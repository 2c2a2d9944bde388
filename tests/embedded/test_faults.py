"""What goes wrong with AWS, a reward or by a person's hand: every run ends cleaned up and with a reason."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from infra.states import WORKFLOW
from rft.cloud import Cloud, Deployed, Run
from rft.embedded.aws import EmbeddedAws
from rft.embedded.faults import ENTER_STATE, Fault, Injected
from tests.embedded.test_environment import Project, eventually, lock_of, over

TEAM = "faulty"
STACK = f"rft-{TEAM}-dev"
JUDGE = "us.amazon.nova-2-lite-v1:0"

# The miniature gives no verdicts, so what the judge says counts for nothing here. It is asked once for each
# batch of a customization job; and once for each batch something asks the model without minding the time.
REWARD = f"""
import re
import boto3
from lambdas.contract import Reward, Sample
from lambdas.rewards.judge import Judge

judge = Judge(model="{JUDGE}", rubric="A good answer is friendly.", no_verdict_limit=1.0, seconds_per_batch=1)
patient = boto3.client("bedrock-runtime")


def score(sample: Sample) -> Reward:
    job = re.search(r"-[0-9]+-0-0$", sample.id)
    if job or ("-train-" in sample.id and sample.id.endswith("-0")):
        question = "Is the job there?" if job else "Is the rehearsal there?"
        patient.converse(modelId="{JUDGE}", messages=[{{"role": "user", "content": [{{"text": question}}]}}])
    return judge.score(sample) if job else Reward(0.0)
"""
COMPONENTS = f"""
[reward.components.companion]
function = "reward.py"
weight = 0.0

# Asks hardly anybody, but gives the function the right to.
[reward.components.judge]
function = "judge"
weight = 0.0
model = "{JUDGE}"
rubric = "A good answer is friendly."
longest_answer = 1
no_verdict_limit = 1.0
"""


@pytest.fixture(scope="module", name="troubled")
def troubled_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAws]:
    """An embedded AWS of its own, in which nobody else is in trouble, and with short waits."""
    with EmbeddedAws(tmp_path_factory.mktemp("aws"), wait_scale=0.004) as running:
        yield running


@pytest.fixture(scope="module")
def environment(
    troubled: EmbeddedAws,
    tmp_path_factory: pytest.TempPathFactory,
    synthesize: Callable[..., Path],
    clients_of: Callable[..., Any],
    deploy_assembly: Callable[..., dict[str, str]],
) -> Deployed:
    """A small team, every model of which is good enough and waits for a person."""

    def deploy(assembly: Path, stack: str) -> dict[str, str]:
        return deploy_assembly(clients_of(troubled.endpoint), assembly, stack)

    project = Project(tmp_path_factory.mktemp("project"), synthesize, deploy, TEAM)
    (project.root / "teams" / TEAM / "reward.py").write_text(REWARD)
    text = (
        project.settings.read_text()
        .replace('"on-deploy"', '"manual"')
        .replace("prompts = 12", "prompts = 10")
    )
    text = text.replace("samples_per_prompt = 2", "samples_per_prompt = 1\nconcurrency = 3")
    text = re.sub(r"(?m)^batch_size = .*$", "batch_size = 64", text)
    text = re.sub(r"(?m)^training_sample_per_prompt = .*$", "training_sample_per_prompt = 2", text)
    text = re.sub(r"(?m)^\[stages\.dev\]\n", "[stages.dev]\napproval = true\n", text)
    text = text.replace("[reward]\n", "[reward]\ntimeout_seconds = 5\n")
    text = text.replace("[training]", f"{COMPONENTS}\n[training]")
    text += "\n[gates.rehearsal]\nrows = 1\n\n[gates.signal]\nprompts = 10\nflat = 1.0\n"
    text += '\n[gates.filter]\ndrop = "flat"\nprompts = 10\n'
    project.settings.write_text(text + "\n[promotion]\nminimum_gain = -9.0\ntolerated_drop = 9.0\n")
    rows = project.root / "teams" / TEAM / "data/train.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:120]))
    platform = project.root / "teams/platform.toml"
    allowed = f'\n[judges."{JUDGE}"]\nregions = ["us-east-1", "us-east-2", "us-west-2"]\n'
    platform.write_text(platform.read_text() + allowed)
    return Deployed(cloud=Cloud.embedded(troubled), stack=STACK, status="", outputs=project.deploy())


class Team:
    """The team whose runs are in trouble, and the embedded AWS that makes it."""

    def __init__(self, aws: EmbeddedAws, deployed: Deployed) -> None:
        self.aws = aws
        self.deployed = deployed
        self.bedrock = deployed.cloud.client("bedrock")
        self.s3 = deployed.cloud.client("s3")
        self._attempts = 0

    def start(self) -> Run:
        self._attempts += 1
        run, new = self.deployed.start({"attempt": self._attempts})
        assert new
        return run

    def hold(self, run: Run, state: str) -> Injected:
        """Holds a run in a state, as soon as it is there."""
        return self.aws.give(Fault(action=ENTER_STATE, about=f"{run.name}/{state}/", does="hold"))

    def at(self, run: Run, held: Injected, *, approve: bool = False) -> None:
        """Waits until something holds the run; approves its model first, where that is on the way."""
        approved, deadline = not approve, time.monotonic() + 90
        while not approved or not held.held(5):
            assert time.monotonic() < deadline
            now = self.deployed.run(run.name)
            assert now.status == "RUNNING", now.cause or now.status
            approved = approved or self.approve(run)
            time.sleep(0.05)

    def approve(self, run: Run) -> bool:
        """Approves the run's model, if that is what the run waits for."""
        waiting = "token" in (self.deployed.document(run, "approval.json") or {})
        if waiting:
            self.deployed.change_champion("approve", run=run.name)
        return waiting

    def ended(self, run: Run) -> Run:
        """The run when it has ended, its model approved if that is asked for."""
        asked, deadline = False, time.monotonic() + 90
        while not over(run := self.deployed.run(run.name)):
            assert time.monotonic() < deadline
            asked = asked or self.approve(run)
            time.sleep(0.15)
        return run

    def failure(self, run: Run) -> dict[str, Any]:
        """What the clean-up of a run wrote, as soon as it has."""
        eventually(lambda: self.deployed.document(run, "failure.json"))
        failure = self.deployed.document(run, "failure.json")
        assert failure
        return failure

    def job(self, run: Run) -> str | None:
        """The status of the run's customization job, None without one."""
        try:
            job = self.bedrock.get_model_customization_job(jobIdentifier=f"{STACK}-{run.name}")
        except self.bedrock.exceptions.ResourceNotFoundException:
            return None
        return str(job["status"])

    def deployments(self) -> dict[str, str]:
        """The models of all deployments, by the deployments' ARNs."""
        found = self.bedrock.list_custom_model_deployments()["modelDeploymentSummaries"]
        return {each["customModelDeploymentArn"]: each["modelArn"] for each in found}

    def check_that_nothing_is_left(self, run: Run, *, locked: bool = False) -> None:
        """Asserts that no job runs, only the champion is deployed, the lock is free and the history is right.

        locked: the lock may still be the run's, which is at work no longer, so the next run takes it.
        """
        eventually(lambda: self.job(run) not in ("InProgress", "Stopping"))
        champion = self.deployed.champion()
        assert set(self.deployments()) == ({champion} if champion else set())
        assert lock_of(self.deployed).get("run") in ((None, run.name) if locked else (None,))
        keys = self.s3.list_objects_v2(Bucket=self.deployed.outputs["ArtifactBucket"], Prefix="history/")
        if not champion:
            assert keys["KeyCount"] == 0
            return
        last = json.loads(self.deployed.artifact(keys["Contents"][-1]["Key"]) or b"")
        assert last["deployment"] == champion
        # What was written down last is served, or will be as soon as the deployment has arrived there.
        eventually(lambda: self.deployments()[champion] == last["model"])


@pytest.fixture(scope="module")
def team(troubled: EmbeddedAws, environment: Deployed) -> Team:
    return Team(troubled, environment)


# --- Stopped by hand, in every state ---

WAITING = [name for name, state in WORKFLOW["States"].items() if state["Type"] in ("Task", "Map", "Wait")]
# Those of a run that has failed already.
FAILED = ("Clean up", "Report failure")
# Without it only what is unlike the rest: all of it takes minutes.
EVERY_FAULT = bool(os.environ.get("EVERY_FAULT"))
SITUATIONS = ("Prepare dataset", "Take lock", "Start customization job", "Wait for job")
CHOSEN = [state for state in WAITING if state in (WAITING if EVERY_FAULT else SITUATIONS)]
# What is in the middle of being done while the run is stopped, and is done only when its clean-up has ended;
# everywhere else the run is stopped before the state has done anything.
IN_FLIGHT = {
    "Take lock": Fault(action="s3:PutObject", about="/lock.json", by="StepsLock", does="hold"),
    "Start customization job": Fault(action="bedrock:CreateModelCustomizationJob", does="hold"),
    "Promote": Fault(action="bedrock:UpdateCustomModelDeployment", does="hold"),
}
REFUSED_WRITE = Fault(action="s3:PutObject", about="/dataset.json", error="AccessDenied", status=403)


def stopped(team: Team, run: Run) -> dict[str, Any]:
    """Stops a run by hand; returns what its clean-up wrote."""
    team.deployed.cloud.client("stepfunctions").stop_execution(executionArn=run.arn, cause="enough of it")
    failure = team.failure(run)
    assert team.deployed.run(run.name).status == "ABORTED"
    assert failure["left"] == []
    assert failure["notified"] is True
    return failure


class TestStoppedByHand:
    """Runs that are stopped one after the other; the next one has its first gates behind it meanwhile."""

    @pytest.fixture(scope="class")
    @classmethod
    def ahead(cls, team: Team) -> Iterator[list[tuple[Run, Injected]]]:
        """The run that waits to take the lock."""
        runs: list[tuple[Run, Injected]] = []
        yield runs
        for run, held in runs:
            team.deployed.cloud.client("stepfunctions").stop_execution(executionArn=run.arn)
            held.lift()

    def next(self, team: Team, ahead: list[tuple[Run, Injected]]) -> Run:
        """Lets the waiting run go on, and has another one come to where it waited."""
        while len(ahead) < 2:
            run = team.start()
            ahead.append((run, team.hold(run, "Take lock")))
        run, held = ahead.pop(0)
        team.at(run, held)
        held.lift()
        return run

    def test_the_first_promotion_is_made_good_by_the_next_start(self, team: Team):
        run = team.start()
        promise = Fault(action="ssm:PutParameter", by="StepsPromote", does="hold")
        with team.aws.give(promise) as held:
            team.at(run, held, approve=True)
            failure = stopped(team, run)
            assert "was kept, because it was about to become the champion's" in failure["sentence"]
            assert team.deployed.champion() is None
            other = team.start()
            [promised] = team.deployments()
            assert team.deployed.champion() == promised
            stopped(team, other)
            team.check_that_nothing_is_left(run)
        team.check_that_nothing_is_left(run)

    @pytest.mark.parametrize("state", [state for state in CHOSEN if state not in FAILED])
    def test_a_run_is_cleaned_up(self, team: Team, ahead: list[tuple[Run, Injected]], state: str):
        early = WAITING.index(state) < WAITING.index("Take lock")
        if early:
            # No two of them at once, so the next one to come there is meant.
            about = f"/{state}/"
            held = team.aws.give(Fault(action=ENTER_STATE, about=about, does="hold"))
            run = team.start()
        else:
            run = self.next(team, ahead)
            held = team.aws.give(IN_FLIGHT[state]) if state in IN_FLIGHT else team.hold(run, state)
        with held:
            team.at(run, held, approve=WAITING.index(state) > WAITING.index("Wait for approval"))
            failure = stopped(team, run)
            assert f"Run {run.name} of {STACK} was stopped: it was stopped by hand." in failure["sentence"]
        if state in ("Start customization job", "Wait for job"):
            # In small it would end by itself in no time: it has to have been told.
            eventually(lambda: team.job(run) == "Stopped", 30)
        team.check_that_nothing_is_left(run, locked=state == "Take lock")

    @pytest.mark.parametrize("state", FAILED)
    def test_a_run_that_has_failed_is_cleaned_up(self, team: Team, state: str):
        with team.aws.give(REFUSED_WRITE):
            run = team.start()
            with team.hold(run, state) as held:
                team.at(run, held)
                failure = stopped(team, run)
        reason = "stopped by hand" if state == "Clean up" else "Prepare dataset: .*AccessDenied"
        assert re.search(reason, failure["sentence"])
        team.check_that_nothing_is_left(run)


# --- What passes, and what does not ---


def throttled(action: str, **more: Any) -> Fault:
    return Fault(action=action, status=429, error="ThrottlingException", message="Too many requests", **more)


PASSING = {
    "control plane": [
        throttled("bedrock:CreateModelCustomizationJob", times=2),
        throttled("bedrock:GetModelCustomizationJob", times=3),
        throttled("bedrock:CreateCustomModelDeployment", times=3),
        throttled("bedrock:GetCustomModelDeployment", times=3),
    ],
    # More often than boto3 tries, so the workflow has to try again as well.
    "S3 writes": [Fault(action="s3:PutObject", about="/dataset.json", error="SlowDown", status=503, times=4)],
    "S3 reads": [
        Fault(action="s3:GetObject", about="/measured/", error="InternalError", status=500, times=2)
    ],
    "job events": [
        Fault(action="events:PutEvents", by="bedrock.amazonaws.com", error="InternalFailure", status=500)
    ],
    "judge": [
        Fault(
            action="bedrock:InvokeModel",
            about="friendly",
            error="ServiceUnavailableException",
            status=503,
            times=6,
        )
    ],
    "slow reward": [Fault(action="bedrock:InvokeModel", about="Is the job there?", does="hold", times=1)],
}


def test_trouble_that_passes_changes_nothing(team: Team):
    with ExitStack() as troubles:
        met = {
            what: [troubles.enter_context(team.aws.give(each)) for each in faults]
            for what, faults in PASSING.items()
        }
        run = team.ended(team.start())
        assert run.status == "SUCCEEDED", run.cause
        for what, given in met.items():
            for fault, one in zip(PASSING[what], given, strict=True):
                assert one.met == fault.times or (fault.times is None and one.met), (what, fault)
    team.check_that_nothing_is_left(run)


# What lasts: the faults, and the sentence.
LASTING = {
    "no job can be created": (
        [
            Fault(
                action="bedrock:CreateModelCustomizationJob",
                error="ServiceQuotaExceededException",
                message="No more jobs",
            )
        ],
        "failed at Start customization job: .*No more jobs",
    ),
    "the job cannot be looked at": (
        [throttled("bedrock:GetModelCustomizationJob", by="StateMachine")],
        "failed at Check job: Too many requests",
    ),
    "the job fails": (
        [Fault(action="bedrock:CreateModelCustomizationJob", does="doom", message="Internal error")],
        "failed at Wait for job: The customization job ended as Failed: Internal error",
    ),
    "the judge is down": (
        [
            Fault(
                action="bedrock:InvokeModel",
                about="friendly",
                error="ServiceUnavailableException",
                status=503,
            )
        ],
        "failed at Wait for job: .*the judge .* did not answer in time: .*ServiceUnavailableException",
    ),
    # Four times its time.
    "the reward is too slow for the job": (
        [Fault(action="bedrock:InvokeModel", about="Is the job there?", does="hold")],
        r"failed at Wait for job: .*Task timed out after 5\.00 seconds",
    ),
    "the reward is too slow for the rehearsal": (
        [Fault(action="bedrock:InvokeModel", about="Is the rehearsal there?", does="hold")],
        r"was stopped at Rehearse reward: .*Task timed out after 5\.00 seconds",
    ),
    "no deployment can be created": (
        [throttled("bedrock:CreateCustomModelDeployment")],
        "failed at Deploy candidate: Too many requests",
    ),
    "the deployment fails": (
        [Fault(action="bedrock:CreateCustomModelDeployment", does="doom", message="No capacity")],
        "failed at Wait for candidate: The deployment of the candidate is Failed: No capacity",
    ),
    "an artifact cannot be written": (
        [Fault(action="s3:PutObject", about="/gates/cost.json", error="AccessDenied", status=403)],
        "failed at Estimate cost: .*AccessDenied",
    ),
}
USUAL = ("the job fails", "the deployment fails", "an artifact cannot be written")


@pytest.mark.parametrize("what", LASTING if EVERY_FAULT else USUAL)
def test_trouble_that_lasts_ends_the_run(team: Team, what: str):
    faults, sentence = LASTING[what]
    champion, serving = team.deployed.champion(), team.deployments()
    with ExitStack() as troubles:
        given = [troubles.enter_context(team.aws.give(each)) for each in faults]
        run = team.ended(team.start())
        assert all(each.met for each in given)
    assert run.status == "FAILED"
    assert re.search(sentence, run.cause), run.cause
    failure = team.failure(run)
    assert failure["sentence"] == run.cause
    assert failure["left"] == []
    assert (team.deployed.champion(), team.deployments()) == (champion, serving)
    if what == "the judge is down":
        # The batch was never scored, so no step was made of it: the file has its head alone.
        [steps] = [
            path for path in team.deployed.paths(run) if path.endswith("step_wise_training_metrics.csv")
        ]
        body = team.deployed.artifact(f"runs/{run.name}/{steps}") or b""
        assert len(body.decode().splitlines()) == 1
    team.check_that_nothing_is_left(run)


def test_a_job_that_somebody_stops_ends_the_run(team: Team):
    run = team.start()
    with team.hold(run, "Wait for job") as held:
        team.at(run, held)
        team.bedrock.stop_model_customization_job(jobIdentifier=f"{STACK}-{run.name}")
        eventually(lambda: team.job(run) == "Stopped")
    run = team.ended(run)
    assert run.status == "FAILED"
    assert "Somebody stopped the customization job, and not through this workflow." in run.cause
    team.check_that_nothing_is_left(run)


def test_a_run_whose_evidence_cannot_be_written_is_cleaned_up_all_the_same(team: Team):
    run = team.start()
    with team.hold(run, "Wait for job") as held:
        team.at(run, held)
        refused = Fault(action="s3:PutObject", about=f"/runs/{run.name}/", error="AccessDenied", status=403)
        trouble = team.aws.give(refused)
    with trouble:
        run = team.ended(run)
    assert run.status == "FAILED"
    assert "Cleaning up after a failure failed: " in run.cause
    assert "write s3://" in run.cause
    team.check_that_nothing_is_left(run)
