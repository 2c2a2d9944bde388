"""How the process that judges and the process that runs a completion talk: plain data, as lines of JSON.

Neither side ever gets an object of the other's. What is data is told and made again, by a few constructors
that do nothing but hold it; of everything else only a number crosses.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What a process may say in one message.
LONGEST_MESSAGE = 4_000_000

# Characters of an exception's text, or of a verdict, that are passed on.
LONGEST_REASON = 300

# Types of exceptions between a raised one and a built-in one that are told apart.
_MOST_NAMES = 8

# The name of the module a completion is, unless it runs as a program.
SOLUTION = "solution"


class GoneError(BaseException):
    """The other side ended, or says what no side of ours would; no Exception, so that no test hides it."""


class Channel:
    """JSON values, one a line, over a descriptor."""

    def __init__(self, descriptor: int, longest: int = LONGEST_MESSAGE) -> None:
        self._descriptor = descriptor
        self._longest = longest
        self._received = bytearray()

    def send(self, value: Any) -> None:
        """Sends a value.

        Raises:
            GoneError: Nobody is there to receive it.
        """
        data = memoryview(json.dumps(value).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            raise GoneError from None

    def receive(self) -> Any:
        """Waits for the next value.

        Raises:
            GoneError: There is none, it is too long, or it is not JSON.
        """
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > self._longest:
                raise GoneError(f"it answered more than {self._longest} bytes")
            try:
                piece = os.read(self._descriptor, 65536)
            except OSError:
                piece = b""
            if not piece:
                raise GoneError
            self._received += piece
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise GoneError("it answered what is not JSON") from None


def _items(value: Any, told: Callable[[Any], Any]) -> list[Any]:
    return [told(item) for item in value]


# What is data, how it is told, and how it is made again: by these constructors and no others.
_DATA: Sequence[tuple[type, str, Callable[[Any, Callable[[Any], Any]], Any], Callable[[Any], Any]]] = (
    (bytes, "bytes", lambda value, _: bytes(value).hex(), bytes.fromhex),
    (bytearray, "bytearray", lambda value, _: bytes(value).hex(), bytearray.fromhex),
    (tuple, "tuple", _items, tuple),
    (range, "range", lambda value, _: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    (
        slice,
        "slice",
        lambda value, told: [told(value.start), told(value.stop), told(value.step)],
        lambda parts: slice(*parts),
    ),
    (frozenset, "frozenset", _items, frozenset),
    (set, "set", _items, set),
    (collections.deque, "deque", _items, collections.deque),
    (dict, "dict", lambda value, told: [[told(key), told(item)] for key, item in value.items()], dict),
    (complex, "complex", lambda value, _: [value.real, value.imag], lambda parts: complex(*parts)),
    (
        fractions.Fraction,
        "fraction",
        lambda value, _: [hex(value.numerator), hex(value.denominator)],
        lambda parts: fractions.Fraction(*(int(part, 16) for part in parts)),
    ),
    (decimal.Decimal, "decimal", lambda value, _: str(value), decimal.Decimal),
    (datetime.datetime, "datetime", lambda value, _: value.isoformat(), datetime.datetime.fromisoformat),
    (datetime.date, "date", lambda value, _: value.isoformat(), datetime.date.fromisoformat),
    (
        datetime.timedelta,
        "timedelta",
        lambda value, _: [value.days, value.seconds, value.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
)
_MAKERS: Mapping[str, Callable[[Any], Any]] = {
    **{tag: maker for _, tag, _, maker in _DATA},
    "int": lambda digits: int(digits, 16),
}
MUTABLE = (list, dict, set, bytearray, collections.deque)


def tell(value: Any, other: Callable[[Any], Any]) -> Any:
    """Turns a value into JSON; of a subclass of a plain type, what it holds.

    Args:
        value: The value.
        other: Tells what is no data.
    """

    def told(inner: Any) -> Any:
        return tell(inner, other)

    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Long ones as hexadecimal, which has no limit on digits and takes linear time.
        return int(value) if value.bit_length() <= 64 else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    # A stack that is a list is more than a list: it has methods of its own.
    if isinstance(value, MUTABLE) and type(value).__module__ in {SOLUTION, "__main__"}:
        return other(value)
    if isinstance(value, list):
        return _items(value, told)
    for kind, tag, teller, _ in _DATA:
        if isinstance(value, kind):
            return {tag: teller(value, told)}
    return other(value)


def hear(value: Any, other: Callable[[str, Any], Any]) -> Any:
    """Makes a value of the JSON that tells it.

    Args:
        value: The JSON.
        other: Makes what is no data, from its tag and its JSON.
    """
    if isinstance(value, list):
        return [hear(item, other) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag not in _MAKERS:
        return other(tag, inner)
    if tag == "dict":
        return {hear(key, other): hear(item, other) for key, item in inner}
    if isinstance(inner, list):
        inner = [hear(item, other) for item in inner]
    return _MAKERS[tag](inner)


def tell_exception(kind: type[BaseException]) -> dict[str, Any]:
    """Tells a type of exceptions: its names down to the nearest built-in type, and that type."""
    names: list[str] = []
    for base in kind.__mro__:
        if getattr(builtins, base.__name__, None) is base:
            return {"names": names, "known": base.__name__}
        names.append(str(base.__name__))
    raise TypeError(f"{kind} is no exception")


def tell_error(error: BaseException) -> dict[str, Any]:
    """Tells an exception: its type and its text."""
    try:
        text = str.__str__(str(error))[:LONGEST_REASON]
    # It may be the completion's own, with a method of its own.
    except Exception:
        text = ""
    return {**tell_exception(type(error)), "text": text}


class Exceptions:
    """Types of exceptions the other side has, made again here: the same name is the same type."""

    def __init__(self) -> None:
        self._types: dict[str, type[Exception]] = {}

    def hear(self, told: Mapping[str, Any]) -> type[Exception]:
        """Makes a type; one that would end a program becomes a plain exception."""
        found = getattr(builtins, str(told["known"]), None)
        kind: type[Exception] = RuntimeError
        if isinstance(found, type) and issubclass(found, Exception):
            kind = found
        for name in reversed(told["names"][:_MOST_NAMES]):
            kind = self._types.setdefault(str(name), type(str(name), (kind,), {}))
        return kind

    def hear_error(self, told: Mapping[str, Any]) -> Exception:
        """Makes an exception that can be told from one of this side by its attribute ``told``."""
        kind = self.hear(told)
        # The constructors of some built-in types want more than a text.
        error = kind.__new__(kind, str(told["text"]))
        error.__dict__["told"] = True
        return error
