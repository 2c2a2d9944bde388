"""What a gate says before a run goes on: a verdict that machines read and a sentence that a person acts on.

Every gate writes `runs/<run>/gates/<gate>.json`, and `rft check` and the report show the same:

    {"gate": "dataset", "verdict": "pass" | "warn" | "stop", "sentence": "…",
     "findings": [{"gate", "rule", "level": "info" | "warn" | "stop", "sentence", "count", "lines",
                   "examples"}],
     "facts": {…}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Level = Literal["info", "warn", "stop"]

# So many findings make up a verdict's sentence; all of them stand in its list.
_TOLD: Final = 3
_MEANING: Final = {
    "pass": "nothing to object to.",
    "warn": "goes on with a warning.",
    "stop": "stops the run.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a gate found; `sentence` says what it is and what to do, and ends in a full stop.

    `rule` is the stable name that machines go by, in lower case with hyphens. `count` says how often it was
    found; `lines` and `examples` are the first few places and cases, where there are any.
    """

    rule: str
    level: Level
    sentence: str
    count: int = 1
    lines: tuple[int, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that a gate found; `gate` is the name of its file, `facts` what it measured on the way, as JSON."""

    gate: str
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Literal["pass", "warn", "stop"]:
        """Returns the gravest level among the findings; what is only said for information passes."""
        levels = {finding.level for finding in self.findings}
        return "stop" if "stop" in levels else "warn" if "warn" in levels else "pass"

    @property
    def sentence(self) -> str:
        """Returns the verdict in words, with the first findings behind it."""
        behind = [finding.sentence for finding in self.findings if finding.level == self.verdict]
        more = len(behind) - _TOLD
        words = [f"{self.gate.capitalize()}: {_MEANING[self.verdict]}", *behind[:_TOLD]]
        return " ".join(words) + (f" And {more} more." if more > 0 else "")

    def document(self) -> dict[str, Any]:
        """Returns the verdict as JSON values, in the shape that stands at the head of this module."""
        return {
            "gate": self.gate,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "findings": [
                {
                    "gate": self.gate,
                    "rule": finding.rule,
                    "level": finding.level,
                    "sentence": finding.sentence,
                    "count": finding.count,
                    "lines": list(finding.lines),
                    "examples": list(finding.examples),
                }
                for finding in self.findings
            ],
            "facts": dict(self.facts),
        }

    def to_json(self) -> str:
        """Returns the document as JSON text, escaped to ASCII like every file of a run."""
        return json.dumps(self.document(), indent=1, allow_nan=False)
