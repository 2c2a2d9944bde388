"""Walks a state machine the way Step Functions does, with the answers of its tasks given.

Every expression on the way is evaluated by JSONata: one that yields nothing is an error here as it is in AWS.
Retries and times are left out; tests/embedded runs the real thing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonata
from jsonata.utils import Utils

State = dict[str, Any]

MACHINE = "arn:aws:states:us-east-1:111122223333:stateMachine:Workflow"


class TaskFailedError(Exception):
    """What a task answers when it fails."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}")
        self.output = {"Error": error, "Cause": cause}


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a state asked of a service."""

    state: str
    resource: str
    arguments: Any


@dataclass
class Walk:
    """Where a walk went, what it asked for and how it ended: with an output or with an error."""

    path: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    output: Any = None
    error: dict[str, str] | None = None

    def asked(self, state: str) -> list[Any]:
        """The arguments of every call of a state."""
        return [call.arguments for call in self.calls if call.state == state]


def walk(definition: State, document: Any, answers: Mapping[str, Sequence[Any]], *, index: int = 0) -> Walk:
    """Walks from the start to an end.

    `answers` gives, by state, what its calls answer in turn; the last answer goes on for ever. A Map state's
    answer is one item of its reader, the one at `index`.
    """
    taken: dict[str, int] = defaultdict(int)
    done = Walk()

    def answer(name: str) -> Any:
        given = answers[name]
        found = given[min(taken[name], len(given) - 1)]
        taken[name] += 1
        if isinstance(found, TaskFailedError):
            raise found
        return found

    def evaluate(template: Any, variables: State, states: State) -> Any:
        if isinstance(template, str) and template.startswith("{%"):
            expression = template.removeprefix("{%").removesuffix("%}")
            bindings = {
                name: Utils.NULL_VALUE if value is None else value for name, value in variables.items()
            }
            value = jsonata.Jsonata.jsonata(expression).evaluate(None, {**bindings, "states": states})
            exists = jsonata.Jsonata.jsonata(f"$exists(({expression}))")
            assert exists.evaluate(None, {**bindings, "states": states}), f"{template} yields nothing"
            return value
        if isinstance(template, dict):
            return {key: evaluate(value, variables, states) for key, value in template.items()}
        if isinstance(template, list):
            return [evaluate(value, variables, states) for value in template]
        return template

    def run(machine: State, given: Any, variables: State, top: bool) -> Any:
        name: str = machine["StartAt"]
        while True:
            state = machine["States"][name]
            done.path.append(name)
            context = {
                "Execution": {
                    "Id": f"{MACHINE.replace(':stateMachine:', ':execution:')}:run-0123456789abcdef",
                    "Input": document if top else given,
                    "Name": "run-0123456789abcdef",
                },
                "StateMachine": {"Id": MACHINE},
                "State": {"Name": name},
            }
            if state.get("Resource", "").endswith(".waitForTaskToken"):
                context["Task"] = {"Token": "token"}
            states: State = {"input": given, "context": context}
            field, following = state, state.get("Next")
            output = given
            try:
                match state["Type"]:
                    case "Task":
                        assert evaluate(state["TimeoutSeconds"], variables, states) > 0
                        arguments = evaluate(state["Arguments"], variables, states)
                        done.calls.append(Call(state=name, resource=state["Resource"], arguments=arguments))
                        output = states["result"] = answer(name)
                    case "Map":
                        reader = state["ItemReader"]
                        arguments = evaluate(reader["Arguments"], variables, states)
                        done.calls.append(Call(state=name, resource=reader["Resource"], arguments=arguments))
                        assert isinstance(evaluate(state["MaxConcurrency"], variables, states), int)
                        context["Map"] = {"Item": {"Index": index, "Value": answer(name)}}
                        item = evaluate(state["ItemSelector"], variables, states)
                        # An item is an execution of its own: it knows no variables of this one.
                        output = states["result"] = [run(state["ItemProcessor"], item, {}, False)]
                    case "Choice":
                        chosen = (
                            each
                            for each in state["Choices"]
                            if evaluate(each["Condition"], variables, states) is True
                        )
                        field = next(chosen, {"Next": state.get("Default")})
                        following = field["Next"]
                        assert following, f"{name} has no choice for {given}"
                    case "Fail":
                        done.error = {
                            "Error": evaluate(state["Error"], variables, states),
                            "Cause": evaluate(state["Cause"], variables, states),
                        }
                        return None
                    case "Wait" | "Succeed" | "Pass":
                        pass
                    case other:
                        raise AssertionError(f"{name} is a {other}, which this walk does not know")
            except TaskFailedError as failure:
                field = next(
                    each
                    for each in state["Catch"]
                    if each["ErrorEquals"] in ([failure.output["Error"]], ["States.ALL"])
                )
                following = field["Next"]
                output = states["errorOutput"] = failure.output
            # Both see the variables as they were before this state.
            assigned = evaluate(field.get("Assign", {}), variables, states)
            given = evaluate(field["Output"], variables, states) if "Output" in field else output
            variables.update(assigned)
            if state["Type"] == "Succeed" or state.get("End"):
                return given
            name = following

    done.output = run(definition, document, {}, True)
    return done
