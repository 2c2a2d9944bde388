"""How fast the dataset gate reads a file as large as the service takes, beside `json.loads` of each line.

The files have 20,000 rows of 10 KB. "Chats" are conversations of some twenty turns with metadata beside them;
"documents" are one long text each, which any reader mostly copies: the best case of the bare loop.
Every reader runs in a process of its own, whose peak of memory is its own as well; each round runs all of
them, so that a busy moment of the machine falls on all alike. The gate hashes the file in a second thread:
`median` is what a person waits on this machine, `cpu` what a Lambda function with one CPU takes.

    python -m tests.benchmarks.dataset
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
ROWS, SMALL_ROWS, ROW_BYTES = 20_000, 2_000, 10_000
BARE, GATE, WHOLE = "json.loads of each line", "the dataset gate", "with near duplicates, personal data"
BASELINE = "Python and its imports"


def words(draw: random.Random, count: int) -> str:
    """Text with the letters, punctuation and line ends of prose; one word in 500 is not ASCII."""
    chosen = draw.choices(VOCABULARY, k=count)
    for place in range(12, count, 14):
        chosen[place] += ".\n" if draw.random() < 0.2 else "."
    return " ".join(chosen)


def _vocabulary() -> list[str]:
    draw = random.Random(3)
    letters = "eeeeaaiiootnshrdlucmfwypvbgk"
    made = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(4990)]
    return [*made, *("café", "naïve", "“so”", "Größe", "señor", "£5", "3½", "—", "…", "日本")]


VOCABULARY = _vocabulary()


def documents(count: int) -> Iterator[dict[str, object]]:
    """Rows of one long text each."""
    draw = random.Random(1)
    pages = [words(draw, 1500) for _ in range(200)]
    for number in range(count):
        page = draw.choice(pages)
        start = draw.randrange(len(page))
        text = f"{words(draw, 30)} {page[start:]} {page[:start]}"
        yield {
            "id": f"row-{number}",
            "messages": [
                {"role": "system", "content": "Answer from the document."},
                {"role": "user", "content": text[: ROW_BYTES - 250]},
            ],
            "reference_answer": str(draw.randrange(100_000)),
            "difficulty": number % 5,
        }


def chats(count: int) -> Iterator[dict[str, object]]:
    """Rows of many short turns, with an object as the answer and numbers beside it."""
    draw = random.Random(2)
    turns = [words(draw, 45) for _ in range(3000)]
    for number in range(count):
        said = draw.choices(turns, k=25)
        yield {
            "id": f"row-{number}",
            "messages": [
                {"role": "system", "content": "You help at a desk."},
                *(
                    {"role": "assistant" if turn % 2 else "user", "content": text}
                    for turn, text in enumerate([f"Case {number}: {said[0]}", *said[1:]])
                ),
            ],
            "reference_answer": {"total": draw.randrange(10_000), "kind": draw.choice("abcd"), "ok": True},
            "features": [round(draw.random(), 4) for _ in range(180)],
            "seen": {f"key-{key}": draw.randrange(1000) for key in range(40)},
        }


KINDS: dict[str, Callable[[int], Iterator[dict[str, object]]]] = {"documents": documents, "chats": chats}


def write(path: Path, rows: Iterator[dict[str, object]]) -> int:
    """Writes a file, every tenth row without escaping what is not ASCII; returns its size in bytes."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(rows):
            file.write(json.dumps(row, ensure_ascii=number % 10 != 0) + "\n")
    return path.stat().st_size


def read(reader: str, path: str) -> tuple[float, float, float]:
    """Runs one reader in this process; returns its seconds, those of CPU, and the peak of memory in MB."""
    from lambdas import dataset

    start, start_cpu = time.perf_counter(), time.process_time()
    if reader == BARE:
        with Path(path).open("rb") as file:
            for line in file:
                json.loads(line)
    elif reader != BASELINE:
        within, _ = dataset.near_duplicates(dataset.Rules(near_duplicates=reader == WHOLE))
        with Path(path).open("rb") as file:
            dataset.check(
                file, path, max_prompt_length=4096, near=within, look_for_personal_data=reader == WHOLE
            )
    spent, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    # Linux counts in KiB.
    return spent, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _apart(reader: str, path: Path) -> tuple[float, float, float]:
    """Runs one reader in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.dataset", reader, str(path)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    seconds, cpu, peak = map(float, said)
    return seconds, cpu, peak


def main() -> None:
    """Writes the files, times every reader on them in turn, and prints a line for each."""
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        for kind, rows in KINDS.items():
            path, small = Path(name) / f"{kind}.jsonl", Path(name) / f"{kind}-small.jsonl"
            size, small_size = write(path, rows(ROWS)), write(small, rows(SMALL_ROWS))
            timed: dict[str, list[tuple[float, float, float]]] = {BARE: [], GATE: []}
            for _ in range(ROUNDS):
                for reader, rounds in timed.items():
                    rounds.append(_apart(reader, path))
            timed[WHOLE] = [_apart(WHOLE, path)]
            bare = [statistics.median(column) for column in zip(*timed[BARE], strict=True)]
            title = f"{kind}: {ROWS:,} rows, {size / 1e6:.0f} MB"
            print(f"{title:42}{'median':>9}{'MB/s':>6}{'speed':>7}{'cpu':>9}{'speed':>7}{'peak':>8}")
            for reader, rounds in timed.items():
                seconds, cpu, peak = (statistics.median(column) for column in zip(*rounds, strict=True))
                print(
                    f"{reader:42}{seconds:7.2f} s{size / 1e6 / seconds:6.0f}{bare[0] / seconds:7.2f}"
                    f"{cpu:7.2f} s{bare[1] / cpu:7.2f}{peak:5.0f} MB"
                )
            floor, least = _apart(BASELINE, small)[2], _apart(GATE, small)[2]
            print(f"peak on {small_size / 1e6:.0f} MB: {least:.0f} MB; of the imports alone: {floor:.0f} MB")
            print()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(*read(sys.argv[1], sys.argv[2]))
    else:
        main()
