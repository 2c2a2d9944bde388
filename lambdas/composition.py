"""Makes one reward out of a team's components: a weighted mean or a formula, then gates, then the range.

A component scores within 0 to 1, or within the team's range where that is wider; whatever lies outside is
clipped. Weight 0 makes a component watched only, and a formula optimizes the components it names. The
numbers a component watches itself are passed on as ``<component>_<metric>``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import math
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from lambdas.contract import TROUBLES, Reward, Sample, UnscorableError, checked, prepared

# Functions of one number that only ever rise with it.
_RISING = {"floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt, "exp": math.exp, "log": math.log}
_FUNCTIONS = ("min", "max", "abs", "clip", *_RISING)
_COMPONENT_KEYS = frozenset({"function", "weight", "gate"})
_MOST_COMPONENTS = 50
_LONGEST_FORMULA = 500
_LARGEST = 1e9
_LARGEST_EXPONENT = 16

# How often components may change the reference completion that others have written.
_ROUNDS = 3

Score = Callable[[Sample], Reward]
Writer = Callable[[Sample], str | None]


class CompositionError(ValueError):
    """The [reward] table does not describe a reward; the text says where and what would."""


def compose(settings: Mapping[str, Any], team_reward: Path | None = None) -> Score:
    """Builds the reward function a [reward] table describes.

    Args:
        settings: The table: ``components`` and, optionally, ``range`` and ``formula``. Its other keys are not
            about the score.
        team_reward: The team's own ``reward.py``; None takes ``team_reward`` of the deployed package.

    Raises:
        CompositionError: The table is wrong.
    """
    tables = settings.get("components") or {}
    if not 1 <= len(tables) <= _MOST_COMPONENTS:
        raise CompositionError(
            f"reward.components: 1 to {_MOST_COMPONENTS} components are needed, got {len(tables)}"
        )
    low, high = reward_range(settings)
    bounds = min(low, 0.0), max(high, 1.0)
    text = settings.get("formula")
    formula = None if text is None else Formula(text, tuple(tables), bounds)
    components = [_component(name, table, formula, team_reward) for name, table in tables.items()]
    weights = {component.name: component.weight for component in components if component.weight > 0}
    whole = math.fsum(weights.values())
    if formula is None and not weights:
        raise CompositionError(
            "reward.components: every weight is 0, so there is nothing to optimize; give one a weight above 0"
        )
    gates = {component.name: component.gate for component in components if component.gate is not None}

    def combined(sample: Sample, scores: Mapping[str, Score]) -> Reward:
        values: dict[str, float] = {}
        parts: dict[str, float] = {}
        watched: dict[str, float] = {}
        extracted: list[tuple[str, str]] = []
        reasons: list[tuple[str, str]] = []
        for component in components:
            name = component.name
            try:
                reward = checked(scores[name](sample))
            except UnscorableError as error:
                # A number that is only watched must not cost anyone a sample.
                if component.optimized or component.gate is not None:
                    raise UnscorableError(_joined([(name, str(error))], len(components))) from error
                watched[f"{name}_unscorable"] = 1.0
                continue
            values[name] = min(max(reward.score, bounds[0]), bounds[1])
            inner = parts if component.optimized else watched
            inner.update((f"{name}_{part}", value) for part, value in reward.components.items())
            watched.update((f"{name}_{metric}", value) for metric, value in reward.metrics.items())
            if reward.extracted is not None:
                extracted.append((name, reward.extracted))
            if reward.reason:
                reasons.append((name, reward.reason))
        if formula is not None:
            total = formula(values)
        else:
            total = math.fsum(weight * values[name] for name, weight in weights.items()) / whole
        caps = [gate.cap for name, gate in gates.items() if values[name] < gate.below]
        if gates:
            watched["gated"] = float(bool(caps))
        # A component's own name wins over a part or a metric that happens to be called the same.
        chosen = {component.name: component.optimized for component in components}
        optimized = {name: value for name, value in values.items() if chosen[name]}
        optimized.update((name, value) for name, value in parts.items() if name not in chosen)
        metrics = {name: value for name, value in values.items() if not chosen[name]}
        metrics.update((n, v) for n, v in watched.items() if n not in chosen and n not in optimized)
        return Reward(
            min(max(min([total, *caps]), low), high),
            components=optimized,
            metrics=metrics,
            extracted=_joined(extracted, len(components)) if extracted else None,
            reason=_joined(reasons, len(components)),
        )

    return _Composition(combined, {component.name: component.score for component in components}).score


def writers(score: Score) -> dict[str, Writer | None]:
    """Returns, by name, what each component of a composed reward can write a reference completion with.

    That is the method ``reference_completion(sample)`` of a library's reward, or the function of that name
    in a team's ``reward.py``; None where there is neither. It returns ``sample.completion``, changed so that
    it should earn full marks by ``sample.reference_answer``; unchanged where it does already; None where
    nothing it could write would. It raises UnscorableError as ``score`` does.

    Args:
        score: What ``compose`` returned.
    """
    composition = getattr(score, "__self__", None)
    components = composition.scores if isinstance(composition, _Composition) else {}
    return {
        # A method's object has the other method, and a function's module has the other function.
        name: getattr(
            getattr(each, "__self__", sys.modules.get(each.__module__)), "reference_completion", None
        )
        for name, each in components.items()
    }


def reference_completion(score: Score, sample: Sample) -> str | None:
    """Writes the completion that a row's reference answer would be; None when no component can.

    The components write it one after the other, and again where one has undone what another wanted. Whether
    it earns full marks is for the score to say: components can ask for what no text can be.

    Args:
        score: What ``compose`` returned.
        sample: The row; its completion is what to start from, empty as a rule.

    Raises:
        UnscorableError: The row has no usable reference answer.
    """
    asked = [writer for writer in writers(score).values() if writer is not None]
    text, able = sample.completion, False
    for _ in range(_ROUNDS):
        before = text
        for writer in asked:
            written = writer(replace(sample, completion=text))
            if written is not None:
                text, able = written, True
        if text == before:
            break
    return text if able else None


def reward_range(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the lowest and the highest score of a [reward] table; the lowest is the floor.

    Raises:
        CompositionError: The range is not two numbers in rising order.
    """
    limits = settings.get("range", (0.0, 1.0))
    if len(limits) != 2 or not all(map(_is_number, limits)) or not limits[0] < limits[1]:
        raise CompositionError(f"reward.range: two numbers in rising order are needed, got {limits!r}")
    return float(limits[0]), float(limits[1])


class Formula:
    """An arithmetic expression over component names, parsed once and never run as Python.

    Numbers, names, ``+ - * /``, ``**`` with a fixed exponent, brackets, ``min``, ``max``, ``abs``,
    ``clip(x, low, high)``, ``floor``, ``ceil``, ``sqrt``, ``exp`` and ``log`` are all there is. The range of
    every part is worked out beforehand, so a formula that could divide by zero, take the root of a negative
    number or leave the finite numbers is refused when it is written, and one that is accepted gives a finite
    number for every completion.

    Attributes:
        names: The components the formula uses.
        low: A lower bound of its value.
        high: An upper bound of its value.
    """

    def __init__(self, text: object, names: tuple[str, ...], bounds: tuple[float, float]) -> None:
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_FORMULA:
            raise CompositionError(f"reward.formula: a text of 1 to {_LONGEST_FORMULA} characters is needed")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise CompositionError(f"reward.formula: {text!r} is not an arithmetic expression") from None
        self._text = text
        self._bounds = bounds
        self._known = names
        self.names: set[str] = set()
        try:
            part = self._part(tree)
        except RecursionError:
            raise self._error("it is nested too deep", "write it flatter") from None
        self._evaluate, self.low, self.high = part.evaluate, part.low, part.high
        if not self.names:
            raise self._error("it uses no component", f"use at least one of {', '.join(names)}")

    def __call__(self, values: Mapping[str, float]) -> float:
        """Evaluates the formula for the components' scores."""
        return self._evaluate(values)

    def _part(self, node: ast.expr) -> _Part:
        match node:
            case ast.Constant(value=int() | float() as value) if _is_number(value):
                number = float(value)
                part = _Part(lambda _: number, number, number)
            case ast.Name(id=name):
                if name not in self._known:
                    raise self._error(
                        f"{name!r} is no component", f"the components are {', '.join(self._known)}"
                    )
                self.names.add(name)
                part = _Part(lambda values: values[name], *self._bounds)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._part(operand)
                part = _Part(lambda values: -inner.evaluate(values), -inner.high, -inner.low)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                part = self._part(operand)
            case ast.BinOp(left=left, op=operator, right=right):
                part = self._binary(self._part(left), operator, self._part(right))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                part = self._call(name, [self._part(argument) for argument in arguments])
            case _:
                found = ast.unparse(node)
                raise self._error(
                    f"{found!r} is not allowed",
                    f"numbers, components, + - * / **, brackets, {', '.join(_FUNCTIONS)} are",
                )
        if not -_LARGEST <= part.low <= part.high <= _LARGEST:
            raise self._error(f"its value can pass {_LARGEST:g}", "use smaller numbers")
        return part

    def _binary(self, left: _Part, operator: ast.operator, right: _Part) -> _Part:
        one, two = left.evaluate, right.evaluate
        match operator:
            case ast.Add():
                return _Part(lambda v: one(v) + two(v), left.low + right.low, left.high + right.high)
            case ast.Sub():
                return _Part(lambda v: one(v) - two(v), left.low - right.high, left.high - right.low)
            case ast.Mult():
                products = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
                return _Part(lambda v: one(v) * two(v), min(products), max(products))
            case ast.Div():
                if right.low <= 0 <= right.high:
                    raise self._error(
                        "it can divide by zero", "keep the divisor away from 0, as in max(x, 0.1)"
                    )
                quotients = [a / b for a in (left.low, left.high) for b in (right.low, right.high)]
                return _Part(lambda v: one(v) / two(v), min(quotients), max(quotients))
            case ast.Pow() if right.low == right.high:
                return self._power(left, right.low)
        raise self._error(
            f"{type(operator).__name__} is no operator of it", "use + - * / and ** with a fixed exponent"
        )

    def _power(self, base: _Part, exponent: float) -> _Part:
        whole = exponent == int(exponent)
        if not 0 <= exponent <= _LARGEST_EXPONENT or (base.low < 0 and not whole):
            raise self._error(
                f"its exponent {exponent:g} is none of 0 to {_LARGEST_EXPONENT}, whole where the base can be "
                "negative",
                "write a negative one as 1 / x ** 2",
            )
        ends = [
            base.low**exponent,
            base.high**exponent,
            *([0.0**exponent] if base.low < 0 < base.high else []),
        ]
        return _Part(lambda v: base.evaluate(v) ** exponent, min(ends), max(ends))

    def _call(self, name: str, parts: list[_Part]) -> _Part:
        lows, highs = [part.low for part in parts], [part.high for part in parts]
        values = [part.evaluate for part in parts]
        match name, len(parts):
            case "min", count if count >= 2:
                return _Part(lambda v: min(value(v) for value in values), min(lows), min(highs))
            case "max", count if count >= 2:
                return _Part(lambda v: max(value(v) for value in values), max(lows), max(highs))
            case "abs", 1:
                low = 0.0 if lows[0] <= 0 <= highs[0] else min(abs(lows[0]), abs(highs[0]))
                return _Part(lambda v: abs(values[0](v)), low, max(abs(lows[0]), abs(highs[0])))
            case "clip", 3:
                low, high = (min(max(limits[0], limits[1]), limits[2]) for limits in (lows, highs))
                return _Part(lambda v: min(max(values[0](v), values[1](v)), values[2](v)), low, high)
            case _, 1 if name in _RISING:
                return self._rising(name, parts[0])
        raise self._error(
            f"{name} does not take {len(parts)} values",
            "write min(a, b, ...), max(a, b, ...), clip(a, low, high), and every other one as abs(a)",
        )

    def _rising(self, name: str, part: _Part) -> _Part:
        function, inner = _RISING[name], part.evaluate
        try:
            return _Part(lambda v: float(function(inner(v))), function(part.low), function(part.high))
        # The square root of less than 0, the logarithm of 0 or less, a power of e beyond every number.
        except (ValueError, OverflowError):
            raise self._error(
                f"{name} gets numbers from {part.low:g} to {part.high:g}, and has no value for all of them",
                "keep them in bounds, as in log(max(x, 0.1))",
            ) from None

    def _error(self, fault: str, remedy: str) -> CompositionError:
        return CompositionError(f"reward.formula {self._text!r}: {fault}; {remedy}")


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a formula, and the interval its value never leaves."""

    evaluate: Callable[[Mapping[str, float]], float]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Composition:
    """A way to combine components, and the components; those that prepare for a batch get to do so."""

    combined: Callable[[Sample, Mapping[str, Score]], Reward]
    scores: Mapping[str, Score]

    def score(self, sample: Sample) -> Reward:
        return self.combined(sample, self.scores)

    def prepare(self, samples: Sequence[Sample], deadline: Callable[[], float]) -> Score:
        scores = {name: prepared(score, samples, deadline) for name, score in self.scores.items()}
        return lambda sample: self.combined(sample, scores)


@dataclass(frozen=True, slots=True)
class _Gate:
    below: float
    cap: float


@dataclass(frozen=True, slots=True)
class _Component:
    name: str
    score: Score
    weight: float
    gate: _Gate | None
    optimized: bool


def _component(name: str, table: Any, formula: Formula | None, team_reward: Path | None) -> _Component:
    where = f"reward.components.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or name in {*TROUBLES, *_FUNCTIONS, "gated"}:
        raise CompositionError(
            f"{where}: a name is lower-case letters, digits and _, starts with a letter, and is none of "
            f"{', '.join((*TROUBLES, *_FUNCTIONS, 'gated'))}"
        )
    function = str(table.get("function") or "") if isinstance(table, Mapping) else ""
    if not function:
        raise CompositionError(
            f'{where}: a table with a function is needed, as in function = "numeric_answer"'
        )
    weight = table.get("weight", 1.0)
    if not _is_number(weight) or weight < 0:
        raise CompositionError(f"{where}.weight: a number of at least 0 is needed, got {weight!r}")
    gate = table.get("gate")
    if gate is not None:
        if (
            not isinstance(gate, Mapping)
            or {*gate} != {"below", "cap"}
            or not all(map(_is_number, gate.values()))
        ):
            raise CompositionError(f"{where}.gate: {{ below = 1.0, cap = 0.0 }} is its shape, got {gate!r}")
        gate = _Gate(gate["below"], gate["cap"])
    parameters = {key: value for key, value in table.items() if key not in _COMPONENT_KEYS}
    load = _team_score if function == "reward.py" else _library_score
    try:
        score = load(function, parameters, team_reward)
    # What a reward function says about its parameters, in the words of whoever wrote it.
    except (TypeError, ValueError) as error:
        raise CompositionError(f"{where}: {error}") from error
    return _Component(name, score, weight, gate, name in formula.names if formula else weight > 0)


def _library_score(function: str, parameters: Mapping[str, Any], _team_reward: Path | None) -> Score:
    module_name = f"lambdas.rewards.{function}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", function) or importlib.util.find_spec(module_name) is None:
        known = sorted(path.stem for path in (Path(__file__).parent / "rewards").glob("[a-z]*.py"))
        raise ValueError(
            f"there is no reward function {function!r}; there is {', '.join(known)}, or reward.py"
        )
    module = importlib.import_module(module_name)
    kind = getattr(module, "".join(word.capitalize() for word in function.split("_")))
    known = [parameter.name for parameter in fields(kind)]
    unknown = [key for key in parameters if key not in known]
    if unknown:
        raise ValueError(f"{function} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
    score: Score = kind(**parameters).score
    return score


def _team_score(_function: str, parameters: Mapping[str, Any], path: Path | None) -> Score:
    try:
        module = importlib.import_module("team_reward") if path is None else _loaded(path)
    # Anything can go wrong in the team's file, and it is the team that reads about it.
    except Exception as error:
        raise ValueError(f"reward.py cannot be loaded: {type(error).__name__}: {error}") from error
    score = getattr(module, "score", None)
    if score is None:
        raise ValueError("reward.py has to define score(sample)")
    if not parameters:
        return cast("Score", score)
    try:
        inspect.signature(score).bind(None, **parameters)
    except TypeError as error:
        raise ValueError(f"score() of reward.py does not take these parameters: {error}") from error
    return functools.partial(score, **parameters)


def _loaded(path: Path) -> ModuleType:
    # Several teams' files may be loaded in one process, each under a name of its own.
    name = f"team_reward_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _joined(texts: list[tuple[str, str]], count: int) -> str:
    """Says which component a text is from, where there is more than one."""
    return "; ".join(f"{name}: {text}" if count > 1 else text for name, text in texts)
