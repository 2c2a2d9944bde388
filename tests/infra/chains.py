"""What CloudFormation makes one after the other: the longest chain of resources that wait for each other."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

_IN_TEXT = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z0-9.]+)?\}")


def longest_chain(template: Mapping[str, Any]) -> list[str]:
    """Returns the longest chain, from what is made first to what is made last.

    Ties go to what stands first in the template.
    """
    resources = template["Resources"]
    waits = {
        name: [each for each in _named(resource) if each in resources] for name, resource in resources.items()
    }

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (*max(map(chain, waits[name]), key=len, default=()), name)

    return [*max(map(chain, resources), key=len)]


def _named(value: Any) -> Iterator[str]:
    """The logical ids that a value refers to, in any of CloudFormation's ways."""
    match value:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [str(name), *_]}:
            yield name
        case {"Fn::GetAtt": str(dotted)}:
            yield dotted.partition(".")[0]
        case {"Fn::Sub": str(text)}:
            yield from _IN_TEXT.findall(text)
        case {"Fn::Sub": [str(text), Mapping() as given]}:
            yield from (name for name in _IN_TEXT.findall(text) if name not in given)
            yield from _named([*given.values()])
        case Mapping():
            waits = value.get("DependsOn", [])
            yield from [waits] if isinstance(waits, str) else waits
            for each in value.values():
                yield from _named(each)
        case list():
            for each in value:
                yield from _named(each)
