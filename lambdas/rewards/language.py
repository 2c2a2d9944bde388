"""Rewards a completion for staying in the scripts it should be written in: shaping against mixing languages.

The share of text in the target language is the language consistency reward of DeepSeek-R1 (2025,
arXiv:2501.12948, section 2.3.2), counted here in letters and by script: letters of the allowed scripts /
letters of all scripts. A script is not a language: Latin is English, German and Vietnamese alike, and telling
those apart takes a model, which would make the score a guess.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lambdas.completion import message_text
from lambdas.contract import Reward, Sample

Script = Literal[
    "Arabic",
    "Armenian",
    "Bengali",
    "Bopomofo",
    "Cyrillic",
    "Devanagari",
    "Ethiopic",
    "Georgian",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Kannada",
    "Katakana",
    "Khmer",
    "Lao",
    "Latin",
    "Malayalam",
    "Mongolian",
    "Myanmar",
    "Oriya",
    "Sinhala",
    "Tamil",
    "Telugu",
    "Thai",
    "Tibetan",
]
Ignored = Literal["code", "markup", "quotes"]

# The first word of a letter's Unicode name is its script, but for the ideographs.
_SCRIPTS = {**{name.upper(): name for name in get_args(Script)}, "CJK": "Han"}
_OTHER = "another script"

# Letters by class that belong to several scripts: modifiers, length and iteration marks.
_SHARED = {"MODIFIER", "IDEOGRAPHIC", "KATAKANA-HIRAGANA", ""}

# A letter of these that stands alone is a symbol: x, π.
_LONE = re.compile("(?<![^\\W\\d_])[A-Za-z\u0370-\u03ff](?![^\\W\\d_])")

# Each of them ends where the next one could begin, so that none is searched twice.
_PARTS = {
    "code": re.compile(r"`[^`\n]*`"),
    "markup": re.compile(r"</?[A-Za-z][\w:-]{0,40}>|\\[A-Za-z]+|https?://[!-;=?-~]+"),
    "quotes": re.compile('"[^"\n]*"|“[^“”\n]*”|„[^„“”\n]*[“”]|«[^«»\n]*»|「[^「」\n]*」|『[^『』\n]*』'),
}

# A script that has less of a prompt than this is a name or a quotation in it.
_SHARE_OF_PROMPT = 0.1

# Japanese is written in all three.
_JAPANESE = frozenset({"Hiragana", "Katakana", "Han"})


@dataclass(frozen=True, kw_only=True)
class Language:
    """Scores the share of a completion's letters that belong to the allowed scripts, 0.0 to 1.0.

    Only letters count: digits, signs, accents, emoji and white space do not, nor does a Latin or Greek letter
    on its own, which is a symbol. What is ignored may not be more than half of the letters; otherwise all of
    them count, so that a foreign text cannot hide in a code block. The cost is linear in the completion.

    Attributes:
        scripts: The allowed scripts, by their Unicode names: ``["Latin"]``; Japanese is ``["Han", "Hiragana",
            "Katakana"]``.
        same_as_prompt: Whether, in place of ``scripts``, those of the last user message are allowed; a script
            with less than a tenth of its letters is not. Where it has no letters, ``scripts`` are.
        ignore: What does not count. ``code``: fenced blocks and what stands between backquotes. ``markup``:
            tags, LaTeX commands and links. ``quotes``: what stands in quotation marks.
        minimum_letters: A text with fewer letters is in no language and earns nothing; with 0 a bare number
            is as good as a sentence.
        tolerated_share: Share of foreign letters that costs nothing, for names and terms.
        largest_share: Share of foreign letters at which nothing is left.
    """

    scripts: tuple[Script, ...] = ("Latin",)
    same_as_prompt: bool = False
    ignore: tuple[Ignored, ...] = ("code", "markup")
    minimum_letters: int = 1
    tolerated_share: float = 0.0
    largest_share: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in (("scripts", get_args(Script)), ("ignore", get_args(Ignored))):
            # A text is a list of letters to Python, and none of them is a name.
            for value in getattr(self, name):
                if value not in allowed:
                    raise ValueError(f"{name} is a list of {', '.join(allowed)}; {value!r} is none of them")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.scripts:
            raise ValueError("scripts names at least one script")
        if self.same_as_prompt not in (True, False):
            raise ValueError(f"same_as_prompt is true or false, not {self.same_as_prompt!r}")
        letters = self.minimum_letters
        if not isinstance(letters, int) or isinstance(letters, bool) or letters < 0:
            raise ValueError(f"minimum_letters is a whole number of at least 0, not {letters!r}")
        for name in ("tolerated_share", "largest_share"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name} is a number of 0 to 1, not {value!r}")
        if not self.tolerated_share < self.largest_share:
            raise ValueError(
                f"tolerated_share, {self.tolerated_share}, has to be below largest_share, "
                f"{self.largest_share}"
            )

    def score(self, sample: Sample) -> Reward:
        """Counts the completion's letters by script; needs no reference answer."""
        found = _letters(self._counted(sample.completion))
        everything = _letters(sample.completion)
        if found.total() * 2 < everything.total():
            found = everything
        allowed = self._allowed(sample.messages)
        total = found.total()
        foreign = sum(count for script, count in found.items() if script not in allowed)
        share = foreign / total if total else 0.0
        metrics = {"foreign_share": share, "letters": float(total)}
        shown = ", ".join(f"{script} {count / total:.1%}" for script, count in found.most_common(3))
        if total < self.minimum_letters or not sample.completion.strip():
            reason = f"{total} letters; {max(self.minimum_letters, 1)} are needed to be in a language"
            return Reward(0.0, metrics=metrics, extracted=shown or None, reason=reason)
        room = (self.largest_share - share) / (self.largest_share - self.tolerated_share)
        return Reward(
            min(max(room, 0.0), 1.0),
            metrics=metrics,
            extracted=shown or None,
            reason=f"{share:.1%} of {total} letters are not {' or '.join(sorted(allowed))}",
        )

    def _counted(self, text: str) -> str:
        """Takes out what is ignored."""
        if "code" in self.ignore:
            # A fence that is never closed makes no block, as everywhere in the library.
            pieces = re.split(r"^[ \t]*```", text, flags=re.MULTILINE)
            text = "\n".join(pieces[0::2]) if len(pieces) % 2 else text
        for name in self.ignore:
            text = _PARTS[name].sub(" ", text)
        return text

    def _allowed(self, messages: tuple[Mapping[str, Any], ...]) -> frozenset[str]:
        if self.same_as_prompt:
            said = [message.get("content") for message in messages if message.get("role") == "user"]
            found = _letters(self._counted(message_text(said[-1]))) if said else Counter[str]()
            allowed = {script for script, count in found.items() if count >= _SHARE_OF_PROMPT * found.total()}
            if allowed & {"Hiragana", "Katakana"}:
                allowed |= _JAPANESE
            if allowed - {_OTHER}:
                return frozenset(allowed - {_OTHER})
        return frozenset(self.scripts)


def _letters(text: str) -> Counter[str]:
    """Counts the letters of a text by script."""
    found: Counter[str] = Counter()
    # Each character is looked up once, however often it appears.
    for character, count in Counter(_LONE.sub(" ", text)).items():
        script = _script(character)
        if script:
            found[script] += count
    return found


@functools.lru_cache(maxsize=20_000)
def _script(character: str) -> str:
    """Names the script of a letter; empty for what is none, or belongs to several scripts."""
    # A letter in mathematical bold or full width is the letter; the first one, where it stands for several.
    character = unicodedata.normalize("NFKC", character)[:1]
    if not unicodedata.category(character or " ").startswith("L"):
        return ""
    first = re.split("[ -]", unicodedata.name(character, ""))[0]
    return "" if first in _SHARED else _SCRIPTS.get(first, _OTHER)
