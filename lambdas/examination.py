"""The process that knows the tests: it puts a completion to each of them and judges what it answers.

None of the completion's code runs here, and no object of it is here: there it is a number, and whatever a
test wants to know of it, it asks. A completion that takes over its own process whole can therefore give any
answer, and an answer is all it was asked for.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import math
import os
import re
import reprlib
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from lambdas.confinement import bound
from lambdas.dialogue import (
    LONGEST_MESSAGE,
    LONGEST_REASON,
    Channel,
    Exceptions,
    GoneError,
    hear,
    tell,
    tell_error,
)

# What the examiner asks of the warden: a fresh candidate; to end it, or to wait for its end, and say how it
# went.
NEXT, END, WAIT = b"N", b"E", b"W"

# The examiner's descriptors: the reward function, and the warden.
_REPORT, _WARDEN = 3, 4

_LONGEST_OUTPUT = 1_000_000
_MOST_MODULES = 64

# Why a candidate was late, in words.
_LATE = {
    "cpu": "it took too much processor time",
    "wait": "it waited too long",
    "total": "the tests before it used up the completion's time",
}

_EARLY = "it ended early"

# A number that is written with a fraction may be off by the tolerance; one without is exact.
_NUMBER = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE)

# The operators of an object of the completion's: that give a value, in both directions, or a judgement.
_APPLIED = "len next reversed enter abs round getitem setitem delitem neg pos invert index"
_COMBINED = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
_JUDGING = "eq ne lt le gt ge bool contains"

_LONGEST_NUMBER = 400

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def run_examiner(limits: Mapping[str, float]) -> None:
    """Puts one completion to all its tests, and reports one verdict a line.

    Args:
        limits: ``memory`` in bytes, ``test`` and ``total`` in processor seconds.
    """
    bound(limits["memory"], limits["total"])
    report = Channel(_REPORT, 20 * LONGEST_MESSAGE)
    job = report.receive()
    try:
        modules = _imports(ast.parse(job["code"]))
    # What a parser raises on a text that is no program.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        for _ in job["tests"]:
            report.send(_verdict(reason=f"the code cannot be read: {type(error).__name__}: {error}"))
        return
    spent = 0.0
    with socket.socket(fileno=_WARDEN) as warden:
        for test in job["tests"]:
            if spent >= limits["total"]:
                report.send(_verdict(late=True, reason=_LATE["total"]))
                continue
            examination = _Examination(warden, job, modules)
            report.send(examination.verdict(test))
            spent += examination.seconds


def _verdict(
    *, passed: bool = False, reason: str = "", late: bool = False, broken: bool = False
) -> dict[str, Any]:
    # Half a character, or what commands a terminal, is nothing for a person's eyes.
    shown = "".join(each if each.isprintable() else " " for each in reason[:LONGEST_REASON])
    return {"passed": passed, "reason": shown, "late": late, "broken": broken}


def _imports(tree: ast.Module) -> list[str]:
    """The modules of the standard library that a program names in import statements, in order."""
    named: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named.update((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # A name that is imported from a package may be one of its modules.
            named[node.module] = None
            named.update(
                (f"{node.module}.{alias.name}", None) for alias in node.names if "." not in node.module
            )
    library = [name for name in named if name.partition(".")[0] in sys.stdlib_module_names]
    return library[:_MOST_MODULES]


class _BrokenTestError(BaseException):
    """The test cannot be held, whatever the completion is; no Exception, so that no test hides it."""


class _Examination:
    """One test, and the candidate that takes it."""

    def __init__(self, warden: socket.socket, job: Mapping[str, Any], modules: list[str]) -> None:
        self._warden = warden
        self._job = job
        self._modules = modules
        self._channel: Channel
        self._descriptor = -1
        self._callbacks: list[Callable[..., Any]] = []
        self._remotes: dict[int, _Remote] = {}
        self._exceptions = Exceptions()
        self._fault = ""
        self.own_operators: bool = job["own_operators"]
        self.seconds = 0.0

    def verdict(self, test: Mapping[str, Any]) -> dict[str, Any]:
        """Holds the test."""
        judge = {"program": self._program, "call": self._call, "assertion": self._assertion}[test["kind"]]
        broken = False
        passed, reason = False, ""
        try:
            passed, reason = judge(test)
        except GoneError:
            pass
        except _BrokenTestError as error:
            reason, broken = str(error), True
        status = self._end(END)
        # Not before its end, which a candidate would bring about itself once nobody listens.
        os.close(self._descriptor)
        self.seconds = status["seconds"]
        if status["late"]:
            return _verdict(late=True, reason=_LATE[status["late"]])
        if broken:
            return _verdict(reason=reason, broken=True)
        # No test can overlook that its candidate ended or was refused something.
        if self._fault:
            by_itself = self._fault == _EARLY and status["code"] is not None
            ending = f", with {_ending(status['code'])}" if by_itself else ""
            return _verdict(reason=f"{self._fault}{ending}")
        return _verdict(passed=passed, reason=reason)

    # Programs: standard input and output.

    def _program(self, test: Mapping[str, Any]) -> tuple[bool, str]:
        reading, writing = os.pipe()
        with open(reading, "rb", buffering=0) as output, tempfile.TemporaryFile() as stdin:  # noqa: PTH123 - a descriptor
            # A file and not a pipe: programs that are in a hurry ask for its size.
            stdin.write(test["stdin"].encode("utf-8", "surrogatepass"))
            stdin.seek(0)
            try:
                self._start(stdin.fileno(), writing, program=True)
            finally:
                os.close(writing)
            received = bytearray()
            while len(received) <= _LONGEST_OUTPUT and (piece := output.read(65536)):
                received += piece
            if len(received) > _LONGEST_OUTPUT:
                return False, f"it printed more than {_LONGEST_OUTPUT} bytes"
            status = self._end(WAIT)
        if status["late"]:
            return False, _LATE[status["late"]]
        if status["code"] != 0:
            try:
                raised = self._channel.receive()["raised"]
                return False, f"it raised {(raised['names'] or [raised['known']])[0]}: {raised['text']}"
            except (GoneError, KeyError, TypeError):
                return False, f"it ended with {_ending(status['code'])}"
        printed = received.decode("utf-8", "replace")
        if self._same_text(test["stdout"], printed):
            return True, "it printed what is expected"
        return False, f"it printed {_short(printed)}, not {_short(test['stdout'])}"

    def _same_text(self, expected: str, printed: str) -> bool:
        rule = self._job["stdout"]
        if rule == "exact":
            return printed == expected
        if rule == "lines":
            one, two = ([line.rstrip() for line in text.rstrip().split("\n")] for text in (expected, printed))
            return one == two
        one, two = expected.split(), printed.split()
        return len(one) == len(two) and all(map(self._same_token, one, two))

    def _same_token(self, expected: str, printed: str) -> bool:
        if expected == printed:
            return True
        # No number that is worth printing is longer, and the pattern takes the square of the length.
        if (
            "." not in expected
            or len(printed) > _LONGEST_NUMBER
            or not (_NUMBER.fullmatch(expected) and _NUMBER.fullmatch(printed))
        ):
            return False
        return self._close(float(expected), float(printed))

    # Calls: a function, its arguments, and the JSON it has to return.

    def _call(self, test: Mapping[str, Any]) -> tuple[bool, str]:
        self._start_functions()
        path = re.findall(r"[^.()]+|\(\)", test["function"])
        try:
            found = self.ask("names", path[0])
            if path[0] not in found:
                return False, f"it does not define {path[0]}"
            value = found[path[0]]
            for part in path[1:]:
                value = self.ask("call", value) if part == "()" else self.ask("getattr", value, part)
            value = self.ask("call", value, *test["args"], **test["kwargs"])
        except Exception as error:
            return False, f"it raised {type(error).__name__}: {error}"
        if self._same(test["expected"], value):
            return True, "it returned what is expected"
        return False, f"it returned {_short(value)}, not {_short(test['expected'])}"

    def _same(self, expected: Any, value: Any) -> bool:
        """Compares with JSON: a tuple is an array, numbers are numbers, true is not 1."""
        if isinstance(expected, list):
            return (
                isinstance(value, (list, tuple))
                and len(value) == len(expected)
                and all(map(self._same, expected, value))
            )
        if isinstance(expected, dict):
            if not isinstance(value, dict):
                return False
            # JSON writes every key as text.
            named = {
                key if isinstance(key, str) else json.dumps(key, default=_short): item
                for key, item in value.items()
                if isinstance(key, (str, int, float, type(None)))
            }
            return (
                len(named) == len(value)
                and named.keys() == expected.keys()
                and all(self._same(item, named[key]) for key, item in expected.items())
            )
        if isinstance(expected, bool) or isinstance(value, bool) or expected is None:
            return expected is value
        if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
            return expected == value or (
                (isinstance(expected, float) or isinstance(value, float)) and self._close(expected, value)
            )
        return type(expected) is type(value) and bool(expected == value)

    def _close(self, expected: float, value: float) -> bool:
        try:
            return math.isclose(
                expected,
                value,
                rel_tol=self._job["relative_tolerance"],
                abs_tol=self._job["absolute_tolerance"],
            )
        # Not every integer has a float.
        except OverflowError:
            return False

    # Assertions: the test's own Python, with the completion's names standing for objects elsewhere.

    def _assertion(self, test: Mapping[str, Any]) -> tuple[bool, str]:
        self._start_functions()
        namespace = {"__name__": "tests"}
        try:
            found = self.ask("names", *test["names"])
            # No other name: a test's built-in functions are its own, whatever the candidate answers.
            namespace |= {name: found[name] for name in test["names"] if name in found}
        except Exception as error:
            return False, f"it raised {type(error).__name__}: {error}"
        try:
            exec(compile(test["source"], "<test>", "exec"), namespace)  # noqa: S102 - the team's own test, away from the completion
        except AssertionError as error:
            return False, str(error) or "it does not hold"
        except SystemExit:
            raise _BrokenTestError("the test ends the program") from None
        except Exception as error:
            if isinstance(error, ImportError) and not hasattr(error, "told"):
                raise _BrokenTestError(f"the test cannot import what it needs: {error}") from None
            return False, f"it raised {type(error).__name__}: {error}"
        return True, "it holds"

    # The candidate.

    def ask(self, operation: str, *arguments: Any, **keywords: Any) -> Any:
        """Has the candidate do something, and returns what comes of it.

        Raises:
            Exception: What the candidate's code raised.
            GoneError: The candidate does not answer any more.
        """
        self._send(
            {
                "op": operation,
                "args": [tell(argument, self._show) for argument in arguments],
                "kwargs": {name: tell(argument, self._show) for name, argument in keywords.items()},
            }
        )
        while "callback" in (answer := self._receive()):
            self._send(self._called_back(answer))
        with self._understanding():
            if "raised" in answer:
                error = self._exceptions.hear_error(answer["raised"])
            else:
                for position, after in answer.get("changed", {}).items():
                    _update(arguments[int(position)], hear(after, self._make))
                return hear(answer["value"], self._make)
        raise error

    def _called_back(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a function of the test's that it handed over."""
        with self._understanding():
            function = self._callbacks[request["callback"]]
            arguments = [hear(argument, self._make) for argument in request["args"]]
            keywords = {name: hear(argument, self._make) for name, argument in request["kwargs"].items()}
        try:
            return {"value": tell(function(*arguments, **keywords), self._show)}
        except Exception as error:
            return {"raised": tell_error(error)}

    def _show(self, value: Any) -> Any:
        if isinstance(value, _Remote):
            return {"object": object.__getattribute__(value, "_number")}
        name = getattr(value, "__name__", None)
        if isinstance(name, str) and getattr(builtins, name, None) is value:
            return {"builtin": name}
        if hasattr(value, "told") or (isinstance(value, type) and issubclass(value, Exception)):
            self.fail("the test hands over an exception, which the completion cannot be given")
        if not callable(value) or isinstance(value, type):
            raise _BrokenTestError(
                f"the test hands over {type(value).__name__}, which is neither plain data nor a function"
            )
        self._callbacks.append(value)
        return {"callback": len(self._callbacks) - 1}

    def _make(self, tag: str, inner: Any) -> Any:
        if tag == "exception":
            return self._exceptions.hear(inner)
        if tag != "object" or type(inner) is not int:
            raise ValueError(f"nothing is told as {tag}")
        # The same object is the same here, too.
        if inner not in self._remotes:
            self._remotes[inner] = _Remote(self, inner)
        return self._remotes[inner]

    def fail(self, reason: str) -> NoReturn:
        """Ends the test, which is failed then, even if it catches everything.

        Raises:
            GoneError: Always.
        """
        self._fault = self._fault or reason
        raise GoneError(reason)

    @contextlib.contextmanager
    def _understanding(self) -> Iterator[None]:
        """Takes what is not what a candidate of ours would say for its end."""
        try:
            yield
        except GoneError as error:
            self.fail(str(error) or _EARLY)
        # What data of any shape raises where another shape is expected.
        except Exception as error:
            self.fail(f"its answer cannot be read: {type(error).__name__}")

    def _send(self, message: Any) -> None:
        with self._understanding():
            self._channel.send(message)

    def _receive(self) -> dict[str, Any]:
        with self._understanding():
            return {**self._channel.receive()}

    def _start(self, stdin: int, stdout: int, *, program: bool) -> None:
        socket.send_fds(self._warden, [NEXT], [stdin, stdout])
        _, descriptors, _, _ = socket.recv_fds(self._warden, 1, 1)
        self._descriptor = descriptors[0]
        self._channel = Channel(self._descriptor)
        self._send(self._modules)
        self._send({"code": self._job["code"], "program": program})

    def _start_functions(self) -> None:
        self._start(0, 1, program=False)
        answer = self._receive()
        if "raised" in answer:
            with self._understanding():
                error = self._exceptions.hear_error(answer["raised"])
            self.fail(f"the code raised {type(error).__name__}: {error}")

    def _end(self, request: bytes) -> dict[str, Any]:
        self._warden.sendall(request)
        status: dict[str, Any] = json.loads(self._warden.recv(4096))
        return status


def _update(value: Any, after: Any) -> None:
    """Makes a mutable value what another one of its type is."""
    if type(value) is not type(after):
        raise TypeError("a value does not change its type")
    if isinstance(value, (list, bytearray)):
        value[:] = after
    else:
        value.clear()
        (value.extend if hasattr(value, "extend") else value.update)(after)


class _Remote:
    """Stands in a test for an object of the candidate's.

    Whatever a test does with it is done there; what comes back is data, or stands for an object again. What
    would let the completion judge itself is refused: whether its object equals something, comes before it,
    contains it or is true. It could be an object that always says yes.
    """

    __slots__ = ("_examination", "_number")

    def __init__(self, examination: _Examination, number: int) -> None:
        object.__setattr__(self, "_examination", examination)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return _ask(self, "call", *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "delattr", name)

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_number"))

    def __repr__(self) -> str:
        return str(_ask(self, "repr"))

    def __str__(self) -> str:
        return str(_ask(self, "str"))

    def __format__(self, form: str) -> str:
        return str(_ask(self, "format", form))

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iter")
        while True:
            try:
                item = _ask(iterator, "next")
            except StopIteration:
                return
            yield item

    def __exit__(self, *_raised: object) -> bool:
        return bool(_ask(self, "exit"))

    def __instancecheck__(self, value: object) -> bool:
        return bool(_asking("isinstance", reflected=True, judging=True)(self, value))


def _ask(remote: _Remote, operation: str, *arguments: Any, **keywords: Any) -> Any:
    examination: _Examination = object.__getattribute__(remote, "_examination")
    return examination.ask(operation, remote, *arguments, **keywords)


def _asking(operation: str, *, reflected: bool = False, judging: bool = False) -> Callable[..., Any]:
    """Makes the method that has an operator applied where the object is."""

    def method(self: _Remote, *arguments: Any) -> Any:
        examination: _Examination = object.__getattribute__(self, "_examination")
        if judging and not examination.own_operators:
            examination.fail(
                f"the test applies {operation} to an object of the completion, which could say anything"
            )
        operands = (*arguments, self) if reflected else (self, *arguments)
        answer = examination.ask(operation, *operands)
        return bool(answer) if judging else answer

    return method


for _name in _APPLIED.split():
    setattr(_Remote, f"__{_name}__", _asking(_name))
for _name in _COMBINED.split():
    _operation = f"{_name}_" if _name in {"and", "or"} else _name
    setattr(_Remote, f"__{_name}__", _asking(_operation))
    setattr(_Remote, f"__r{_name}__", _asking(_operation, reflected=True))
for _name in _JUDGING.split():
    setattr(_Remote, f"__{_name}__", _asking(_name, judging=True))


def _ending(code: int) -> str:
    """Says in words how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"the signal {signal.Signals(-code).name}"
    except ValueError:
        return f"the signal {-code}"


def _short(value: Any) -> str:
    """Shows a value in a few words."""
    if isinstance(value, _Remote):
        return "an object of its own"
    try:
        return _SHORT.repr(value)
    # An integer of more digits than can be written, or an object whose own words fail.
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
