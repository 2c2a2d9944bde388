"""Requests of an AWS service as botocore's service model describes them: found, read and checked.

botocore's own validator stops at types and lower bounds; this one refuses all that the model rules out.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import (
    ListShape,
    MapShape,
    OperationModel,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)


class Refusal(Exception):  # noqa: N818 - an answer of the service, no fault of this program
    """A request is refused, with the service's error code and the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """Some operations of some services, with the HTTP requests and errors the service models give them."""

    def __init__(self, services: Collection[str], operations: Collection[str]) -> None:
        self._models = {
            name: ServiceModel(Loader().load_service_model(name, "service-2"), name) for name in services
        }
        self._operations = {
            name: model.operation_model(name)
            for model in self._models.values()
            for name in model.operation_names
            if name in operations
        }
        self._statuses = {
            error.name: int(error.metadata["error"]["httpStatusCode"])
            for operation in self._operations.values()
            for error in operation.error_shapes
        }
        self._paths = {name: _path(operation) for name, operation in self._operations.items()}

    def request(
        self, method: str, path: str, query: Mapping[str, Any], body: bytes
    ) -> tuple[str, dict[str, Any]] | None:
        """Returns an HTTP request's operation and its input members, None when it is none of these.

        Members that travel in headers are left out.

        Raises:
            Refusal: ValidationException, with everything that is wrong with the request.
        """
        for name, operation in self._operations.items():
            if operation.http["method"] == method and (match := self._paths[name].fullmatch(path)):
                request = _read(_input(operation), match.groupdict(), query, body)
                self.check(name, request)
                return name, request
        return None

    def check(self, operation: str, request: Mapping[str, Any]) -> None:
        """Raises Refusal unless the input members are what the operation takes."""
        if wrong := list(violations(_input(self._operations[operation]), request)):
            count = "1 validation error" if len(wrong) == 1 else f"{len(wrong)} validation errors"
            raise Refusal("ValidationException", f"{count} detected: {'; '.join(wrong)}")

    def members(self, service: str, structure: str) -> Collection[str]:
        """Returns the names of the members of a structure of a service model."""
        shape = self._models[service].shape_for(structure)
        assert isinstance(shape, StructureShape)  # noqa: S101 - the caller names a structure
        return shape.members.keys()

    def success(self, operation: str) -> int:
        """Returns the HTTP status of an operation that succeeds."""
        return int(self._operations[operation].http["responseCode"])

    def status(self, code: str) -> int:
        """Returns the HTTP status of an error code of these operations."""
        return self._statuses[code]


def _input(operation: OperationModel) -> StructureShape:
    shape = operation.input_shape
    assert shape is not None  # noqa: S101 - an operation over REST has an input, if only its path
    return shape


def _path(operation: OperationModel) -> re.Pattern[str]:
    # An identifier may be an ARN, whose slashes a server may have decoded already.
    return re.compile(
        re.sub(r"\\\{(\w+)(?:\\\+)?\\\}", r"(?P<\1>.+)", re.escape(operation.http["requestUri"]))
    )


def _read(
    shape: StructureShape, labels: Mapping[str, str], query: Mapping[str, Any], body: bytes
) -> dict[str, Any]:
    payload = shape.serialization.get("payload")
    try:
        request = json.loads(body) if body and not payload else {}
    except ValueError as error:
        raise Refusal("ValidationException", f"The request body is not JSON: {error}.") from error
    if not isinstance(request, dict):
        raise Refusal("ValidationException", "The request body is not a JSON object.")
    request = {name: value for name, value in request.items() if value is not None}
    for name, member in shape.members.items():
        place, called = member.serialization.get("location"), member.serialization.get("name", name)
        if place == "uri":
            request[name] = unquote(labels[called])
        elif place == "querystring" and called in query:
            text = query[called][0] if isinstance(query[called], list) else query[called]
            request[name] = int(text) if member.type_name == "integer" and text.isdecimal() else text
        elif name == payload:
            request[name] = base64.b64encode(body).decode()
    return request


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and base64.b64decode(value, validate=True) is not None
    except binascii.Error:
        return False


def is_number(value: object) -> bool:
    """Returns whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# By type of the service model: whether a JSON value is of it, and what its min and max speak of.
_TYPES: Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], float] | None]] = {
    "structure": (lambda value: isinstance(value, dict), None),
    "map": (lambda value: isinstance(value, dict), len),
    "list": (lambda value: isinstance(value, list), len),
    "string": (lambda value: isinstance(value, str), len),
    "blob": (_is_base64, lambda value: len(base64.b64decode(value))),
    "integer": (lambda value: isinstance(value, int) and not isinstance(value, bool), float),
    "long": (lambda value: isinstance(value, int) and not isinstance(value, bool), float),
    "float": (is_number, float),
    "double": (is_number, float),
    # In the query string a boolean is text.
    "boolean": (lambda value: isinstance(value, bool) or value in ("true", "false"), None),
    "timestamp": (_is_time, None),
}


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    # The model writes this part in a way that takes forever on a row of dashes; this means the same.
    return re.compile(text.replace(r"(-*[a-zA-Z0-9\+\-\.])*", r"[a-zA-Z0-9+.-]*"))


def violations(shape: Shape, value: Any, where: str = "") -> Iterator[str]:
    """Yields what is wrong with a JSON value for a shape of a service model, in the service's words."""

    def violated(rule: str) -> str:
        shown = json.dumps(value, ensure_ascii=False)
        at = f"Value at '{where}'" if isinstance(value, dict | list) else f"Value {shown[:200]} at '{where}'"
        return f"{at} failed to satisfy constraint: {rule}"

    fits, size = _TYPES[shape.type_name]
    limits = shape.metadata
    if isinstance(shape, StructureShape) and shape.is_document_type:
        return
    if not fits(value):
        yield violated(f"Member must be of type {shape.type_name}")
        return
    if size is not None:
        measure = "value" if size is float else "length"
        if size(value) < limits.get("min", -math.inf):
            yield violated(f"Member must have {measure} greater than or equal to {limits['min']}")
        if size(value) > limits.get("max", math.inf):
            yield violated(f"Member must have {measure} less than or equal to {limits['max']}")
            # A pattern on a text that is too long may take very long.
            return
    if isinstance(shape, StringShape):
        if shape.enum and value not in shape.enum:
            yield violated(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
        if "pattern" in limits and not _pattern(limits["pattern"]).fullmatch(value):
            yield violated(f"Member must satisfy regular expression pattern: {limits['pattern']}")
    elif isinstance(shape, ListShape):
        for number, member in enumerate(value, 1):
            yield from violations(shape.member, member, f"{where}.{number}.member")
    elif isinstance(shape, MapShape):
        for key, member in value.items():
            yield from violations(shape.key, key, f"{where}.{key}")
            yield from violations(shape.value, member, f"{where}.{key}")
    elif isinstance(shape, StructureShape):
        given = {name: member for name, member in value.items() if member is not None}
        if shape.is_tagged_union and len(given) != 1:
            yield violated(f"Member must have exactly one of: [{', '.join(shape.members)}]")
        for name in shape.required_members:
            if name not in given:
                at = f"{where}.{name}".lstrip(".")
                yield f"Value null at '{at}' failed to satisfy constraint: Member must not be null"
        for name, member in given.items():
            if name not in shape.members:
                yield violated(f"Member must not have the unknown member {name}")
            else:
                yield from violations(shape.members[name], member, f"{where}.{name}".lstrip("."))
