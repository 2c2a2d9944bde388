"""The comment on a pull request: what the jobs of the check have written, cut to what GitHub takes.

Nothing is cut in the middle. What goes first is what says least: the differences of templates that lose
nothing, then what can be unfolded, then whole sections in which nothing is wrong.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

# The longest comment that GitHub takes, in characters.
LIMIT: Final = 65_536

_FENCE: Final = re.compile(r" {0,3}(`{3,})")
_SUMMARY: Final = re.compile(r"<summary>(.*?)</summary>")
# What `rft check` puts before a team that would be stopped or is warned, `rft ci diff` before what is lost.
_TROUBLE: Final = re.compile(r"^(### (❌|⚠️)|- \*\*)", re.MULTILINE)
_NAMED: Final = 20


@dataclass(frozen=True)
class _Part:
    """Lines of a section that stay or go together: one `<details>`, or what stands before and after it."""

    text: str
    foldable: bool

    @property
    def summary(self) -> str:
        found = _SUMMARY.search(self.text)
        return found[1] if found else ""

    @property
    def opened(self) -> bool:
        return self.text.startswith("<details open>")


@dataclass(frozen=True)
class _Section:
    """A heading and what stands below it."""

    parts: tuple[_Part, ...]

    @property
    def title(self) -> str:
        return self.parts[0].text.partition("\n")[0].removeprefix("### ")

    @property
    def troubled(self) -> bool:
        return any(_TROUBLE.search(part.text) for part in self.parts if not part.foldable)


def comment(texts: Sequence[str], whole: str, *, limit: int = LIMIT) -> str:
    """Puts Markdown together to a comment of at most `limit` characters.

    Args:
        texts: What the jobs have written, in the order in which it is to stand.
        whole: Where the whole text is, as Markdown; the comment says so when something is left out.
        limit: In characters as GitHub counts them; a picture of two code units counts as two here.
    """
    sections = [section for text in texts for section in _sections(text)]
    cuts = sorted(_cuts(sections), key=lambda cut: cut[:2])
    gone: set[tuple[int, int | None]] = set()
    shown = _shown(sections, gone, whole)
    for _, _, section, part in cuts:
        if _length(shown) <= limit:
            break
        gone.add((section, part))
        shown = _shown(sections, gone, whole)
    return shown


def _cuts(sections: Sequence[_Section]) -> Iterator[tuple[int, int, int, int | None]]:
    """Everything that can go: how much it says, how long it is (the longest first), and where it is."""
    for number, section in enumerate(sections):
        for at, part in enumerate(section.parts):
            if part.foldable:
                rank = 3 if part.opened else 2 if section.troubled else 0 if part.summary == "cdk diff" else 1
                yield rank, -len(part.text), number, at
        yield (5 if section.troubled else 4), -sum(len(part.text) for part in section.parts), number, None


def _shown(sections: Sequence[_Section], gone: set[tuple[int, int | None]], whole: str) -> str:
    text = []
    for number, section in enumerate(sections):
        if (number, None) not in gone:
            text += [
                part.text if (number, at) not in gone else f"<sub>left out: {part.summary}</sub>\n\n"
                for at, part in enumerate(section.parts)
            ]
    return _note(sections, gone, whole) + "".join(text)


def _note(sections: Sequence[_Section], gone: set[tuple[int, int | None]], whole: str) -> str:
    """What is left out, and where it can be read; nothing where nothing is."""
    if not gone:
        return ""
    sorts = Counter(
        "cdk diff" if sections[number].parts[at].summary == "cdk diff" else "other details"
        for number, at in gone
        if at is not None and (number, None) not in gone
    )
    said = [f"{name} ({count:,}x)" for name, count in sorted(sorts.items())]
    titles = [section.title for number, section in enumerate(sections) if (number, None) in gone]
    if titles:
        more = f" and {len(titles) - _NAMED:,} more" if len(titles) > _NAMED else ""
        said.append(f"all of {', '.join(title[:80] for title in titles[:_NAMED])}{more}")
    return f"> **Shortened to what GitHub takes.** Left out: {'; '.join(said)}. The whole text: {whole}.\n\n"


def _sections(text: str) -> Iterator[_Section]:
    """Cuts Markdown at its headings and at what can be unfolded; neither counts within a block of code."""
    parts: list[_Part] = []
    lines: list[str] = []
    fence, folded = "", False

    def close(*, foldable: bool) -> None:
        if lines:
            parts.append(_Part("".join(lines), foldable))
            lines.clear()

    for line in text.splitlines(keepends=True):
        if found := _FENCE.match(line):
            # Only as many ticks or more, and nothing after them, end a block.
            if not fence:
                fence = found[1]
            elif len(found[1]) >= len(fence) and line.strip() == found[1]:
                fence = ""
        elif not fence and not folded and line.startswith("### "):
            close(foldable=False)
            if parts:
                yield _Section(tuple(parts))
                parts.clear()
        elif not fence and not folded and line.startswith("<details"):
            close(foldable=False)
            folded = True
        lines.append(line)
        if not fence and folded and line.startswith("</details>"):
            close(foldable=True)
            folded = False
    close(foldable=folded)
    if parts:
        yield _Section(tuple(parts))


def _length(text: str) -> int:
    """Code units of UTF-16, which are never fewer than characters."""
    return len(text.encode("utf-16-le")) // 2
