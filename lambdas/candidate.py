"""The process that runs a completion's code, and answers what it is asked about it."""

from __future__ import annotations

import atexit
import builtins
import importlib
import operator
import os
import sys
import threading
import types
from collections.abc import Mapping
from typing import Any, NoReturn

from lambdas.confinement import CallFilter, bound, give_up, refuse
from lambdas.dialogue import (
    MUTABLE,
    SOLUTION,
    Channel,
    Exceptions,
    GoneError,
    hear,
    tell,
    tell_error,
    tell_exception,
)

# The descriptor of the channel to the examiner.
_CHANNEL = 3

# Native memory access, interpreters without the audit hook, and modules that do things when imported.
_FORBIDDEN = """
    ctypes _ctypes _testcapi _testinternalcapi _testbuffer _testsinglephase _testmultiphase _xxsubinterpreters
    _xxinterpchannels _interpreters _interpchannels _interpqueues concurrent.interpreters antigravity this
    idlelib tkinter turtle turtledemo lib2to3 test
"""


def run_candidate(limits: Mapping[str, float], call_filter: CallFilter | None) -> NoReturn:
    """Gives up what a candidate gives up, and only then takes a completion's code and runs it.

    Args:
        limits: ``memory`` in bytes and ``test`` in processor seconds.
        call_filter: The prepared system-call filter; None where the kernel takes none.
    """
    bound(limits["memory"], limits["test"])
    channel = Channel(_CHANNEL)
    for name in _FORBIDDEN.split():
        sys.modules[name] = None  # type: ignore[assignment]  # how Python is told that there is no such module
    for name in channel.receive():
        try:
            importlib.import_module(name)
        # The completion meets the same trouble, at the line where it imports.
        except Exception:  # noqa: S112 - at most a few names
            continue
    # Nothing that is imported later could be read, so it is not there.
    places: tuple[Any, ...] = (sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache)
    for place in places:
        place.clear()
    give_up()
    if call_filter is None:
        refuse()
    elif not call_filter.install():
        os._exit(98)
    start = channel.receive()
    _Candidate(channel, program=start["program"]).run(start["code"])


class _Candidate:
    """A completion's code in its own process: what it defines, by name, and what it returns, by number."""

    def __init__(self, channel: Channel, *, program: bool) -> None:
        self._channel = channel
        self._program = program
        self._module = types.ModuleType("__main__" if program else SOLUTION)
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._exceptions = Exceptions()

    def run(self, code: str) -> NoReturn:
        """Runs the code; then ends, if it is a program, or serves as long as the examiner has questions."""
        sys.modules[self._module.__name__] = self._module
        sys.argv[:] = ["solution.py"]
        _run_threads_at_once()
        ending = 0
        answer: dict[str, Any] = {"value": None}
        try:
            exec(compile(code, "<completion>", "exec", dont_inherit=True), self._module.__dict__)  # noqa: S102 - what all this is for
        except SystemExit as error:
            ending = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
            if not self._program:
                answer = {"raised": tell_error(error)}
        except BaseException as error:
            ending, answer = 1, {"raised": tell_error(error)}
        if self._program:
            try:
                atexit._run_exitfuncs()
                sys.stdout.flush()
                self._channel.send(answer)
            finally:
                os._exit(ending & 0xFF)
        self._channel.send(answer)
        while True:
            self._serve(self._channel.receive())

    def _serve(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any]
        try:
            arguments = [hear(argument, self._make) for argument in request["args"]]
            keywords = {name: hear(argument, self._make) for name, argument in request["kwargs"].items()}
            answer = {"value": tell(self._do(request["op"], arguments, keywords), self._show)}
            # A function may change what it is given; the examiner's copy has to follow.
            changed = {}
            for position, (argument, before) in enumerate(zip(arguments, request["args"], strict=True)):
                if type(argument) in MUTABLE:
                    after = tell(argument, self._show)
                    if after != before:
                        changed[str(position)] = after
            if changed:
                answer["changed"] = changed
        except GoneError:
            raise
        except BaseException as error:
            answer = {"raised": tell_error(error)}
        self._channel.send(answer)

    def _do(self, operation: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        match operation:
            case "names":
                defined = self._module.__dict__
                return {name: defined[name] for name in arguments if name in defined}
            case "call":
                return arguments[0](*arguments[1:], **keywords)
            case "enter":
                return type(arguments[0]).__enter__(arguments[0])
            case "exit":
                return bool(type(arguments[0]).__exit__(arguments[0], None, None, None))
        place = builtins if hasattr(builtins, operation) else operator
        return getattr(place, operation)(*arguments, **keywords)

    def _show(self, value: Any) -> Any:
        if isinstance(value, type) and issubclass(value, Exception):
            return {"exception": tell_exception(value)}
        number = self._numbers.get(id(value))
        if number is None:
            # It is kept, so no other object ever gets its id.
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return {"object": number}

    def _make(self, tag: str, inner: Any) -> Any:
        if tag == "object":
            return self._objects[inner]
        if tag == "builtin":
            return getattr(builtins, inner)

        def callback(*arguments: Any, **keywords: Any) -> Any:
            told = [tell(argument, self._show) for argument in arguments]
            named = {name: tell(argument, self._show) for name, argument in keywords.items()}
            self._channel.send({"callback": inner, "args": told, "kwargs": named})
            # The function may ask us something before it answers.
            while "op" in (answer := self._channel.receive()):
                self._serve(answer)
            if "raised" in answer:
                raise self._exceptions.hear_error(answer["raised"])
            return hear(answer["value"], self._make)

        return callback


def _run_threads_at_once() -> None:
    """Lets a thread, which could not start, run to its end where it is started.

    Programs that only want a larger stack, or wait for each thread anyway, do not notice.
    """

    def start(self: threading.Thread) -> None:
        # An exception ends the thread, not the program.
        try:
            self.run()
        except (Exception, SystemExit):
            return

    for name, method in (
        ("start", start),
        ("join", lambda _self, timeout=None: None),  # noqa: ARG005 - its name is part of the signature
        ("is_alive", lambda _self: False),
    ):
        setattr(threading.Thread, name, method)
