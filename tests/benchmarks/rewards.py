"""What a reward function costs: samples a second, cold start, size, memory and money.

Throughput is that of the whole Lambda handler on one core, from Bedrock's JSON to the response, batch by
batch. A cold start is a fresh interpreter that imports the built package and scores its first batch, less one
that does nothing; nothing is compiled beforehand, as nothing is in Lambda. The baseline of throughput is
Math-Verify, called directly for every sample of the same rows.

All times are processor time, of a reward function's own processes together: that is what a Lambda with one
processor takes, and it stays the same when others are at work on the machine.
"""

import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

from infra.config import load_platform
from lambdas.composition import compose
from lambdas.contract import reward_handler
from rft.grader_import import ImportedReward, placed
from rft.packaging import package, sizes
from tests.benchmarks.commands import ROOT, progress

BATCH = 64
# Different ones, so that nobody has seen an answer before: Math-Verify remembers what it has read.
BATCHES = 24
ROUNDS = 5
# One sitting of a case lasts at least so long, for the clock's sake.
SHORTEST_SECONDS = 0.2
# Lambda gives one whole processor for so much memory, and a share of it for less.
MEGABYTES_PER_PROCESSOR = 1769
JUDGE = "us.amazon.nova-2-lite-v1:0"

Item = dict[str, Any]


@dataclass(kw_only=True)
class Case:
    """A reward function, its settings, a batch of typical rows, and what was measured of it."""

    name: str
    component: Mapping[str, Any]
    items: Sequence[Item]
    batches: Sequence[Sequence[Item]] = ()
    baseline: Callable[[Sequence[Item]], None] | None = None
    # Such a function waits for others, so what it does in a second is theirs to say.
    waits: bool = False
    rounds: int = ROUNDS
    rates: list[float] = field(default_factory=list)
    baseline_rates: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def table(self) -> dict[str, Any]:
        """The [reward] table with this one component."""
        return {"range": [0.0, 1.0], "components": {"it": dict(self.component)}}

    @property
    def team(self) -> str:
        """The name of a team that has it."""
        return self.name.replace("_", "-").replace(" ", "-").replace(",", "")[:24].rstrip("-")


def item(number: int, completion: str, reference: Any, prompt: str = "What is it?", **message: Any) -> Item:
    """One sample, in the shape in which Bedrock sends it."""
    return {
        "id": f"sample-{number}",
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion, **message},
        ],
        "metadata": {"reference_answer": reference},
    }


def worked(chance: random.Random, answer: str) -> str:
    """A solution of a word problem as models write it, some hundred words that end in the answer."""
    lines = []
    for _ in range(6):
        a, b = chance.randint(2, 90), chance.randint(2, 40)
        lines.append(
            f"Each of the {a} boxes holds {b} pens, so that together they hold {a} * {b} = {a * b} pens, "
            f"of which she gives away ${a / 4:.2f} worth."
        )
    return "\n".join([*lines, answer])


def cases() -> list[Case]:
    """Every reward function with its batches."""
    first, *others = [_cases(random.Random(seed)) for seed in range(BATCHES)]
    for number, case in enumerate(first):
        case.batches = [case.items, *(each[number].items for each in others)]
    return first


def _cases(chance: random.Random) -> list[Case]:
    """A typical batch for every reward function: mostly right, some wrong, some without an answer."""
    answers = [f"{chance.randint(2, 4000):,}" for _ in range(BATCH)]
    wrong = [number % 4 == 0 for number in range(BATCH)]
    numbers = [
        item(n, worked(chance, f"#### {chance.randint(5000, 9000) if wrong[n] else answer}"), answer)
        for n, answer in enumerate(answers)
    ]
    fractions = [Fraction(chance.randint(1, 40), chance.randint(2, 40)) for _ in range(BATCH)]
    exact = [
        item(
            n,
            worked(chance, rf"So it is \boxed{{\frac{{{f.numerator}}}{{{f.denominator + wrong[n]}}}}}."),
            rf"\frac{{{f.numerator}}}{{{f.denominator}}}",
        )
        for n, f in enumerate(fractions)
    ]
    symbolic = [
        item(
            n,
            worked(chance, rf"So it is \boxed{{x^2 + {n + 2 + wrong[n]}x + {n + 1}}}."),
            f"(x + 1)(x + {n + 1})",
        )
        for n in range(BATCH)
    ]
    prose = [" ".join(worked(chance, "").split()[:60]) for _ in range(BATCH)]
    texts = [item(n, worked(chance, text), text) for n, text in enumerate(prose)]
    similar = [item(n, " ".join(text.split()[: 40 + n % 20]), text) for n, text in enumerate(prose)]
    labels = [item(n, worked(chance, f"Answer: {'ABCD'[n % 4]}"), "ABCD"[n // 2 % 4]) for n in range(BATCH)]
    words = [item(n, chance.choice(["Berlin", "Paris ", "Rome"]), "Paris") for n in range(BATCH)]
    objects = []
    for n in range(BATCH):
        fields = {"category": "billing", "priority": "low", "amount": n, "tags": ["a", "b"], "open": True}
        objects.append(item(n, json.dumps(fields | ({"priority": "high"} if wrong[n] else {})), fields))
    calls = []
    for n in range(BATCH):
        expected = [
            {"name": "book", "arguments": {"room": n, "day": "Monday"}},
            {"name": "pay", "arguments": {}},
        ]
        made = [
            {
                "type": "function",
                "function": {"name": each["name"], "arguments": json.dumps(each["arguments"])},
            }
            for each in expected[: 1 if wrong[n] else 2]
        ]
        calls.append(item(n, "", expected, tool_calls=made))
    thought = [
        item(n, f"<think>{worked(chance, 'So it is that.')}</think>\n<answer>{n}</answer>", str(n))
        for n in range(BATCH)
    ]
    programs, queries = [], []
    for n in range(BATCH):
        code = f"def total(items):\n    return sum(items) {'-' if wrong[n] else '+'} {n}\n"
        tests = [f"assert total({[*range(k)]}) == {sum(range(k)) + n}" for k in range(3)]
        programs.append(item(n, worked(chance, f"```python\n{code}```"), tests))
        rows = ", ".join(f"({k}, {chance.randint(1, 99)})" for k in range(40))
        database = f"CREATE TABLE sale (day INTEGER, amount INTEGER); INSERT INTO sale VALUES {rows};"
        query = f"SELECT sum(amount) FROM sale WHERE day {'>' if wrong[n] else '<'} {20 + n % 9}"
        reference = {"query": f"SELECT sum(amount) FROM sale WHERE day < {20 + n % 9}", "database": database}
        queries.append(item(n, worked(chance, f"```sql\n{query}\n```"), reference))
    return [
        Case(
            name="numeric_answer",
            component={"function": "numeric_answer"},
            items=numbers,
            baseline=math_verify,
        ),
        Case(
            name="math_answer, exact",
            component={"function": "math_answer"},
            items=exact,
            baseline=math_verify,
        ),
        Case(
            name="math_answer, symbolic",
            component={"function": "math_answer"},
            items=symbolic,
            baseline=math_verify,
            rounds=1,
        ),
        Case(name="string_check", component={"function": "string_check"}, items=words),
        Case(
            name="string_check, regex",
            component={"function": "string_check", "operation": "regex", "value": r"gives away \$\d+\.\d\d"},
            items=texts,
        ),
        Case(
            name="choice",
            component={"function": "choice", "options": {letter: [] for letter in "ABCD"}},
            items=labels,
        ),
        Case(
            name="text_similarity",
            component={"function": "text_similarity", "metric": "rouge_l"},
            items=similar,
        ),
        Case(name="json_match", component={"function": "json_match"}, items=objects),
        Case(name="tool_call", component={"function": "tool_call"}, items=calls),
        Case(name="sql_result", component={"function": "sql_result"}, items=queries),
        Case(name="code_tests", component={"function": "code_tests"}, items=programs, rounds=1),
        Case(name="format", component={"function": "format", "tags": ["think", "answer"]}, items=thought),
        Case(name="length", component={"function": "length", "maximum": 2000}, items=texts),
        Case(name="repetition", component={"function": "repetition"}, items=texts),
        Case(name="language", component={"function": "language"}, items=texts),
        Case(name="reasoning_steps", component={"function": "reasoning_steps"}, items=texts),
        Case(
            name="judge",
            component={"function": "judge", "model": JUDGE, "rubric": "It is right."},
            items=texts,
            waits=True,
        ),
    ]


def math_verify(items: Sequence[Item]) -> None:
    """Decides every sample as Math-Verify's own documentation does it, reference first."""
    from math_verify import parse, verify

    for each in items:
        verify(parse(f"${each['metadata']['reference_answer']}$"), parse(each["messages"][-1]["content"]))


def processor_seconds() -> float:
    """Processor time of this process, and of the one that a reward function may keep beside it."""
    own = time.process_time()
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    for child in listed.read_text().split() if listed.exists() else ():
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        own += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own


def rate(work: Callable[[Sequence[Item]], object], batches: Iterator[Sequence[Item]]) -> float:
    """Samples a second of work that goes on until the time is long enough to be read."""
    done, started = 0, processor_seconds()
    while (seconds := processor_seconds() - started) < SHORTEST_SECONDS:
        batch = next(batches)
        work(batch)
        done += len(batch)
    return done / seconds


def throughput(found: Sequence[Case]) -> None:
    """Measures every case: a round to warm up, then rounds in which each has its turn."""
    works: list[tuple[Case, str, list[float], Callable[..., object], Iterator[Sequence[Item]]]] = []
    for case in found:
        if case.waits:
            continue
        handler = reward_handler(compose(case.table), environment="bench", log_sampling_rate=0.01)
        works.append((case, case.name, case.rates, partial(handler, context=None), cycle(case.batches)))
        if case.baseline:
            what = f"Math-Verify on {case.name}"
            works.append((case, what, case.baseline_rates, case.baseline, cycle(case.batches)))
    for number in range(ROUNDS + 1):
        for case, what, rates, work, batches in works:
            if number > case.rounds:
                continue
            progress(f"samples a second, round {number} of {case.rounds}: {what}")
            with redirect_stdout(io.StringIO()):
                each = rate(work, batches)
            rates += [each] if number else []
    progress("")


def packages(found: Sequence[Case], scratch: Path) -> None:
    """Builds the package of a team per case, for AWS and for this machine."""
    for name in ("lambdas", "requirements"):
        shutil.copytree(ROOT / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    (scratch / "teams").mkdir()
    (ROOT / "build" / ".cache").mkdir(exist_ok=True)
    (scratch / "build").mkdir()
    (scratch / "build" / ".cache").symlink_to(ROOT / "build" / ".cache")
    judges = f'\n[judges."{JUDGE}"]\nregions = ["us-east-1"]\n'
    platform = (ROOT / "teams" / "platform.toml").read_text() + judges
    (scratch / "teams" / "platform.toml").write_text(platform)
    settings = (ROOT / "teams" / "quotes" / "team.toml").read_bytes()
    for case in found:
        folder = scratch / "teams" / case.team
        folder.mkdir()
        (folder / "data").symlink_to(ROOT / "teams" / "quotes" / "data")
        reward = ImportedReward(table=case.table, notes=[]).toml
        (folder / "team.toml").write_bytes(placed(settings, reward, name="team.toml", force=True))
    for target in ("aws", "embedded"):
        progress(f"packages for {target}")
        package(scratch, target, report=lambda _line: None)
    progress("")


# Says at its end what memory it and a process of its own took at most.
FIRST_BATCH = """\
import json, sys
sys.path.insert(0, sys.argv[1])
from lambdas.reward_function import handler
handler(json.load(open("batch.json")), None)
import os
with open(f"/proc/self/task/{os.getpid()}/children") as children:
    pids = ["self", *children.read().split()]
print(*(open(f"/proc/{pid}/status").read() for pid in pids), file=open("memory.txt", "w"))
"""


def cold_starts(found: Sequence[Case], scratch: Path) -> float:
    """Times fresh interpreters, in turn; returns the seconds of one that does nothing."""
    bare: list[float] = []
    with scripted_judge() as endpoint:
        for number in range(ROUNDS + 1):
            for case in [None, *found]:
                if case and number > case.rounds:
                    continue
                progress(f"cold starts, round {number} of {ROUNDS}: {case.name if case else 'bare Python'}")
                folder = scratch / "build" / "embedded" / case.team / "reward" if case else scratch
                seconds, memory = cold_start(folder, case, endpoint)
                if number and case:
                    case.cold.append(seconds)
                    case.memory = max(case.memory, memory)
                elif number:
                    bare.append(seconds)
    progress("")
    return statistics.median(bare)


def cold_start(folder: Path, case: Case | None, endpoint: str) -> tuple[float, int]:
    """Starts an interpreter without a virtual environment; its processor time, and peak memory in kB."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }
    if case:
        (folder.parent / "batch.json").write_text(json.dumps(case.items))
        # A child of the function may have compiled what no Lambda can keep.
        for cache in folder.rglob("__pycache__"):
            shutil.rmtree(cache)
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", FIRST_BATCH if case else "pass", str(folder)],
        env=environment,
        cwd=folder.parent,
        stdout=subprocess.DEVNULL,
    )
    # Of this child alone, unlike what resource.getrusage knows.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"bench: {case.name if case else 'Python'} does not start (exit code {child.returncode})")
    told = (folder.parent / "memory.txt").read_text() if case else ""
    memory = sum(int(kilobytes) for kilobytes in re.findall(r"VmHWM:\s+(\d+) kB", told))
    return usage.ru_utime + usage.ru_stime, memory


@contextmanager
def scripted_judge() -> Iterator[str]:
    """A Bedrock on loopback whose every answer is the same good verdict, at once."""
    verdict = {"toolUse": {"toolUseId": "t", "name": "verdict", "input": {"reason": "It is.", "overall": 5}}}
    answer = json.dumps(
        {
            "output": {"message": {"role": "assistant", "content": [verdict]}},
            "stopReason": "tool_use",
            "usage": {"inputTokens": 700, "outputTokens": 40, "totalTokens": 740},
            "metrics": {"latencyMs": 1},
        }
    ).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def rewards() -> None:
    """Measures every reward function of the library and prints a line for each."""
    found = cases()
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as name:
        scratch = Path(name)
        packages(found, scratch)
        bare = cold_starts(found, scratch)
        throughput(found)
        show(found, scratch, bare)


def show(found: Sequence[Case], scratch: Path, bare: float) -> None:
    """Prints the medians; money is the measured processor time at Lambda's price, whatever the memory.

    Lambda gives a share of a processor that grows with the memory, so less memory takes longer and costs the
    same. Requests are not in it: at 64 samples each they are a fraction of a cent.
    """
    prices = load_platform(ROOT).prices
    price = prices.lambda_gb_second if prices else None
    head = (
        ("", "samples per", "times", "cold start", "peak", "", "", "per million"),
        ("", "second", "baseline", "over bare", "memory", "package", "zipped", "samples"),
    )
    for words in head:
        print(_columns(*words))
    for case in found:
        size, zipped, _ = sizes(scratch / "build" / "aws" / case.team / "reward")
        speed = statistics.median(case.rates) if case.rates else None
        base = statistics.median(case.baseline_rates) if case.baseline_rates else None
        gigabytes = MEGABYTES_PER_PROCESSOR / 1024
        print(
            _columns(
                case.name,
                f"{speed:,.0f}" if speed else "waits",
                f"{speed / base:.1f}" if speed and base else "",
                f"{(statistics.median(case.cold) - bare) * 1000:,.0f} ms",
                f"{case.memory / 1024:,.0f} MB",
                f"{size / 1024:,.0f} kB",
                f"{zipped / 1024:,.0f} kB",
                f"{1e6 / speed * gigabytes * price:.4f}" if speed and price else "",
            )
        )
    print(f"\nbare Python: {bare * 1000:.0f} ms; baseline: Math-Verify called directly on the same rows")
    if prices and price:
        print(f"prices of {prices.date} in {prices.currency}: {price} per GB-second (teams/platform.toml)")
    print()


def _columns(name: str, *rest: str) -> str:
    widths = (12, 9, 11, 8, 11, 10, 12)
    return name.ljust(24) + "".join(each.rjust(width) for each, width in zip(rest, widths, strict=True))
