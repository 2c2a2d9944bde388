"""The reward contract: every documented event in, a well-formed response out, trouble sorted by its kind."""

import json
import math
import random
import re
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import (
    TROUBLES,
    BrokenRewardError,
    ContractError,
    InfrastructureError,
    Reward,
    Sample,
    UnscorableError,
    parse_event,
    respond,
    reward_handler,
    score_samples,
)
from tests.unit.events import items, json_values

PROMPT = {"role": "user", "content": "What is 6 times 12?"}


def answered(text, role="assistant"):
    return [PROMPT, {"role": role, "content": text}]


def length(sample):
    """A reward function that cannot fail: the share of 10 characters."""
    return Reward(min(len(sample.completion), 10) / 10, components={"length": 1.0}, metrics={"seen": 1.0})


def strict(sample):
    """A reward function with every kind of trouble in it, chosen by the completion."""
    if sample.reference_answer is None:
        raise UnscorableError("the row has no reference answer")
    if sample.completion == "crash":
        raise KeyError("secret text of the model")
    if sample.completion == "judge down":
        raise InfrastructureError("the judge did not answer")
    return Reward(1.0 if sample.completion == str(sample.reference_answer) else 0.25)


def item(identity, completion="72", reference="72"):
    return {"id": identity, "messages": answered(completion), "metadata": {"reference_answer": reference}}


def troubles(response):
    return {
        metric["name"]: metric["value"] for metric in response["metrics_list"] if metric["name"] in TROUBLES
    }


class Context:
    def __init__(self, milliseconds):
        self.milliseconds = iter(milliseconds)

    def get_remaining_time_in_millis(self):
        return next(self.milliseconds)


# Where the reference stands, how it is wrapped, who speaks and how the content is written: field.md A5.
VARIANTS = {
    "Bedrock, Nova": [
        {"id": "a", "messages": answered("72"), "metadata": {"reference_answer": "72", "level": 3}}
    ],
    "reference at the top": [
        {"id": "a", "messages": answered("72"), "reference_answer": "72", "metadata": {"level": 3}}
    ],
    "everything at the top": [{"id": "a", "messages": answered("72"), "reference_answer": "72", "level": 3}],
    "wrapped string": [
        {"id": "a", "messages": answered("72"), "reference_answer": {"text": "72"}, "level": 3}
    ],
    "wrapped string in metadata": [
        {"id": "a", "messages": answered("72"), "metadata": {"reference_answer": {"text": "72"}, "level": 3}}
    ],
    "trajectories": {
        "trajectories": [
            {"id": "a", "messages": answered("72"), "reference_answer": {"text": "72"}, "level": 3}
        ]
    },
    "nova_assistant": [
        {
            "id": "a",
            "messages": answered("72", "nova_assistant"),
            "metadata": {"reference_answer": "72", "level": 3},
        }
    ],
    "parts": [
        {
            "id": "a",
            "messages": answered([{"type": "text", "text": "7"}, {"type": "text", "text": "2"}]),
            "metadata": {"reference_answer": "72", "level": 3},
        }
    ],
    "parts of other kinds": [
        {
            "id": "a",
            "messages": answered([{"type": "reasoning", "reasoning": "6 * 12"}, {"text": "72"}]),
            "metadata": {"reference_answer": "72", "level": 3},
        }
    ],
    "task_id": [
        {"task_id": "a", "messages": answered("72"), "metadata": {"reference_answer": "72", "level": 3}}
    ],
    "my_key": [
        {"my_key": "a", "messages": answered("72"), "metadata": {"reference_answer": "72", "level": 3}}
    ],
    "null at one place": [
        {
            "id": "a",
            "messages": answered("72"),
            "reference_answer": "72",
            "metadata": {"reference_answer": None, "level": 3},
        }
    ],
}


@pytest.mark.parametrize("event", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_documented_event_reads_as_the_same_sample(event):
    (sample,) = parse_event(event)
    assert (sample.id, sample.completion, sample.reference_answer) == ("a", "72", "72")
    assert sample.messages == (PROMPT,)
    assert sample.metadata["level"] == 3
    assert "reference_answer" not in sample.metadata
    assert sample.unreadable == ""
    (response,) = reward_handler(strict)(event, None)
    assert (response["id"], response["aggregate_reward_score"]) == ("a", 1.0)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"text": "x"}, "x"),
        ({"text": "x", "language": "en"}, {"text": "x", "language": "en"}),
        ({"text": {"a": 1}}, {"text": {"a": 1}}),
        ({"text": None}, {"text": None}),
        ({"answer": "x"}, {"answer": "x"}),
        ("x", "x"),
        (7, 7),
        ([1], [1]),
        (None, None),
    ],
)
def test_only_a_lone_text_is_unwrapped(reference, expected):
    (sample,) = parse_event([{"messages": answered("72"), "metadata": {"reference_answer": reference}}])
    assert sample.reference_answer == expected


def test_metadata_comes_before_the_top_level():
    event = [
        {"messages": answered("1"), "reference_answer": "top", "kind": "top", "metadata": {"kind": "inner"}}
    ]
    event[0]["metadata"]["reference_answer"] = "inner"
    (sample,) = parse_event(event)
    assert (sample.reference_answer, sample.metadata["kind"]) == ("inner", "inner")


def test_tool_calls_are_kept_and_may_stand_alone():
    call = {"type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, "nonsense"]}
    (sample,) = parse_event([{"id": "a", "messages": [PROMPT, message]}])
    assert (sample.completion, sample.tool_calls, sample.unreadable) == ("", (call,), "")


@pytest.mark.parametrize(
    ("broken", "identity", "says"),
    [
        (None, "1", "not an object"),
        ("text", "1", "not an object"),
        ([], "1", "not an object"),
        ({}, "1", "no messages"),
        ({"id": "zz"}, "zz", "no messages"),
        ({"id": "zz", "messages": "text"}, "zz", "no messages"),
        ({"id": "zz", "messages": ["text"]}, "zz", "message of the item is not an object"),
        ({"id": "zz", "messages": [PROMPT]}, "zz", "role 'user'"),
        ({"id": "zz", "messages": [{"role": ["assistant"]}]}, "zz", "role list"),
        ({"id": "zz", "messages": answered(72)}, "zz", "int"),
        ({"id": "zz", "messages": answered([{"text": {}}])}, "zz", "dict"),
        ({"id": "zz", "messages": answered("72")}, "zz", "no reference answer"),
        ({"id": "zz", "messages": answered("72"), "metadata": "text"}, "zz", "no reference answer"),
    ],
)
def test_a_bad_row_gets_the_floor_and_hurts_no_neighbour(broken, identity, says):
    handler = reward_handler(strict, floor=-1.0)
    first, middle, last = handler([item("a"), broken, item("b", "71")], None)
    assert (first["id"], first["aggregate_reward_score"]) == ("a", 1.0)
    assert (last["id"], last["aggregate_reward_score"]) == ("b", 0.25)
    assert (middle["id"], middle["aggregate_reward_score"]) == (identity, -1.0)
    assert troubles(middle) == {"unscorable": 1.0, "error": 0.0, "over_time": 0.0, "over_length": 0.0}
    assert troubles(first) == dict.fromkeys(TROUBLES, 0.0)
    (outcome,) = score_samples(strict, parse_event([broken]))
    assert says in outcome.reward.reason


@pytest.mark.parametrize(
    ("found", "echoed"),
    [
        ({"id": "a", "task_id": "b"}, "a"),
        ({"id": ""}, ""),
        ({"id": 7}, 7),
        ({"id": None, "task_id": "b", "my_key": "c"}, "b"),
        ({"my_key": "c"}, "c"),
        ({"metadata": {"id": "m"}}, "m"),
        ({"id": True}, "0"),
        ({"id": ["a"]}, "0"),
        ({"id": 10**5000}, "0"),
        ({}, "0"),
    ],
)
def test_the_id_is_echoed_and_invented_only_where_there_is_none(found, echoed):
    (response,) = reward_handler(length)([{"messages": answered("72"), **found}], None)
    assert response["id"] == echoed
    assert type(response["id"]) is type(echoed)


def test_half_a_surrogate_pair_in_an_id_cannot_fail_the_batch():
    response = reward_handler(length)([item("a\ud800"), item("b")], None)
    assert [entry["id"] for entry in response] == ["a?", "b"]
    json.dumps(response, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    "event", [None, "text", 7, {}, {"messages": answered("72")}, {"trajectories": {}}, {"body": "[]"}]
)
def test_an_event_that_is_no_batch_is_refused_with_what_is_expected(event):
    with pytest.raises(ContractError, match="expects a JSON array of samples") as raised:
        reward_handler(length)(event, None)
    assert "metadata" in str(raised.value)


def test_an_empty_batch_is_answered_with_nothing():
    assert reward_handler(length)([], None) == []


def test_one_sample_that_breaks_the_reward_function_costs_only_itself(capsys):
    handler = reward_handler(strict, environment="rft-quotes-dev")
    first, broken = handler([item("a"), item("b", "crash")], None)
    assert first["aggregate_reward_score"] == 1.0
    assert broken["aggregate_reward_score"] == 0.0
    assert troubles(broken)["error"] == 1.0
    printed = capsys.readouterr().out
    (line, summary) = map(json.loads, printed.splitlines())
    assert (line["id"], line["message"]) == ("b", "error")
    assert re.fullmatch(r"KeyError at test_contract\.py:\d+", line["error"])
    assert "secret" not in printed
    assert summary["error_share"] == 0.5


def test_a_reward_function_that_fails_on_every_sample_fails_the_invocation():
    batch = [item("a", "crash"), item("b", "crash"), item("c", reference=None)]
    with pytest.raises(
        BrokenRewardError, match=r"every one of 2 samples; the first: KeyError at test_contract"
    ):
        reward_handler(strict)(batch, None)


def test_a_batch_of_bad_rows_alone_is_no_broken_reward_function():
    response = reward_handler(strict)([item("a", reference=None), {}], None)
    assert [troubles(entry)["unscorable"] for entry in response] == [1.0, 1.0]


def test_infrastructure_trouble_never_becomes_a_number():
    with pytest.raises(InfrastructureError, match="judge did not answer"):
        reward_handler(strict)([item("a"), item("b", "judge down")], None)


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (0.5, TypeError),
        (None, TypeError),
        (Reward(math.nan), ValueError),
        (Reward(-math.inf), ValueError),
        (Reward(1e200), ValueError),
        (Reward("0.5"), TypeError),
        (Reward(0.5, components={"a": math.nan}), ValueError),
        (Reward(0.5, metrics={"a": "1"}), TypeError),
        (Reward(0.5, components={"a": 1.0}, metrics={"a": 1.0}), ValueError),
        (Reward(0.5, metrics={"error": 1.0}), ValueError),
        (Reward(0.5, metrics={"": 1.0}), TypeError),
    ],
)
def test_a_reward_that_breaks_its_promise_is_an_error(returned, kind):
    good = Sample("a", (), "good")
    outcomes = score_samples(
        lambda sample: Reward(1.0) if sample is good else returned, [good, Sample("b", (), "x")]
    )
    assert isinstance(outcomes[1].error, kind)
    assert outcomes[1].reward.score == 0.0


def test_numbers_of_other_kinds_are_made_plain_floats():
    given_reward = Reward(Decimal("0.5"), components={"a": True}, metrics={"b": 2})
    (outcome,) = score_samples(lambda _: given_reward, [Sample("a", (), "")])
    (response,) = respond(["a"], [outcome.reward])
    assert response["aggregate_reward_score"] == 0.5
    assert {type(metric["value"]) for metric in response["metrics_list"]} == {float}


def test_components_are_rewards_and_everything_else_is_a_metric():
    (response,) = reward_handler(length)([item("a")], None)
    kinds = {metric["name"]: metric["type"] for metric in response["metrics_list"]}
    assert kinds == {"length": "Reward", "seen": "Metric", **dict.fromkeys(TROUBLES, "Metric")}


def test_a_response_has_one_reward_for_each_id():
    with pytest.raises(ValueError, match="shorter"):
        respond(["a", "b"], [Reward(1.0)])


def test_an_overlong_completion_is_not_scored_at_all():
    handler = reward_handler(length, completion_limit=5)
    inside, outside = handler([item("a", "x" * 5), item("b", "x" * 6)], None)
    assert (inside["aggregate_reward_score"], troubles(inside)["over_length"]) == (0.5, 0.0)
    assert (outside["aggregate_reward_score"], troubles(outside)["over_length"]) == (0.0, 1.0)


def spin(sample):
    while sample.completion == "slow":
        pass
    return Reward(1.0)


def stubborn(sample):
    """Catches everything a reward function may decently catch, and keeps computing."""
    while sample.completion == "slow":
        try:
            spin(sample)
        except Exception:
            continue
    return Reward(1.0)


def swallow(sample):
    """Catches even what it must not, twice, and ends by itself after two seconds."""
    caught, until = 0, time.thread_time() + 2.0
    while sample.completion == "slow" and time.thread_time() < until:
        try:
            while time.thread_time() < until:
                pass
        except BaseException:
            caught += 1
            if caught > 2:
                raise
    return Reward(1.0)


def backtrack(sample):
    return Reward(
        float(bool(re.match(r"(a+)+$", "a" * (64 if sample.completion == "slow" else 4) + "b"))) + 1.0
    )


@pytest.mark.parametrize("score", [spin, stubborn, swallow, backtrack])
def test_a_score_that_computes_too_long_is_stopped(score):
    batch = [item("a", "quick"), item("b", "slow"), item("c", "quick")]
    started = time.thread_time()
    response = reward_handler(score, seconds_per_sample=0.1)(batch, None)
    assert time.thread_time() - started < 1.5
    assert [entry["aggregate_reward_score"] for entry in response] == [1.0, 0.0, 1.0]
    assert troubles(response[1])["over_time"] == 1.0


def test_outside_the_main_thread_the_time_limit_is_measured():
    def busy(sample):
        until = time.thread_time() + (0.2 if sample.completion == "slow" else 0.0)
        while time.thread_time() < until:
            pass
        return Reward(1.0)

    responses = []
    handler = reward_handler(busy, seconds_per_sample=0.1)
    thread = threading.Thread(target=lambda: responses.extend(handler([item("a"), item("b", "slow")], None)))
    thread.start()
    thread.join()
    assert [entry["aggregate_reward_score"] for entry in responses] == [1.0, 0.0]
    assert troubles(responses[1])["over_time"] == 1.0


def test_waiting_costs_no_points():
    def waiting(_sample):
        time.sleep(0.1)
        return Reward(1.0)

    (response,) = reward_handler(waiting, seconds_per_sample=0.05)([item("a")], None)
    assert response["aggregate_reward_score"] == 1.0


def test_a_batch_that_cannot_end_in_time_fails_and_says_what_to_change():
    handler = reward_handler(length)
    assert len(handler([item("a"), item("b")], Context([60_000, 30_000]))) == 2
    with pytest.raises(InfrastructureError, match=r"1 of 3 samples.*timeout_seconds") as raised:
        handler([item("a"), item("b"), item("c")], Context([60_000, 400]))
    assert "memory_mb" in str(raised.value)


def test_the_metric_line_says_what_the_response_says(capsys):
    handler = reward_handler(strict, environment="rft-quotes-dev")
    batch = [item("a"), item("b", "71"), item("c", "crash"), item("d", reference=None)]
    response = handler(batch, None)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    scores = [entry["aggregate_reward_score"] for entry in response]
    mean = sum(scores) / 4
    assert line["Environment"] == "rft-quotes-dev"
    assert line["samples"] == 4
    assert line["reward_mean"] == pytest.approx(mean)
    assert line["reward_std"] == pytest.approx(math.sqrt(sum((score - mean) ** 2 for score in scores) / 4))
    assert (line["zero_share"], line["unscorable_share"], line["error_share"]) == (0.5, 0.25, 0.25)
    assert line["completion_length"] == (2 + 2 + 5 + 2) / 4
    assert 0 < line["seconds_per_sample"] <= line["seconds"]
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("RFT", [["Environment"]])
    for metric in directive["Metrics"]:
        assert isinstance(line[metric["Name"]], (int, float))
    assert abs(line["_aws"]["Timestamp"] / 1000 - time.time()) < 60


def test_the_metric_line_carries_the_means_of_components(capsys):
    reward_handler(length, environment="x")([item("a", "xx"), item("b", "xxxx")], None)
    line = json.loads(capsys.readouterr().out)
    assert line["component_length"] == 1.0
    assert line["metrics"]["seen"] == 1.0
    assert "component_length" in {
        metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    }


def test_nothing_is_printed_without_an_environment(capsys):
    reward_handler(length, log_sampling_rate=1.0)([item("a")], None)
    assert capsys.readouterr().out == ""


def logged(capsys, **how):
    handler = reward_handler(length, environment="x", **how)
    handler([item(f"sample-{number}", "a name and an address") for number in range(200)], None)
    return capsys.readouterr().out


def test_samples_are_logged_by_their_id_at_the_rate_asked_for(capsys):
    lines = [json.loads(line) for line in logged(capsys, log_sampling_rate=0.25).splitlines()]
    chosen = [line["id"] for line in lines if "id" in line]
    assert 25 < len(chosen) < 75
    assert [
        line["id"] for line in map(json.loads, logged(capsys, log_sampling_rate=0.25).splitlines()[:-1])
    ] == chosen
    assert len(logged(capsys, log_sampling_rate=1.0).splitlines()) == 201
    assert len(logged(capsys, log_sampling_rate=0.0).splitlines()) == 1


def test_completions_stay_out_of_the_log_unless_asked_for(capsys):
    assert "address" not in logged(capsys, log_sampling_rate=1.0)
    assert "address" in logged(capsys, log_sampling_rate=1.0, log_completions=True)


def test_troubled_samples_are_logged_but_cannot_flood_the_log(capsys):
    handler = reward_handler(strict, environment="x")
    handler([item(f"bad-{number}", reference=None) for number in range(100)], None)
    *lines, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(lines) == 10
    assert {line["reason"] for line in lines} == {"the row has no reference answer"}


def test_huge_numbers_cannot_break_the_summary(capsys):
    reward_handler(lambda _: Reward(9e99, metrics={"m": -9e99}), environment="x")(
        [item(n) for n in "abcd"], None
    )
    assert json.loads(capsys.readouterr().out)["reward_mean"] == 9e99


def tolerant(sample):
    """Deterministic, and never in error: what is tested is the contract."""
    if sample.reference_answer is None:
        raise UnscorableError("no reference")
    return Reward(len(sample.completion) % 7 / 7, metrics={"prompt": float(len(sample.messages))})


@settings(max_examples=300)
@given(st.lists(items, max_size=6), st.booleans(), st.randoms(use_true_random=False))
def test_any_json_event_gets_a_well_formed_response(batch, wrapped, rng):
    handler = reward_handler(tolerant)
    response = handler({"trajectories": batch} if wrapped else batch, None)
    assert len(response) == len(batch)
    for position, (entry, sent) in enumerate(zip(response, batch, strict=True)):
        assert set(entry) == {"id", "aggregate_reward_score", "metrics_list"}
        assert math.isfinite(entry["aggregate_reward_score"])
        assert all(math.isfinite(metric["value"]) for metric in entry["metrics_list"])
        if isinstance(sent, dict) and isinstance(sent.get("id"), str):
            assert entry["id"] == sent["id"].encode("utf-8", "replace").decode()
        # Alone or in a batch, now or later, here or at another place: only an invented id knows its position.
        (alone,) = handler([sent], None)
        assert {**alone, "id": None} == {**entry, "id": None}
        assert alone["id"] in {entry["id"], "0"} or entry["id"] == str(position)
    json.dumps(response, ensure_ascii=False, allow_nan=False).encode("utf-8")
    order = list(range(len(batch)))
    rng.shuffle(order)
    shuffled = handler([batch[index] for index in order], None)
    for index, entry in zip(order, shuffled, strict=True):
        assert {**entry, "id": None} == {**response[index], "id": None}


@settings(max_examples=100)
@given(json_values)
def test_any_other_json_is_refused_in_words(event):
    batch = event.get("trajectories") if isinstance(event, dict) else event
    if isinstance(batch, list):
        assert len(reward_handler(tolerant)(event, None)) == len(batch)
    else:
        with pytest.raises(ContractError, match="expects a JSON array"):
            reward_handler(tolerant)(event, None)


def test_a_deep_item_is_answered_like_any_other():
    deep = leaf = []
    for _ in range(5_000):
        leaf.append([])
        leaf = leaf[0]
    event = [
        {"id": "a", "messages": answered("x" * random.Random(1).randint(1, 9)), "metadata": {"extra": deep}},
        {"id": "b", "messages": deep, "metadata": {"reference_answer": deep}},
        deep,
    ]
    assert [entry["id"] for entry in reward_handler(tolerant)(event, None)] == ["a", "b", "2"]
