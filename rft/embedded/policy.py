"""The miniature that stands in for a language model on the embedded AWS: a small trainable policy.

It is no language model, and its scores say nothing about a real one. It knows three kinds of tasks and tells
them apart by the prompt: arithmetic over its numbers, a JSON object whose fields it lists, and answers seen
before.

A completion is a series of choices: a style of answering, then what to answer. Each choice is a softmax over
options whose scores are sums of weights. All prompts share the weights, so what is learned from one carries
over to those that look alike. Reference answers are no input, except that training shows which values they
have.
"""

import itertools
import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import blake2b, sha256
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]
Hashes = NDArray[np.uint64]

_CHARACTERS_PER_TOKEN = 4


def tokens(text: str) -> int:
    """Returns the estimated length of a text in tokens: four characters make one."""
    return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)


def text_of(content: object) -> str:
    """Returns the text of a message's content: a string, or a list of parts of which the text parts count."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, Mapping) and "text" in part)


# --- Weights and features ---

_WEIGHTS = 1 << 16
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


@lru_cache(maxsize=1 << 16)
def _hash(text: str) -> int:
    # JSON can hold half a surrogate pair.
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _hashes(texts: Iterable[str]) -> Hashes:
    return np.array([_hash(text) for text in texts], dtype=np.uint64)


def _ids(*parts: Hashes) -> Ids:
    """Returns the weights that features use; parts broadcast, so tables of features cost one call.

    Weight 0 stays zero: it pads features that an option does not have.
    """
    mixed = np.zeros(1, dtype=np.uint64)
    for part in parts:
        mixed = (mixed ^ part) * _MULTIPLIER
        mixed = mixed ^ (mixed >> _SHIFT)
    return (mixed % np.uint64(_WEIGHTS - 1)).astype(np.int32) + 1


def _named(name: str) -> int:
    """Returns the weight of a feature that needs no table."""
    return 1 + _hash(name) % (_WEIGHTS - 1)


# What the base model brings along, by feature: it prefers the form it is asked for and expressions that make
# sense, and is sure of nothing. Everything else starts at zero.
_BASE = {
    "style asked for": 1.6,
    "style is a last resort": -1.0,
    "working shown": 0.4,
    "all numbers used": 1.2,
    "units agree": 1.6,
    "percent in its place": 1.6,
    "number copied": -1.0,
    "negative result": -1.5,
    "uneven result": -0.7,
    "option mentioned": 1.5,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One softmax: `features` [options, width] are weight ids; an option's score is their weights' sum."""

    features: Ids

    def probabilities(self, weights: Floats, temperature: float = 1.0, top_p: float = 1.0) -> Floats:
        """Returns the probability of each option; temperature 0 puts everything on the best one."""
        scores = weights[self.features].sum(axis=1)
        if temperature <= 0:
            best = np.zeros(len(scores))
            best[int(scores.argmax())] = 1.0
            return best
        scores = (scores - scores.max()) / temperature
        chances: Floats = np.exp(scores)
        chances /= chances.sum()
        if top_p < 1:
            order = np.argsort(-chances, kind="stable")
            # The option that crosses the threshold stays, so at least one always does.
            dropped = order[1:][np.cumsum(chances[order])[:-1] >= top_p]
            chances[dropped] = 0.0
            chances /= chances.sum()
        return chances


# --- Prompts ---

_NUMBER = re.compile(r"(?<![\w.])(\$\s?)?(\d[\d,]*(?:\.\d+)?)(\s?%|\s+percent\b)?")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_FIELD = re.compile(r"^\s*[-*]\s*[\"'`]?([A-Za-z_][\w.-]*)[\"'`]?\s*:\s*(.+?)\s*$", re.MULTILINE)
_LISTED = re.compile(r"\bone of:?\s+(.+)", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*(?:,|\||/|\bor\b)\s*(?:or\s+)?")
_TRUTH = re.compile(r"\b(?:true or false|boolean)\b", re.IGNORECASE)
_LOOKS_LIKE_A_VALUE = re.compile(r"\b[\w-]*\d[\w.-]*\b")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")

_MAX_NUMBERS = 6
_MAX_DIGITS = 15
_MAX_WORDS = 60
_MAX_VALUES = 64
_MAX_ANSWERS = 256


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy reads: all text of the conversation, and the last question of the user in it."""

    text: str
    question: str

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, Any]]) -> Self:
        """Reads a conversation in chat form; roles other than user are instructions and history."""
        texts = [(str(message.get("role")), text_of(message.get("content"))) for message in messages]
        asked = [text for role, text in texts if role == "user"]
        return cls(text="\n".join(text for _, text in texts), question=asked[-1] if asked else "")

    @property
    def words(self) -> list[str]:
        """The distinct words of the question, in order, and its pairs of neighbouring words."""
        words = _WORD.findall(self.question.lower())
        pairs = [f"{left} {right}" for left, right in itertools.pairwise(words)]
        return [*dict.fromkeys(words)][:_MAX_WORDS] + [*dict.fromkeys(pairs)][:_MAX_WORDS]


@dataclass(frozen=True, slots=True)
class AnswerSpace:
    """What training shows of answers in general, and never which prompt they belong to.

    kind: "number", "object", "text" or "" for unknown. fields: values by field of an object. answers: texts.
    """

    kind: str = ""
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    answers: Sequence[str] = ()

    @classmethod
    def of(cls, references: Iterable[object]) -> Self:
        """Collects the values of reference answers, most frequent first; rows without one are passed over."""
        kinds: Counter[str] = Counter()
        fields: dict[str, Counter[str]] = {}
        answers: Counter[str] = Counter()
        for reference in references:
            value = _unwrapped(reference)
            if isinstance(value, dict):
                kinds["object"] += 1
                for key, filled in value.items():
                    fields.setdefault(str(key), Counter())[json.dumps(filled, sort_keys=True)] += 1
            elif value is not None:
                answer = value if isinstance(value, str) else json.dumps(value)
                kinds["number" if _NUMBER.fullmatch(answer.strip().lstrip("-")) else "text"] += 1
                answers[answer] += 1
        kind = kinds.most_common(1)[0][0] if kinds else ""
        return cls(
            kind=kind,
            fields={
                key: tuple(json.loads(value) for value, _ in seen.most_common(_MAX_VALUES))
                for key, seen in fields.items()
            },
            # A number seen elsewhere is no candidate here: the policy computes numbers from the prompt.
            answers=tuple(answer for answer, _ in answers.most_common(_MAX_ANSWERS))
            if kind == "text"
            else (),
        )


def _unwrapped(reference: object) -> object:
    """Returns the answer in a reference: JSON text is read; an object of one plain value is that value."""
    if isinstance(reference, str) and reference.lstrip().startswith("{"):
        try:
            reference = json.loads(reference)
        except ValueError:
            return reference
    if isinstance(reference, dict) and len(reference) == 1:
        (value,) = reference.values()
        return value if isinstance(value, str | int | float) else reference
    return reference


# --- Arithmetic ---


@dataclass(frozen=True, slots=True)
class _Shape:
    """A form of expression over roles x, y, z, w; the last role is a percentage where `percent` says so."""

    roles: str
    formula: str
    value: Callable[..., Any]
    # Roles that may change places without changing the value, so that only one order is a candidate.
    alike: tuple[str, ...] = ()
    percent: bool = False
    # Whether it makes sense, given which roles are money: no money times money, no money plus pieces.
    sound: Callable[..., bool] = lambda *_: True


_SHAPES = (
    _Shape("x", "x", lambda x: x),
    _Shape("xy", "x + y", lambda x, y: x + y, ("xy",), sound=lambda x, y: x == y),
    _Shape("xy", "x - y", lambda x, y: x - y, sound=lambda x, y: x == y),
    _Shape("xy", "x * y", lambda x, y: x * y, ("xy",), sound=lambda x, y: x + y < 2),
    _Shape("xy", "x / y", lambda x, y: x / y, sound=lambda x, y: x >= y),
    _Shape("xy", "x * y / 100", lambda x, y: x * y / 100, percent=True),
    _Shape("xy", "x * (100 - y) / 100", lambda x, y: x * (100 - y) / 100, percent=True),
    _Shape("xy", "x * (100 + y) / 100", lambda x, y: x * (100 + y) / 100, percent=True),
    _Shape("xyz", "x + y + z", lambda x, y, z: x + y + z, ("xyz",), sound=lambda x, y, z: x == y == z),
    _Shape("xyz", "x * y * z", lambda x, y, z: x * y * z, ("xyz",), sound=lambda x, y, z: x + y + z < 2),
    _Shape("xyz", "x * y + z", lambda x, y, z: x * y + z, ("xy",), sound=lambda x, y, z: x + y == z),
    _Shape("xyz", "x * y - z", lambda x, y, z: x * y - z, ("xy",), sound=lambda x, y, z: x + y == z),
    _Shape("xyz", "z - x * y", lambda x, y, z: z - x * y, ("xy",), sound=lambda x, y, z: x + y == z),
    _Shape(
        "xyz", "x * (y + z)", lambda x, y, z: x * (y + z), ("yz",), sound=lambda x, y, z: y == z and x + y < 2
    ),
    _Shape("xyz", "x * (y - z)", lambda x, y, z: x * (y - z), sound=lambda x, y, z: y == z and x + y < 2),
    _Shape("xyz", "(x + y) / z", lambda x, y, z: (x + y) / z, ("xy",), sound=lambda x, y, z: x == y >= z),
    _Shape("xyz", "(x - y) / z", lambda x, y, z: (x - y) / z, sound=lambda x, y, z: x == y >= z),
    _Shape("xyz", "x * y / z", lambda x, y, z: x * y / z, ("xy",), sound=lambda x, y, z: 1 >= x + y >= z),
    _Shape(
        "xyz",
        "x * y * (100 - z) / 100",
        lambda x, y, z: x * y * (100 - z) / 100,
        ("xy",),
        percent=True,
        sound=lambda x, y, _: x + y < 2,
    ),
    _Shape(
        "xyz",
        "x * y * (100 + z) / 100",
        lambda x, y, z: x * y * (100 + z) / 100,
        ("xy",),
        percent=True,
        sound=lambda x, y, _: x + y < 2,
    ),
    _Shape(
        "xyzw",
        "x * y + z * w",
        lambda x, y, z, w: x * y + z * w,
        ("xy", "zw", "xz"),
        sound=lambda x, y, z, w: x + y == z + w < 2,
    ),
    _Shape(
        "xyzw",
        "x * y * z + w",
        lambda x, y, z, w: x * y * z + w,
        ("xyz",),
        sound=lambda x, y, z, w: x + y + z == w,
    ),
    _Shape(
        "xyzw",
        "x * y * z - w",
        lambda x, y, z, w: x * y * z - w,
        ("xyz",),
        sound=lambda x, y, z, w: x + y + z == w,
    ),
)


def _orders(shape: _Shape) -> list[tuple[int, ...]]:
    """Returns which role each number of the text can take, with one order of those that mean the same."""
    return [
        order
        for order in itertools.permutations(range(len(shape.roles)))
        if all(
            order.index(shape.roles.index(left)) < order.index(shape.roles.index(right))
            for group in shape.alike
            for left, right in itertools.pairwise(group)
        )
    ]


# Every way to put numbers into a shape: the shape, and for each role which of the chosen numbers it takes.
_TEMPLATES = tuple(
    (shape, tuple(order.index(role) for role in range(len(order))))
    for shape in _SHAPES
    for order in _orders(shape)
)


@dataclass(frozen=True, slots=True)
class _Number:
    value: float
    written: str
    unit: str
    before: str
    after: str


def _numbers(question: str) -> list[_Number]:
    found = []
    for match in _NUMBER.finditer(question):
        if len(match[2]) > _MAX_DIGITS:
            continue
        before = _WORD.findall(question[: match.start()].lower())
        after = _WORD.findall(question[match.end() :].lower())
        found.append(
            _Number(
                value=float(match[2].replace(",", "")),
                written=match[2].replace(",", ""),
                unit="percent" if match[3] else "money" if match[1] else "pieces",
                before=before[-1] if before else "",
                after=after[0] if after else "",
            )
        )
    return found[:_MAX_NUMBERS]


def _written(value: float) -> str:
    """Returns a result the way people write it: at most two decimals, none when whole."""
    # The nudge keeps 1.005 from falling to 1.0 only because binary fractions cannot hold it.
    cents = f"{value + math.copysign(1e-9, value):.2f}".rstrip("0").rstrip(".")
    return "0" if cents == "-0" else cents


# --- Tasks ---

# How an answer is written, and the words in a prompt that ask for this form.
_FORMS: Mapping[str, tuple[str, str]] = {
    "hashes": ("#### {}", r"####"),
    "boxed": ("\\boxed{{{}}}", r"\\boxed"),
    "tags": ("<answer>{}</answer>", r"<answer>"),
    "fenced": ("```\n{}\n```", r"```"),
    "label": ("Answer: {}", r"\banswer:\s*<"),
    "sentence": ("The answer is {}.", r"\bfull sentence"),
    # What is asked for when nothing else is; it matches every prompt, so it comes last.
    "plain": ("{}", r""),
}
# Other ways to go about an answer. All but the first are what a reward function must not fall for.
_MANNERS = ("working", "overlong", "everything", "echo", "empty")
_STYLES = (*_FORMS, *_MANNERS)
# In these the answer itself does not show, so there is nothing to choose.
_WITHOUT_ANSWER = frozenset({"everything", "echo", "empty"})
_LAST_RESORTS = frozenset({"overlong", "everything", "echo", "empty"})


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled completion: its text, the option picked in each choice, and its log-probability.

    Only picks that shaped the text are there: a style that shows no answer leaves the answer's choices out.
    """

    text: str
    picks: tuple[int, ...]
    log_probability: float
    truncated: bool


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt as the policy sees it: `choices[0]` is the style, the others together are the answer."""

    prompt: Prompt
    choices: tuple[Choice, ...]
    form: str
    # Turns the picked options into the answer and the working that leads to it.
    answer: Callable[[Sequence[int]], tuple[str, str]]

    def write(self, picks: Sequence[int]) -> str:
        """Returns the completion that the picked options stand for."""
        style = _STYLES[picks[0]]
        if style == "empty":
            return ""
        if style == "echo":
            return self.prompt.question
        asked = _FORMS[self.form][0]
        if style == "everything":
            # Options differ in number from choice to choice; the shorter ones start over.
            longest = max(len(choice.features) for choice in self.choices[1:])
            rows = ([row % len(choice.features) for choice in self.choices[1:]] for row in range(longest))
            return "\n".join(dict.fromkeys(asked.format(self.answer(row)[0]) for row in rows))
        answer, working = self.answer(picks[1:])
        if style == "working":
            return f"{working}\n{asked.format(answer)}"
        if style == "overlong":
            thought = (
                f"Let me read the question once more: {self.prompt.question}\nOne way to see it: {working}\n"
            )
            return thought * max(2, 1200 // len(thought)) + asked.format(answer)
        return _FORMS[style][0].format(answer)


def _style(prompt: Prompt, kind: str) -> tuple[Choice, str]:
    """Returns the choice of a style and the form the prompt asks for."""
    asked = next(form for form, (_, words) in _FORMS.items() if re.search(words, prompt.text, re.IGNORECASE))
    rows = []
    for style in _STYLES:
        features = [f"style {style}", f"style {style} for {kind}"]
        features += ["style asked for"] if style == asked else []
        features += ["style is a last resort"] if style in _LAST_RESORTS else []
        # Working ends in the form asked for, so it is an answer in that form too.
        features += ["style asked for", "working shown"] if style == "working" else []
        rows.append([_named(feature) for feature in features])
    return Choice(_padded(rows)), asked


def _padded(rows: Sequence[Sequence[int]]) -> Ids:
    table = np.zeros((len(rows), max(map(len, rows))), dtype=np.int32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return table


def _arithmetic(prompt: Prompt, numbers: Sequence[_Number]) -> Task:
    """Builds the task of computing a number: one choice among expressions over the question's numbers."""
    money = [number.unit == "money" for number in numbers]
    templates: list[int] = []
    rows: list[list[str]] = []
    expressions: list[tuple[str, str]] = []
    for index, (shape, taken) in enumerate(_TEMPLATES):
        for chosen in itertools.combinations(range(len(numbers)), len(taken)):
            roles = [chosen[position] for position in taken]
            try:
                value = shape.value(*(numbers[role].value for role in roles))
            except ZeroDivisionError:
                continue
            percent = [numbers[role].unit == "percent" for role in roles]
            in_place = percent == [False] * (len(roles) - 1) + [True] if shape.percent else not any(percent)
            features = [f"template {index} of {len(numbers)}", f"shape {shape.formula}"]
            for name, role in zip(shape.roles, roles, strict=True):
                number = numbers[role]
                features += [
                    f"{shape.formula} {name} is {number.unit}",
                    f"{shape.formula} {name} before {number.after}",
                    f"{shape.formula} {name} after {number.before}",
                ]
            flags = {
                "all numbers used": len(roles) == min(len(numbers), 4),
                "units agree": in_place and shape.sound(*(money[role] for role in roles)),
                "percent in its place": in_place,
                "number copied": len(roles) == 1,
                "negative result": value < 0,
                "uneven result": abs(value * 100 - round(value * 100)) > 1e-6,
            }
            rows.append(features + [flag for flag, holds in flags.items() if holds])
            templates.append(index)
            written = shape.formula
            for name, role in zip(shape.roles, roles, strict=True):
                written = written.replace(name, numbers[role].written)
            expressions.append((_written(value), written))
    own = _padded([[_named(feature) for feature in row] for row in rows])
    formulas = _hashes(shape.formula for shape, _ in _TEMPLATES)
    words = _ids(formulas[:, None], _hashes(prompt.words or [""])[None, :])
    content = Choice(np.concatenate([own, words[templates]], axis=1))
    style, form = _style(prompt, "numbers")

    def answer(picks: Sequence[int]) -> tuple[str, str]:
        result, expression = expressions[picks[0]]
        return result, f"{expression} = {result}"

    return Task(prompt=prompt, choices=(style, content), form=form, answer=answer)


def _object(prompt: Prompt, fields: Mapping[str, Sequence[Any]]) -> Task:
    """Builds the task of filling an object: one choice for each of its fields."""
    style, form = _style(prompt, "objects")
    words = _hashes(prompt.words or [""])
    said = f" {' '.join(_WORD.findall(prompt.question.lower()))} "
    choices = []
    for key, values in fields.items():
        names = _hashes(f"{key} = {json.dumps(value)}" for value in values)
        own = [
            [_named(f"{key} = {json.dumps(value)}")]
            + ([_named("option mentioned")] if f" {str(value).lower().replace('_', ' ')} " in said else [])
            for value in values
        ]
        choices.append(Choice(np.concatenate([_padded(own), _ids(names[:, None], words[None, :])], axis=1)))

    def answer(picks: Sequence[int]) -> tuple[str, str]:
        filled = {key: values[pick] for (key, values), pick in zip(fields.items(), picks, strict=True)}
        return json.dumps(filled, ensure_ascii=False), f"I read it as {', '.join(map(str, filled.values()))}."

    return Task(prompt=prompt, choices=(style, *choices), form=form, answer=answer)


def _text(prompt: Prompt, seen: Sequence[str]) -> Task:
    """Builds the task of giving a text: an answer that training has seen, or a sentence of the question."""
    style, form = _style(prompt, "texts")
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(prompt.question) if sentence.strip()]
    options = [*dict.fromkeys([*seen, *sentences[:8], "yes", "no"])]
    words = _hashes(prompt.words or [""])
    said = prompt.question.lower()
    own = [
        [_named(f"answer {option}")] + ([_named("option mentioned")] if option.lower() in said else [])
        for option in options
    ]
    names = _hashes(f"answer {option}" for option in options)
    content = Choice(np.concatenate([_padded(own), _ids(names[:, None], words[None, :])], axis=1))

    def answer(picks: Sequence[int]) -> tuple[str, str]:
        return options[picks[0]], "I go by what the question says."

    return Task(prompt=prompt, choices=(style, content), form=form, answer=answer)


def _fields(prompt: Prompt, space: AnswerSpace) -> dict[str, list[Any]]:
    """Returns the options of each field: those the prompt lists, then those training has seen."""
    fields: dict[str, list[Any]] = {}
    for key, described in (
        _FIELD.findall(prompt.text) if re.search("json", prompt.text, re.IGNORECASE) else ()
    ):
        if listed := _LISTED.search(described):
            named = (option.strip("\"'`. ") for option in _SEPARATOR.split(listed[1].partition("(")[0]))
            options: list[Any] = [option for option in named if option] or [None]
        elif _TRUTH.search(described):
            options = [True, False]
        else:
            options = [*list(dict.fromkeys(_LOOKS_LIKE_A_VALUE.findall(prompt.question)))[:16], None]
        fields[key] = options
    if space.kind == "object":
        for key, values in space.fields.items():
            known = fields.setdefault(key, [])
            # By JSON, because True == 1 in Python but not in an answer.
            spelled = {json.dumps(value) for value in known}
            known += [value for value in values if json.dumps(value) not in spelled]
    return fields


# --- The policy ---

# A learning rate of the service's range (1e-7 to 1e-3) becomes a step by its square root: the values in AWS's
# examples, 1e-5 to 1e-4, all train the miniature within one rehearsal, and 1e-3 is bold for it too.
_STEP = 0.05
_RECOMMENDED_RATE = 1e-4
_MAX_GRADIENT_NORM = 1.0
_CACHED_TASKS = 2048


@dataclass(frozen=True, slots=True)
class Update:
    """What one step of training saw.

    entropy: of the policy in nats, averaged over prompts. loss: of the policy gradient, advantage times
    surprise. perplexity: of the sampled completions.
    """

    entropy: float
    loss: float
    gradient_norm: float
    perplexity: float


class Policy:
    """The miniature with its weights; `identity` names its content, so equal policies sample alike."""

    def __init__(self, weights: Floats, space: AnswerSpace) -> None:
        self.weights = weights
        self.space = space
        self._squares = np.full(len(weights), 1e-4)
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def base(cls, space: AnswerSpace | None = None) -> Self:
        """Returns the untrained policy, optionally about to train on answers of this space."""
        weights = np.zeros(_WEIGHTS)
        for name, value in _BASE.items():
            weights[_named(name)] = value
        return cls(weights, space or AnswerSpace())

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads a policy written by `save`."""
        with np.load(file, allow_pickle=False) as stored:
            document = json.loads(str(stored["space"]))
            return cls(stored["weights"].astype(np.float64), AnswerSpace(**document))

    def save(self, file: Path) -> None:
        """Writes weights and answer space into one file."""
        np.savez_compressed(file, weights=self.weights, space=np.array(json.dumps(asdict(self.space))))

    @property
    def identity(self) -> str:
        """A hash over everything the policy's behaviour depends on."""
        document = json.dumps(asdict(self.space), sort_keys=True)
        return sha256(self.weights.tobytes() + document.encode()).hexdigest()

    def task(self, messages: Sequence[Mapping[str, Any]]) -> Task:
        """Returns the task of a conversation; the last thousands are kept."""
        prompt = Prompt.of(messages)
        key = sha256(f"{prompt.text}\0{prompt.question}".encode(errors="surrogatepass")).hexdigest()
        with self._lock:
            task = self._tasks.get(key)
        task = task or self._build(prompt)
        with self._lock:
            self._tasks[key] = task
            self._tasks.move_to_end(key)
            while len(self._tasks) > _CACHED_TASKS:
                self._tasks.popitem(last=False)
        return task

    def _build(self, prompt: Prompt) -> Task:
        if fields := _fields(prompt, self.space):
            return _object(prompt, fields)
        numbers = _numbers(prompt.question)
        if numbers and self.space.kind in ("", "number"):
            return _arithmetic(prompt, numbers)
        return _text(prompt, self.space.answers)

    def sample(
        self,
        task: Task,
        count: int,
        *,
        seed: str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
    ) -> list[Completion]:
        """Samples completions of a task; equal arguments give equal completions."""
        random = np.random.default_rng(int(sha256(seed.encode()).hexdigest()[:16], 16))
        chances = [choice.probabilities(self.weights, temperature, top_p) for choice in task.choices]
        completions = []
        for _ in range(count):
            picks = [_pick(random, chances[0])]
            if _STYLES[picks[0]] not in _WITHOUT_ANSWER:
                picks += [_pick(random, chance) for chance in chances[1:]]
            text = task.write(picks)
            longest = len(text) if max_tokens is None else max_tokens * _CHARACTERS_PER_TOKEN
            completions.append(
                Completion(
                    text=text[:longest],
                    picks=tuple(picks),
                    log_probability=math.fsum(
                        math.log(chance[pick]) for chance, pick in zip(chances, picks, strict=False)
                    ),
                    truncated=len(text) > longest,
                )
            )
        return completions

    def learn(
        self, groups: Sequence[tuple[Task, Sequence[Completion], Sequence[float]]], learning_rate: float
    ) -> Update:
        """Takes one step up the policy gradient.

        groups: for each prompt its task, the completions sampled from it and their advantages.
        """
        total = sum(len(completions) for _, completions, _ in groups)
        ids: list[Ids] = []
        shares: list[Floats] = []
        entropy = loss = surprise = 0.0
        for task, completions, advantages in groups:
            chances = [choice.probabilities(self.weights) for choice in task.choices]
            pushes = [np.zeros(len(chance)) for chance in chances]
            for completion, advantage in zip(completions, advantages, strict=True):
                loss -= advantage * completion.log_probability / total
                surprise -= completion.log_probability / total
                for push, chance, pick in zip(pushes, chances, completion.picks, strict=False):
                    push[pick] += advantage
                    push -= advantage * chance
            for choice, push in zip(task.choices, pushes, strict=True):
                ids.append(choice.features.ravel())
                shares.append(np.repeat(push, choice.features.shape[1]))
            answered = sum(
                float(chance)
                for style, chance in zip(_STYLES, chances[0], strict=True)
                if style not in _WITHOUT_ANSWER
            )
            inner = sum(_entropy(chance) for chance in chances[1:])
            entropy += (_entropy(chances[0]) + answered * inner) / len(groups)
        gradient = (
            np.bincount(np.concatenate(ids), np.concatenate(shares), minlength=len(self.weights)) / total
        )
        # Weight 0 is padding.
        gradient[0] = 0.0
        norm = float(np.linalg.norm(gradient))
        gradient *= min(1.0, _MAX_GRADIENT_NORM / max(norm, 1e-12))
        self._squares += gradient**2
        step = _STEP * math.sqrt(learning_rate / _RECOMMENDED_RATE)
        self.weights += step * gradient / np.sqrt(self._squares)
        return Update(entropy=entropy, loss=loss, gradient_norm=norm, perplexity=math.exp(surprise))


def advantages(rewards: Sequence[float]) -> list[float]:
    """Returns how much better than its group each completion of one prompt did, in standard deviations."""
    values = np.asarray(rewards, dtype=np.float64)
    centred = values - values.mean()
    # Equal rewards leave rounding noise, which must not be blown up into a signal.
    if np.ptp(values) < 1e-9:
        return [0.0] * len(values)
    return [float(value) for value in centred / (values.std() + 1e-6)]


def _pick(random: np.random.Generator, chances: Floats) -> int:
    # Rounding can leave the sum a hair below 1, and the last options may have no chance at all.
    return min(
        int(np.searchsorted(np.cumsum(chances), random.random(), side="right")),
        int(np.flatnonzero(chances)[-1]),
    )


def _entropy(chances: Floats) -> float:
    positive = chances[chances > 0]
    return float(-(positive * np.log(positive)).sum())
