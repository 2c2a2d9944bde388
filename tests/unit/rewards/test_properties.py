"""What every reward of the library holds to, whatever it is sent; the folder says which ones there are.

Any JSON event gets a well-formed response with the ids in order; scores are finite, the same every time, and
the same alone or in any batch; and no completion and no reference makes a reward fail, hang or cost more
than the time a sample has.
"""

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lambdas.rewards
from lambdas.composition import compose
from lambdas.contract import parse_event, reward_handler, score_samples
from lambdas.rewards import judge as judge_module
from tests.unit.events import items, json_values
from tests.unit.rewards.test_judge import Endpoint, asked_for, text_of, verdict

REWARDS = sorted(path.stem for path in Path(lambdas.rewards.__file__).parent.glob("[!_]*.py"))

# What a reward cannot do without; every other one is taken with its defaults.
PARAMETERS = {
    "choice": {"options": {"A": [], "B": ["72"]}},
    "format": {"tags": ["think", "answer"]},
    "judge": {"model": "us.amazon.nova-2-lite-v1:0", "rubric": "A good answer is short."},
    "length": {"maximum": 1_000},
    "math_answer": {"symbolic_seconds": 1},
}

# Rewards that ask another process; fewer examples do for them.
SLOW = {"judge", "math_answer", "code_tests", "sql_result"}

# A reference answer that a reward can read, so that completions are compared and not refused: 72 as a rule.
REFERENCES = {
    "choice": "B",
    "code_tests": {"tests": ["assert double(2) == 4"]},
    "json_match": {"name": "Ada", "tags": ["a", "b"]},
    "math_answer": r"\frac{\sqrt{2}}{2}",
    "sql_result": {"query": "SELECT a FROM t", "database": "CREATE TABLE t (a); INSERT INTO t VALUES (1)"},
    "tool_call": {"tool_calls": [{"name": "look_up", "arguments": {"word": "cat"}}]},
}

FRAGMENTS = [
    *(
        "72",
        "#### 72",
        "#### 71\n",
        r"\boxed{72}",
        r"\boxed{\frac{1}{\sqrt{2}}}",
        r"\boxed{x^2}",
        "Answer: B\n",
    ),
    *(
        "<think>",
        "</think>",
        "<answer>72</answer>",
        "</answer>",
        "```json\n",
        "```python\n",
        "\n```\n",
        "\n",
        " ",
    ),
    *(
        '{"answer": 72}',
        '{"name": "Ada", "tags": ["b", "a"]}',
        "{",
        '"',
        "\\",
        "$",
        "\ud800",
        "\x00",
        "日本",
        "é",
    ),
    *('<tool_call>{"name": "look_up", "arguments": {"word": "cat"}}</tool_call>', "First, we add. ", "- a\n"),
    *(
        "def double(x):\n    return 2 * x\n",
        "SELECT a FROM t",
        "NaN",
        "Infinity",
        "-1e999",
        "\u0661\u0662",
        "\U0001d7d5",
        "\u017f",
    ),
]

completions = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join) | st.text(
    st.characters(codec=None, exclude_categories=()), max_size=30
)
samples = st.fixed_dictionaries(
    {
        "id": st.text(max_size=4),
        "messages": completions.map(
            lambda text: [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]
        ),
        "reference_answer": st.sampled_from(["72", {"answer": 72}, *REFERENCES.values()]) | json_values,
    }
)
batches = st.lists(samples | samples | items, max_size=4)


@pytest.fixture(scope="module", autouse=True)
def judged():
    """A judge whose verdict depends on what it is shown, and on nothing else."""
    running = Endpoint()
    # The client is made for one endpoint, and another test's may have been there before.
    judge_module._client.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", running.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running.behaviour = lambda request, _number: verdict(
            request, **dict.fromkeys(asked_for(request), 1 + len(text_of(request)) % 5)
        )
        yield
    judge_module._client.cache_clear()
    running.server.shutdown()
    running.server.server_close()


def score_of(name):
    return compose({"components": {"part": {"function": name, **PARAMETERS.get(name, {})}}})


def without_id(entry):
    return {key: value for key, value in entry.items() if key != "id"}


@pytest.mark.parametrize("name", REWARDS)
def test_any_event_gets_the_same_well_formed_response_in_any_batch(name):
    handler = reward_handler(score_of(name))

    @settings(
        max_examples=8 if name in SLOW else 40,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(batches, st.randoms(use_true_random=False))
    def check(batch, rng):
        response = handler(batch, None)
        assert len(response) == len(batch)
        for entry, sent in zip(response, batch, strict=True):
            assert set(entry) == {"id", "aggregate_reward_score", "metrics_list"}
            assert 0.0 <= entry["aggregate_reward_score"] <= 1.0
            assert all(math.isfinite(metric["value"]) for metric in entry["metrics_list"])
            assert {"name": "error", "value": 1.0, "type": "Metric"} not in entry["metrics_list"]
            if isinstance(sent, dict) and isinstance(sent.get("id"), str):
                assert entry["id"] == sent["id"].encode("utf-8", "replace").decode()
            (alone,) = handler([sent], None)
            assert without_id(alone) == without_id(entry)
        json.dumps(response, ensure_ascii=False, allow_nan=False).encode("utf-8")
        order = list(range(len(batch)))
        rng.shuffle(order)
        shuffled = handler([batch[index] for index in order], None)
        assert [without_id(entry) for entry in shuffled] == [without_id(response[index]) for index in order]

    check()


LIMIT = 400_000  # characters a completion may have, by default

# Completions made to crash, to hang, or to cost far more than their length.
HOSTILE = {
    "1 MB of text": "all work and no play " * 50_000,
    "as long as it may be": "x" * LIMIT,
    "spaces": " " * (LIMIT - 1) + "x",
    "lines": "\n" * LIMIT,
    "braces": "{" * LIMIT,
    "deep JSON": "[" * 100_000 + "]" * 100_000,
    "deep JSON in a fence": "```json\n" + '{"a":' * 50_000 + "1" + "}" * 50_000 + "\n```",
    "one long integer": '{"answer": ' + "9" * (LIMIT - 20) + "}",
    "huge exponents": '{"answer": 1e999999999} #### 1e999999999 \\boxed{10^{999999999}}',
    "NaN and Infinity": '{"answer": NaN}\n#### Infinity\n\\boxed{nan}\n<answer>-inf</answer>',
    "duplicate keys": "{" + ",".join(['"answer": 72'] * 20_000) + "}",
    "lone surrogates": "\ud800\udfff" * 1_000 + "\\boxed{\udc00} #### \ud800",
    "zero bytes": "\x00" * 10_000 + "#### \x00",
    "combining marks": "e" + "\u0301" * 100_000,
    "directions": "\u202e\u2066" * 50_000,
    "regex bomb": "a" * 50_000 + "!",
    "another regex bomb": "=" * 50_000 + " \t" * 50_000,
    "LaTeX bomb": r"\boxed{9^{9^{9^9}}} #### 9^{9^{9^9}}",
    "deep LaTeX": r"\boxed{" + r"\frac{1}{" * 10_000 + "1" + "}" * 10_000 + "}",
    "boxes": r"\boxed{" * 50_000,
    "closed boxes": r"\boxed{72}" * 30_000,
    "tags": "<answer>" * 40_000,
    "closed tags": "<answer>72</answer>" * 20_000,
    "marks": "#### 72\n" * 40_000,
    "labels": "Answer: 72\n" * 30_000,
    "fences": "```\n" * 80_000,
    "quotes": '"' * LIMIT,
    "tool calls": '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * 5_000,
    "different words": " ".join(map(str, range(60_000))),
    "expansion": "&lol;" * 50_000 + '<!DOCTYPE x [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]>',
    "case": "\u0130\u1e9e\ufb03" * 50_000,
    "the task again": "What is 6 times 12? " * 10_000,
}

# What a row may hold in place of a reference answer: all of it is JSON, and none of it is usable.
HOSTILE_REFERENCES = [
    "x" * 1_000_000,
    "9" * 5_000,
    "\ud800",
    "(a+)+$",
    r"\boxed{9^{9^{9^9}}}",
    10**400,
    1e308,
    math.nan,
    True,
    [[[[]]]],
    {"answer": {"answer": {}}},
    {"tests": "import os; os.abort()"},
    {"query": "SELECT * FROM sqlite_master", "database": "ATTACH '/etc/passwd' AS p"},
    {"tool_calls": [None, 5, {"name": []}]},
    json.loads("[" * 900 + "]" * 900),
]


def row(name, completion, reference):
    prompt = {"role": "user", "content": "What is 6 times 12?"}
    messages = [prompt, {"role": "assistant", "content": completion}]
    return {"id": name, "messages": messages, "reference_answer": reference}


def troubles(name, rows, *allowed):
    """Scores rows and returns those that fail by the reward's own fault: an error, or too much time."""
    outcomes = score_samples(score_of(name), parse_event(rows))
    assert all(0.0 <= outcome.reward.score <= 1.0 for outcome in outcomes)
    return [
        (outcome.sample.id, outcome.trouble, outcome.reward.reason)
        for outcome in outcomes
        if outcome.trouble not in {"", *allowed}
    ]


@pytest.mark.parametrize("name", REWARDS)
def test_no_completion_makes_a_reward_fail_or_cost_more_than_a_sample_may(name):
    reference = REFERENCES.get(name, "72")
    rows = [row(label, completion, reference) for label, completion in HOSTILE.items()]
    assert troubles(name, [row("a", "72", reference), *rows], "over_length") == []


@pytest.mark.parametrize("name", REWARDS)
def test_no_reference_answer_makes_a_reward_fail(name):
    completion = "#### 72\n\\boxed{72}\nAnswer: B"
    rows = [row(str(at), completion, reference) for at, reference in enumerate(HOSTILE_REFERENCES)]
    assert troubles(name, rows, "unscorable") == []
