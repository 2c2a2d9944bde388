"""Rewards Python that passes the row's tests, run in a sandbox beside the reward function.

The code stands where the team declares (``form``), and nowhere else. Every test gets a fresh process that
runs the code and is asked for answers; the process that knows what is expected runs none of it. So code that
exits early, prints a verdict, changes what equality means or goes looking for the tests fails them.
``docs/sandbox.md`` says what the sandbox protects against and what it does not.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import re
import symtable
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lambdas.completion import DEEPEST, fenced, is_deep, strict_json, tagged
from lambdas.contract import InfrastructureError, Reward, Sample, UnscorableError
from lambdas.sandbox import Sandbox, SandboxError

Form = Literal["fenced", "last_fenced", "tag", "whole"]
Stdout = Literal["lines", "tokens", "exact"]

_MOST_TESTS = 100
_LONGEST_TESTS = 1_000_000

# A function, or a way to it: "add", "Solution().two_sum".
_FUNCTION = re.compile(r"[^\W\d]\w*(\(\))?(\.[^\W\d]\w*(\(\))?)*")

_PROGRAM = {"stdin", "stdout"}
_CALL = {"function", "args", "kwargs", "expected"}

# The sandbox of this process, started when the first sample needs it and kept for all that follow. The rules
# of a reward travel with each completion, so all code_tests of a team share it.
_running: list[Sandbox] = []


@dataclass(frozen=True, kw_only=True)
class CodeTests:
    """Scores the share of the row's tests that the completion's Python passes, 0.0 to 1.0.

    The reference answer is a list of tests (or one, or an object with the list under ``tests``, or either of
    them as JSON text). A test is one of these:

    - a text: Python that uses what the completion defines, and asserts: ``assert add(1, 2) == 3``;
    - ``{"stdin": "1 2", "stdout": "3"}``: the completion runs as a program;
    - ``{"function": "add", "args": [1, 2], "kwargs": {}, "expected": 3}``: arguments and result are JSON, and
      a tuple is an array; ``Solution().add`` is a method.

    Attributes:
        form: Where the code stands. ``fenced``: in the only fenced code block. ``last_fenced``: in the last
            of any number. ``tag``: in the only ``<answer></answer>`` (see ``tag``). ``whole``: the whole
            completion.
        tag: Name of the tag of the form ``tag``.
        partial_credit: Whether some passed tests earn something; otherwise it is all or nothing.
        stdout: What has to be printed. ``lines``: the same lines, white space at their ends aside.
            ``tokens``: the same words, and numbers written with a fraction within the tolerance. ``exact``:
            the same text.
        absolute_tolerance: How far off a float may be that a function returns.
        relative_tolerance: How far off it may be, as a share of the expected one. The wider one counts.
        own_operators: Whether assertions may let the completion's own objects say whether they are equal,
            smaller, true or a member. It takes a test that compares such objects, and lets a completion
            return one that says yes to everything.
        seconds_per_test: Processor time a test may take, with running the code first; five times as much by
            the clock.
        seconds_per_completion: Processor time after which no further test is begun.
        test_memory_mb: Memory a test may take.
        reference_field: Field that holds the tests, where the reference answer is an object; empty looks for
            ``tests``.
    """

    form: Form = "fenced"
    tag: str = "answer"
    partial_credit: bool = True
    stdout: Stdout = "lines"
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 1e-9
    own_operators: bool = False
    seconds_per_test: float = 1.0
    seconds_per_completion: float = 3.0
    test_memory_mb: int = 256
    reference_field: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("form", get_args(Form)), ("stdout", get_args(Stdout))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        for name in ("partial_credit", "own_operators"):
            if getattr(self, name) not in (True, False):
                raise ValueError(f"{name} is true or false, not {getattr(self, name)!r}")
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as answer, not {self.tag!r}")
        for name, low, high, wanted in (
            ("absolute_tolerance", 0.0, 1e300, "at least 0"),
            ("relative_tolerance", 0.0, 1.0, "0 to 1"),
            ("seconds_per_test", 0.05, 60.0, "0.05 to 60"),
            ("seconds_per_completion", self.seconds_per_test, 300.0, "seconds_per_test to 300"),
            ("test_memory_mb", 64, 8_192, "64 to 8192"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"{name} is a number of {wanted}, not {value!r}")

    def score(self, sample: Sample) -> Reward:
        """Runs the completion's code against every test.

        Raises:
            UnscorableError: The tests are missing, or one of them cannot be held whatever the code is.
            InfrastructureError: The sandbox cannot run here, or broke twice.
        """
        tests = self._tests(sample.reference_answer)
        code = self._declared(sample.completion)
        if code is None:
            return self._judged(len(tests), [], code=None, reason=self._absent())
        verdicts = self._examined(code, tests)
        for number, verdict in enumerate(verdicts, start=1):
            if verdict["broken"]:
                raise UnscorableError(f"test {number} of the reference answer: {verdict['reason']}")
        missing = {"passed": False, "late": True, "reason": "the time was up"}
        verdicts += [missing] * (len(tests) - len(verdicts))
        passed = sum(verdict["passed"] for verdict in verdicts)
        reason = f"{passed} of {len(tests)} tests pass"
        failed = next((number for number, verdict in enumerate(verdicts) if not verdict["passed"]), None)
        if failed is not None:
            reason = f"{reason}; test {failed + 1}: {verdicts[failed]['reason']}"
        return self._judged(len(tests), verdicts, code=code, reason=reason)

    def _judged(
        self, count: int, verdicts: list[Mapping[str, Any]], *, code: str | None, reason: str
    ) -> Reward:
        passed = sum(verdict["passed"] for verdict in verdicts)
        return Reward(
            passed / count if self.partial_credit or passed == count else 0.0,
            metrics={
                "has_code": float(code is not None),
                "tests": float(count),
                "passed_tests": float(passed),
                "late_tests": float(sum(verdict["late"] for verdict in verdicts)),
                "all_passed": float(passed == count),
            },
            extracted=None if code is None else code.strip()[:200],
            reason=reason,
        )

    def _examined(self, code: str, tests: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        job = {
            "code": code,
            "tests": tests,
            "stdout": self.stdout,
            "absolute_tolerance": self.absolute_tolerance,
            "relative_tolerance": self.relative_tolerance,
            "own_operators": self.own_operators,
        }
        trouble: SandboxError | None = None
        # A sandbox may have been ended by the system, for memory; a fresh one gets a second try.
        for _ in range(2):
            try:
                return [
                    *_sandbox().examine(
                        job,
                        test_seconds=self.seconds_per_test,
                        total_seconds=self.seconds_per_completion,
                        memory_bytes=int(self.test_memory_mb * 2**20),
                    )
                ]
            except SandboxError as error:
                trouble = error
        raise InfrastructureError(f"the completion's code cannot be run: {trouble}") from trouble

    def _tests(self, reference: Any) -> list[dict[str, Any]]:
        """Reads the tests.

        Raises:
            UnscorableError: They are not what the class says.
        """
        value = reference
        if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
            try:
                value = strict_json(value)
            except ValueError as error:
                raise UnscorableError(f"the reference answer is not valid JSON: {error}") from None
        if isinstance(value, Mapping) and (self.reference_field or "tests" in value):
            field = self.reference_field or "tests"
            value = value.get(field)
            if value is None:
                raise UnscorableError(f"the reference answer has no field {field!r}")
        if value is None:
            raise UnscorableError("the row has no reference answer")
        listed = list(value) if isinstance(value, (list, tuple)) else [value]
        if not 1 <= len(listed) <= _MOST_TESTS:
            raise UnscorableError(
                f"the reference answer has {len(listed)} tests; 1 to {_MOST_TESTS} are allowed"
            )
        if is_deep(listed):
            raise UnscorableError(f"the reference answer is nested more than {DEEPEST} levels deep")
        tests = [
            _test(item, f"test {number} of the reference answer") for number, item in enumerate(listed, 1)
        ]
        try:
            size = len(json.dumps(tests, allow_nan=False))
        except ValueError:
            raise UnscorableError("the reference answer holds a number that is not finite") from None
        if size > _LONGEST_TESTS:
            raise UnscorableError(
                f"the reference answer's tests have {size} characters; {_LONGEST_TESTS} are allowed"
            )
        return tests

    def _declared(self, text: str) -> str | None:
        """Finds the code; None when there is none, or more than one."""
        if self.form == "whole":
            found = [text]
        else:
            found = tagged(text, self.tag) if self.form == "tag" else fenced(text)
        if self.form == "last_fenced":
            found = found[-1:]
        return found[0] if len(found) == 1 and found[0].strip() else None

    def _absent(self) -> str:
        return {
            "fenced": "the completion has not exactly one fenced code block with something in it",
            "last_fenced": "the completion ends with no fenced code block with something in it",
            "tag": f"the completion has not exactly one <{self.tag}></{self.tag}> with something in it",
            "whole": "the completion is empty",
        }[self.form]


def _sandbox() -> Sandbox:
    """Returns this process's sandbox; starts one where there is none, or it broke, or is a parent's."""
    if not _running or _running[0].closed or _running[0].owner != os.getpid():
        _running[:] = [Sandbox()]
    return _running[0]


def _test(item: Any, where: str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"kind": "assertion", "source": item, "names": sorted(_names(item, where))}
    if not isinstance(item, Mapping):
        raise UnscorableError(f"{where} is {type(item).__name__}, not a text or an object")
    keys = set(item)
    if keys == _PROGRAM:
        for key in sorted(_PROGRAM):
            if not isinstance(item[key], str):
                raise UnscorableError(f"{where}: {key} is {type(item[key]).__name__}, not a text")
        return {"kind": "program", **item}
    if {"function", "expected"} <= keys <= _CALL:
        function, args, kwargs = item["function"], item.get("args", []), item.get("kwargs", {})
        if not isinstance(function, str) or not _FUNCTION.fullmatch(function):
            raise UnscorableError(f"{where}: function is not a name such as add or Solution().add")
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
            raise UnscorableError(f"{where}: args is not a list, or kwargs not an object")
        return {
            "kind": "call",
            "function": function,
            "args": args,
            "kwargs": kwargs,
            "expected": item["expected"],
        }
    raise UnscorableError(
        f"{where} is an object with the keys {', '.join(sorted(map(str, keys)))[:200] or 'none'}; expected "
        "stdin and stdout, or function, args, kwargs and expected"
    )


def _names(source: str, where: str) -> set[str]:
    """Finds what a test's Python uses and does not define itself: what the completion has to define.

    A built-in name is the completion's only where a test uses no other name, as in
    ``assert sum(10, 15) == 25``; otherwise a completion could define what the test judges it with.

    Raises:
        UnscorableError: It is no Python, asserts nothing, or has nothing to do with the completion.
    """
    try:
        # What it warns of is for who writes the tests, and not for a reward function's log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            table = symtable.symtable(source, "<test>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnscorableError(f"{where} is not Python: {type(error).__name__}: {error}") from None
    if not any(isinstance(node, (ast.Assert, ast.Raise)) for node in ast.walk(tree)):
        raise UnscorableError(f"{where} is Python that asserts nothing")
    own = {
        symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }
    used = set(_used(table)) - own - {"__name__"}
    foreign = {name for name in used if not hasattr(builtins, name)}
    if not foreign and len(used) == 1:
        return used
    if not foreign:
        raise UnscorableError(f"{where} uses nothing that a completion defines, or only built-in names")
    return foreign


def _used(table: symtable.SymbolTable) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _used(inner)
