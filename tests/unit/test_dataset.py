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

from lambdas import dataset
from lambdas.dataset import (
    EVALUATION_ROW_BYTES,
    EVALUATION_ROWS,
    TRAINING_ROW_BYTES,
    Dataset,
    DatasetError,
    Rules,
    check,
    held_out,
    identity,
    judge,
    near_duplicates,
    refusal,
)
from lambdas.gate import Verdict

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
    assert found.references.kinds == {"string": 3, "object": 1}
    # Parts of a text are the same prompt as the text: the fourth row repeats the first.
    assert (found.duplicates.count, found.duplicates.lines) == (1, (4,))
    assert len(found.prompts) == 3
    # 27 characters; 27 + 9; 27 + 2 + 5; 27: in order 27, 27, 34, 36.
    assert found.sizes == {"mean": 31, "p50": 27, "p95": 36, "p99": 36, "max": 36}
    assert found.profile()["prompt_tokens_estimate"] == {"mean": 8, "p50": 7, "p95": 9, "p99": 9, "max": 9}
    # A quarter of the bytes, rounded up: 7, 7, 9, 9; a third: 9, 9, 12, 12.
    assert (found.too_long, found.perhaps_too_long) == (2, 4)


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
    assert (found.duplicates.count, len(found.prompts)) == (0, 4)


def test_extra_keys_and_a_missing_last_newline_are_fine() -> None:
    assert read(lines(row(difficulty="hard", tags=[1]), row()).rstrip(b"\n")).rows == 2


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
    items = held_out(io.BytesIO(lines(*rows)), 100, training=training.prompts.keys())
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


# --- beyond the format ---

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a price up.",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
    },
}


def many(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows about which there is nothing to say."""
    return [
        row(
            messages=[
                {"role": "user", "content": f"Question {number}: how much is {number} and {number * 7}?"}
            ],
            reference_answer=str(number),
            **changes,
        )
        for number in range(count)
    ]


def verdict(
    train: list[Any], evaluation: list[Any] | None = None, *, limit: int | None = None, **changes: Any
) -> Verdict:
    rules = Rules(**changes)
    found = []
    files = {
        "train.jsonl": train,
        "evaluation.jsonl": many(1010)[1000:] if evaluation is None else evaluation,
    }
    for (name, rows), near in zip(files.items(), near_duplicates(rules), strict=True):
        read = io.BytesIO(lines(*rows))
        found.append(
            check(
                read,
                name,
                rows=(1, 1000),
                max_prompt_length=limit,
                near=near,
                look_for_personal_data=rules.personal_data,
            )
        )
    return judge(found[0], found[1], rules)


def told(found: Verdict) -> list[tuple[str, str, int, tuple[int, ...]]]:
    return [(each.rule, each.level, each.count, each.lines) for each in found.findings]


def test_a_good_pair_of_files_passes_with_its_facts() -> None:
    found = verdict(many(50))
    assert (found.verdict, found.findings) == ("pass", ())
    assert found.facts["train"]["rows"] == 50
    assert found.facts["train"]["personal_data"] == {}
    assert (found.facts["leaked"], found.facts["nearly_leaked"]) == (0, 0)


def test_what_is_switched_off_is_not_looked_for_and_not_claimed() -> None:
    rows = [*many(50), row(messages=[{"role": "user", "content": "I am ann@corp.com"}])]
    found = verdict(rows, near_duplicates=False, personal_data=False)
    assert found.verdict == "pass"
    assert found.facts["train"]["personal_data"] is None
    assert found.facts["train"]["near_duplicate_prompts"] is None
    assert found.facts["nearly_leaked"] is None


def test_repeated_rows_and_contradicting_ones_are_told_apart() -> None:
    rows = many(50)
    found = verdict([*rows, rows[3], {**rows[4], "reference_answer": "another"}, rows[5]])
    assert told(found) == [("contradiction", "warn", 1, (52,)), ("duplicate", "warn", 2, (51, 53))]
    assert found.sentence == (
        "Dataset: goes on with a warning. train.jsonl: 1 of the 53 rows have the prompt of an earlier row and"
        " another reference answer (line 52): no completion can please both, so keep one. train.jsonl: 2 of"
        " the 53 rows are an earlier row once more, prompt and answer (lines 51, 53): each weighs that prompt"
        " more, so remove what is not meant."
    )
    assert found.facts["train"]["duplicate_prompts"] == 3


def test_the_same_prompt_is_known_in_every_spelling() -> None:
    text = 'Größe "x"\n/ \U0001f600 \\'
    spelt = [
        json.dumps(row(messages=[{"role": "user", "content": text}])),
        json.dumps(row(messages=[{"role": "user", "content": text}]), ensure_ascii=False),
        json.dumps(row(messages=[{"role": "user", "content": text}]))
        .replace("/", r"\/")
        .replace("G", r"\u0047"),
        json.dumps(row(messages=[{"role": "user", "content": [{"type": "text", "text": text}]}])),
    ]
    found = read(lines(*[each.encode() for each in spelt]))
    assert (found.duplicates.count, len(found.prompts)) == (3, 1)


def test_a_prompt_in_both_files_is_a_leak_and_almost_one_is_nearly() -> None:
    said = "The desk of Birch Logistics ordered nine lamps and two chairs, how much do they owe in all?"
    train = [*many(50), row(messages=[{"role": "user", "content": said}])]
    nearly = row(messages=[{"role": "user", "content": said + " Thanks."}])
    found = verdict(train, [*many(60)[45:], nearly])
    assert told(found)[:2] == [("leak", "warn", 5, (1, 2, 3, 4, 5)), ("near-leak", "warn", 1, (16,))]
    assert "train.jsonl (lines 1, 2, 3, 4, 5): they are left out of measuring" in found.findings[0].sentence
    assert found.findings[1].examples == ("line 16 is like line 51",)
    # Another answer makes another task of almost the same words.
    nearly["reference_answer"] = "77"
    other = verdict(train, [*many(60)[50:], nearly])
    assert (other.verdict, other.facts["evaluation"]["near_variants_with_another_answer"]) == ("pass", 1)


def test_a_few_near_duplicates_are_a_remark_and_many_are_a_warning() -> None:
    said = "The desk of Birch Logistics ordered nine lamps and two chairs, how much do they owe in all?"
    copies = [row(messages=[{"role": "user", "content": f"{said} Note {n}."}]) for n in range(11)]
    few = verdict([*many(90), *copies[:2]])
    assert (few.verdict, told(few)) == ("pass", [("near-duplicate", "info", 1, (92,))])
    found = verdict([*many(90), *copies])
    assert (found.verdict, told(found)[0][:3]) == ("warn", ("near-duplicate", "warn", 10))


def test_prompts_that_the_service_would_drop_are_counted_and_the_remedy_is_a_number() -> None:
    long = [
        row(messages=[{"role": "user", "content": f"{n} " + "word " * size}], reference_answer=str(n))
        for n, size in enumerate([2000, 2000, 900])
    ]
    (finding,) = verdict([*many(297), *long], limit=1200).findings
    assert (finding.rule, finding.level, finding.count) == ("prompt-length", "warn", 3)
    # 10,002 bytes are 2,501 tokens at four bytes each and 3,334 at three; 4,502 are 1,126 and 1,501.
    assert finding.sentence == (
        "train.jsonl: 2 of the 300 rows look longer than max_prompt_length (1200 tokens), and 1 more may be,"
        " as tokens can only be estimated: the service drops such rows without a word, so set it to 3392 to"
        " keep every row."
    )
    (finding,) = verdict([*many(297), *long], limit=10).findings
    assert "so set it to 64 to keep 99 of 100 rows, or to 3392 to keep every row." in finding.sentence
    assert verdict([*many(297), *long], limit=3392).verdict == "pass"


@pytest.mark.parametrize(
    ("text", "bytes_"), [("é" * 10, 20), ("漢字" * 5000, 30_000), ("ab漢字" * 5000, 40_000)]
)
def test_a_prompt_is_as_long_as_its_utf_8(text: str, bytes_: int) -> None:
    size = read(lines(row(messages=[{"role": "user", "content": text}]))).sizes["max"]
    assert size == pytest.approx(bytes_, rel=0.01)


def test_one_answer_for_most_rows_is_told() -> None:
    rows = many(50)
    for each in rows[:26]:
        each["reference_answer"] = " yes"
    (finding,) = verdict(rows).findings
    assert (finding.rule, finding.count) == ("answer-skew", 26)
    assert "52% of the rows have one and the same reference answer ( yes)" in finding.sentence
    assert verdict(rows, most_common_answer=0.6).verdict == "pass"
    rows[0]["reference_answer"] = "no"
    assert verdict(rows).verdict == "pass"


def test_an_answer_of_constants_is_told_although_no_two_are_the_same() -> None:
    rows = many(50)
    for number, each in enumerate(rows):
        each["reference_answer"] = {"urgent": False, "paid": True, "number": number}
    found = verdict(rows)
    assert [(each.rule, each.level) for each in found.findings] == [("answer-skew", "warn")]
    # Two of three values are always the same, the third never: (1 + 1 + 1/50) / 3.
    assert "would be right in 67% of all values" in found.findings[0].sentence
    assert found.facts["train"]["constant_answer_share"] == 0.6733
    assert found.facts["train"]["most_common_reference_share"] == 0.02
    # The order of the keys makes no other answer.
    first = {"urgent": False, "paid": True}
    turned = {"paid": True, "urgent": False}
    assert read(lines(row(reference_answer=first), row(reference_answer=turned))).references.different == 1


def test_tools_are_accepted_with_a_warning_that_they_are_undocumented() -> None:
    rows = many(50)
    rows[7]["tools"] = [TOOL]
    (finding,) = verdict(rows).findings
    assert (finding.rule, finding.level, finding.lines) == ("tools", "warn", (8,))
    assert "Bedrock's pages do not mention them" in finding.sentence


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([], "line 2: `tools` is empty: name one tool at least, or leave the key out"),
        ([TOOL, TOOL], "line 2: `tools` has a blank name or one name twice"),
        ({}, "line 2: `tools` has the wrong type: where there are any, they are a list of functions"),
        ([{"type": "retrieval"}], "tools[0].type must be 'function'"),
        ([{"type": "function"}], "tools[0] has no `function`"),
        ([{"type": "function", "function": {"name": "f"}}], "tools[0].function has no `description`"),
        ([1], "tools[0] has the wrong type: Expected object, got int"),
    ],
)
def test_tools_of_another_shape_are_refused(tools: Any, said: str) -> None:
    assert said in fault(lines(row(), row(tools=tools)))


def test_personal_data_is_shown_masked_wherever_it_stands_in_a_row_but_not_in_its_id() -> None:
    rows = many(50)
    rows[2]["messages"][0]["content"] += " Ask ann@corp.com."
    rows[3]["customer"] = {"contacts": ["bob@corp.com"]}
    rows[4]["id"] = "eve@corp.com"
    (finding,) = verdict(rows).findings
    assert (finding.rule, finding.level, finding.count, finding.lines) == (
        "personal-email",
        "warn",
        2,
        (3, 4),
    )
    assert "seem to hold e-mail addresses (a•••@c•••.com, b•••@c•••.com)" in finding.sentence
    assert "ann@" not in verdict(rows).to_json()


def test_what_is_wrong_with_a_file_is_a_verdict_too() -> None:
    with pytest.raises(DatasetError) as caught:
        read(lines(row(), b"nonsense", row(reference_answer=""), b"nonsense"), rows=(5, 1000))
    found = refusal(caught.value)
    assert found.verdict == "stop"
    assert told(found) == [
        ("row", "stop", 2, (2, 4)),
        ("row", "stop", 1, (3,)),
        ("file", "stop", 1, ()),
    ]
    assert found.findings[1].sentence == (
        "train.jsonl: line 3: `reference_answer` is empty: it is what the reward function compares with, a"
        " string or an object."
    )
    with pytest.raises(DatasetError) as caught:
        read(gzip.compress(lines(row())))
    assert "train.jsonl is compressed with gzip" in refusal(caught.value).sentence


@pytest.mark.parametrize(
    "content",
    [
        # Two rows on one line, one row on two lines: as many rows as lines all the same.
        lines(row()).strip() + b" " + lines(row()) + b"\n",
        lines(row()).strip() + lines(row()) + json.dumps(row(), indent=1).encode() + b"\n",
        b'{"messages": [{"role": "user", "content": "x"}],\n"reference_answer": "1"}\n' + lines(row()),
        b'{"a":\n{"b": 1}, "messages": [{"role": "user", "content": "x"}], "reference_answer": "1"} '
        + lines(row()),
    ],
)
def test_a_row_is_one_line_and_a_line_is_one_row(content: bytes) -> None:
    assert "is not valid JSON: put one complete object on each line" in fault(content)


def test_spaces_around_a_row_are_fine() -> None:
    assert read(b"  " + lines(row()).strip() + b" \n" + lines(row())).rows == 2


def test_bytes_that_are_no_text_are_found_in_the_keys_that_are_not_ours_as_well() -> None:
    bad = lines(row(note="caf\xe9")).replace(b"\\u00e9", b"\xe9")
    assert "line 2: is not UTF-8: save the file as UTF-8" in fault(lines(row()) + bad)
    assert read(lines(row()) + lines(row(note="x")).replace(b"x", "é".encode())).rows == 2


def test_half_a_surrogate_pair_is_called_by_its_name() -> None:
    bad = lines(row()).replace(b"desks", b"desks \\ud83d")
    assert "line 2: holds half a surrogate pair" in fault(lines(row()) + bad)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_buffers_of_any_size_say_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*many(40, note="é" * 5), row(reference_answer=""), b"", b"x" * 300, row(), row()]
    content = lines(*rows).removesuffix(b"\n")
    expected, profile = fault(content, row_bytes=250), read(lines(*many(40, note="é"))).profile()
    monkeypatch.setattr(dataset, "_BUFFER", size)
    assert fault(content, row_bytes=250) == expected
    assert "line 43: is longer than 250 bytes" in expected
    assert read(lines(*many(40, note="é"))).profile() == profile


def test_memory_does_not_grow_with_the_size_of_the_rows() -> None:
    def peak(size: int) -> int:
        rows = (lines(row(messages=[{"role": "user", "content": f"{n} " + "x" * size}])) for n in range(400))

        class Generated(io.RawIOBase):
            rest = b""

            def read(self, size: int = -1) -> bytes:
                while len(self.rest) < size and (more := next(rows, b"")):
                    self.rest += more
                piece, self.rest = self.rest[:size], self.rest[size:]
                return piece

        tracemalloc.start()
        check(Generated(), "f", rows=(1, 400))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(3_000), peak(60_000)
    assert large < small + 8 * 262_144
