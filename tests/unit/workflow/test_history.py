"""The history says who changed the champion, and what to go back to."""

import pytest

from lambdas.workflow import history
from tests.unit.workflow.conftest import ARTIFACTS, Aws, RefusedError


def entry(letter: str, change: str = "promoted by a run", minute: int = 0) -> dict[str, object]:
    return {
        "when": f"2026-01-01T00:{minute:02}:00.000000+00:00",
        "who": "arn:aws:iam::111122223333:user/eve",
        "why": "because",
        "change": change,
        "run": f"run-{letter * 16}",
        "model": letter,
        "previous_model": None,
        "deployment": "d",
        "metrics": {},
    }


def test_entries_come_in_the_order_of_time_and_the_last_ones_first_to_stay(aws: Aws) -> None:
    for minute, letter in enumerate("abcde"):
        history.append(entry(letter, minute=59 - minute))
    assert [each["model"] for each in history.entries()] == list("edcba")
    assert [each["model"] for each in history.entries(2)] == list("ba")


def test_an_entry_is_never_written_over(aws: Aws) -> None:
    first = entry("a")
    history.append(first)
    history.append({**first, "who": "somebody else"})
    assert aws.entries() == [first]
    assert all(call["IfNoneMatch"] == "*" for call in aws.called("PutObject"))


def test_an_entry_that_cannot_be_written_is_an_error(aws: Aws) -> None:
    aws.refusals["PutObject"] = [RefusedError("AccessDenied", "no", 403)]
    with pytest.raises(Exception, match="AccessDenied"):
        history.append(entry("a"))


def test_history_lies_outside_of_runs_which_expire(aws: Aws) -> None:
    history.append(entry("a"))
    [(bucket, key)] = aws.objects
    assert (bucket, key.partition("/")[0]) == (ARTIFACTS, "history")


BACK = history.ROLLED_BACK


@pytest.mark.parametrize(
    ("changes", "serving", "stand"),
    [
        ([], None, ""),
        ([("a", "")], "a", "a"),
        ([("a", ""), ("b", "")], "b", "ab"),
        ([("a", ""), ("b", ""), ("a", BACK)], "a", "a"),
        # Twice back is two promotions back, not to where it came from.
        ([("a", ""), ("b", ""), ("c", ""), ("b", BACK)], "b", "ab"),
        ([("a", ""), ("b", ""), ("c", ""), ("b", BACK), ("a", BACK)], "a", "a"),
        # Back by several at once, with --to.
        ([("a", ""), ("b", ""), ("c", ""), ("a", BACK)], "a", "a"),
        # What a rollback undid can be returned to, and then is one more.
        ([("a", ""), ("b", ""), ("a", BACK), ("b", BACK)], "b", "ab"),
        ([("a", ""), ("b", ""), ("a", BACK), ("c", "")], "c", "ac"),
        # The same model promoted twice goes back to its last place.
        ([("a", ""), ("b", ""), ("a", ""), ("c", ""), ("a", BACK)], "a", "aba"),
        # Written down, but the deployment never got there.
        ([("a", ""), ("b", "")], "a", "a"),
        # Nothing that serves was ever written down.
        ([("a", ""), ("b", "")], "x", ""),
    ],
)
def test_what_stands_is_what_led_to_the_model_that_serves(
    changes: list[tuple[str, str]], serving: str | None, stand: str
) -> None:
    entries = [entry(letter, change or "promoted by a run") for letter, change in changes]
    assert "".join(each["model"] for each in history.standing(entries, serving)) == stand
