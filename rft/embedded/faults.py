"""Faults a test gives the embedded AWS: calls that are refused, lost or held, and work that fails later.

A fault acts where a request arrives, before anything is done for it, so what asks is the real thing:
functions with their retries, the interpreter of workflows, Bedrock's own jobs. There is no fault until a test
gives one, over a path that only this machine reaches.
"""

import asyncio
import contextvars
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self
from urllib.request import ProxyHandler, Request, build_opener

FAULTS_PATH = "/_embedded/faults"
# An execution enters a state: no request, but it can be held all the same.
ENTER_STATE = "states:EnterState"

# Why what the request in hand begins is going to fail; Bedrock's jobs and deployments go by it.
doom: contextvars.ContextVar[str] = contextvars.ContextVar("doom", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the calls that fit.

    action: the IAM action of the call, as in the record of calls; or ENTER_STATE.
    about: text that the call's path or body has in it; of a state, part of "<execution>/<state>/".
    by: text that the ARN of the caller's role, or the name of the calling service, has in it.
    does: "refuse" answers `error`; "hold" waits until the fault is lifted, and then lets the call act; "doom"
        lets it act, and what it begins (a customization job, a deployment) ends as Failed, with `message`.
    times: how many calls, None for every one.
    """

    action: str
    about: str = ""
    by: str = ""
    does: Literal["refuse", "hold", "doom"] = "refuse"
    times: int | None = None
    error: str = "ThrottlingException"
    status: int = 400
    message: str = "Rate exceeded"


@dataclass(slots=True)
class _Given:
    """A fault that was given: how many calls met it, whether it has held one and whether it was lifted."""

    fault: Fault
    met: int = 0
    lifted: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)

    def fits(self, action: str, text: str, caller: Callable[[], str]) -> bool:
        fault = self.fault
        return (
            fault.action == action
            and not self.lifted.is_set()
            and (fault.times is None or self.met < fault.times)
            and fault.about in text
            and (not fault.by or fault.by in caller())
        )

    def hold(self) -> None:
        self.holding.set()
        self.lifted.wait()


class Faults:
    """The faults of an embedded AWS, in its own process."""

    def __init__(self) -> None:
        self._given: dict[str, _Given] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return any(not given.lifted.is_set() for given in list(self._given.values()))

    def enter(self, execution: str, state: str) -> None:
        """Holds an execution that enters a state for as long as a fault says so."""
        given = self._met(ENTER_STATE, f"{execution}/{state}/", lambda: "") if self else None
        if given:
            given.hold()

    async def answer(self, action: str, text: str, caller: Callable[[], str]) -> Fault | None:
        """Returns the fault that a call meets, after it was held if that is what the fault does."""
        given = self._met(action, text, caller)
        if given is None:
            return None
        if given.fault.does == "hold":
            await asyncio.to_thread(given.hold)
        return given.fault

    async def change(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Gives a fault ("give"), lifts it ("lift"), or waits until it holds a call ("wait": seconds).

        Returns how many calls have met it, and whether it has held one.
        """
        name = request["name"]
        with self._lock:
            if "give" in request:
                self._given[name] = _Given(Fault(**request["give"]))
            given = self._given[name]
            if request.get("lift"):
                given.lifted.set()
        if seconds := request.get("wait"):
            await asyncio.to_thread(given.holding.wait, seconds)
        return {"met": given.met, "held": given.holding.is_set()}

    def _met(self, action: str, text: str, caller: Callable[[], str]) -> _Given | None:
        with self._lock:
            for given in self._given.values():
                if given.fits(action, text, caller):
                    given.met += 1
                    return given
        return None


async def body_of(receive: Callable[[], Any]) -> bytes:
    """Returns the body of a request to an ASGI application."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def answer_of(fault: Fault, action: str) -> tuple[dict[str, str], bytes]:
    """Returns headers and body of the answer to a call that is refused, in the words of its service.

    S3 answers in XML, the others that a fault can be given for in JSON.
    """
    if action.startswith("s3:"):
        body = f"<Error><Code>{fault.error}</Code><Message>{fault.message}</Message></Error>"
        return {"content-type": "application/xml"}, body.encode()
    document = {"__type": fault.error, "message": fault.message}
    return {"content-type": "application/json", "x-amzn-errortype": fault.error}, json.dumps(
        document
    ).encode()


class Injected:
    """A fault as the one who gave it sees it; as a context manager it is lifted at the end of the block."""

    def __init__(self, endpoint: str, name: str, fault: Fault) -> None:
        self._url = endpoint + FAULTS_PATH
        self._name = name
        self._ask({"give": asdict(fault)})

    @property
    def met(self) -> int:
        """How many calls have met it."""
        return int(self._ask({})["met"])

    def held(self, seconds: float) -> bool:
        """Waits until it holds a call, or for so many seconds; says whether it has held one."""
        return bool(self._ask({"wait": seconds})["held"])

    def lift(self) -> int:
        """Ends it, which lets go of what it holds; returns how many calls have met it."""
        return int(self._ask({"lift": True})["met"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lift()

    def _ask(self, what: Mapping[str, Any]) -> Any:
        request = Request(self._url, data=json.dumps({"name": self._name, **what}).encode())  # noqa: S310 - loopback
        with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
            return json.load(answer)
