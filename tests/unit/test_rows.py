"""Rows of a dataset from what teams have: what becomes a row, and what is dropped with which words."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.rows import Columns, Rows, RowsError, apart, prompt_key, read_rows, split


def read(folder: Path, text: str | bytes, name: str = "rows.jsonl", columns: Columns | None = None) -> Rows:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(path, columns or Columns())


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


LOG = {
    "schemaType": "ModelInvocationLog",
    "requestId": "r-1",
    "modelId": "amazon.nova-2-lite-v1:0",
    "operation": "Converse",
    "input": {"inputBodyJson": {"messages": [{"role": "user", "content": [{"text": "2+2?"}]}]}},
    "output": {"outputBodyJson": {"output": {"message": {"role": "assistant", "content": [{"text": "4"}]}}}},
}

# What a line says, and the row it makes.
SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "OpenAI chat, its last answer as the reference": (
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                user("2+2?"),
                {"role": "assistant", "content": "4"},
            ]
        },
        {"messages": [{"role": "system", "content": "Be brief."}, user("2+2?")], "reference_answer": "4"},
    ),
    "OpenAI chat in parts, with a reference of its own": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
                {"role": "assistant", "content": "It is 4."},
            ],
            "reference_answer": "4",
            "level": "easy",
        },
        {"messages": [user("2+2?")], "reference_answer": "4", "level": "easy"},
    ),
    "OpenAI chat that ends in a call of a tool": (
        {
            "messages": [
                user("Weather?"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "w", "arguments": "{}"}}],
                },
            ]
        },
        {
            "messages": [user("Weather?")],
            "reference_answer": {"tool_calls": [{"function": {"name": "w", "arguments": "{}"}}]},
        },
    ),
    "Hugging Face conversations": (
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "id": 7},
        {"id": "7", "messages": [user("2+2?")], "reference_answer": "4"},
    ),
    "Hugging Face prompt and completion as messages": (
        {"prompt": [user("2+2?")], "completion": [{"role": "assistant", "content": "4"}]},
        {"messages": [user("2+2?")], "reference_answer": "4"},
    ),
    "Hugging Face prompt and completion as texts": (
        {"prompt": "2+2?", "completion": "4"},
        {"messages": [user("2+2?")], "reference_answer": "4"},
    ),
    "flat keys, a number as the answer": (
        {"Question": "2+2?", "answer": 4},
        {"messages": [user("2+2?")], "reference_answer": "4"},
    ),
    "Bedrock's log": (
        LOG,
        {
            "id": "r-1",
            "messages": [user("2+2?")],
            "reference_answer": "4",
            "model": "amazon.nova-2-lite-v1:0",
            "request_metadata": {},
        },
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_makes_a_row(tmp_path: Path, shape: str):
    line, row = SHAPES[shape]
    for text in (json.dumps(line), json.dumps([line])):
        if line is LOG and text.startswith("["):
            # Logs are lines, always.
            continue
        found = read(tmp_path, text)
        assert [data for _, data in found.rows] == [row]
        assert not found.dropped


# What a line says, and the words it is dropped with; a good row stands before it.
DROPPED = [
    ({"messages": [user("a")]}, "does not end with an answer"),
    ({"messages": [user("a"), {"role": "assistant", "content": " "}]}, "has no reference answer"),
    ({"messages": [user(""), {"role": "assistant", "content": "b"}]}, "has a message without text"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "of another role"),
    (
        {"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "user's first",
    ),
    (
        {
            "messages": [
                user("a"),
                {"role": "system", "content": "s"},
                user("c"),
                {"role": "assistant", "content": "b"},
            ]
        },
        "after another",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url"}]},
                {"role": "assistant", "content": "b"},
            ]
        },
        "more than text",
    ),
    (
        {
            "messages": [
                user("a"),
                {"role": "assistant", "tool_calls": [{}]},
                user("c"),
                {"role": "assistant", "content": "b"},
            ]
        },
        "tool calls before",
    ),
    ({"messages": ["a"]}, "no object"),
    ({"text": "a"}, "no list of messages"),
    ([1], "more or fewer cells"),
    (3, "is JSON and no object"),
    ("{", None),
]


@pytest.mark.parametrize(("line", "words"), DROPPED)
def test_what_cannot_be_a_row_is_dropped_with_its_line_and_why(tmp_path: Path, line: Any, words: str | None):
    good = {"messages": [user("2+2?"), {"role": "assistant", "content": "4"}]}
    text = line if words is None else json.dumps(line)
    found = read(tmp_path, f"{json.dumps(good)}\n\n{text}\n")
    assert (found.read, len(found.rows)) == (2, 1)
    [(reason, lines)] = found.dropped.items()
    assert lines == (3,)
    assert (words or "is no JSON") in reason


def test_a_csv_keeps_its_other_columns_and_counts_lines_over_line_breaks(tmp_path: Path):
    text = 'Question;Answer;Level\n"two\nlines?";1,5;easy\nshort\n;2;hard\nno answer?;;easy\nagain?;3;\n'
    found = read(tmp_path, "\ufeff" + text, "rows.csv")
    assert found.shape == "CSV with prompts in 'Question' and answers in 'Answer'"
    assert found.rows == (
        (2, {"messages": [user("two\nlines?")], "reference_answer": "1,5", "Level": "easy"}),
        (7, {"messages": [user("again?")], "reference_answer": "3"}),
    )
    assert found.dropped == {
        "has more or fewer cells than the header": (4,),
        "has no prompt": (5,),
        "has no reference answer": (6,),
    }


def test_columns_that_cannot_be_guessed_are_asked_for(tmp_path: Path):
    with pytest.raises(RowsError, match=r"which column is the prompt \(--prompt-column NAME\).*: a, b$"):
        read(tmp_path, "a,b\n1,2\n", "rows.csv")
    with pytest.raises(RowsError, match=r"has no column 'x' \(--answer-column\): it has a, b"):
        read(tmp_path, "a,b\n1,2\n", "rows.csv", Columns(prompt="a", answer="x"))
    found = read(tmp_path, "a,b\n1,2\n", "rows.csv", Columns(prompt="b", answer="a"))
    assert found.rows == ((2, {"messages": [user("2")], "reference_answer": "1"}),)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b"a,b\n\xff,2\n", "is not UTF-8"),
        (b"\x1f\x8bnonsense", "broken gzip"),
        (b"[1, 2", "is no valid JSON"),
        (b"a,a\n1,2\n", "a name of its own"),
        (b'prompt,answer\n"a,2\n', "is no valid CSV"),
        (b"prompt,answer\n", "has no rows"),
    ],
)
def test_a_file_that_is_none_of_these_is_told_so(tmp_path: Path, body: bytes, words: str):
    with pytest.raises(RowsError, match=words):
        read(tmp_path, body, "rows.csv")


def test_a_missing_file_is_told_so(tmp_path: Path):
    with pytest.raises(RowsError, match="cannot be read"):
        read_rows(tmp_path / "nothing.csv", Columns())


def test_logs_are_read_from_a_folder_packed_or_not_and_counted_over_its_files(tmp_path: Path):
    for name, answer in (("a.json.gz", "4"), ("b.json", "")):
        log = json.loads(json.dumps(LOG))
        log["output"]["outputBodyJson"]["output"]["message"]["content"][0]["text"] = answer
        body = (json.dumps(log) + "\n").encode()
        (tmp_path / name).write_bytes(gzip.compress(body) if name.endswith("gz") else body)
    found = read_rows(tmp_path, Columns())
    assert [line for line, _ in found.rows] == [1]
    assert found.dropped == {"has no answer in text": (2,)}


def test_the_same_row_counts_once_and_an_id_is_given_once(tmp_path: Path):
    lines = [{"id": "a", "prompt": p, "answer": "1"} for p in ("x", "x", "y")]
    found = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert found.dropped == {"is the same as an earlier row": (2,)}
    assert [row.get("id") for _, row in found.rows] == ["a", None]


def rows_of(prompts: list[str]) -> Rows:
    made = [(n, {"messages": [user(p)], "reference_answer": str(n)}) for n, p in enumerate(prompts, 1)]
    return Rows(shape="", rows=tuple(made), read=len(made))


@given(st.lists(st.integers(0, 249), max_size=30), st.floats(0.01, 0.5), st.randoms())
def test_no_held_out_prompt_is_trained_on_whatever_the_order(again: list[int], share: float, chance: Any):
    prompts = [f"Prompt {number}" for number in range(250)] + [f"PROMPT  {number}" for number in again]
    train, held = split(rows_of(prompts), share)
    keys = [{prompt_key(row) for _, row in each.rows} for each in (train, held)]
    assert not keys[0] & keys[1]
    assert len(train.rows) + len(held.rows) == len(prompts)
    chance.shuffle(prompts)
    assert {prompt_key(row) for _, row in split(rows_of(prompts), share)[1].rows} == keys[1]


def test_training_rows_with_a_held_out_prompt_are_dropped():
    train, held = rows_of(["a", "B  c", "d"]), rows_of(["b C"])
    assert apart(train, held).dropped == {"has a prompt that is held out": (2,)}


def test_rows_beyond_what_the_service_takes_are_dropped():
    train = apart(rows_of([str(n) for n in range(20_003)]), rows_of(["x"]))
    assert len(train.rows) == 20_000
    [(reason, lines)] = train.dropped.items()
    assert (len(lines), reason) == (3, "is beyond the 20,000 rows that the service takes")
