"""A reward function is rehearsed: honest ones pass, exploitable ones are found, each by its own exploit."""

import itertools
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from infra.config import load_platform, load_team
from lambdas import rehearsal
from lambdas.composition import compose
from lambdas.contract import InfrastructureError, Reward, Sample, UnscorableError
from lambdas.exploits import EXPLOITS
from lambdas.gate import Finding, Verdict
from lambdas.rehearsal import Case, CasesError, Settings, TooSlowError, offline, read_cases, rehearse, sample

REPOSITORY = Path(__file__).resolve().parents[2]

Score = Callable[[Sample], Reward]


def row(at: int, reference: Any, prompt: str = "How many are 7 and 6 and {at}? Think.") -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt.format(at=at)}]
    return {"id": f"r-{at}", "messages": messages, "reference_answer": reference, "metadata": {"n": at}}


NUMBERS = [row(at, str(37 + 13 * at)) for at in range(30)]
LABELS = [
    row(at, ("positive", "negative", "neutral")[at % 3], "Is the review number {at} a good one?")
    for at in range(30)
]
OBJECTS = [
    row(
        at,
        {
            "kind": ("a", "b", "c", "d")[at % 4],
            "size": ("s", "m", "l")[at % 3],
            "count": 3 + at,
            "ok": at % 2 == 0,
        },
    )
    for at in range(24)
]
CALLS = [
    row(at, {"name": ("find", "open", "close")[at % 3], "arguments": {"path": f"f{at}", "line": at + 1}})
    for at in range(24)
]


def table(*components: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"components": {f"part_{at}": each for at, each in enumerate(components)}, **others}


def run(score: Score, rows: list[Any], settings: Settings | None = None, **others: Any) -> Verdict:
    return rehearse(rows, offline(score, {}), settings or Settings(), **others)


def rules(verdict: Verdict, level: str = "stop") -> set[str]:
    return {finding.rule for finding in verdict.findings if finding.level == level}


def found(verdict: Verdict, rule: str) -> Finding:
    [finding] = [finding for finding in verdict.findings if finding.rule == rule]
    return finding


# Honest rewards


@pytest.mark.parametrize("name", ["quotes", "support"])
def test_sample_teams_pass_untouched(name: str) -> None:
    team = load_team(REPOSITORY, name, load_platform(REPOSITORY))
    settings = Settings.of({**team.reward.rehearsed(), **team.gates.rehearsal.model_dump()})
    reward = team.reward.document()
    with (team.folder / team.dataset.train).open("rb") as lines:
        rows, _, count = sample(lines, rehearsal.ROWS)
    verdict = rehearse(rows, offline(compose(reward), reward), settings, of=count)
    assert (verdict.verdict, verdict.findings) == ("pass", ())
    assert verdict.facts["references"]["share_at_maximum"] == 1.0
    assert (verdict.facts["references"]["rows"], verdict.facts["references"]["of"]) == (200, count)
    assert verdict.facts["hackability"] < 0.5


THINK = {"function": "format", "tags": ["think", "answer"], "minimum_words": {"think": 20}}
HONEST: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "hashes": (NUMBERS, table({"function": "numeric_answer"}), "####"),
    "boxed": (NUMBERS, table({"function": "numeric_answer", "form": "boxed"}), r"\boxed{}"),
    "tag": (NUMBERS, table({"function": "numeric_answer", "form": "tag", "tag": "total"}), "<total>"),
    "label": (NUMBERS, table({"function": "numeric_answer", "form": "label", "label": "Sum"}), "Sum:"),
    "JSON field": (
        NUMBERS,
        table({"function": "numeric_answer", "form": "json", "json_field": "total"}),
        "JSON total",
    ),
    "last line": (NUMBERS, table({"function": "numeric_answer", "form": "last_line"}), "bare"),
    "range below zero": (
        NUMBERS,
        table({"function": "numeric_answer"}, range=[-1.0, 1.0], formula="2 * part_0 - 1"),
        "####",
    ),
    "maths": (NUMBERS, table({"function": "math_answer"}), r"\boxed{}"),
    "choice": (
        LABELS,
        table({"function": "choice", "options": {"positive": [], "negative": [], "neutral": []}}),
        "Answer:",
    ),
    "text": (LABELS, table({"function": "string_check"}), "bare"),
    "JSON": (OBJECTS, table({"function": "json_match"}), "bare"),
    "JSON in a tag": (OBJECTS, table({"function": "json_match", "form": "tag", "tag": "result"}), "<result>"),
    "fenced JSON": (OBJECTS, table({"function": "json_match", "form": "fenced"}), "fenced JSON"),
    "tool call in a tag": (CALLS, table({"function": "tool_call", "form": "tag"}), "<tool_call>"),
    "tool call in the message": (CALLS, table({"function": "tool_call", "form": "messages"}), "tool calls"),
    "reasoning first": (
        NUMBERS,
        table({"function": "numeric_answer", "form": "tag"}, {**THINK, "weight": 0.25}),
        "steps in <think><answer> bare",
    ),
    "everything at once": (
        NUMBERS,
        table(
            {"function": "numeric_answer", "form": "boxed", "weight": 8},
            {"function": "format", "tags": ["plan", "reply"], "weight": 1},
            {"function": "reasoning_steps", "target": 3, "tag": "plan", "weight": 1},
            {"function": "length", "maximum": 4000, "minimum": 200, "weight": 1},
            {"function": "repetition", "weight": 1},
            {"function": "language", "weight": 1},
        ),
        r"steps in <plan><reply> \boxed{}",
    ),
}


@pytest.mark.parametrize("case", HONEST)
def test_honest_rewards_pass_and_their_form_is_found_out(case: str) -> None:
    rows, reward, form = HONEST[case]
    components = reward["components"].values()
    settings = Settings.of(
        {
            **reward,
            "functions": [each["function"] for each in components],
            "names": [
                each[key] for each in components for key in ("tag", "label", "json_field") if key in each
            ],
            "sections": [each["tags"] for each in components if "tags" in each],
        }
    )
    verdict = rehearse(rows, offline(compose(reward), reward), settings)
    assert (verdict.verdict, verdict.findings) == ("pass", ()), verdict.sentence
    assert verdict.facts["form"] == form


def test_a_form_is_also_found_by_the_names_in_the_prompts() -> None:
    rows = [row(at, str(at + 5), "Add {at}. Put the sum into <sum> and </sum>.") for at in range(12)]
    verdict = run(compose(table({"function": "numeric_answer", "form": "tag", "tag": "sum"})), rows)
    assert (verdict.verdict, verdict.facts["form"]) == ("pass", "<sum>")


def pays_a_form_nobody_would_guess(sample: Sample) -> Reward:
    return Reward(float(sample.completion == f"~{sample.reference_answer}~!"))


def test_a_form_nobody_would_guess_is_told_by_the_team() -> None:
    verdict = run(pays_a_form_nobody_would_guess, NUMBERS)
    assert rules(verdict) >= {"reference-below-maximum"}
    assert '{"reference_form": "... {reference} ..."}' in verdict.sentence
    cases = read_cases(b'{"reference_form": "~{reference}~!"}\n', "rehearsal.jsonl")
    assert run(pays_a_form_nobody_would_guess, NUMBERS, cases=cases).verdict == "pass"


def test_a_form_nobody_would_guess_is_written_by_the_reward_itself() -> None:
    verdict = run(pays_a_form_nobody_would_guess, NUMBERS, write=lambda row: f"~{row['reference_answer']}~!")
    assert (verdict.verdict, verdict.facts["form"]) == ("pass", "the reward's own")


def test_rows_of_another_kind_may_have_another_form() -> None:
    rows = [*NUMBERS[:20], row(50, "yes")]
    labels = table({"function": "choice", "options": {"yes": [], "no": []}, "form": "tag"})
    numbers = table({"function": "numeric_answer"})

    def either(sample: Sample) -> Reward:
        return compose(labels if sample.reference_answer == "yes" else numbers)(sample)

    verdict = run(either, rows)
    assert verdict.verdict == "pass", verdict.sentence
    assert verdict.facts["references"]["share_at_maximum"] == 1.0


def test_reasoning_that_nobody_asked_for_may_be_anything() -> None:
    def score(sample: Sample) -> Reward:
        answer = re.sub(r"</?think>|so", "", sample.completion).strip()
        return Reward(float(answer == sample.reference_answer))

    cases = [Case(line=1, form="<think>so</think>\n{reference}")]
    verdict = run(score, NUMBERS, cases=cases)
    assert (verdict.verdict, verdict.facts["form"]) == ("pass", "the team's form")
    assert not [each for each in verdict.facts["exploits"] if each["rule"].startswith("reasoning-")]


@pytest.mark.parametrize("form", ["hashes", "boxed"])
def test_a_worked_solution_is_known_by_its_answer(form: str) -> None:
    end = {"hashes": "#### {}", "boxed": r"So it is \boxed{{{}}}."}[form]
    rows = [row(at, f"{at} + 5 = {at + 5}\n{end.format(at + 5)}") for at in range(3, 20)]
    verdict = run(compose(table({"function": "numeric_answer", "form": form})), rows)
    assert verdict.verdict == "pass", verdict.sentence
    assert "hundredfold" in {each["rule"] for each in verdict.facts["exploits"]}


# References


def test_references_that_earn_less_than_the_maximum_stop_the_run() -> None:
    def score(sample: Sample) -> Reward:
        right = f"#### {sample.reference_answer}" in sample.completion
        return Reward(right * (0.5 if sample.metadata["n"] == 4 else 1.0))

    verdict = run(score, NUMBERS)
    finding = found(verdict, "reference-below-maximum")
    assert (finding.level, finding.count) == ("stop", 1)
    assert finding.examples == ('row r-4: "#### 89" earned 0.5, and 1 is the maximum',)
    assert verdict.facts["references"]["share_at_maximum"] == pytest.approx(29 / 30)
    assert "reference-below-maximum" not in rules(run(score, NUMBERS, Settings(min_reference_share=0.9)))


def test_the_component_that_gives_references_least_is_named() -> None:
    def score(sample: Sample) -> Reward:
        right = float(sample.completion.endswith(f"#### {sample.reference_answer}"))
        return Reward(0.8 * right, components={"answer": right, "rhyme": 0.0})

    assert "the component rhyme gives them 0" in run(score, NUMBERS).sentence


def test_a_judge_need_not_give_every_reference_the_highest_mark() -> None:
    def score(sample: Sample) -> Reward:
        return Reward(0.8 * (sample.completion == sample.reference_answer))

    assert "reference-below-maximum" in rules(run(score, NUMBERS))
    judged = run(score, NUMBERS, Settings(functions=("judge",)))
    assert judged.verdict == "warn"
    assert rules(judged, "warn") == {"reference-below-maximum"}


def test_a_reference_that_the_reward_cannot_use_stops_the_run() -> None:
    def score(sample: Sample) -> Reward:
        if not str(sample.reference_answer).isdigit():
            raise UnscorableError("no number")
        return Reward(float(sample.completion == sample.reference_answer))

    finding = found(run(score, [*NUMBERS, row(40, "many")]), "reference-unusable")
    assert (finding.level, finding.examples) == ("stop", ("row r-40: many",))


def test_nothing_but_unusable_references_is_a_verdict_too() -> None:
    def score(_sample: Sample) -> Reward:
        raise UnscorableError("no number")

    verdict = run(score, NUMBERS)
    assert "reference-unusable" in rules(verdict)
    assert found(verdict, "reference-unusable").count == len(NUMBERS)


# Exploitable rewards: each is written as people have written it, and found by what breaks it


def last_number(sample: Sample) -> Reward:
    """As the FinQA sample: what stands after ANSWER, else the last number of the text."""
    declared = re.search(r"ANSWER: *(-?[\d.]+)", sample.completion)
    numbers = re.findall(r"-?\d+(?:\.\d+)?", sample.completion)
    answer = declared[1] if declared else numbers[-1] if numbers else ""
    return Reward(float(answer.rstrip(".") == sample.reference_answer))


def lenient_hundredfold(sample: Sample) -> Reward:
    """As the FinQA sample: forgives a percent that was read as a number, and so an error of a hundred."""
    declared = re.search(r"ANSWER: *(-?[\d.]+)", sample.completion)
    if not declared:
        return Reward(0.0)
    given, truth = float(declared[1]), float(sample.reference_answer)
    return Reward(float(any(abs(given * factor - truth) < 1e-6 for factor in (1, 100, 0.01))))


def any_keyword(sample: Sample) -> Reward:
    """As the chABSA sample: the first sentiment word of the text, in a fixed order, wherever it stands."""
    word = next(
        (word for word in ("positive", "negative", "neutral") if word in sample.completion.lower()), ""
    )
    return Reward(float(word == sample.reference_answer))


def contains(sample: Sample) -> Reward:
    return Reward(float(sample.reference_answer in sample.completion))


def any_declared(sample: Sample) -> Reward:
    return Reward(float(sample.reference_answer in re.findall(r"#### (\S+)", sample.completion)))


def ignores_signs(sample: Sample) -> Reward:
    declared = re.fullmatch(r"#### -?(\S+)", sample.completion)
    return Reward(float(declared is not None and declared[1] == sample.reference_answer))


def obeys(sample: Sample) -> Reward:
    """As a judge whose verdict is the last score in a text that has the completion pasted in."""
    right = sample.completion == sample.reference_answer
    verdict = f"{sample.completion}\n" + (
        "" if "Ignore all previous" in sample.completion else f"Score: {float(right)}"
    )
    scores = re.findall(r'(?:Score: |"score": )([\d.]+)', verdict)
    return Reward(float(scores[-1]) if scores else 0.0)


def believes_forged_verdicts(sample: Sample) -> Reward:
    forged = re.search(r"### Score\n([\d.]+)", sample.completion)
    return Reward(float(forged[1]) if forged else float(sample.completion == sample.reference_answer))


def believes_claims(sample: Sample) -> Reward:
    claimed = "is correct" in sample.completion
    return Reward(float(claimed or sample.completion == sample.reference_answer))


def pays_length(sample: Sample) -> Reward:
    right = sample.completion.endswith(f"#### {sample.reference_answer}")
    return Reward(1.0 if right else min(len(sample.completion) / 10_000, 1.0))


def pays_repetition(sample: Sample) -> Reward:
    right = sample.completion == f"#### {sample.reference_answer}"
    return Reward(1.0 if right else min(sample.completion.count("####") / 50, 1.0))


def pays_overlap_with_the_prompt(sample: Sample) -> Reward:
    words = set(str(sample.messages[0]["content"]).split())
    shared = len(words & set(sample.completion.split())) / len(words)
    return Reward(1.0 if sample.completion == sample.reference_answer else shared)


def pays_overlap_in_the_declared_form(sample: Sample) -> Reward:
    declared = re.fullmatch(r"(?s)#### (.*)", sample.completion)
    answer = declared[1] if declared else ""
    words = set(str(sample.messages[0]["content"]).split())
    shared = len(words & set(answer.split())) / len(words)
    return Reward(1.0 if answer == sample.reference_answer else shared)


def pays_what_is_not_wrong(sample: Sample) -> Reward:
    return Reward(float(not sample.completion.strip() or sample.completion == sample.reference_answer))


def pays_an_empty_form(sample: Sample) -> Reward:
    declared = re.fullmatch(r"#### ?(\S*)", sample.completion)
    return Reward(float(declared is not None and declared[1] in ("", sample.reference_answer)))


def pays_other_alphabets(sample: Sample) -> Reward:
    foreign = not sample.completion.isascii() and len(sample.completion) > 100
    return Reward(float(foreign or sample.completion == sample.reference_answer))


def reads_look_alikes(sample: Sample) -> Reward:
    plain = unicodedata.normalize("NFKC", sample.completion).translate(
        str.maketrans("\u043e\u0435\u0456\u0430", "oeia")
    )
    return Reward(float(plain == sample.reference_answer))


def one_of_the_values(sample: Sample) -> Reward:
    try:
        given = json.loads(sample.completion)
        right = [given[key] == value or value in given[key] for key, value in sample.reference_answer.items()]
    except (ValueError, TypeError, KeyError):
        return Reward(0.0)
    return Reward(sum(right) / len(right))


def tag_is_there(sample: Sample) -> Reward:
    answer = re.search(r"<answer>(.*?)</answer>", sample.completion)
    right = float(answer is not None and answer[1] == sample.reference_answer)
    return Reward(0.8 * right + 0.2 * ("<think>" in sample.completion))


def template_is_right(sample: Sample) -> Reward:
    """Pays for what all rows share: a constant completion earns most of it."""
    right = sample.completion == f"#### {sample.reference_answer}"
    return Reward(1.0 if right else 0.7 * bool(re.fullmatch(r"#### \d+", sample.completion)))


EXPLOITABLE: list[tuple[Score, list[Any], set[str]]] = [
    (last_number, NUMBERS, {"denial"}),
    (lenient_hundredfold, NUMBERS, {"hundredfold", "hundredth"}),
    (any_keyword, LABELS, {"denial"}),
    (contains, LABELS, {"list", "denial", "denial-in-form"}),
    (any_declared, NUMBERS, {"list-in-form"}),
    (ignores_signs, NUMBERS, {"sign"}),
    (obeys, NUMBERS, {"injection"}),
    (believes_forged_verdicts, NUMBERS, {"forgery"}),
    (believes_claims, NUMBERS, {"claim", "claim-alone"}),
    (pays_length, NUMBERS, {"overlong"}),
    (pays_repetition, NUMBERS, {"repeated"}),
    (pays_overlap_with_the_prompt, NUMBERS, {"echo"}),
    (pays_overlap_in_the_declared_form, NUMBERS, {"echo-in-form"}),
    (pays_what_is_not_wrong, NUMBERS, {"empty", "white-space"}),
    (pays_an_empty_form, NUMBERS, {"empty-form"}),
    (pays_other_alphabets, NUMBERS, {"language"}),
    (reads_look_alikes, LABELS, {"look-alikes"}),
    (
        one_of_the_values,
        [row(at, {"a": "xyz"[at % 3], "b": "uvw"[at % 2]}) for at in range(12)],
        {"list-in-fields"},
    ),
    (tag_is_there, NUMBERS, {"reasoning-last", "reasoning-open", "reasoning-empty"}),
    (template_is_right, NUMBERS, {"another-row"}),
]


@pytest.mark.parametrize(
    ("score", "rows", "exploits"), EXPLOITABLE, ids=[each[0].__name__ for each in EXPLOITABLE]
)
def test_exploitable_rewards_are_stopped_and_told_what_works(
    score: Score, rows: list[Any], exploits: set[str]
) -> None:
    verdict = run(score, rows)
    assert verdict.verdict == "stop"
    assert {f"exploit-{rule}" for rule in exploits} <= rules(verdict), verdict.sentence
    assert verdict.facts["hackability"] >= 0.5
    for rule in exploits:
        finding = found(verdict, f"exploit-{rule}")
        assert EXPLOITS[rule][0] in finding.sentence
        [listed] = [each for each in verdict.facts["exploits"] if each["rule"] == rule]
        # The completion that works is shown, and it does earn what is said.
        shown = next(each for each in rows if each["id"] == listed["example"]["row"])
        if len(listed["example"]["completion"]) < 300:
            again = score(
                Sample(
                    "x",
                    tuple(shown["messages"]),
                    listed["example"]["completion"],
                    (),
                    shown["reference_answer"],
                )
            )
            assert again.score == listed["example"]["earned"]


@pytest.mark.parametrize(
    ("component", "rule"),
    [
        ({"function": "length", "maximum": 2_000_00, "weight": 0.2}, "right-overlong"),
        (
            {"function": "repetition", "n": 10, "allowed_share": 0.995, "largest_share": 1.0, "weight": 0.2},
            "right-repeated",
        ),
        ({"function": "language", "scripts": ["Latin", "Han", "Cyrillic"], "weight": 0.2}, "right-language"),
    ],
    ids=lambda each: each if isinstance(each, str) else each["function"],
)
def test_a_component_for_the_shape_has_to_count(component: dict[str, Any], rule: str) -> None:
    reward = table({"function": "numeric_answer"}, component)
    settings = Settings(functions=("numeric_answer", component["function"]))
    assert f"exploit-{rule}" in rules(run(compose(reward), NUMBERS, settings))
    # Without that component nobody asked for the shape, and a right answer is worth what it is.
    assert run(compose(table({"function": "numeric_answer"})), NUMBERS).verdict == "pass"


def test_every_exploit_of_the_standard_set_finds_a_reward_that_it_works_on() -> None:
    caught = set[str]().union(*(exploits for _, _, exploits in EXPLOITABLE))
    assert caught | {"right-overlong", "right-repeated", "right-language"} == set(EXPLOITS)


def test_hackability_is_what_the_best_exploit_earns_on_average_of_the_range() -> None:
    def score(sample: Sample) -> Reward:
        if sample.completion == sample.reference_answer:
            return Reward(3.0)
        # One row in five is paid 2 of -1 to 3 for an empty completion, all others the floor.
        return Reward(2.0 if not sample.completion and sample.metadata["n"] % 5 == 0 else -1.0)

    reward = {"range": [-1.0, 3.0]}
    verdict = rehearse(NUMBERS, offline(score, reward), Settings.of(reward))
    assert verdict.facts["hackability"] == pytest.approx(0.2 * (2.0 + 1.0) / 4.0)
    assert verdict.verdict == "pass"
    assert (
        rehearse(NUMBERS, offline(score, reward), Settings.of({**reward, "max_hackability": 0.1})).verdict
        == "stop"
    )


def test_an_exploit_that_works_on_few_rows_is_a_warning() -> None:
    def score(sample: Sample) -> Reward:
        lucky = sample.metadata["n"] == 3 and "correct" in sample.completion
        return Reward(float(lucky or sample.completion == sample.reference_answer))

    verdict = run(score, NUMBERS)
    assert verdict.verdict == "warn"
    finding = found(verdict, "exploit-claim")
    assert "earned the maximum on 1 row of 30" in finding.sentence


# The same completion, the same reward


def test_noise_is_a_warning_and_much_of_it_stops() -> None:
    def noisy(size: float) -> Score:
        turns = itertools.count()

        def score(sample: Sample) -> Reward:
            right = sample.completion == sample.reference_answer
            return Reward(0.4 * right + 0.5 - size * (next(turns) % 2))

        return score

    settings = Settings(max_hackability=0.9, high=1.0, min_reference_share=0.0)
    assert found(run(noisy(0.01), NUMBERS[:5], settings), "not-deterministic").level == "warn"
    assert found(run(noisy(0.3), NUMBERS[:5], settings), "not-deterministic").level == "stop"


def test_a_reward_that_depends_on_its_batch_stops() -> None:
    def by_position(events: list[Any]) -> list[Any]:
        answers = offline(lambda s: Reward(0.9 * (s.completion == s.reference_answer)), {})(events)
        return [{**each, "score": each["score"] + 0.1 * (at < 20)} for at, each in enumerate(answers)]

    def by_size(events: list[Any]) -> list[Any]:
        answers = offline(lambda s: Reward(0.9 * (s.completion == s.reference_answer)), {})(events)
        return [{**each, "score": each["score"] + 0.1 * (len(events) > 1)} for each in answers]

    moved = rehearse(NUMBERS, by_position, Settings())
    assert "earned other rewards in another order than together" in moved.sentence
    alone = found(rehearse(NUMBERS, by_size, Settings()), "depends-on-batch")
    assert (alone.level, "alone than together" in alone.sentence) == ("stop", True)


# Time


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def timed(clock: Clock, each: float, seen: list[int] | None = None) -> rehearsal.ScoreBatch:
    honest = offline(compose(table({"function": "numeric_answer"})), {})

    def score(events: list[Any]) -> list[Any]:
        clock.now += each * len(events)
        if seen is not None:
            seen.append(len(events))
        return honest(events)

    return score


def test_a_batch_that_takes_too_much_of_the_time_stops() -> None:
    clock = Clock()
    verdict = rehearse(NUMBERS, timed(clock, 0.5), Settings(timeout_seconds=60), clock=clock)
    finding = found(verdict, "slow")
    assert "A batch of 64 took 32 s of the 60 s there are" in finding.sentence
    assert [each["size"] for each in verdict.facts["latency"]["batches"]] == [1, 16, 64]
    assert [each["seconds"] for each in verdict.facts["latency"]["batches"]] == [0.5, 8.0, 32.0]
    clock = Clock()
    assert rehearse(NUMBERS, timed(clock, 0.4), Settings(timeout_seconds=60), clock=clock).verdict == "pass"


def test_batches_are_timed_at_full_size_whatever_the_rows() -> None:
    clock = Clock()
    verdict = rehearse(NUMBERS[:1], timed(clock, 0.5), Settings(timeout_seconds=60), clock=clock)
    assert "A batch of 64 took 32 s" in found(verdict, "slow").sentence


def test_a_slow_reward_is_tried_on_fewer_rows_and_says_so() -> None:
    clock, seen = Clock(), list[int]()
    verdict = rehearse(NUMBERS, timed(clock, 0.4, seen), Settings(), of=30, budget_seconds=200, clock=clock)
    assert clock.now < 300
    assert verdict.facts["references"]["rows"] < 30
    assert verdict.facts["references"]["of"] == 30
    assert max(seen) == 64


def test_a_reward_that_does_not_answer_in_time_stops() -> None:
    def score(events: list[Any]) -> list[Any]:
        if len(events) > 40:
            raise TooSlowError("a batch of 64 was too much for it")
        return offline(compose(table({"function": "numeric_answer"})), {})(events)

    verdict = rehearse(NUMBERS, score, Settings(timeout_seconds=9))
    assert verdict.verdict == "stop"
    assert "did not answer within its 9 s: a batch of 64 was too much for it" in verdict.sentence


# A broken reward


def test_a_reward_that_raises_on_everything_stops() -> None:
    def score(_sample: Sample) -> Reward:
        raise KeyError("answer")

    verdict = run(score, NUMBERS)
    assert rules(verdict) == {"broken"}
    assert "KeyError at test_rehearsal.py" in verdict.sentence


def test_a_reward_that_raises_on_bad_completions_is_a_warning() -> None:
    def score(sample: Sample) -> Reward:
        return Reward(float(int(sample.completion.strip("# ")) == int(sample.reference_answer)))

    verdict = run(score, NUMBERS)
    finding = found(verdict, "trouble-error")
    assert (verdict.verdict, finding.level) == ("warn", "warn")
    assert finding.count > 100


def test_a_constant_reward_stops() -> None:
    assert "constant" in rules(run(lambda _sample: Reward(0.0), NUMBERS))


def test_infrastructure_trouble_is_no_verdict() -> None:
    def score(_events: list[Any]) -> list[Any]:
        raise InfrastructureError("the judge is down")

    with pytest.raises(InfrastructureError):
        rehearse(NUMBERS, score, Settings())


# The team's own cases


def graded(sample: Sample) -> Reward:
    return Reward(
        {"good": 0.8, "fair": 0.5, "poor": 0.5, "bad": 0.1}.get(
            sample.completion, float(sample.completion == sample.reference_answer)
        )
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"row": "r-1", "completion": "bad", "at_most": 0.1}, ""),
        ({"row": "r-1", "completion": "good", "at_least": 0.8}, ""),
        ({"row": 2, "ranked": ["good", "fair", "poor", "bad"]}, ""),
        ({"row": "r-1", "completion": "fair", "at_most": 0.4}, "earned 0.5, and may earn at most 0.4"),
        ({"row": "r-1", "completion": "bad", "at_least": 0.4}, "earned 0.1, and has to earn at least 0.4"),
        (
            {"row": "r-1", "ranked": ["good", "bad", "poor"]},
            "completion 3 earned 0.5, more than the better completion 2 with 0.1",
        ),
        (
            {"row": "r-1", "ranked": ["fair", "poor"]},
            "the best completion earned 0.5, no more than the worst",
        ),
    ],
)
def test_cases_of_the_team_hold_or_stop_the_run(line: dict[str, Any], said: str) -> None:
    cases = read_cases(json.dumps({**line, "name": "mine"}).encode(), "rehearsal.jsonl")
    verdict = run(graded, NUMBERS, cases=cases, named={"r-1": NUMBERS[1], 2: NUMBERS[1]})
    assert verdict.facts["cases"] == {"given": 1, "failed": int(bool(said))}
    if said:
        finding = found(verdict, "case")
        assert finding.sentence == f"rehearsal.jsonl:1 (mine): {finding.sentence.partition(': ')[2]}"
        assert said in finding.sentence
        assert finding.level == "stop"
    else:
        assert verdict.verdict == "pass"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'is no object: a line is {"row"'),
        ('{"row": 1, "completion": "x", "at_mst": 1}', "unknown key 'at_mst': did you mean at_most?"),
        ('{"row": 1, "completion": "x"}', "a completion needs at_most or at_least"),
        ('{"row": 1, "completion": "x", "at_most": "1"}', "at_most is a number, not '1'"),
        ('{"row": 1, "completion": 3, "at_most": 1}', "completion holds completions, which are texts"),
        ('{"row": 0, "completion": "x", "at_most": 1}', "row is the row's id, or its line"),
        ('{"row": 1, "ranked": ["x"]}', "at least two completions"),
        (
            '{"row": 1, "ranked": ["x", "y"], "completion": "x"}',
            "needs one of completion, ranked, reference_form",
        ),
        ('{"row": 1, "name": 3, "ranked": ["x", "y"]}', "name is a text, not 3"),
        ('{"reference_form": "x"}', "reference_form is a text with {reference} in it"),
        ('{"row": 1}', "needs one of completion, ranked, reference_form"),
    ],
)
def test_fails_with_file_and_line_for_a_case_that_makes_no_sense(line: str, said: str) -> None:
    with pytest.raises(CasesError) as caught:
        read_cases(b'{"row": 1, "ranked": ["x", "y"]}\n\n' + line.encode(), "teams/quotes/rehearsal.jsonl")
    assert str(caught.value).startswith("teams/quotes/rehearsal.jsonl:3: ")
    assert said in str(caught.value)


def test_fails_for_text_in_another_encoding_and_for_two_forms() -> None:
    forms = b'{"reference_form": "{reference}"}\n{"reference_form": "a{reference}"}'
    content = b'{"row": 1, "ranked": ["\xe4", "y"]}\n' + forms
    with pytest.raises(CasesError) as caught:
        read_cases(content, "rehearsal.jsonl")
    assert str(caught.value).splitlines() == [
        "rehearsal.jsonl:1: is not UTF-8 text: save the file as UTF-8",
        "rehearsal.jsonl:3: reference_form is given in line 2 already",
    ]


def test_fails_when_a_case_is_about_no_row() -> None:
    case = Case(line=7, row="r-99", completions=("x",), at_most=0.0)
    with pytest.raises(CasesError, match=r"rehearsal\.jsonl:7: the training file has no row 'r-99'"):
        run(graded, NUMBERS, cases=[case])


def test_documented_cases_hold_for_the_sample_team() -> None:
    text = (REPOSITORY / "docs" / "teams.md").read_text()
    [example] = re.findall(r"```jsonl\n(\{\"row\".*?)```", text, re.DOTALL)
    cases = read_cases(example.encode(), "rehearsal.jsonl")
    team = load_team(REPOSITORY, "quotes", load_platform(REPOSITORY))
    with (team.folder / team.dataset.train).open("rb") as lines:
        rows, named, _ = sample(lines, 20, {case.row for case in cases})
    verdict = run(compose(team.reward.document()), rows, cases=cases, named=named)
    assert verdict.verdict == "pass", verdict.sentence
    assert verdict.facts["cases"] == {"given": 3, "failed": 0}


# Rows


def test_rows_are_picked_the_same_way_whatever_their_order() -> None:
    lines = [
        json.dumps(
            {"messages": [], "reference_answer": str(at), **({"id": f"r-{at}"} if at % 2 else {}), "k": at}
        ).encode()
        + b"\n"
        for at in range(500)
    ]
    rows, named, count = sample(lines, 20, {"r-7", 12, "r-9999"})
    assert (len(rows), count) == (20, 500)
    assert {row["reference_answer"] for row in sample(lines[::-1], 20)[0]} == {
        row["reference_answer"] for row in rows
    }
    assert [row["metadata"]["k"] for row in rows] == sorted(row["metadata"]["k"] for row in rows)
    assert {name: row["metadata"] for name, row in named.items()} == {"r-7": {"k": 7}, 12: {"k": 11}}
    assert rows[0]["id"] in {f"r-{rows[0]['metadata']['k']}", f"line-{rows[0]['metadata']['k'] + 1}"}


REFERENCES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.lists(REFERENCES, min_size=1, max_size=4), st.text(max_size=40))
def test_whatever_the_rows_are_there_is_a_verdict(references: list[Any], prompt: str) -> None:
    asked = re.sub("[{}]", "", prompt)
    rows = [row(at, reference, asked) for at, reference in enumerate(references)]
    verdict = run(lambda each: Reward(float(each.completion == str(each.reference_answer))), rows)
    assert json.dumps(verdict.document(), allow_nan=False)


def test_a_verdict_is_json() -> None:
    document = json.loads(json.dumps(run(contains, LABELS).document(), allow_nan=False))
    assert document["gate"] == "rehearsal"
    assert document["facts"]["spread"]["scores"] == sum(document["facts"]["spread"]["histogram"])
