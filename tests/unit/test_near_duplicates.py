"""Prompts that say almost the same are found; those that share only what every prompt says are not."""

import random

import pytest

from lambdas.near_duplicates import NearDuplicates, Pair

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "lmnrst"]


def texts(count: int, words: int = 60) -> list[str]:
    draw = random.Random(7)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


def pairs(rows: list[str], similarity: float = 0.8, answers: list[int] | None = None) -> list[Pair]:
    found = NearDuplicates(similarity)
    for line, text in enumerate(rows, 1):
        found.read(line, text, line, answers[line - 1] if answers else 0)
    return found.pairs()


def test_a_changed_word_makes_a_near_duplicate_and_another_text_none() -> None:
    rows = texts(300)
    copy = rows[41].replace(rows[41].split()[30], "something", 1).upper() + "!"
    assert pairs([*rows, copy]) == [Pair(301, 42, True)]


def test_the_answer_tells_a_copy_from_a_variant() -> None:
    rows = texts(20)
    copies = [rows[3] + " please", rows[4] + " please"]
    answers = [*range(20), 3, 99]
    assert pairs([*rows, *copies], answers=answers) == [Pair(21, 4, True), Pair(22, 5, False)]


@pytest.mark.parametrize("count", [30, 300])
def test_instructions_that_every_row_repeats_make_nothing_alike(count: int) -> None:
    instructions = " ".join(texts(1, 400))
    assert pairs([f"{instructions} {own}" for own in texts(count, 20)]) == []


def test_of_many_copies_each_is_told_once() -> None:
    rows = texts(100)
    assert [pair.other for pair in pairs([*rows, *(rows[5] + f" {n}" for n in range(50))])] == [6] * 50


def test_a_few_words_are_never_near_to_others() -> None:
    assert pairs([f"What is {n} plus {n % 7}?" for n in range(200)]) == []


def test_the_share_in_common_decides() -> None:
    rows = texts(200, 100)
    # Of 98 sequences one changed word breaks three: 95 of 101 are in common, and with six words 80 of 116.
    one, six = rows[0].split(), rows[1].split()
    one[50] = "x"
    for place in range(10, 70, 10):
        six[place] = "x"
    assert pairs([*rows, " ".join(one), " ".join(six)]) == [Pair(201, 1, True)]
    found = pairs([*rows, " ".join(one), " ".join(six)], similarity=0.55)
    assert found == [Pair(201, 1, True), Pair(202, 2, True)]


def test_rows_of_another_file_are_found_in_the_first_and_not_among_each_other() -> None:
    rows = texts(80)
    train = NearDuplicates(0.8)
    for line, text in enumerate(rows[:60], 1):
        train.read(line, text, hash(text), line)
    evaluation = NearDuplicates(0.8, against=train)
    # The last one is in the first file word for word, which is another matter.
    for line, text in enumerate([rows[70], rows[10] + " now", rows[70] + " now", rows[10]], 1):
        evaluation.read(line, text, hash(text), 11)
    assert evaluation.pairs() == [Pair(2, 11, True)]
    assert train.pairs() == []


def test_only_the_ends_of_a_very_long_prompt_are_read() -> None:
    (long,) = texts(1, 50_000)
    words = long.split()
    changed = [*words[:2000], *reversed(words[2000:-2000]), *words[-2000:]]
    assert pairs([*texts(20), long, " ".join(changed)]) == [Pair(22, 21, True)]
