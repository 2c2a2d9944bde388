"""What the algebra process does: it decides whether formulas are the same, in forks with hard limits.

The comparison is Math-Verify's, without what makes it lenient, since a model trained on it would find that:

* Decimals are exact. Math-Verify rounds to six places, which makes 0.0000001 and 0.0000002 the same. How far
  off a number may be is a setting.
* A percentage is a fraction or points, by a setting. For Math-Verify 50% is 50 and also 0.5.
* Numbers that differ within 13 digits are different. Math-Verify takes all those below 10^-15 for the same.
* No unit is guessed away. Math-Verify reads ``5c``, ``5 h`` and ``5 apples`` as 5.
* An equation is worth its right side only where it claims nothing wrong and calculates nothing on the way:
  ``x = 5`` and ``2 + 3 = 5`` are 5. For Math-Verify ``9 = 5`` is 5, and so is ``x = 3 = 5``.
* Where a solution such as ``x = 5`` is expected, an equation that has to be solved first is none, so that
  repeating the task's own equation earns nothing.
* Two equations without any solution are not the same for that.
* ``i`` is the imaginary unit, wherever it is not counted with (``x_i``, a sum over ``i``), and every other
  name is a real number. For Math-Verify ``i`` is a name, and the names beside it are never real numbers.
* ``2 > x > 1`` is ``1 < x < 2``. Math-Verify compares the parts in the order they stand in.
* Text that cannot be read as a whole is not read. Math-Verify takes what follows the last equals sign.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import is_expr_of_only_symbols
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify.grader import is_equation, is_relation, verify
from sympy.core.function import AppliedUndef

# The exit statuses of a fork; Python itself ends with 1 when it fails.
_STATUSES = {"equal": 10, "different": 11, "unreadable": 12, "over": 13}

# What a fork may use on top of what the imported libraries take.
_MEMORY_BYTES = 256 * 2**20

# Digits to work numbers out to, and how many of them have to be the same before algebra has its say.
_DIGITS = 30
_SAME_DIGITS = 13

_NOTATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_HUNDREDTH = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
_IMAGINARY = sympy.Symbol("i", real=True)
_SIGNS = ({"\\pm": "+", "\\mp": "-"}, {"\\pm": "-", "\\mp": "+"})
_DOWNWARDS = (sympy.GreaterThan, sympy.StrictGreaterThan)
_COUNTING = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)

# One pair of each kind, compared before the first request: what it imports and what the grammar's tables
# learn from it is then there for every fork.
_WARM_UP = (
    (r"\frac{1}{2}+\sqrt{2}", r"\frac{1+2\sqrt{2}}{2}"),
    (r"(x+1)^2", r"x^2+2x+1"),
    (r"x=\frac{-b\pm\sqrt{3}}{2}", r"x=2"),
    (r"y=2x+1", r"2y=4x+2"),
    (r"\{1,2\}", r"2,1"),
    (r"(-\infty,1]\cup(2,\pi)", r"(2,\pi)\cup(-\infty,1]"),
    (r"1<x\le 2", r"(1,2]"),
    (r"(1,2,3)", r"(1,2,4)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&5\end{bmatrix}"),
    (r"\sin^2 x+\cos(2x)", r"\cos^2(x)"),
    (r"\log_2 8+\ln e^x", r"3+x"),
    (r"12.5\%", r"0.125"),
    (r"\binom{5}{2}\cdot 3!", r"60"),
)


class UnreadableError(ValueError):
    """The expected formula is none."""


def warm_up() -> None:
    """Makes the state that every comparison starts from."""
    logging.disable(logging.CRITICAL)
    for expected, answer in _WARM_UP:
        equal(expected, answer)
    # A fork shares the memory of what is here; collecting garbage in it would copy all of that.
    gc.collect()
    gc.freeze()


def serve(answers: int) -> None:
    """Answers requests from standard input, one line each, until the other side closes the pipe.

    Args:
        answers: The file descriptor to write the answers to.
    """
    memory = _memory_in_use() + _MEMORY_BYTES
    for line in sys.stdin.buffer:
        fork = os.fork()
        if fork == 0:
            os._exit(_STATUSES[_verdict(json.loads(line), memory)])
        status = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
        # A fork without a status of ours was killed by the kernel, or ran out of its stack.
        said = next((verdict for verdict, code in _STATUSES.items() if code == status), "over")
        os.write(answers, said.encode() + b"\n")


def _verdict(request: dict[str, Any], memory: int) -> str:
    """Makes a verdict on one request, within its limits; runs in a fork."""
    seconds, expected, answers = (request.pop(key) for key in ("seconds", "expected", "answers"))
    try:
        # The kernel kills at the limit of processor time; beyond that of memory, an allocation fails.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        # Not every system lets a process limit its memory.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        return "equal" if all(equal(expected, answer, **request) for answer in answers) else "different"
    except UnreadableError:
        return "unreadable"
    except (MemoryError, RecursionError):
        return "over"
    # The libraries raise almost anything about what they cannot handle.
    except Exception:
        return "different"


def _memory_in_use() -> int:
    """Returns the size of the address space in bytes, or of any, where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    except OSError:
        return sys.maxsize // 2
    return int(pages) * resource.getpagesize()


def equal(
    expected: str,
    answer: str,
    *,
    percent: str = "fraction",
    absolute_tolerance: float = 0.0,
    relative_tolerance: float = 0.0,
) -> bool:
    """Tells whether the answer is the expected formula; see ``Algebra.compare``.

    Raises:
        UnreadableError: The expected formula cannot be read.
        Exception: The answer cannot be read, or the two cannot be handled.
    """
    hundredth = sympy.Rational(1, 100) if percent == "fraction" else sympy.Integer(1)
    try:
        wanted = _exact(_read(expected), hundredth)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        raise UnreadableError(expected) from error
    given = _exact(_read(answer), hundredth)
    if is_relation(wanted):
        return _same_relation(wanted, given)
    if not _relations_inside(wanted):
        given = _value(given)
    if given is None:
        return False
    if _is_number(wanted) and _is_number(given):
        off, whole = sympy.Abs(wanted - given).evalf(_DIGITS), sympy.Abs(wanted).evalf(_DIGITS)
        allowed = max(
            sympy.Rational(repr(absolute_tolerance)), sympy.Rational(repr(relative_tolerance)) * whole
        )
        if allowed or off > whole * sympy.Rational(1, 10**_SAME_DIGITS):
            return bool(off <= allowed)
    return _verified(wanted, given)


def _read(text: str) -> Any:
    text = normalize_latex(text, _NOTATION)
    # The grammar knows a plus-minus between terms only; one inside of a fraction stands for the set of both.
    if re.search(r"(?<!\\)\{[^{}]*\\(?:pm|mp)(?![A-Za-z])", text):
        name, equals, value = text.rpartition("=")
        both = (_signed(value, signs) for signs in _SIGNS)
        text = rf"{name}{equals}\{{{', '.join(both)}\}}"
    return latex2sympy(text, is_real=True, normalization_config=None)


def _signed(value: str, signs: Mapping[str, str]) -> str:
    return re.sub(r"\\(?:pm|mp)(?![A-Za-z])", lambda sign: signs[sign[0]], value)


def _verified(wanted: Any, given: Any) -> bool:
    return bool(verify(wanted, given, timeout_seconds=None))


def _exact(formula: Any, hundredth: Any) -> Any:
    """Writes decimals as fractions, percentages as numbers and chains upwards, and changes nothing else."""
    if isinstance(formula, sympy.MatrixBase):
        return formula.applyfunc(lambda item: _exact(item, hundredth))
    parts = _parts(formula)
    if isinstance(formula, And) and all(isinstance(part, _DOWNWARDS) for part in parts):
        parts = [part.reversed for part in reversed(parts)]
    if isinstance(formula, (And, FiniteSet, sympy.Tuple)):
        return formula.func(*(_exact(part, hundredth) for part in parts))
    if isinstance(formula, sympy.core.relational.Relational):
        return formula.func(*(_exact(part, hundredth) for part in parts), evaluate=False)
    swaps = {number: sympy.Rational(str(number)) for number in formula.atoms(sympy.Float)}
    if not formula.has(*_COUNTING):
        swaps[_IMAGINARY] = sympy.I
    return formula.xreplace({**swaps, _HUNDREDTH: hundredth})


def _parts(formula: Any) -> Sequence[Any]:
    """Returns the arguments as they were written; SymPy sorts those of a set."""
    parts: Sequence[Any] = getattr(formula, "_unsorted_args", formula.args)
    return parts


def _value(formula: Any) -> Any:
    """Returns what equations are worth: ``x = 5`` is 5. None when one of them claims something wrong."""
    if is_equation(formula):
        sides = _sides(formula)
        values = [side for side in sides if not _is_name(side)] or sides[-1:]
        return values[-1] if all(_verified(values[-1], value) for value in values[:-1]) else None
    if isinstance(formula, (FiniteSet, sympy.Tuple)):
        values = [_value(part) for part in _parts(formula)]
        return None if None in values else formula.func(*values)
    return formula


def _same_relation(wanted: Any, given: Any) -> bool:
    if not is_relation(given):
        return _verified(wanted, given)
    if is_equation(wanted) and is_equation(given):
        if _is_solution(wanted):
            name, value = _sides(wanted)[0], _value(wanted)
            names = [side for side in _sides(given) if _is_name(side)]
            worth = _value(given)
            return (
                worth is not None
                and any(_verified(name, other) for other in names)
                and _verified(value, worth)
            )
        sides = [*_sides(wanted), *_sides(given)]
        if len(sides) == 4 and all(isinstance(side, sympy.Expr) for side in sides):
            ratio = sympy.simplify((sides[0] - sides[1]) / (sides[2] - sides[3]))
            if ratio.is_number and ratio.is_finite and not ratio.is_zero:
                return True
            if not sympy.solve(wanted, wanted.free_symbols):
                return False
    elif _is_solution(wanted) and not _is_solution(given):
        return False
    return _verified(wanted, given)


def _is_solution(relation: Any) -> bool:
    """Tells whether all that is left is a name beside numbers, as in ``x = 5`` and ``1 < x < 2``."""
    if is_equation(relation):
        return all(_is_name(side) or not side.free_symbols for side in _sides(relation))
    parts = relation._unsorted_args if isinstance(relation, And) else [relation]
    return all(
        (_is_name(part.lhs) and not part.rhs.free_symbols)
        or (_is_name(part.rhs) and not part.lhs.free_symbols)
        for part in parts
    )


def _sides(equation: Any) -> list[Any]:
    """Returns the sides of an equation or of a chain of them, from left to right."""
    parts = equation._unsorted_args if isinstance(equation, And) else [equation]
    return [parts[0].lhs, *(part.rhs for part in parts)]


def _is_name(side: Any) -> bool:
    """Tells whether a side names something and holds no number: ``x``, ``AB``, ``f(x)``, ``a + b``."""
    if isinstance(side, (sympy.Symbol, AppliedUndef)) or side in (sympy.E, sympy.I):
        return True
    # Lines such as AE are read with Euler's number in them.
    return bool(is_expr_of_only_symbols(side.xreplace({sympy.E: sympy.Symbol("e")})))


def _relations_inside(formula: Any) -> bool:
    return isinstance(formula, (FiniteSet, sympy.Tuple)) and any(map(is_relation, formula.args))


def _is_number(formula: Any) -> bool:
    return isinstance(formula, sympy.Expr) and bool(formula.is_number and formula.is_extended_real)
