r"""Rewards a choice: the option the completion *declares*, against the option the row says is right.

The text that stands in the declared place has to name one option and nothing else. Around its name may stand
what people put there (brackets, emphasis, a full stop), and a short name such as ``B`` may be followed by the
option's text: ``B) Paris``. So "not B", "B or C" and "anything but B" name nothing, and a completion that
declares several options earns the reward only if every one of them is the right one.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lambdas.answer import MOST_ANSWERS, Form, Place, quoted, reference_text
from lambdas.contract import Reward, Sample, UnscorableError

# Bounds that make the cost of a sample independent of what the model wrote.
_LONGEST_ANSWER = 300
_MOST_OPTIONS = 1_000

# A name up to this long may be followed by the option's text.
_LONGEST_MARK = 3

_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">", "\u201c": "\u201d", "\u2018": "\u2019", "$": "$"}
_LATEX = re.compile(r"\\(?:text|math)?(?:bf|it|rm|sf|tt)?(?=[{ ])|\\mbox(?=\{)|\\[()\[\],!;: ]")
_MARKED = re.compile(r"[(\[]?(?P<mark>\w+)[*_`]*(?:[)\].:]| [-\u2013\u2014])[*_`]* (?P<text>.+)")
# What follows a name to take it back, or to name a further one, and is not the option's text.
_DENIAL = re.compile(
    r"(?:is|isn.?t|was|wasn.?t|are|or|nor|and|but|/|,|&)(?!\w).*"
    r"|(?:not|never|wrong|incorrect)(?: (?:correct|right|true|it|this|that|the answer))?"
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    r"""Scores 1.0 for the right option, in the right place, and 0.0 for everything else.

    Case does not matter. The cost is linear in the length of the completion; an answer of more than 300
    characters names no option.

    Attributes:
        options: The options: ``{ A = [], B = [] }``, or with other names for each,
            ``{ positive = ["pos", "+"], negative = ["neg", "-"] }``. No name may stand for two options.
        form: Where the answer stands. ``label``: after ``Answer:`` at the start of a line (see ``label``).
            ``boxed``: in ``\boxed{}``. ``hashes``: after ``####``, to the end of the line. ``tag``: in
            ``<answer></answer>`` (see ``tag``). ``json``: in a field of a JSON object, bare or in the only
            fenced code block (see ``json_field``). ``last_line``: the last line. ``whole``: the completion.
        tag: Name of the tag of the form ``tag``.
        label: Text before the colon of the form ``label``, in any case.
        json_field: Field of the form ``json``; ``answer.name`` is a field of a nested object.
        reference_field: Path of the right option in the reference answer; empty takes all of it.
    """

    options: Mapping[str, Sequence[str]]
    form: Form = "label"
    tag: str = "answer"
    label: str = "Answer"
    json_field: str = "answer"
    reference_field: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping) or not 2 <= len(self.options) <= _MOST_OPTIONS:
            raise ValueError(
                f"options is a table of 2 to {_MOST_OPTIONS} options, such as {{ yes = [], no = [] }}"
            )
        # Both are made once, and find what is wrong with the settings.
        _ = self._place, self._names

    def score(self, sample: Sample) -> Reward:
        """Compares every option the completion declares with the right one.

        Raises:
            UnscorableError: The reference answer is missing, or names none of the options.
        """
        expected = self._expected(sample.reference_answer)
        found = self._place.find(sample.completion)
        read = [option for text in found[:MOST_ANSWERS] if (option := self._read(text)) is not None]
        answers = read if len(found) <= MOST_ANSWERS else []
        several = len({*answers}) > 1
        right = {*answers} == {expected}
        if not found:
            reason = self._place.absent
        elif not answers:
            reason = f"{quoted(found)} names none of the options, or more than one"
        elif right:
            reason = f"{quoted(found)} is {expected!r}"
        else:
            reason = f"{quoted(found)} is {', '.join(sorted(map(repr, {*answers})))}, not {expected!r}"
        return Reward(
            float(right),
            metrics={"answered": float(bool(answers)), "several_answers": float(several)},
            extracted=quoted(found) if found else None,
            reason=reason,
        )

    @functools.cached_property
    def _place(self) -> Place:
        return Place(
            form=self.form,
            tag=self.tag,
            label=self.label,
            json_field=self.json_field,
            longest=_LONGEST_ANSWER,
        )

    @functools.cached_property
    def _names(self) -> Mapping[str, str]:
        """Every name, written plainly, with the option it stands for."""
        names: dict[str, str] = {}
        for option, others in self.options.items():
            if isinstance(others, str) or not all(isinstance(other, str) for other in others):
                raise ValueError(
                    f"options: the other names of {option!r} are a list of texts, not {others!r}"
                )
            for name in (option, *others):
                plain = _plain(name) if len(name) <= _LONGEST_ANSWER else ""
                if not plain:
                    raise ValueError(
                        f"options: {name[:60]!r} is no name; one has 1 to {_LONGEST_ANSWER} characters"
                    )
                if names.setdefault(plain, option) != option:
                    raise ValueError(f"options: {name!r} stands for both {names[plain]!r} and {option!r}")
        return names

    @functools.cached_property
    def _further(self) -> re.Pattern[str]:
        """Finds a further short name in an option's text: ``(B)``, ``B.``, or ``or B`` at its end."""
        marks = "|".join(re.escape(name) for name in self._names if len(name) <= _LONGEST_MARK) or r"(?!)"
        return re.compile(
            rf"(?:^|[\s(\[,;/])[*_`]*(?:{marks})[*_`]*[)\].:](?!\w)"
            rf"|(?:(?<!\w)(?:or|and|nor|not)\b|[/,&])[\s(\[*_`]*(?:{marks})$"
        )

    def _expected(self, reference: object) -> str:
        text = reference_text(reference, self.reference_field)
        option = self._read(text)
        if option is None:
            # A worked solution that ends in the declared form carries its answer the same way.
            options = {self._read(piece) for piece in self._place.find(text)} - {None}
            option = options.pop() if len(options) == 1 else None
        if option is None:
            raise UnscorableError(f"the reference answer {quoted([text])} names none of the options")
        return option

    def _read(self, text: str) -> str | None:
        """Finds the option a text names; None when it names none, or says more than that."""
        if len(text) > _LONGEST_ANSWER:
            return None
        text = _plain(text)
        if text in self._names:
            return self._names[text]
        marked = _MARKED.fullmatch(text)
        option = self._names.get(marked["mark"]) if marked else None
        if marked is None or option is None or len(marked["mark"]) > _LONGEST_MARK:
            return None
        rest = _plain(marked["text"])
        if rest in self._names:
            return option if self._names[rest] == option else None
        return None if _DENIAL.fullmatch(rest) or self._further.search(rest) else option


def _plain(text: str) -> str:
    """Writes a name one way: lower case, single spaces, no LaTeX, no brackets or emphasis around it."""
    text = _LATEX.sub("", unicodedata.normalize("NFKC", text).casefold())
    text = " ".join(text.split())
    before = None
    while text != before:
        before = text
        text = text.strip(" *_`\"'~")
        if text.endswith((".", ",", ";", ":", "!")) and not text.endswith(".."):
            text = text[:-1]
        inner = text[1:-1]
        if len(text) > 2 and text[-1] == _PAIRS.get(text[0]) and not {text[0], text[-1]} & {*inner}:
            text = inner
        for opening, closing in (("(", ")"), ("[", "]")):
            if text.endswith(closing) and opening not in text:
                text = text[:-1]
    return text
