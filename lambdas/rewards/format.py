"""Rewards the form a completion was asked for: sections in tags, in order, or a text of one pattern.

It says nothing about what the sections hold, so it shapes a reward for being right, or gates one:
``gate = { below = 1.0, cap = 0.0 }`` pays nothing at all for a completion out of form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lambdas.contract import Reward, Sample

_MOST_TAGS = 10
_SHOWN_TAGS = 12


@dataclass(frozen=True, kw_only=True)
class Format:
    """Scores the share of the form's parts that a completion keeps to, from 0.0 to 1.0 (all of them).

    The parts of ``tags`` are: each section, which stands there exactly once, opened, closed and with words in
    it; with several, their order; and that nothing stands outside of them. The last two count only where
    every section is right, so that neither an empty text nor half a form earns them. A ``pattern`` has one
    part, itself. The cost is linear in the completion; of a ``pattern``, 100,000 characters are read at most.

    Attributes:
        tags: Names of the sections, in order: ``["think", "answer"]`` is
            ``<think>...</think><answer>...</answer>``. Case matters, and a tag has no attributes.
        pattern: In place of ``tags``, an RE2 pattern of the whole completion; ``.`` is any character, a
            line's end too. White space around the completion does not matter.
        text_outside: Whether something may stand outside of the sections.
        minimum_words: Different words a section needs, by its tag: ``{ think = 20 }``. One, where it is left
            out.
        partial_credit: Whether some of the parts earn something; otherwise it is all or nothing.
    """

    tags: tuple[str, ...] = ()
    pattern: str = ""
    text_outside: bool = False
    minimum_words: Mapping[str, int] = field(default_factory=dict)
    partial_credit: bool = True

    def __post_init__(self) -> None:
        if bool(self.tags) == bool(self.pattern):
            raise ValueError('say what the form is: either tags, as in ["think", "answer"], or a pattern')
        given: object = self.tags
        if not isinstance(given, (list, tuple)) or not all(map(_is_name, given)):
            raise ValueError(f"tags is a list of names such as answer, not {given!r}")
        object.__setattr__(self, "tags", tuple(self.tags))
        if len(self.tags) > _MOST_TAGS or len(set(self.tags)) < len(self.tags):
            raise ValueError(f"tags are at most {_MOST_TAGS} different names, not {list(self.tags)!r}")
        for name in ("text_outside", "partial_credit"):
            if getattr(self, name) not in (True, False):
                raise ValueError(f"{name} is true or false, not {getattr(self, name)!r}")
        least_words: object = self.minimum_words
        if not isinstance(least_words, Mapping):
            raise TypeError(f"minimum_words is a table such as {{ think = 20 }}, not {least_words!r}")
        if not isinstance(self.pattern, str):
            raise TypeError(f"pattern is a text, not {self.pattern!r}")
        if self.pattern and (self.text_outside or self.minimum_words):
            raise ValueError("text_outside and minimum_words belong to tags; a pattern says both itself")
        for tag, least in self.minimum_words.items():
            if tag not in self.tags:
                raise ValueError(f"minimum_words: {tag!r} is none of the tags {', '.join(self.tags)}")
            if not isinstance(least, int) or isinstance(least, bool) or not 1 <= least <= 10_000:
                raise ValueError(f"minimum_words.{tag} is a whole number of 1 to 10,000, not {least!r}")
        if self.pattern:
            try:
                self._match(Sample("", (), "text"))
            except ValueError as error:
                raise ValueError(str(error).replace("value", "pattern", 1)) from None

    def score(self, sample: Sample) -> Reward:
        """Looks at the form of the completion; needs no reference answer."""
        if self.pattern:
            found = self._match(sample)
            return Reward(
                found.score,
                metrics={"in_form": found.score},
                extracted=found.extracted,
                reason=f"the completion {'is' if found.score else 'is not'} of the pattern",
            )
        text = sample.completion
        faults: list[str] = []
        spans: list[tuple[int, int]] = []
        for tag in self.tags:
            span = self._section(text, tag)
            if isinstance(span, str):
                faults.append(span)
            else:
                spans.append(span)
        parts = len(self.tags)
        kept = len(spans)
        complete = not faults
        ordered = all(one[1] <= other[0] for one, other in pairwise(spans))
        if len(self.tags) > 1:
            parts += 1
            kept += complete and ordered
            if complete and not ordered:
                faults.append(f"the sections are not in the order {', '.join(self.tags)}")
        if not self.text_outside:
            ends = [0, *(end for _, end in spans)]
            starts = [*(start for start, _ in spans), len(text)]
            alone = not any(text[end:start].strip() for end, start in zip(ends, starts, strict=True))
            parts += 1
            kept += complete and ordered and alone
            if complete and ordered and not alone:
                faults.append("something stands outside of the sections")
        score = kept / parts
        return Reward(
            score if self.partial_credit or score == 1.0 else 0.0,
            metrics={"in_form": float(score == 1.0)},
            extracted=self._outline(text),
            reason="; ".join(faults) or "the form is kept",
        )

    def _section(self, text: str, tag: str) -> tuple[int, int] | str:
        """Finds where a section stands, or says why there is none."""
        opening, closing = f"<{tag}>", f"</{tag}>"
        counts = text.count(opening), text.count(closing)
        if counts != (1, 1):
            return f"{opening} stands there {counts[0]} times and {closing} {counts[1]} times, not once each"
        start, end = text.index(opening), text.index(closing)
        if end < start:
            return f"{closing} stands before {opening}"
        words = len(set(re.findall(r"\w+", text[start + len(opening) : end].casefold())))
        least = self.minimum_words.get(tag, 1)
        if words < least:
            return f"{opening} has {words} different words; {least} are needed"
        return start, end + len(closing)

    def _outline(self, text: str) -> str | None:
        """Shows which of the tags stand in a text, in order."""
        names = "|".join(map(re.escape, self.tags))
        shown: list[str] = []
        for match in re.finditer(rf"</?(?:{names})>", text):
            if len(shown) == _SHOWN_TAGS:
                return " ".join([*shown, "..."])
            shown.append(match[0])
        return " ".join(shown) or None

    def _match(self, sample: Sample) -> Any:
        # Imported here, so that tags start without it.
        from lambdas.rewards.string_check import StringCheck

        # Alone first: brackets that do not pair up would otherwise pair with the ones around it.
        StringCheck(operation="regex", value=self.pattern)
        return StringCheck(operation="regex", value=rf"(?s)\A(?:{self.pattern})\z").score(sample)


def _is_name(tag: object) -> bool:
    return isinstance(tag, str) and re.fullmatch(r"[A-Za-z][\w-]*", tag) is not None
