"""The training workflow: its definition, where every way through it leads, and what it asks of services."""

import ast
import copy
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape

from infra.states import WORKFLOW
from lambdas.workflow import retire_old
from tests.infra.conftest import ACCOUNT, REGION, REPOSITORY, Assembly
from tests.infra.test_permissions import listed, policies
from tests.infra.walk import MACHINE, Call, TaskFailedError, Walk, walk

State = dict[str, Any]

RUN = "run-0123456789abcdef"
STACK = "rft-quotes-dev"
BEDROCK = f"arn:aws:bedrock:{REGION}:{ACCOUNT}"
JOB = f"{BEDROCK}:model-customization-job/amazon.nova-2-lite-v1:0:256k/abcdefghij01"
MODEL = f"{BEDROCK}:custom-model/amazon.nova-2-lite-v1:0:256k/abcdefghij01"
CREATED = "2026-01-01T00:00:00Z"
OLD_MODEL = f"{BEDROCK}:custom-model/amazon.nova-2-lite-v1:0:256k/abcdefghij00"
CANDIDATE = f"{BEDROCK}:custom-model-deployment/candidate001"
CHAMPION = f"{BEDROCK}:custom-model-deployment/champion0001"
REWARD = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:reward:7"

DOCUMENT = {
    "run": RUN,
    "trigger": "manual",
    "source": {"train": "s3://rows/train.jsonl", "evaluation": "s3://rows/evaluation.jsonl"},
    "base_model": "amazon.nova-2-lite-v1:0:256k",
    "reward_version": REWARD,
    "training": {
        "epochCount": 2,
        "batchSize": 32,
        "learningRate": 1e-4,
        "trainingSamplePerPrompt": 8,
        "maxPromptLength": 4096,
        "inferenceMaxTokens": 1024,
        "reasoningEffort": "low",
        "evalInterval": 10,
    },
    "measurement": {"prompts": 100, "samples_per_prompt": 4, "temperature": 0.7, "concurrency": 10},
    "promotion": {"minimum_gain": 0.0, "confidence": 0.95, "guards": [], "tolerated_drop": 0.0},
    "gates": {
        "rehearsal": {"max_hackability": 0.5},
        "signal": {"prompts": 50},
        "filter": {"max_dropped": 0.5, "range": [0.0, 1.0]},
        "cost": {"growth": 3.0},
        "tripwires": {"length": "stop"},
    },
}
ITEM = {
    "index": 3,
    "part": "evaluation",
    "id": "row-3",
    "messages": [{"role": "user", "content": "2+2"}],
    "reference_answer": "4",
    "metadata": {},
}


def payload(value: Any) -> State:
    return {"StatusCode": 200, "ExecutedVersion": "$LATEST", "Payload": value}


def job(status: str, **more: str) -> State:
    return {"Status": status, "CreationTime": CREATED, **more}


# A run whose candidate is better and becomes the first champion; other runs are told by how they differ.
ANSWERS: dict[str, list[Any]] = {
    "Prepare dataset": [
        payload(
            {
                "train": "s3://datasets/datasets/0123/train.jsonl",
                "evaluation": "s3://datasets/datasets/0123/evaluation.jsonl",
                "dataset": {"sha256": "0123", "train_rows": 300, "evaluation_rows": 100},
                "prompts": {"bucket": "artifacts", "key": f"runs/{RUN}/prompts.jsonl", "count": 100},
                "training_prompts": {
                    "bucket": "artifacts",
                    "key": f"runs/{RUN}/training-prompts.jsonl",
                    "count": 0,
                },
            }
        )
    ],
    "Rehearse reward": [payload({"verdict": "pass", "sentence": "Rehearsal: nothing to object to."})],
    "Measure base model": [ITEM],
    "Measure candidate": [ITEM],
    "Find champion": [{"Parameter": {"Name": "champion", "Value": "none"}}],
    "Look at champion": [{"CustomModelDeploymentArn": CHAMPION, "ModelArn": OLD_MODEL, "Status": "Active"}],
    "Measure champion": [ITEM],
    "Measure prompt": [payload({"index": 3})],
    "Check signal": [payload({"verdict": "pass", "sentence": "Train."})],
    "Take lock": [payload({"verdict": "pass", "sentence": "Taken."})],
    "Estimate cost": [payload({"verdict": "warn", "sentence": "Not all of it has a price."})],
    "Measure training prompts": [ITEM],
    "Filter prompts": [
        payload({"verdict": "pass", "sentence": "Left out.", "train": f"s3://a/runs/{RUN}/filtered/45.jsonl"})
    ],
    "Read tags": [
        {
            "Tags": [
                {"Key": "rft:environment", "Value": STACK},
                {"Key": "team", "Value": "quotes"},
                {"Key": "aws:cloudformation:stack-name", "Value": STACK},
            ]
        }
    ],
    "Start customization job": [payload({"job_arn": JOB, "job_name": f"{STACK}-{RUN}"})],
    "Check job": [job("InProgress"), job("Completed", OutputModelArn=MODEL)],
    "Check tripwires": [payload({"verdict": "pass", "sentence": "Tripwires: nothing to object to."})],
    "Deploy candidate": [{"CustomModelDeploymentArn": CANDIDATE}],
    "Check candidate": [{"Status": "Creating"}, {"Status": "Active"}],
    "Decide": [payload({"promote": True, "approval_seconds": 0, "sentence": "The candidate is better."})],
    "Report for approval": [payload({"report": "s3://a/report.html", "manifest": "s3://a/manifest.json"})],
    "Wait for approval": [{"approved": True, "by": "arn:aws:iam::111122223333:user/eve", "why": ""}],
    "Record approval": [payload({"promote": True, "approval_seconds": 60, "sentence": "Eve approved."})],
    "Promote": [payload({"champion_arn": CANDIDATE, "adopted": True, "previous_model": None})],
    "Check champion": [
        {},
        {"UpdateDetails": {"UpdateStatus": "Updating"}},
        {"UpdateDetails": {"UpdateStatus": "UpdateCompleted"}},
    ],
    "Delete candidate": [{}],
    "Retire old models": [payload({"models": [], "deployments": [], "sentence": ""})],
    "Write report": [payload({"report": "s3://a/report.html", "manifest": "s3://a/manifest.json"})],
    "Notify": [{"MessageId": "1"}],
    "Release lock": [payload({"verdict": "pass", "sentence": "Given back."})],
    "Clean up": [payload({"sentence": "It failed, and this is why."})],
    "Report failure": [payload({"report": "s3://a/report.html", "manifest": "s3://a/manifest.json"})],
}
MOVED = payload({"champion_arn": CHAMPION, "adopted": False, "previous_model": MODEL})
KEPT = payload({"promote": False, "approval_seconds": 0, "sentence": "The candidate is not better."})
ASKED = payload({"promote": True, "approval_seconds": 60, "sentence": "The candidate is better."})
REIGNING = {"Parameter": {"Name": "champion", "Value": CHAMPION}}


def go(definition: State = WORKFLOW, **changes: list[Any]) -> Walk:
    """Walks with the given answers in place of the usual ones; a key is a state's name with _ for spaces."""
    return walk(
        definition, DOCUMENT, ANSWERS | {key.replace("_", " "): each for key, each in changes.items()}
    )


def filtering(**changes: list[Any]) -> Walk:
    """Walks as a run does that may leave some of its training prompts out."""
    [prepared] = ANSWERS["Prepare dataset"]
    tried = {**prepared["Payload"]["training_prompts"], "count": 200}
    answers = ANSWERS | {
        "Prepare dataset": [payload({**prepared["Payload"], "training_prompts": tried})],
        **{key.replace("_", " "): each for key, each in changes.items()},
    }
    return walk(WORKFLOW, DOCUMENT | {"filter": {"drop": "flat", "prompts": 200}}, answers)


def tasks(definition: State, *types: str) -> Iterator[tuple[str, State]]:
    """The states of these types, inside maps as well."""
    for name, state in definition["States"].items():
        if state["Type"] in types:
            yield name, state
        if state["Type"] == "Map":
            yield from tasks(state["ItemProcessor"], *types)


# Step Functions accepts it


def asl_faults(definition: str) -> list[State]:
    done = subprocess.run(
        ["node", str(REPOSITORY / "tests" / "infra" / "validate_asl.cjs")],
        input=definition,
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    found: list[State] = json.loads(done.stdout)
    return found


def definition_of(template: State) -> State:
    machine = template["Resources"]["TrainingStateMachineEAE34FB3"]["Properties"]
    definition: State = json.loads(machine["DefinitionString"])
    return definition


def test_every_definition_is_valid(assembly: Assembly) -> None:
    definitions = {json.dumps(definition_of(assembly.template(stack))) for stack in assembly.stacks}
    # No setting changes the workflow: whatever is valid for one is valid for all.
    assert definitions == {json.dumps(WORKFLOW)}
    assert asl_faults(definitions.pop()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda states: states["Decide"].update(Next="Nowhere"), "name of an existing state"),
        (lambda states: states["Decide"].update(Resource=None), "Incorrect type|Resource"),
        (lambda states: states["Decide"]["Assign"].update(decision="{% $states.( %}"), "JSONata"),
        (lambda states: states.update(Alone={"Type": "Succeed"}), "cannot be reached"),
    ],
    ids=["unknown state", "no resource", "broken expression", "unreachable state"],
)
def test_fails_when_a_definition_is_broken(change: Any, said: str) -> None:
    broken = copy.deepcopy(WORKFLOW)
    change(broken["States"])
    found = asl_faults(json.dumps(broken))
    assert found
    assert re.search(said, json.dumps(found))


def test_every_placeholder_is_filled_in(assembly: Assembly) -> None:
    for stack in assembly.stacks:
        machine = assembly.template(stack)["Resources"]["TrainingStateMachineEAE34FB3"]["Properties"]
        placeholders = set(re.findall(r"\$\{(\w+)\}", machine["DefinitionString"]))
        assert placeholders == set(machine["DefinitionSubstitutions"])


# The ways through it


def test_first_candidate_that_is_better_becomes_the_champion() -> None:
    done = go()
    assert done.path == [
        "Prepare dataset",
        "Rehearse reward",
        "Reward withstood?",
        "Measure base model",
        "Measure prompt",
        "Check signal",
        "Signal found?",
        "Take lock",
        "Lock taken?",
        "Estimate cost",
        "Within budget?",
        "Read tags",
        "Start customization job",
        "Wait for job",
        "Check job",
        "Check tripwires",
        "Job ended?",
        "Wait for job",
        "Check job",
        "Check tripwires",
        "Job ended?",
        "Deploy candidate",
        "Wait for candidate",
        "Check candidate",
        "Candidate ready?",
        "Wait for candidate",
        "Check candidate",
        "Candidate ready?",
        "Measure candidate",
        "Measure prompt",
        "Find champion",
        "Is there a champion?",
        "Decide",
        "Promote?",
        "Promote",
        "Candidate became champion?",
        "Retire old models",
        "Write report",
        "Notify",
        "Release lock",
        "Done",
    ]
    assert done.output == {
        "run": RUN,
        "promoted": True,
        "sentence": "The candidate is better.",
        "report": "s3://a/report.html",
        "champion_arn": CANDIDATE,
    }


def test_later_candidate_moves_the_champion_and_goes() -> None:
    done = go(Promote=[MOVED])
    assert done.path[done.path.index("Promote") :] == [
        "Promote",
        "Candidate became champion?",
        *["Wait for champion", "Check champion", "Champion updated?"] * 3,
        "Delete candidate",
        "Retire old models",
        "Write report",
        "Notify",
        "Release lock",
        "Done",
    ]
    assert done.asked("Check champion")[0] == {"CustomModelDeploymentIdentifier": CHAMPION}
    assert done.asked("Delete candidate") == [{"CustomModelDeploymentIdentifier": CANDIDATE}]
    assert done.output["champion_arn"] == CHAMPION


def test_candidate_that_is_no_better_goes_and_is_reported() -> None:
    done = go(Decide=[KEPT])
    assert done.path[done.path.index("Decide") :] == [
        "Decide",
        "Promote?",
        "Delete candidate",
        "Retire old models",
        "Write report",
        "Notify",
        "Release lock",
        "Done",
    ]
    (report,) = done.asked("Write report")
    assert report["Payload"]["champion"] is None
    assert done.output["promoted"] is False
    assert done.output["champion_arn"] is None
    (news,) = done.asked("Notify")
    assert news["Subject"].endswith(": not promoted")
    assert news["Message"] == "The candidate is not better.\n\nReport: s3://a/report.html"


def test_champion_is_measured_on_the_same_prompts_and_compared() -> None:
    done = go(Find_champion=[REIGNING], Promote=[MOVED])
    assert done.path[done.path.index("Find champion") :][:6] == [
        "Find champion",
        "Is there a champion?",
        "Look at champion",
        "Measure champion",
        "Measure prompt",
        "Decide",
    ]
    assert done.asked("Look at champion") == [{"CustomModelDeploymentIdentifier": CHAMPION}]
    measured = [each["Payload"] for each in done.asked("Measure prompt")]
    assert [each["subject"] for each in measured] == ["base", "candidate", "champion"]
    assert measured[2]["model_id"] == CHAMPION
    # The base answers more often, for the signal gate; what is more is kept apart.
    assert measured[1]["samples"] == measured[2]["samples"]
    alike = [{**each, "subject": None, "model_id": None, "samples": None} for each in measured]
    assert alike[0] == alike[1] == alike[2]
    (decide,) = done.asked("Decide")
    assert decide["Payload"]["compared"] == {"deployment_arn": CHAMPION, "model_arn": OLD_MODEL}
    assert go().asked("Decide")[0]["Payload"]["compared"] is None


def test_champion_that_somebody_deleted_is_not_compared() -> None:
    gone = TaskFailedError("Bedrock.ResourceNotFoundException", "not found")
    done = go(Find_champion=[REIGNING], Look_at_champion=[gone])
    assert "Measure champion" not in done.path
    assert done.asked("Decide")[0]["Payload"]["compared"] is None
    assert done.path[-1] == "Done"


def test_stage_that_asks_for_approval_promotes_when_a_person_says_so() -> None:
    done = go(Decide=[ASKED])
    assert done.path[done.path.index("Decide") :] == [
        "Decide",
        "Promote?",
        "Report for approval",
        "Wait for approval",
        "Record approval",
        "Approved?",
        "Promote",
        "Candidate became champion?",
        "Retire old models",
        "Write report",
        "Notify",
        "Release lock",
        "Done",
    ]
    (asked,) = done.asked("Wait for approval")
    assert asked["Payload"] == {
        "run": RUN,
        "decision": ASKED["Payload"],
        "report": "s3://a/report.html",
        "token": "token",
        "answer": None,
    }
    (recorded,) = done.asked("Record approval")
    assert recorded["Payload"]["answer"] == ANSWERS["Wait for approval"][0]
    # What is told and promoted is the decision with the answer.
    assert done.asked("Promote")[0]["Payload"]["decision"]["sentence"] == "Eve approved."
    assert done.output["sentence"] == "Eve approved."


@pytest.mark.parametrize(
    ("answer", "recorded"),
    [
        (
            {"approved": False, "by": "arn:aws:iam::111122223333:user/eve", "why": "too long"},
            {"approved": False, "by": "arn:aws:iam::111122223333:user/eve", "why": "too long"},
        ),
        (
            TaskFailedError("States.Timeout"),
            {"approved": False, "by": None, "why": "nobody answered in time"},
        ),
    ],
    ids=["rejected", "no answer"],
)
def test_model_that_nobody_approves_goes_and_is_reported(answer: Any, recorded: State) -> None:
    done = go(Decide=[ASKED], Wait_for_approval=[answer], Record_approval=[KEPT])
    assert done.asked("Record approval")[0]["Payload"]["answer"] == recorded
    assert done.path[done.path.index("Approved?") :] == [
        "Approved?",
        "Delete candidate",
        "Retire old models",
        "Write report",
        "Notify",
        "Release lock",
        "Done",
    ]
    assert done.output["promoted"] is False


def test_old_models_that_cannot_be_deleted_do_not_undo_a_promotion() -> None:
    done = go(Retire_old_models=[TaskFailedError("AccessDeniedException", "no")])
    assert done.path[-1] == "Done"
    assert done.output["promoted"] is True
    (news,) = done.asked("Notify")
    assert news["Message"].endswith("Report: s3://a/report.html\n\nOld models were not deleted: no")


def test_models_that_were_deleted_are_told() -> None:
    done = go(Retire_old_models=[payload({"models": ["m"], "sentence": "Deleted: model m."})])
    assert done.asked("Notify")[0]["Message"].endswith("\n\nDeleted: model m.")


@pytest.mark.parametrize(
    ("changes", "step", "error", "cause"),
    [
        (
            {"Check_job": [job("Failed", FailureMessage="The reward function failed 3 times")]},
            "Wait for job",
            "JobDidNotComplete",
            "The customization job ended as Failed: The reward function failed 3 times",
        ),
        (
            {"Check_job": [job("Stopping"), job("Stopped")]},
            "Wait for job",
            "JobDidNotComplete",
            "Somebody stopped the customization job, and not through this workflow.",
        ),
        (
            {"Check_job": [job("Completed")]},
            "Wait for job",
            "JobDidNotComplete",
            "The customization job ended as Completed: no reason given",
        ),
        (
            {"Check_candidate": [{"Status": "Failed", "FailureMessage": "no capacity"}]},
            "Wait for candidate",
            "DeploymentDidNotSucceed",
            "The deployment of the candidate is Failed: no capacity",
        ),
        (
            {"Promote": [MOVED], "Check_champion": [{"UpdateDetails": {"UpdateStatus": "UpdateFailed"}}]},
            "Wait for champion",
            "ChampionNotUpdated",
            "The champion still serves its previous model: moving it is UpdateFailed",
        ),
    ],
    ids=["job failed", "job stopped", "job without a model", "deployment failed", "champion not moved"],
)
def test_fails_when_bedrock_does(changes: State, step: str, error: str, cause: str) -> None:
    done = go(**changes)
    assert done.path[-3:] == ["Clean up", "Report failure", "Run stopped"]
    (clean_up,) = done.asked("Clean up")
    assert clean_up["Payload"] == {"run": RUN, "step": step, "error": {"Error": error, "Cause": cause}}
    assert done.error == {"Error": "RunStopped", "Cause": "It failed, and this is why."}


def test_fails_with_the_sentence_of_a_gate_that_closes() -> None:
    done = go(Rehearse_reward=[payload({"verdict": "stop", "sentence": "Rehearsal: stops the run. Fooled."})])
    assert done.path == [
        "Prepare dataset",
        "Rehearse reward",
        "Reward withstood?",
        "Clean up",
        "Report failure",
        "Run stopped",
    ]
    (clean_up,) = done.asked("Clean up")
    assert clean_up["Payload"] == {
        "run": RUN,
        "step": "Rehearse reward",
        "error": {"Error": "GateClosed", "Cause": "Rehearsal: stops the run. Fooled."},
    }


def test_every_look_at_the_job_tells_the_tripwires_what_they_go_by() -> None:
    looks = [each["Payload"] for each in go().asked("Check tripwires")]
    assert [each["job"]["status"] for each in looks] == ["InProgress", "Completed"]
    assert looks[0]["job"]["created"] == CREATED
    assert looks[0] | {"job": None} == {
        "run": RUN,
        "reward_version": REWARD,
        "training": DOCUMENT["training"],
        "tripwires": {"length": "stop"},
        "job": None,
    }


@pytest.mark.parametrize("status", ["InProgress", "Completed"])
def test_fails_with_the_sentence_of_a_tripwire(status: str) -> None:
    tripped = payload({"verdict": "stop", "sentence": "Tripwires: stops the run. Length."})
    done = go(Check_job=[job(status, OutputModelArn=MODEL)], Check_tripwires=[tripped])
    assert done.path[-5:] == ["Check tripwires", "Job ended?", "Clean up", "Report failure", "Run stopped"]
    (clean_up,) = done.asked("Clean up")
    assert clean_up["Payload"] == {
        "run": RUN,
        "step": "Check tripwires",
        "error": {"Error": "GateClosed", "Cause": "Tripwires: stops the run. Length."},
    }


def test_a_warning_of_a_tripwire_lets_the_run_go_on() -> None:
    warned = payload({"verdict": "warn", "sentence": "Tripwires: goes on with a warning. Length."})
    assert go(Check_tripwires=[warned]).path[-1] == "Done"


def test_a_job_that_failed_by_itself_says_so_whatever_tripped() -> None:
    tripped = payload({"verdict": "stop", "sentence": "Tripwires: stops the run. Length."})
    done = go(Check_job=[job("Failed", FailureMessage="no capacity")], Check_tripwires=[tripped])
    (clean_up,) = done.asked("Clean up")
    assert clean_up["Payload"]["error"]["Error"] == "JobDidNotComplete"


@pytest.mark.parametrize("gate", ["Check signal", "Take lock", "Estimate cost"])
def test_a_closed_gate_stops_the_run_before_anything_is_paid_for(gate: str) -> None:
    closed = payload({"verdict": "stop", "sentence": f"{gate}: stops the run."})
    done = go(**{gate.replace(" ", "_"): [closed]})
    assert done.path[-3:] == ["Clean up", "Report failure", "Run stopped"]
    assert "Start customization job" not in done.path
    (clean_up,) = done.asked("Clean up")
    failure = {"Error": "GateClosed", "Cause": f"{gate}: stops the run."}
    assert clean_up["Payload"] == {"run": RUN, "step": gate, "error": failure}
    assert done.error == {"Error": "RunStopped", "Cause": "It failed, and this is why."}


def test_prompts_are_left_out_only_when_their_samples_are_paid_for() -> None:
    done = filtering()
    at = done.path.index("Within budget?")
    assert done.path[at : at + 7] == [
        "Within budget?",
        "Measure training prompts",
        "Measure prompt",
        "Filter prompts",
        "Enough prompts left?",
        "Read tags",
        "Start customization job",
    ]
    # Else a run takes the same steps as if there were no filters.
    assert [each for each in done.path if each not in done.path[at + 1 : at + 5]] == [
        each for each in go().path if each != "Measure prompt"
    ]
    (estimate,), (usual,) = done.asked("Estimate cost"), go().asked("Estimate cost")
    assert (estimate["Payload"]["tried"], usual["Payload"]["tried"]) == (200, 0)
    (read,) = done.asked("Measure training prompts")
    assert read == {"Bucket": "artifacts", "Key": f"runs/{RUN}/training-prompts.jsonl"}
    base, training, _ = (each["Payload"] for each in done.asked("Measure prompt"))
    # As many completions as training compares, and none beside them.
    assert (training["subject"], training["model_id"], training["samples"]) == (
        "training",
        base["model_id"],
        8,
    )
    assert training["measurement"] == {**base["measurement"], "samples_per_prompt": 8}
    (filtered,) = done.asked("Filter prompts")
    assert filtered["Payload"] == {
        "run": RUN,
        "filter": {"drop": "flat", "prompts": 200, "max_dropped": 0.5, "range": [0.0, 1.0]},
        "train": "s3://datasets/datasets/0123/train.jsonl",
    }
    # The job gets what is left, and the rest of the run what it had.
    (started,) = done.asked("Start customization job")
    assert started["Payload"]["train"] == f"s3://a/runs/{RUN}/filtered/45.jsonl"
    assert done.asked("Measure candidate") == go().asked("Measure candidate")
    assert done.path[-1] == "Done"


def test_too_few_prompts_left_stop_the_run_before_the_job() -> None:
    sentence = "Filter: stops the run. 99 rows are left."
    train = "s3://datasets/datasets/0123/train.jsonl"
    done = filtering(Filter_prompts=[payload({"verdict": "stop", "sentence": sentence, "train": train})])
    assert done.path[-4:] == ["Enough prompts left?", "Clean up", "Report failure", "Run stopped"]
    (clean_up,) = done.asked("Clean up")
    failure = {"Error": "GateClosed", "Cause": sentence}
    assert clean_up["Payload"] == {"run": RUN, "step": "Filter prompts", "error": failure}


def test_a_run_over_its_budget_tries_no_prompts() -> None:
    done = filtering(Estimate_cost=[payload({"verdict": "stop", "sentence": "Cost: stops the run."})])
    assert "Measure training prompts" not in done.path
    assert done.path[-1] == "Run stopped"


def test_the_budget_is_asked_only_by_who_has_the_lock() -> None:
    done = go()
    assert done.path.index("Take lock") < done.path.index("Estimate cost")
    (taken,), (released,) = done.asked("Take lock"), done.asked("Release lock")
    execution = MACHINE.replace(":stateMachine:", ":execution:") + f":{RUN}"
    assert taken["Payload"] == {
        "run": RUN,
        "execution": execution,
        "take": True,
        "seconds": WORKFLOW["TimeoutSeconds"],
    }
    assert released["Payload"] == {**taken["Payload"], "take": False}


@pytest.mark.parametrize(("index", "samples"), [(0, 8), (49, 8), (50, 4), (99, 4)])
def test_first_prompts_are_answered_as_often_as_training_has_it(index: int, samples: int) -> None:
    done = walk(WORKFLOW, DOCUMENT, ANSWERS, index=index)
    base, candidate = (each["Payload"] for each in done.asked("Measure prompt"))
    assert (base["subject"], base["samples"]) == ("base", samples)
    # Models are compared by the same number of samples.
    assert (candidate["subject"], candidate["samples"]) == ("candidate", 4)
    assert base["measurement"] == candidate["measurement"]


def test_regression_prompts_are_answered_no_more_often_than_the_decision_needs() -> None:
    done = go(Measure_base_model=[{**ITEM, "part": "regression"}])
    base, candidate = (each["Payload"] for each in done.asked("Measure prompt"))
    assert (base["samples"], candidate["samples"]) == (4, 4)
    assert base["item"]["part"] == "regression"


@pytest.mark.parametrize(
    ("starts", "changes", "error"),
    [
        ("Start customization job", {"Check_job": [job("InProgress")]}, "JobTookTooLong"),
        ("Deploy candidate", {"Check_candidate": [{"Status": "Creating"}]}, "DeploymentDidNotSucceed"),
        ("Promote", {"Promote": [MOVED], "Check_champion": [{}]}, "ChampionNotUpdated"),
    ],
)
def test_fails_when_waiting_has_no_end(starts: str, changes: State, error: str) -> None:
    late = copy.deepcopy(WORKFLOW)
    polls = [
        int(found)
        for choice in dict(tasks(late, "Choice")).values()
        for each in choice["Choices"]
        for found in re.findall(r"\$polls < (\d+)", each["Condition"])
    ]
    assert len(polls) == 3
    # Begins as if it had waited for most of the time already.
    late["States"][starts]["Assign"]["polls"] = (max(polls) if "job" in starts else min(polls)) - 3
    done = go(late, **changes)
    assert done.path[-1] == "Run stopped"
    (clean_up,) = done.asked("Clean up")
    assert clean_up["Payload"]["error"]["Error"] == error
    # Three events for a task and two for a state entered and left, in a history of 25,000 events: the job's
    # two tasks, the wait and the choice; one task for a deployment, of which there may be two.
    assert max(polls) * 14 + 2 * min(polls) * 9 < 20_000


@pytest.mark.parametrize(
    "name", [name for name, _ in tasks(WORKFLOW, "Task", "Map") if name in WORKFLOW["States"]]
)
def test_whatever_fails_is_cleaned_up_after_and_told(name: str) -> None:
    failure = TaskFailedError("SomeError", "some cause")
    changes: State = {"Find_champion": [REIGNING], "Decide": [ASKED], "Promote": [MOVED]}
    changes[name.replace(" ", "_")] = [failure]
    if name in ("Clean up", "Report failure"):
        changes["Decide"] = [TaskFailedError("SomeError", "some cause")]
    done = (filtering if name in ("Measure training prompts", "Filter prompts") else go)(**changes)
    if name == "Check tripwires":
        # The next look sees what this one missed.
        assert done.path[-1] == "Done"
        return
    if name == "Retire old models":
        # See above: its failure ends nothing.
        assert done.path[-1] == "Done"
        return
    if name == "Release lock":
        # A run that did all it should has not failed for a lock that is free by itself.
        assert (done.path[-1], done.output["promoted"]) == ("Done", True)
        return
    assert done.path[-1] == "Run stopped"
    (clean_up,) = done.asked("Clean up")
    if name == "Clean up":
        assert done.error is not None
        assert "some cause" in done.error["Cause"]
        return
    if name != "Report failure":
        assert clean_up["Payload"] == {"run": RUN, "step": name, "error": failure.output}
    assert done.error == {"Error": "RunStopped", "Cause": "It failed, and this is why."}


def test_every_task_retries_with_jitter_and_has_a_time_limit(assembly: Assembly) -> None:
    for name, state in tasks(WORKFLOW, "Task"):
        (retry,) = state["Retry"]
        assert retry["JitterStrategy"] == "FULL"
        assert retry["MaxAttempts"] >= 3
        # A broken definition or a refused call does not get better by asking again.
        assert "States.ALL" not in retry["ErrorEquals"], name
        # The walks look at those that are known only then.
        assert isinstance(state["TimeoutSeconds"], str) or state["TimeoutSeconds"] > 0
    # The longest job and the longest time a person may take.
    assert WORKFLOW["TimeoutSeconds"] > 48 * 3600 + 336 * 3600
    functions = functions_of(assembly.template(STACK))
    for name, state in tasks(WORKFLOW, "Task"):
        if ":lambda:invoke" in state["Resource"] and isinstance(state["TimeoutSeconds"], int):
            function = functions[state["Arguments"]["FunctionName"]]
            assert state["TimeoutSeconds"] > function["Timeout"], name


def test_a_deployment_counts_as_forgotten_only_after_the_longest_run() -> None:
    assert retire_old.LONGEST_RUN.total_seconds() == WORKFLOW["TimeoutSeconds"]


def test_maps_are_distributed_and_leave_results_to_their_items() -> None:
    maps = dict(tasks(WORKFLOW, "Map"))
    assert len(maps) == 4
    for state in maps.values():
        assert state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
        # `decide` needs every prompt: one that cannot be measured fails the run.
        assert not {"ItemBatcher", "ResultWriter", "ToleratedFailurePercentage"} & state.keys()


# What it asks of services


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    """Every call of every way through the workflow, placeholders filled in."""
    walks = [
        go(Decide=[ASKED]),
        go(Find_champion=[REIGNING], Promote=[MOVED]),
        go(Decide=[TaskFailedError("SomeError")]),
        filtering(),
    ]
    found = [call for done in walks for call in done.calls]
    called = {call.state for call in found}
    assert called == {name for name, _ in tasks(WORKFLOW, "Task", "Map")}
    values = {"Stack": STACK, "Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:topic"}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each) for each in value]
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], found[1]), value)
        return value

    return [
        Call(state=call.state, resource=call.resource, arguments=filled(call.arguments)) for call in found
    ]


SERVICES = {"sfn": "stepfunctions"}


def operation(resource: str) -> tuple[str, str]:
    """The service, as botocore calls it, and the operation of a task's resource."""
    *_, service, action = resource.removesuffix(".waitForTaskToken").split(":")
    return SERVICES.get(service, service), action[0].upper() + action[1:]


def shape_faults(shape: Shape, value: Any, where: str) -> list[str]:
    """What is wrong with arguments that Step Functions passes on under PascalCase names."""
    found: list[str] = []
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    match shape.type_name:
        case "structure":
            if not isinstance(value, dict):
                return [f"{where} must be an object"]
            members = {name[0].upper() + name[1:]: (name, each) for name, each in shape.members.items()}
            found += [f"{where}.{key} is unknown" for key in value if key not in members]
            found += [
                f"{where}.{key} is missing"
                for key, (name, _) in members.items()
                if name in shape.required_members and key not in value
            ]
            for key in value.keys() & members.keys():
                found += shape_faults(members[key][1], value[key], f"{where}.{key}")
            return found
        case "list":
            if not isinstance(value, list):
                return [f"{where} must be a list"]
            size = len(value)
            for index, each in enumerate(value):
                found += shape_faults(shape.member, each, f"{where}[{index}]")
        case "string":
            if not isinstance(value, str):
                return [f"{where} must be a string"]
            size = len(value)
            if shape.enum and value not in shape.enum:
                found.append(f"{where} must be one of {shape.enum}")
            pattern = shape.metadata.get("pattern")
            if pattern and not re.search(pattern, value):
                found.append(f"{where} must match {pattern}, got {value!r}")
        case "integer" | "long" | "float" | "double":
            if isinstance(value, bool) or not isinstance(value, int | float):
                return [f"{where} must be a number"]
            size = value
        case "boolean":
            return [] if isinstance(value, bool) else [f"{where} must be true or false"]
        case "blob":
            # Step Functions turns a payload into JSON itself.
            return []
        case other:
            raise AssertionError(f"{where} is a {other}, which this check does not know")
    if least is not None and size < least:
        found.append(f"{where} must be at least {least}")
    if most is not None and size > most:
        found.append(f"{where} must be at most {most}")
    return found


def request_faults(call: Call) -> list[str]:
    service, name = operation(call.resource)
    model = botocore.session.get_session().get_service_model(service)
    input_shape = model.operation_model(name).input_shape
    assert input_shape is not None
    return shape_faults(input_shape, call.arguments, call.state)


def test_services_accept_every_request(calls: list[Call]) -> None:
    assert [fault for call in calls for fault in request_faults(call)] == []
    assert {operation(call.resource) for call in calls} == {
        ("bedrock", "GetModelCustomizationJob"),
        ("bedrock", "CreateCustomModelDeployment"),
        ("bedrock", "GetCustomModelDeployment"),
        ("bedrock", "DeleteCustomModelDeployment"),
        ("lambda", "Invoke"),
        ("s3", "GetObject"),
        ("sns", "Publish"),
        ("ssm", "GetParameter"),
        ("stepfunctions", "ListTagsForResource"),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ModelName": "x"}, "ModelName is unknown"),
        ({"ModelArn": None}, "ModelArn is missing"),
        ({"ModelArn": "arn:aws:bedrock:nowhere"}, "ModelArn must match"),
        ({"ModelDeploymentName": "x" * 64}, "ModelDeploymentName must be at most 63"),
        ({"Tags": [{"Key": "a"}]}, r"Tags\[0\].Value is missing"),
    ],
)
def test_fails_when_a_request_is_none_of_the_service(calls: list[Call], change: State, said: str) -> None:
    call = next(call for call in calls if call.state == "Deploy candidate")
    arguments = {key: value for key, value in {**call.arguments, **change}.items() if value is not None}
    (fault,) = request_faults(Call(state=call.state, resource=call.resource, arguments=arguments))
    assert re.search(said, fault)


def test_what_is_made_in_bedrock_carries_the_tags_of_the_stack_and_the_run(calls: list[Call]) -> None:
    deployments = [call.arguments for call in calls if call.state == "Deploy candidate"]
    for each in deployments:
        assert each["Tags"] == [
            {"Key": "rft:environment", "Value": STACK},
            {"Key": "team", "Value": "quotes"},
            {"Key": "run", "Value": RUN},
        ]
        assert each["ModelDeploymentName"] == f"{STACK}-{RUN}"
        # The same token whenever it is asked again: a retry makes no second deployment.
        assert each["ClientRequestToken"] == RUN
    assert [call.arguments for call in calls if call.state == "Read tags"] == [{"ResourceArn": MACHINE}] * 4


IAM_ACTIONS = {
    ("lambda", "Invoke"): "lambda:InvokeFunction",
    ("stepfunctions", "ListTagsForResource"): "states:ListTagsForResource",
}


def test_role_of_the_workflow_may_do_what_it_asks_for_and_no_more(
    assembly: Assembly, calls: list[Call]
) -> None:
    asked = set()
    for call in calls:
        service, name = operation(call.resource)
        asked.add(IAM_ACTIONS.get((service, name), f"{service}:{name}"))
    statements = policies(assembly.template(STACK))["TrainingStateMachineRole25B9785B"]
    allowed = {action for each in statements for action in listed(each["Action"])}
    # What goes with the calls: tagging what is made, the key, running the maps, logs and traces.
    beside = {
        "bedrock:TagResource",
        "states:StartExecution",
        "states:DescribeExecution",
        "states:StopExecution",
    }
    others = {action for action in allowed if action.split(":")[0] in ("kms", "logs", "xray")}
    assert allowed == asked | beside | others


# What it asks of our functions


def functions_of(template: State) -> State:
    """The functions of the workflow by the placeholder that stands for them."""
    machine = template["Resources"]["TrainingStateMachineEAE34FB3"]["Properties"]
    return {
        f"${{{name}}}": template["Resources"][value["Fn::GetAtt"][0]]["Properties"]
        for name, value in machine["DefinitionSubstitutions"].items()
        if isinstance(value, dict) and "Fn::GetAtt" in value
    }


def module_of(function: State) -> Path:
    return REPOSITORY.joinpath(*function["Handler"].split(".")[:-1]).with_suffix(".py")


def subscripts(tree: ast.AST, of: str) -> set[str]:
    """The literal keys by which a name is subscripted: `event["run"]`."""
    return {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value) == of
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }


def test_functions_get_all_that_they_take_from_their_event(assembly: Assembly, calls: list[Call]) -> None:
    functions = {
        placeholder.strip("${}"): function
        for placeholder, function in functions_of(assembly.template(STACK)).items()
    }
    invoked = [call for call in calls if operation(call.resource) == ("lambda", "Invoke")]
    assert {call.arguments["FunctionName"] for call in invoked} == set(functions)
    for call in invoked:
        module = module_of(functions[call.arguments["FunctionName"]])
        taken = subscripts(ast.parse(module.read_text()), "event")
        assert taken, f"{module.name} takes nothing from its event: has the name of the parameter changed?"
        assert taken <= call.arguments["Payload"].keys(), call.state


def test_functions_get_all_that_they_take_from_their_environment(assembly: Assembly) -> None:
    def taken(module: Path, seen: set[Path]) -> set[str]:
        if module in seen or not module.is_file():
            return set()
        seen.add(module)
        tree = ast.parse(module.read_text())
        found = subscripts(tree, "os.environ")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lambdas"):
                package = REPOSITORY.joinpath(*(node.module or "").split("."))
                for target in (
                    package.with_suffix(".py"),
                    *(package / f"{each.name}.py" for each in node.names),
                ):
                    found |= taken(target, seen)
        return found

    checked = 0
    for each in assembly.template(STACK)["Resources"].values():
        if each["Type"] == "AWS::Lambda::Function":
            function = each["Properties"]
            given = function["Environment"]["Variables"].keys()
            needed = taken(module_of(function), set())
            assert needed <= given, f"{function['Handler']} needs {needed - given}"
            checked += bool(needed)
    assert checked >= 8
