"""Writes the folder of a new team: settings for its kind of task, and its rows, checked before it is there.

The folder is made beside its place and moved there whole, so there is never half of one.
"""

import json
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from infra.config import TEAM_FILE, TEAMS, Platform, Team, load_team
from lambdas.completion import boxed
from lambdas.composition import Score, compose, reference_completion
from lambdas.contract import Sample, UnscorableError
from lambdas.dataset import (
    EVALUATION_ROW_BYTES,
    EVALUATION_ROWS,
    TRAINING_ROW_BYTES,
    TRAINING_ROWS,
    DatasetError,
    check,
)
from rft.rows import ANSWERS, Columns, Rows, RowsError, apart, parsed, read_rows, split

_NEAR_FULL: Final = 0.999
_MOST_OPTIONS: Final = 50
_EXAMPLES: Final = 150
_RUBRIC: Final = (
    "A good answer says what the reference says, leaves out nothing of weight and adds nothing that is wrong."
)


class NewTeamError(Exception):
    """A team cannot be made; the message says why and what to do."""


Reference = str | dict[str, Any]
Example = tuple[str, Reference]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of task: the reward function that suits it, and what rows for it look like.

    `parameters` are the function's. `instruction` asks for the form in which it looks for the answer, and
    goes into prompts that have no system message. `reference` makes of a reference what the function compares
    with. `example` makes a synthetic row from a source of chance.
    """

    says: str
    function: str
    component: str
    example: Callable[[random.Random], Example]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    reference: Callable[[Reference, dict[str, Any]], Reference] = lambda value, _row: value
    answers: tuple[str, ...] = ANSWERS


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks for. `evaluation` None holds out a share of the training rows."""

    name: str
    owner: str
    description: str
    task: str
    tags: Mapping[str, str]
    train: str | None = None
    evaluation: str | None = None
    columns: Columns = field(default_factory=Columns)
    held_out: float = 0.2
    base_model: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewTeam:
    """A team that was written: its settings, and what became of the rows, None where they lie in S3."""

    team: Team
    read: Sequence[Rows]
    train: Rows | None
    evaluation: Rows | None
    own_instructions: int
    """Rows whose own system message has to ask for the form of the answer."""
    instruction: str


# --- Tasks


def _number(value: Reference, _row: dict[str, Any]) -> Reference:
    # GSM8K's solutions end in the number, behind this mark.
    return value.rpartition("####")[2].strip() if isinstance(value, str) else value


def _formula(value: Reference, _row: dict[str, Any]) -> Reference:
    found = boxed(value, 500, 2) if isinstance(value, str) else []
    return found[-1].strip() if found else value


def _json(value: Reference, _row: dict[str, Any]) -> Reference:
    found = parsed(value)
    return found if isinstance(found, dict) else value


def _calls(value: Reference, _row: dict[str, Any]) -> Reference:
    found = parsed(value)
    if isinstance(found, list):
        return {"tool_calls": found}
    return found if isinstance(found, dict) else value


def _tests(value: Reference, _row: dict[str, Any]) -> Reference:
    found = parsed(value)
    if isinstance(found, list):
        return {"tests": found}
    return found if isinstance(found, dict) else value


def _query(value: Reference, row: dict[str, Any]) -> Reference:
    found = parsed(value)
    if isinstance(found, dict):
        return found
    database = next((row.pop(key) for key in ("database", "schema", "context") if key in row), None)
    return value if database is None else {"query": value, "database": database}


def _number_example(chance: random.Random) -> Example:
    boxes, pens, loose = chance.randint(2, 60), chance.randint(3, 40), chance.randint(0, 30)
    asked = (
        f"A shelf holds {boxes} boxes of {pens} pens each, and {loose} pens lie beside them. How many pens?"
    )
    return asked, str(boxes * pens + loose)


def _formula_example(chance: random.Random) -> Example:
    factor, power, slope = chance.randint(2, 30), chance.randint(3, 9), chance.randint(2, 50)
    asked = f"Differentiate ${factor}x^{{{power}}} + {slope}x$ with respect to $x$."
    return asked, f"{factor * power}x^{{{power - 1}}} + {slope}"


def _json_example(chance: random.Random) -> Example:
    count, item = chance.randint(1, 90), chance.choice(("lamps", "chairs", "desks", "shelves"))
    city = chance.choice(("Bern", "Oslo", "Porto", "Turin"))
    asked = f"Read this order into the keys count, item and city: please send {count} {item} to {city}."
    return asked, {"count": count, "item": item, "city": city}


def _label_example(chance: random.Random) -> Example:
    number = chance.randint(1, 9_999)
    asked = f"Is {number} low (below 3334), middle (below 6667) or high?"
    return asked, ("low", "middle", "high")[(number - 1) // 3333]


def _text_example(chance: random.Random) -> Example:
    name, hour = chance.choice(("Ada", "Ben", "Cleo", "Dev")), chance.randint(7, 18)
    day, minute = chance.choice(("Monday", "Tuesday", "Friday")), chance.randint(10, 59)
    asked = f"Say in one sentence: {name}, meeting, moved to {day}, {hour}:{minute}."
    return asked, f"{name} moved the meeting to {day} at {hour}:{minute}."


def _call_example(chance: random.Random) -> Example:
    city, hour = chance.choice(("Bern", "Oslo", "Porto", "Turin")), chance.randint(0, 23)
    day = chance.randint(1, 28)
    asked = (
        f"What will the weather be in {city} on the {day}th at {hour} o'clock? The tool is get_weather, with "
    )
    asked += "the arguments city (text), day and hour (numbers)."
    arguments = {"city": city, "day": day, "hour": hour}
    return asked, {"tool_calls": [{"name": "get_weather", "arguments": arguments}]}


def _code_example(chance: random.Random) -> Example:
    factor, extra = chance.randint(2, 40), chance.randint(1, 99)
    asked = f"Write a Python function f(x) that returns {factor} times x plus {extra}."
    return asked, {"tests": [f"assert f({x}) == {factor * x + extra}" for x in (0, 3, -7)]}


def _sql_example(chance: random.Random) -> Example:
    least = chance.randint(10, 999) * 1000
    people = [least + 5000, *(chance.randint(1, 999) * 1000 for _ in range(5))]
    towns = ", ".join(f"('Town {number}', {count})" for number, count in enumerate(people, 1))
    asked = f"The table town has the columns name and people. Which towns have more than {least} people? "
    asked += "Return their names in the order of the alphabet."
    database = f"CREATE TABLE town (name TEXT, people INTEGER); INSERT INTO town VALUES {towns};"  # noqa: S608 - our own words, for a file
    return asked, {
        "query": f"SELECT name FROM town WHERE people > {least} ORDER BY name",  # noqa: S608 - a row's text
        "database": database,
    }


TASKS: Final[Mapping[str, Task]] = {
    "number": Task(
        says="the answer is a number",
        function="numeric_answer",
        component="answer",
        parameters={"form": "hashes"},
        instruction="Work it out step by step. End with a line that holds only the result: #### <number>",
        reference=_number,
        example=_number_example,
    ),
    "formula": Task(
        says="the answer is a formula, a set, an interval or another piece of mathematics",
        function="math_answer",
        component="answer",
        parameters={"form": "boxed"},
        instruction=r"Work it out step by step. Put the final answer into \boxed{}.",
        reference=_formula,
        example=_formula_example,
    ),
    "json": Task(
        says="the answer is a JSON object",
        function="json_match",
        component="fields",
        parameters={"form": "either"},
        instruction="Answer with one JSON object and nothing else.",
        reference=_json,
        example=_json_example,
    ),
    "label": Task(
        says="the answer is one of a few labels",
        function="choice",
        component="label",
        parameters={"form": "label"},
        example=_label_example,
    ),
    "text": Task(
        says="the answer is a text, and a good one says it like the reference",
        function="text_similarity",
        component="similarity",
        parameters={"metric": "rouge_l"},
        instruction="Answer briefly, and with nothing but the answer.",
        example=_text_example,
    ),
    "tool": Task(
        says="the answer is a call of tools",
        function="tool_call",
        component="calls",
        parameters={"form": "any"},
        instruction='Call a tool with <tool_call>{"name": ..., "arguments": {...}}</tool_call>.',
        reference=_calls,
        answers=("tool_calls", "calls", *ANSWERS),
        example=_call_example,
    ),
    "code": Task(
        says="the answer is Python that has to pass tests",
        function="code_tests",
        component="tests",
        parameters={"form": "fenced"},
        instruction="Answer with Python in one fenced code block.",
        reference=_tests,
        answers=("tests", "test_list", "test", *ANSWERS),
        example=_code_example,
    ),
    "sql": Task(
        says="the answer is a query, judged by what it returns",
        function="sql_result",
        component="result",
        parameters={"form": "either"},
        instruction="Answer with one SQL query in a fenced code block.",
        reference=_query,
        answers=("sql", "query", *ANSWERS),
        example=_sql_example,
    ),
    "judged": Task(
        says="none of these: another model judges the answer",
        function="judge",
        component="judgement",
        parameters={"rubric": _RUBRIC},
        example=_text_example,
    ),
}


# --- The folder


def write_team(root: Path, request: Request, platform: Platform) -> NewTeam:
    """Writes `teams/<name>/`, whole or not at all; what is there already stays as it is.

    Raises:
        NewTeamError: The team is there, or the rows are not enough.
        RowsError: A file holds no rows.
        SettingsError: What was asked for breaks a rule of the settings.
    """
    folder = root / TEAMS / request.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", request.name):
        raise NewTeamError(
            f"{request.name!r} is no name for a team: 3 to 24 lower-case letters, digits and -"
        )
    if folder.exists():
        raise NewTeamError(f"{TEAMS}/{request.name} is there already, and nothing in it was changed")
    if request.task not in TASKS:
        raise NewTeamError(f"--task {request.task}: one of {', '.join(TASKS)} is expected")
    task = TASKS[request.task]
    read = _read(request, task)
    parameters = _parameters(request.task, task, platform, read)
    instruction = task.instruction or _asks_for_label(parameters)
    own = sum(row["messages"][0]["role"] == "system" for each in read for _, row in each.rows)
    score = compose({"components": {task.component: {"function": task.function, **parameters}}})
    read = [
        each.keep(partial(_instructed, instruction)).keep(partial(_usable, score, request.task))
        for each in read
    ]
    train = held = None
    if read:
        _need(read)
        train, held = (apart(*read), read[1]) if len(read) == 2 else split(read[0], request.held_out)
    # A hidden folder is no team; where it is, moving it is one step.
    (root / TEAMS).mkdir(exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=root / TEAMS))
    try:
        made = beside / TEAMS / request.name
        (made / "data").mkdir(parents=True)
        places = {"train": request.train or "", "evaluation": request.evaluation or ""}
        if train is not None and held is not None:
            places = {"train": "data/train.jsonl", "evaluation": "data/evaluation.jsonl"}
            (made / "data/train.jsonl").write_bytes(train.jsonl())
            (made / "data/evaluation.jsonl").write_bytes(held.jsonl())
            _check(made / "data", read)
        else:
            (made / "data").rmdir()
        text = _settings(request, task, parameters, platform, places)
        (made / TEAM_FILE).write_text(text, encoding="utf-8")
        team = load_team(beside, request.name, platform)
        try:
            made.rename(folder)
        except OSError as error:
            raise NewTeamError(f"{TEAMS}/{request.name} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return NewTeam(
        team=team.model_copy(update={"folder": folder}),
        read=read,
        train=train,
        evaluation=held,
        own_instructions=own,
        instruction=instruction,
    )


def examples(task: str, count: int = _EXAMPLES) -> Rows:
    """Returns synthetic rows to begin with, always the same ones; each prompt is another."""
    chance = random.Random(task)  # noqa: S311 - nothing here is a secret
    made: dict[str, Reference] = {}
    while len(made) < count:
        asked, answer = TASKS[task].example(chance)
        made.setdefault(asked, answer)
    rows = [
        {
            "id": f"{task}-{number:04}",
            "messages": [{"role": "user", "content": asked}],
            "reference_answer": answer,
        }
        for number, (asked, answer) in enumerate(made.items(), 1)
    ]
    return Rows(shape="synthetic rows to begin with", rows=tuple(enumerate(rows, 1)), read=count)


def _read(request: Request, task: Task) -> list[Rows]:
    """What the files hold, one or two of them; none where the rows lie in S3."""
    named = [each for each in (request.train, request.evaluation) if each]
    in_s3 = [each for each in named if each.startswith("s3://")]
    if in_s3:
        if len(in_s3) < 2:
            raise NewTeamError(
                f"{in_s3[0]} lies in S3 and has to be in the shape of a dataset already: "
                "give --train and --evaluation both as s3://bucket/key, or both as files"
            )
        return []
    if request.evaluation and not request.train:
        raise NewTeamError("--evaluation needs --train: without it there is nothing to train on")
    columns = replace(request.columns, answers=task.answers)
    found = [read_rows(Path(each), columns) for each in named] or [examples(request.task)]
    return [each.keep(partial(_referenced, task)) for each in found]


def _need(read: Sequence[Rows]) -> None:
    for each in read:
        if not each.rows:
            reasons = [f"  {len(lines)} rows: {reason}" for reason, lines in each.dropped.items()]
            raise RowsError("\n".join([f"{each.shape}: no row can be used", *reasons]))


def _referenced(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    changed = dict(row)
    changed["reference_answer"] = task.reference(row["reference_answer"], changed)
    return changed


def _parameters(name: str, task: Task, platform: Platform, read: Sequence[Rows]) -> dict[str, Any]:
    """The parameters of the reward function; some are of the data, some of the platform."""
    if name == "label":
        if not read:
            raise NewTeamError("--task label reads the labels off the rows: give --train as a file")
        labels = sorted({str(row["reference_answer"]) for each in read for _, row in each.rows})
        if not 2 <= len(labels) <= _MOST_OPTIONS:
            raise NewTeamError(
                f"--task label: the rows have {len(labels)} different answers, and 2 to {_MOST_OPTIONS} "
                "labels are expected: choose --task text, or another --answer-column"
            )
        return {"options": {label: [] for label in labels}, **task.parameters}
    if name == "judged":
        if not platform.judges:
            raise NewTeamError(
                f"--task judged needs a judge, and {TEAMS}/platform.toml allows none: "
                'ask the platform team to add [judges."<model>"]'
            )
        return {"model": next(iter(platform.judges)), **task.parameters}
    return dict(task.parameters)


def _asks_for_label(parameters: Mapping[str, Any]) -> str:
    if options := parameters.get("options"):
        return f"End with a line of the form Answer: <label>, with one of these labels: {', '.join(options)}."
    return ""


def _instructed(instruction: str, row: dict[str, Any]) -> dict[str, Any]:
    if not instruction or row["messages"][0]["role"] == "system":
        return row
    return {**row, "messages": [{"role": "system", "content": instruction}, *row["messages"]]}


def _usable(score: Score, task: str, row: dict[str, Any]) -> dict[str, Any] | str:
    """The row, or why the reward function cannot use its reference: it has to earn full marks itself."""
    sample = Sample(
        id=str(row.get("id", "")),
        messages=tuple(row["messages"]),
        completion="",
        reference_answer=row["reference_answer"],
        metadata={
            key: value for key, value in row.items() if key not in ("id", "messages", "reference_answer")
        },
    )
    if task == "judged":
        # To ask the judge costs money, and any text will do as a reference.
        return row
    try:
        written = reference_completion(score, sample)
        earned = score(sample if written is None else replace(sample, completion=written))
    except UnscorableError as error:
        return f"has a reference the reward function cannot use: {error}"
    if written is not None and earned.score < _NEAR_FULL:
        return "has a reference that does not earn full marks itself"
    return row


def _check(folder: Path, read: Sequence[Rows]) -> None:
    """Raises NewTeamError with what the workflow would say of the files, and what was dropped before."""
    files = (
        ("train.jsonl", TRAINING_ROWS, TRAINING_ROW_BYTES),
        ("evaluation.jsonl", EVALUATION_ROWS, EVALUATION_ROW_BYTES),
    )
    for name, rows, size in files:
        try:
            with (folder / name).open("rb") as stream:
                check(stream, name, rows=rows, row_bytes=size)
        except DatasetError as error:
            dropped = [
                f"  {len(lines)} rows: {reason}" for each in read for reason, lines in each.dropped.items()
            ]
            told = "\n".join(["dropped before that:", *dropped]) if dropped else ""
            raise NewTeamError(f"{error}\n{told}".strip()) from None


def _settings(
    request: Request,
    task: Task,
    parameters: Mapping[str, Any],
    platform: Platform,
    places: Mapping[str, str],
) -> str:
    base = request.base_model or next(iter(platform.models))
    lines = [
        "#:schema ../team.schema.json",
        f"owner = {_toml(request.owner)}",
        f"description = {_toml(request.description)}",
        'train_when = "manual"',
    ]
    if request.tags:
        lines += ["", "[tags]", *(f"{_key(key)} = {_toml(value)}" for key, value in request.tags.items())]
    lines += [
        "",
        "# A throw-away stage ends on its own day: add expires = 2027-01-31.",
        "[stages.dev]",
        'retention = "throwaway"',
        "",
        "[stages.prod]",
        'retention = "lasting"',
        "",
        "[model]",
        f"base = {_toml(base)}",
        "",
        "[dataset]",
        *(f"{key} = {_toml(place)}" for key, place in places.items()),
        "",
        "[reward]",
        "range = [0.0, 1.0]",
        "",
        f"[reward.components.{task.component}]",
        f"function = {_toml(task.function)}",
        "weight = 1.0",
        *(f"{key} = {_toml(value)}" for key, value in parameters.items()),
    ]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML; texts as JSON writes them, which TOML reads the same."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    # JSON leaves DEL as it is, which TOML refuses.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _toml(key)
