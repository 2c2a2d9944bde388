"""Language: shares of scripts at known points, and no place for a foreign text to hide."""

import time

import pytest

from lambdas.contract import Sample
from lambdas.rewards.language import Language


def reward(completion, prompt="?", **parameters):
    messages = ({"role": "system", "content": "Отвечай"}, {"role": "user", "content": prompt})
    return Language(**parameters).score(Sample("a", messages, completion))


# completion, foreign share: with Latin, which is the default
SHARES = [
    ("Six times twelve is seventy-two.", 0.0),
    ("Où est l'hôtel? Größe, Łódź, Đà Nẵng.", 0.0),
    ("abcd \u0430\u0431\u0432\u0433", 0.5),
    ("abc \u0430", 0.25),
    ("Это по-русски", 1.0),
    ("这是中文", 1.0),
    ("the answer 答案", 2 / 11),
    # what is no letter counts for nothing
    ("yes! 72 + 5 = 77 ... 😀 ✓", 0.0),
    ("ab \u0661\u0662\u0663", 0.0),
    # accents are no letters of their own
    ("e\u0301te\u0301", 0.0),
    # a letter in bold or full width is the letter
    ("\U0001d407\U0001d41e\U0001d425\U0001d425\U0001d428", 0.0),
    ("\uff28\uff45\uff4c\uff4c\uff4f", 0.0),
    # a Latin or Greek letter on its own is a symbol
    ("so \u03c0 = 3 and \u03b1 is x", 0.0),
    ("so \u03c0\u03b1 too", 2 / 7),
    # a script that has no name here is a foreign one all the same
    ("ab \u13a0\u13a1", 0.5),
    ("\ud800 ab", 0.0),
]


@pytest.mark.parametrize(("completion", "share"), SHARES)
def test_letters_are_counted_by_script(completion, share):
    found = reward(completion)
    assert found.metrics["foreign_share"] == pytest.approx(share)
    assert found.score == pytest.approx(1 - share)


# completion, parameters, score
SETTINGS = [
    ("Это по-русски", {"scripts": ["Cyrillic"]}, 1.0),
    ("日本語のテスト", {"scripts": ["Han", "Hiragana", "Katakana"]}, 1.0),
    ("日本語のテスト", {"scripts": ["Hiragana"]}, 1 / 7),
    ("abcdefghi \u0430", {"tolerated_share": 0.1}, 1.0),
    ("abcdefgh \u0430\u0431", {"tolerated_share": 0.1, "largest_share": 0.3}, 0.5),
    ("abcdefg \u0430\u0431\u0432", {"largest_share": 0.3}, 0.0),
    # fenced code, markup and links do not count
    ("So it is:\n```\n# комм\n```\n", {}, 1.0),
    ("So it is `комм`.", {}, 1.0),
    ("So it is `комм`.", {"ignore": []}, 6 / 10),
    (
        "Это половина от целого числа: \\frac{1}{2} <b>да</b> https://rft.example",
        {"scripts": ["Cyrillic"]},
        1.0,
    ),
    ("Это половина: \\frac{1}{2}", {"scripts": ["Cyrillic"], "ignore": ["code"]}, 11 / 15),
    ('He said "да" to it.', {}, 10 / 12),
    ('He said "да" to it.', {"ignore": ["quotes"]}, 1.0),
    # what is ignored may not be more than half of it
    ("ok\n```\nдлинный, длинный\n```\n", {}, 2 / 16),
    ("`длинный, длинный` ok", {}, 2 / 16),
    # a fence that is never closed hides nothing
    ("all of this is fine\n```\nдым", {}, 15 / 18),
    # too little to be in a language
    ("72", {}, 0.0),
    ("72", {"minimum_letters": 0}, 1.0),
    ("", {"minimum_letters": 0}, 0.0),
    ("   ", {"minimum_letters": 0}, 0.0),
    ("ab", {"minimum_letters": 3}, 0.0),
    ("abc", {"minimum_letters": 3}, 1.0),
    ("x = 5", {}, 0.0),
]


@pytest.mark.parametrize(("completion", "parameters", "score"), SETTINGS)
def test_settings_say_what_counts(completion, parameters, score):
    assert reward(completion, **parameters).score == pytest.approx(score)


# prompt, completion, score
PROMPTS = [
    ("Сколько будет шесть на двенадцать?", "Семьдесят два.", 1.0),
    ("Сколько будет шесть на двенадцать?", "Seventy-two.", 0.0),
    # a foreign name in the prompt allows no other language
    ("Что такое OK? Ответь подробно и понятно, пожалуйста", "This is fine", 0.0),
    ("Translate this: привет дорогой друг", "hello, привет", 1.0),
    # Japanese is written in three scripts, whichever of them the prompt has
    ("これはなに", "日本語のテスト", 1.0),
    # a prompt without letters says nothing
    ("6 * 12 = ?", "seventy-two", 1.0),
    ([{"type": "text", "text": "Сколько?"}, {"type": "text", "text": "Ответь."}], "Семьдесят два.", 1.0),
    (None, "seventy-two", 1.0),
    (5, "seventy-two", 1.0),
]


@pytest.mark.parametrize(("prompt", "completion", "score"), PROMPTS)
def test_the_script_can_be_that_of_the_prompt(prompt, completion, score):
    assert reward(completion, prompt, same_as_prompt=True).score == score


def test_a_row_without_a_user_message_takes_the_scripts():
    found = Language(same_as_prompt=True).score(Sample("a", (), "Семьдесят два"))
    assert found.score == 0.0


def test_the_reason_shows_the_shares():
    found = reward("abcd абвг")
    assert found.extracted == "Latin 50.0%, Cyrillic 50.0%"
    assert found.reason == "50.0% of 8 letters are not Latin"
    assert reward("72").reason == "0 letters; 1 are needed to be in a language"


@pytest.mark.parametrize(
    "text", ["„" * 200_000, '"' * 200_001, "`" * 200_001, "<a" * 100_000, "«" * 200_000, " " * 300_000 + "`"]
)
def test_what_is_ignored_is_found_in_linear_time(text):
    started = time.thread_time()
    reward(text, ignore=["code", "markup", "quotes"])
    assert time.thread_time() - started < 2.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"scripts": []}, "at least one script"),
        ({"scripts": ["English"]}, "'English' is none of them"),
        ({"scripts": "Latin"}, "'L' is none of them"),
        ({"ignore": ["comments"]}, "'comments' is none of them"),
        ({"same_as_prompt": "yes"}, "same_as_prompt is true or false"),
        ({"minimum_letters": -1}, "minimum_letters is a whole number"),
        ({"minimum_letters": 1.0}, "minimum_letters is a whole number"),
        ({"tolerated_share": 2}, "tolerated_share is a number of 0 to 1"),
        ({"tolerated_share": True}, "tolerated_share is a number of 0 to 1"),
        ({"tolerated_share": 0.5, "largest_share": 0.5}, "has to be below largest_share"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, says):
    with pytest.raises(ValueError, match=says):
        Language(**parameters)
