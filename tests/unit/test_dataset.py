"""Datasets are read as the service will read them, and everything wrong with one is said at once."""

import gzip
import hashlib
import io
import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.dataset import (
    EVALUATION_ROW_BYTES,
    EVALUATION_ROWS,
    TRAINING_ROW_BYTES,
    Dataset,
    DatasetError,
    check,
    held_out,
    identity,
)

USER = {"role": "user", "content": "How much are 3 desks at $5?"}


def row(**changes: Any) -> dict[str, Any]:
    return {"messages": [USER], "reference_answer": "15", **changes}


def lines(*rows: Any) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in rows)


def read(content: bytes, **rules: Any) -> Dataset:
    return check(io.BytesIO(content), "train.jsonl", **{"rows": (1, 1000), **rules})


def fault(content: bytes, **rules: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        read(content, **rules)
    return str(caught.value)


def test_a_good_file_is_profiled_and_hashed() -> None:
    content = lines(
        row(),
        row(messages=[{"role": "system", "content": "Be brief."}, USER], reference_answer={"total": 15}),
        row(messages=[USER, {"role": "assistant", "content": "15"}, {"role": "user", "content": "Sure?"}]),
        row(messages=[{"role": "user", "content": [{"type": "text", "text": USER["content"]}]}]),
    )
    found = read(content, max_prompt_length=8)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.rows == 4
    assert found.references == {"string": 3, "object": 1}
    # Parts of a text are the same prompt as the text: the fourth row repeats the first.
    assert found.duplicates == 1
    assert len(found.prompts) == 3
    # 27 characters; 27 + 9; 27 + 2 + 5; 27: in order 27, 27, 34, 36.
    assert found.characters == {"p50": 27, "p95": 36, "max": 36}
    assert found.profile()["prompt_tokens_estimate"] == {"p50": 7, "p95": 9, "max": 9}
    # A quarter of the characters, rounded up: 7, 7, 9, 9.
    assert found.too_long == 2


def test_prompts_that_differ_in_where_a_message_ends_or_who_says_it_are_not_the_same() -> None:
    turns = [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd")]
    prompts = [
        [
            {"role": role, "content": text}
            for role, text in zip(("user", "assistant", "user"), turn, strict=True)
        ]
        for turn in turns
    ]
    prompts.append([{"role": "user", "content": text} for text in turns[0]])
    found = read(lines(*[row(messages=messages) for messages in prompts]))
    assert (found.duplicates, len(found.prompts)) == (0, 4)


def test_extra_keys_and_a_missing_last_newline_are_fine() -> None:
    assert read(lines(row(difficulty="hard", tools=[1]), row()).rstrip(b"\n")).rows == 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'{"messages": [', "line 2: is not valid JSON: put one complete object on each line (it ends in"),
        (
            lines(row()).strip() + b" # a comment",
            f"trailing characters at byte {len(lines(row())) + 1}, near `",
        ),
        (b'{"messages": [], "reference_answer": NaN}', "invalid character at byte 38"),
        (lines(row()).strip()[:-1] + b', "id": 3, "x": }', "is not valid JSON"),
        (b"[1, 2]", "is a JSON array: a row is an object with `messages` and `reference_answer`"),
        (b"", "line 2: is empty: remove it"),
        (b"   ", "line 2: is empty: remove it"),
        (b"[" * 100_000, "nested too deeply"),
        (lines(row()).strip().replace(b"desks", b"caf\xe9s"), "line 2: is not UTF-8: save the file as UTF-8"),
        ({"messages": [USER]}, "`reference_answer` is missing: it is what the reward function compares with"),
        ({"messages": [USER], "answer": "15"}, "`reference_answer` is missing"),
        ({"messages": [USER], "answer": "15"}, "(it has `answer`)"),
        (
            {"prompt": "hi", "reference_answer": "15"},
            "`messages` is missing: it is the prompt, a list",
        ),
        ({"prompt": "hi", "reference_answer": "15"}, "(it has `prompt`)"),
        (row(reference_answer=None), "`reference_answer` has the wrong type"),
        (row(reference_answer=15), "a string or an object (Expected str | object, got int)"),
        (row(reference_answer=" "), "`reference_answer` is empty"),
        (row(reference_answer={}), "`reference_answer` is empty"),
        (row(messages=[]), "`messages` is empty: a prompt has at least one user message"),
        (row(messages="hi"), "`messages` has the wrong type: it is the prompt, a list of messages"),
        (row(messages=["hi"]), "messages[0] has the wrong type: Expected object, got str"),
        (
            row(messages=[{"role": "tool", "content": "x"}]),
            "messages[0].role must be 'system', 'user' or 'ass",
        ),
        (row(messages=[{"role": "tool", "content": "x"}]), "('tool')"),
        (row(messages=[{"role": "user"}]), "messages[0] has no `content`"),
        (row(messages=[USER | {"name": "Ann"}]), "messages[0] has the key `name`"),
        (row(messages=[{"role": "user", "content": 3}]), "messages[0].content has the wrong type"),
        (row(messages=[{"role": "user", "content": " \n"}]), "messages[0].content is blank"),
        (row(messages=[{"role": "user", "content": []}]), "messages[0].content is blank"),
        (
            row(messages=[{"role": "user", "content": [{"type": "text", "text": ""}]}]),
            "messages[0].content is blank",
        ),
        (
            row(messages=[{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]),
            "messages[0].content[0].type must be 'text': the service trains on text only",
        ),
        (row(messages=[USER, {"role": "system", "content": "x"}]), "a system message comes after another"),
        (row(messages=[{"role": "system", "content": "x"}]), "no message is the user's"),
        (
            row(messages=[USER, {"role": "assistant", "content": "15"}]),
            "the last message is the assistant's: end with the user's",
        ),
        (row(messages=[{"role": "assistant", "content": "hi"}, USER]), "starts with the assistant"),
        (row(id=""), "`id` is blank"),
        (row(id=7), "`id` has the wrong type: where there is one, it is a string (Expected str, got int)"),
    ],
)
def test_a_bad_row_is_named_by_its_line(bad: Mapping[str, Any] | bytes, said: str) -> None:
    message = fault(lines(row(), bad, row()))
    assert message.startswith("train.jsonl cannot be used (")
    assert "line 2: " in message
    assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(lines(row())), "train.jsonl is compressed with gzip"),
        (b"\xef\xbb\xbf" + lines(row()), "starts with a byte order mark: save it as UTF-8 without BOM"),
        (lines(row()).decode().encode("utf-16"), "is UTF-16: save it as UTF-8 without BOM"),
        (b"PK\x03\x04...", "is a ZIP archive"),
        (json.dumps([row(), row()], indent=1).encode(), "is one JSON document: write it as JSONL"),
        (json.dumps([row(), row()]).encode(), "is one JSON document: write it as JSONL"),
        (json.dumps(row(), indent=1).encode(), "is one JSON document: write it as JSONL"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_of_another_kind_is_named_as_such(content: bytes, said: str) -> None:
    message = fault(content)
    assert said in message
    assert len(message.splitlines()) <= 2


def test_windows_line_ends_are_one_problem_with_its_remedy() -> None:
    message = fault(lines(row(), row(), row()).replace(b"\n", b"\r\n"))
    assert message == (
        "train.jsonl cannot be used (3 problems):\n"
        "  - lines 1, 2, 3: ends in CR LF, a Windows line end: convert the file to LF (`dos2unix`)"
    )


def test_all_problems_are_said_at_once_folded_by_kind() -> None:
    message = fault(lines(b'{"id": ', row(id="a"), row(reference_answer=""), row(id="a"), *[b"nonsense"] * 9))
    assert message.splitlines() == [
        "train.jsonl cannot be used (12 problems):",
        "  - lines 1, 5, 6, 7, 8 and 5 more: is not valid JSON: put one complete object on each line"
        " (line 1: it ends in the middle of the object)",
        "  - line 3: `reference_answer` is empty: it is what the reward function compares with, a string or"
        " an object",
        "  - line 4: `id` was used before: every row needs its own ('a' is also on line 2)",
    ]


def test_the_list_of_problems_stays_readable_however_many_there_are() -> None:
    rows = [row(messages=[USER] * n + [{"role": "user", "content": ""}]) for n in range(500)]
    message = fault(lines(*rows))
    assert message.splitlines()[0] == "train.jsonl cannot be used (500 problems):"
    assert message.splitlines()[-1] == "  - and 480 more kinds of trouble: mend these first"
    assert len(message.splitlines()) == 22


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (99, "it has 99 rows, and at least 100 are needed: add 1 more"),
        (20_001, "it has 20,001 rows, and at most 20,000 are accepted: take a sample of them"),
    ],
)
def test_the_services_bounds_on_rows_hold(count: int, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        check(io.BytesIO(lines(row()) * count), "train.jsonl")


@pytest.mark.parametrize("count", [100, 20_000])
def test_the_services_bounds_on_rows_are_inclusive(count: int) -> None:
    assert check(io.BytesIO(lines(row()) * count), "train.jsonl").rows == count


def test_an_endless_line_does_not_fill_the_memory() -> None:
    class Endless(io.RawIOBase):
        left = 200 << 20

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return b"x" * size

    tracemalloc.start()
    with pytest.raises(DatasetError, match="line 1: is longer than 6,000,000 bytes"):
        check(Endless(), "train.jsonl", rows=(1, 10))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * TRAINING_ROW_BYTES


def test_a_row_too_long_for_its_way_is_refused_and_the_next_one_is_read() -> None:
    long = row(messages=[{"role": "user", "content": "x" * 3000}])
    message = fault(lines(row(), long, row(reference_answer="")), row_bytes=3000)
    assert "line 2: is longer than 3,000 bytes" in message
    assert "line 3: `reference_answer` is empty" in message


@given(st.lists(st.sampled_from([1, 2, 3, 5, 700_000]), min_size=1), st.integers(1, 40))
def test_pieces_of_any_size_give_the_same_lines(sizes: list[int], count: int) -> None:
    content = lines(*[row(id=str(number), note="é" * number) for number in range(count)])

    class Pieces(io.BytesIO):
        turn = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.turn += 1
            return super().read(min(size or 1, sizes[self.turn % len(sizes)]))

    assert check(Pieces(content), "f", rows=(1, 100)) == read_as_one(content)


def read_as_one(content: bytes) -> Dataset:
    return check(io.BytesIO(content), "f", rows=(1, 100))


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_the_answer_is_a_dataset_or_a_readable_error(content: bytes) -> None:
    message = ""
    try:
        read(content)
    except DatasetError as error:
        message = str(error)
    assert message.startswith("train.jsonl ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "reference_answer", "id", "type", "text"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_the_json_is_the_answer_is_a_dataset_or_a_readable_error(value: Any) -> None:
    message = ""
    try:
        read(lines(value))
    except DatasetError as error:
        message = str(error)
    assert not message or "line 1: " in message or "one JSON document" in message


def evaluation(count: int) -> list[dict[str, Any]]:
    return [
        row(
            messages=[{"role": "user", "content": f"Question {number}"}],
            reference_answer={"total": number},
            difficulty=number % 3,
            **({"id": f"q-{number}"} if number % 2 else {}),
        )
        for number in range(count)
    ]


def test_held_out_prompts_come_as_items_in_file_order() -> None:
    rows = evaluation(5)
    items = held_out(io.BytesIO(lines(*rows)), 100, training=frozenset())
    assert [item["index"] for item in items] == [0, 1, 2, 3, 4]
    assert [item["id"] for item in items] == ["line-1", "q-1", "line-3", "q-3", "line-5"]
    assert items[3] == {
        "index": 3,
        "id": "q-3",
        "messages": rows[3]["messages"],
        "reference_answer": {"total": 3},
        "metadata": {"difficulty": 0},
    }


def test_held_out_prompts_stay_the_same_whatever_their_order_and_company() -> None:
    rows = evaluation(60)
    few = {
        item["reference_answer"]["total"] for item in held_out(io.BytesIO(lines(*rows)), 20, training=set())
    }
    turned = held_out(io.BytesIO(lines(*reversed(rows))), 20, training=set())
    assert {item["reference_answer"]["total"] for item in turned} == few
    assert len(few) == 20
    # Not just the first ones: a file is often sorted by something.
    assert few != set(range(20))
    more = held_out(io.BytesIO(lines(*rows)), 30, training=set())
    assert few < {item["reference_answer"]["total"] for item in more}


def test_a_prompt_that_was_trained_on_is_never_measured() -> None:
    rows = evaluation(12)
    training = read(lines(*rows[:4]))
    items = held_out(io.BytesIO(lines(*rows)), 100, training=training.prompts)
    assert [item["reference_answer"]["total"] for item in items] == list(range(4, 12))


def test_a_prompt_is_measured_once_however_often_it_is_there() -> None:
    assert len(held_out(io.BytesIO(lines(*evaluation(3) * 4)), 100, training=set())) == 3


def test_the_name_of_a_pair_depends_on_every_byte_of_both_files() -> None:
    names = {identity(train, held) for train in ("a", "b") for held in ("a", "b")}
    assert len(names) == 4


def test_the_limits_of_evaluation_rows_are_tighter() -> None:
    long = row(messages=[{"role": "user", "content": "x" * EVALUATION_ROW_BYTES}])
    with pytest.raises(DatasetError, match="line 1: is longer than 200,000 bytes"):
        check(io.BytesIO(lines(long)), "f", rows=EVALUATION_ROWS, row_bytes=EVALUATION_ROW_BYTES)
