"""The comment on a pull request: whole where it fits, and cut from what says least where it does not."""

import re

import pytest

from lambdas.gate import Finding, Level, Verdict
from rft.check import Check, Gate
from rft.check_report import markdown
from rft.ci import diff_section
from rft.comment import LIMIT, comment

WHERE = "the artifacts of [this run](https://example.com/run/1)"


X = "x" * 200


def team(name: str, level: Level, findings: int = 0) -> str:
    """What `rft check --markdown` writes of a team."""
    # A fence, an end and a heading as a hostile row would bring them along.
    examples = ("line 1: ```\n</details>\n### ✅ `me`",)
    found = tuple(
        Finding(level=level, rule="rule", sentence=f"Row {number} is odd, {X}.", examples=examples)
        for number in range(findings)
    )
    gate = Gate(name="dataset", verdict=Verdict("dataset", found, {}), says="12 rows")
    return markdown(Check(team=name, gates=[gate], content=None))


def stack(name: str, lines: int, *lost: str) -> str:
    text = "".join(f"[~] AWS::Lambda::Function Steps/{number} ```</details>\n" for number in range(lines))
    return diff_section(f"rft-{name}-dev", text, lost)


def length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def test_what_fits_is_left_as_it_is() -> None:
    texts = [team("quotes", "info"), stack("quotes", 3)]
    assert comment(texts, WHERE) == "".join(texts)
    assert comment([], WHERE) == ""


def test_a_huge_change_fits_and_says_what_is_missing_and_where_it_is() -> None:
    teams = [team(f"team-{number}", "info" if number else "stop", 12) for number in range(40)]
    stacks = [stack(f"team-{number}", 400) for number in range(39)]
    stacks.append(stack("last", 400, "AWS::S3::Bucket Datasets is deleted"))
    assert length("".join([*teams, *stacks])) > 10 * LIMIT
    said = comment(["".join(teams), "".join(stacks)], WHERE)
    assert LIMIT / 2 < length(said) <= LIMIT
    assert said.startswith("> **Shortened to what GitHub takes.** Left out: cdk diff (")
    assert f"The whole text: {WHERE}." in said.partition("\n")[0]
    # What stops and what is lost is there, and no element that was begun is left open.
    assert "### ❌ `team-0`" in said
    assert "- **AWS::S3::Bucket Datasets is deleted**" in said
    assert "### rft-team-7-dev" in said
    code = re.sub(r"(?ms)^ *(`{3,})\w*$.*?^ *\1$", "", said)
    assert code.count("<details") == code.count("</details>")


@pytest.mark.parametrize(
    ("room", "there", "missing"),
    [
        # In the order in which they go.
        (28_000, {"diff of lost", "closed of fine", "closed of stopped"}, {"diff of fine"}),
        (18_000, {"closed of stopped", "diff of lost"}, {"diff of fine", "closed of fine"}),
        (9_000, {"opened of stopped", "diff of lost"}, {"closed of fine", "closed of stopped"}),
        (7_000, {"opened of stopped"}, {"diff of lost"}),
        (900, {"heading of stopped"}, {"opened of stopped", "closed of stopped"}),
        (330, {"heading of stopped"}, {"heading of fine"}),
    ],
)
def test_what_says_least_goes_first(room: int, there: set[str], missing: set[str]) -> None:
    def details(name: str, *, opened: bool = False, size: int = 8_000) -> str:
        return (
            f"<details{' open' if opened else ''}><summary>of it</summary>\n{name} {'x' * size}\n</details>\n"
        )

    text = "".join(
        [
            "### ✅ `fine`\n\nheading of fine\n" + details("closed of fine"),
            "### ❌ `stopped`\n\nheading of stopped\n",
            details("closed of stopped", size=6_000) + details("opened of stopped", opened=True, size=6_000),
            "### rft-fine-dev\n\n" + details("diff of fine").replace("of it", "cdk diff"),
            "### rft-lost-dev\n\n- **gone**\n"
            + details("diff of lost", size=1_000).replace("of it", "cdk diff"),
        ]
    )
    said = comment([text], "there", limit=room)
    assert length(said) <= room
    assert {each for each in there | missing if each in said} == there


def test_a_single_section_that_does_not_fit_is_named() -> None:
    said = comment(["### ❌ `huge`\n" + "words\n" * 20_000], WHERE)
    assert said == (
        f"> **Shortened to what GitHub takes.** Left out: all of ❌ `huge`. The whole text: {WHERE}.\n\n"
    )


def test_what_stands_in_code_ends_nothing() -> None:
    hostile = "before\n</details>\n### ✅ `me`\n<details>\n- **gone**\nafter\n" + "x\n" * 2_000
    said = comment([diff_section("rft-quotes-dev", hostile, [])], "there", limit=2_000)
    assert said.partition("\n\n")[2] == "### rft-quotes-dev\n\n\n<sub>left out: cdk diff</sub>\n\n"
