"""Rewards a SQL query by what it returns: 1.0 where that is what the reference returns, and 0.0 elsewhere.

The query runs in SQLite, on databases in memory that are built from the row. It may read their tables and
nothing else: SQLite asks before it compiles anything but a SELECT, a column of such a table or a function of
a fixed list, and is told no. What runs is bounded as SQLite's own advice for hostile SQL has it
(sqlite.org/security.html): limits on lengths and depths, a number of steps, a limit on memory; and because a
step can be slow, a limit on processor time that only a query made to be slow ever meets.

Two queries that return the same from one database need not mean the same: a count of 3 is also what
``SELECT 3 FROM orders`` returns. So a row may have several databases, whose rows differ, and the query has to
be right on each of them (the test suites of Zhong, Yu and Klein, 2020). A query that reads no table is wrong
wherever the reference reads one, and a reference that returns no rows at all says nothing and is a bad row.

Everything is a function of the row and the completion: functions of chance, of the clock, of the time zone
and of the library's version are not among those a query may call.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, get_args

from lambdas.answer import at, json_field
from lambdas.completion import fenced, tagged
from lambdas.contract import Reward, Sample, UnscorableError

Form = Literal["fenced", "either", "whole", "tag", "json"]
Source = Literal["reference_answer", "metadata"]
Order = Literal["reference", "always", "never"]
Cell = str | int | float | bytes | None
Row = tuple[Cell, ...]

# Bounds of a row's databases, and of what the reference may return.
_MOST_DATABASES = 8
_LONGEST_DATABASE = 1_000_000
_LARGEST_IMAGE = 2 * 2**20
_MOST_ROWS = 1_000
_LARGEST_RESULT = 1_000_000

# Bounds of a query. The longest value also bounds what one step can cost, at most about a millisecond.
_LONGEST_QUERY = 10_000
_LONGEST_VALUE = 10_000
_LONGEST_TRIMMED = 32
_STEPS = 5_000_000
_SECONDS = 1.0
_MEMORY = 32 * 2**20
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 32,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

# How many steps of SQLite pass between two looks at what is left.
_INTERVAL = 200

# Rows that differ in nothing but numbers, which a tolerance can pair in many ways.
_MOST_ALIKE = 200

_DATES = ("date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff")
_TRIMS = ("trim", "ltrim", "rtrim")
# fmt: off
_FUNCTIONS = frozenset(
    {
        "->", "->>", "abs", "avg", "cast", "ceil", "ceiling", "char", "coalesce", "concat", "concat_ws",
        "count", "cume_dist", "dense_rank", "exp", "first_value", "floor", "format", "glob",
        "group_concat", "hex", "if", "ifnull", "iif", "instr", "json_array_length", "json_extract",
        "json_type", "json_valid", "lag", "last_value", "lead", "length", "like", "ln", "log", "log10",
        "log2", "lower", "max", "min", "mod", "nth_value", "ntile", "nullif", "percent_rank", "pi", "pow",
        "power", "printf", "quote", "rank", "replace", "round", "row_number", "sign", "sqrt", "string_agg",
        "substr", "substring", "sum", "total", "trunc", "typeof", "unicode", "upper",
    }
).union(_DATES, _TRIMS)
# fmt: on

# A query does the first four; building a database does the others as well.
_QUERYING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_BUILDING = _QUERYING | {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_DROP_TABLE,
    sqlite3.SQLITE_ALTER_TABLE,
    sqlite3.SQLITE_REINDEX,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
}

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]"""
    r"""|\d[\w.]*|\w+|\S""",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class SqlResult:
    """Scores 1.0 when the query returns what the reference does, on every database, and 0.0 otherwise.

    A database is SQL text (``CREATE TABLE ...; INSERT ...``) of at most 1,000,000 characters, or a table of
    tables, ``{"city": [{"name": "Bern", "people": 134000}]}``, whose columns have no declared type. The
    reference is a query, or the rows it should return: arrays of cells, or objects. It returns at most 1,000
    rows and 1 MB.

    Rows are compared as often as they occur, and in order only where the reference ends in an ORDER BY of its
    own; rows that tie in it may change places, where it orders by columns it returns. Columns are compared by
    position. 1 is 1.0 and is not '1', NULL is NULL and nothing else. A query has one statement and at most
    10,000 characters; it reads no table of SQLite's own, and no value in it is longer than 10,000 bytes. It
    may take 5,000,000 steps and 32 MB on all databases together, and a second of processor time, plus at most
    a fifth of one until SQLite notices. A database takes as much to build, once for the completions that
    share it.

    Attributes:
        form: Where the query stands. ``fenced``: in the only fenced code block. ``whole``: the completion.
            ``either``: in the fenced code block if there is a fence, and else the completion. ``tag``: in the
            only ``<answer></answer>`` (see ``tag``). ``json``: in a field of a JSON object, bare or in the
            only fenced code block (see ``json_field``).
        tag: Name of the tag of the form ``tag``.
        json_field: Field of the form ``json``; ``answer.sql`` is a field of a nested object.
        reference_field: Path of the query or of the rows in the reference answer; empty takes all of it.
        database_in: Where the row's database stands: ``reference_answer`` or ``metadata``.
        database_field: Path of the database there. A list there holds several; expected rows are a list for
            each of them, then.
        databases: Databases that all rows share, as SQL texts, in place of the rows' own.
        least_databases: Databases a row needs; one with fewer cannot be scored.
        order: ``reference``: the order of rows matters where the reference query orders them. ``always`` or
            ``never``: it does, or does not, whatever the reference is.
        column_names: Whether the columns have to have the reference's names, in any case.
        absolute_tolerance: How far off a number may be.
        relative_tolerance: How far off a number may be, as a share of the reference. The wider one counts.
    """

    form: Form = "fenced"
    tag: str = "answer"
    json_field: str = "sql"
    reference_field: str = "query"
    database_in: Source = "reference_answer"
    database_field: str = "database"
    databases: tuple[str, ...] = ()
    least_databases: int = 1
    order: Order = "reference"
    column_names: bool = False
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in (("form", Form), ("database_in", Source), ("order", Order)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.tag):
            raise ValueError(f"tag is a name such as answer, not {self.tag!r}")
        if not self.json_field:
            raise ValueError("json_field is the name of a field, and cannot be empty")
        if not self.database_field and self.database_in == "metadata":
            raise ValueError("database_field is the name of a field of the metadata, and cannot be empty")
        if self.column_names not in (True, False):
            raise ValueError(f"column_names is true or false, not {self.column_names!r}")
        least = self.least_databases
        if not isinstance(least, int) or isinstance(least, bool) or not 1 <= least <= _MOST_DATABASES:
            raise ValueError(f"least_databases is a whole number of 1 to {_MOST_DATABASES}, not {least!r}")
        for name in ("absolute_tolerance", "relative_tolerance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e300:
                raise ValueError(f"{name} is a number of at least 0, not {value!r}")
        given: object = self.databases
        if not isinstance(given, (list, tuple)) or not all(isinstance(text, str) for text in given):
            raise ValueError(f"databases is a list of SQL texts, not {given!r}")
        object.__setattr__(self, "databases", tuple(self.databases))
        if not _counts_memory():
            raise ValueError(
                "sql_result needs a SQLite that counts its memory, or a query could take all there is; "
                "the one of this Python is built with SQLITE_DEFAULT_MEMSTATUS=0, so use another Python"
            )
        if self.databases and not least <= len(self.databases) <= _MOST_DATABASES:
            raise ValueError(f"databases has {len(self.databases)} of {least} to {_MOST_DATABASES} databases")
        for position, text in enumerate(self.databases, start=1):
            try:
                _image(text)
            except _DatabaseError as error:
                raise ValueError(f"databases, number {position}: {error}") from None

    def score(self, sample: Sample) -> Reward:
        """Runs the query on every database of the row and compares what it returns.

        Raises:
            UnscorableError: The row has no database that can be built, or no reference that can be run, or
                one that returns nothing on any database.
        """
        fixtures = self._fixtures(sample)
        query = self._declared(sample.completion)
        metrics = {"answered": float(query is not None), "valid_query": 0.0, "databases_right": 0.0}
        if query is None:
            return Reward(0.0, metrics=metrics, reason=self._absent())
        faults: list[str] = []
        spent = _Allowance()
        for number, (image, expected) in enumerate(fixtures, start=1):
            where = f" on database {number}" if len(fixtures) > 1 else ""
            try:
                made = _run(image, query, spent, len(expected.rows))
            except _QueryError as error:
                # What cannot be compiled here cannot be compiled anywhere, and what is spent is spent.
                faults.append(f"the query fails{where}: {error}")
                break
            metrics["valid_query"] = 1.0
            fault = self._difference(expected, made)
            faults += [f"{fault}{where}"] if fault else []
        else:
            metrics["databases_right"] = 1 - len(faults) / len(fixtures)
        if faults:
            reason = f"{faults[0]} and {len(faults) - 1} more" if len(faults) > 1 else faults[0]
        else:
            reason = "the query returns what it should"
        return Reward(float(not faults), metrics=metrics, extracted=query[:500], reason=reason)

    def reference_completion(self, sample: Sample) -> str | None:
        """Writes the reference query where the form wants it; None where the reference is no query.

        Raises:
            UnscorableError: As by ``score``.
        """
        self._fixtures(sample)
        query = self._reference(sample)
        if not isinstance(query, str):
            return None
        if self.score(sample).score == 1.0:
            return sample.completion
        text = sample.completion.strip()
        match self.form:
            case "fenced":
                added = f"```sql\n{query.strip()}\n```"
            case "tag":
                added = f"<{self.tag}>{query.strip()}</{self.tag}>"
            case "json":
                value: Any = query
                for step in reversed(self.json_field.split(".")):
                    value = {step: value}
                text, added = "", json.dumps(value)
            case _:
                text, added = "", query
        return f"{text}\n\n{added}" if text else added

    def _declared(self, text: str) -> str | None:
        """Finds the one query a completion declares; None when there is none, or more than one."""
        match self.form:
            case "json":
                found = json_field(text, self.json_field)
            case "tag":
                pieces = tagged(text, self.tag)
                found = pieces[0] if len(pieces) == 1 else None
            case "fenced":
                found = _only(fenced(text))
            case _:
                found = text
        # A fence around the query is no part of it; only ``whole`` means what it says.
        if found is not None and self.form in {"either", "tag"} and "```" in found:
            found = _only(fenced(found))
        return found if found is not None and found.strip() else None

    def _absent(self) -> str:
        return {
            "fenced": "the completion has not exactly one fenced code block with a query",
            "either": "the completion is empty, or has fences but not exactly one fenced code block",
            "whole": "the completion is empty",
            "tag": f"the completion has not exactly one <{self.tag}></{self.tag}> with one query",
            "json": f"no JSON object with the field {self.json_field!r}",
        }[self.form]

    def _fixtures(self, sample: Sample) -> list[tuple[bytes, _Result]]:
        """Builds the databases of a row, each with what the reference returns from it."""
        given, several = self._given(sample)
        if not self.least_databases <= len(given) <= _MOST_DATABASES:
            raise UnscorableError(
                f"the row has {len(given)} databases; {self.least_databases} to {_MOST_DATABASES} are allowed"
            )
        reference = self._reference(sample)
        if isinstance(reference, str):
            results: list[Any] = [reference] * len(given)
        elif not several:
            results = [reference]
        elif isinstance(reference, list) and len(reference) == len(given):
            results = reference
        else:
            raise UnscorableError(
                f"the reference has not one list of rows for each of {len(given)} databases"
            )
        fixtures: list[tuple[bytes, _Result]] = []
        for number, (database, result) in enumerate(zip(given, results, strict=True), start=1):
            where = f"database {number}" if several else "the database"
            try:
                fixtures.append((_image(database), self._expected(database, result)))
            except _DatabaseError as error:
                raise UnscorableError(f"{where} {error}") from None
            except _QueryError as error:
                raise UnscorableError(f"the reference query fails on {where}: {error}") from None
        if not any(expected.rows for _, expected in fixtures):
            raise UnscorableError(
                "the reference returns no rows from any database, so any query that returns none is right"
            )
        return fixtures

    def _reference(self, sample: Sample) -> Any:
        found = sample.reference_answer
        if self.reference_field:
            found = at(found, self.reference_field)
        if found is None:
            path = f" at {self.reference_field!r}" if self.reference_field else ""
            raise UnscorableError(f"the reference answer has no query and no rows{path}")
        return found

    def _given(self, sample: Sample) -> tuple[list[str], bool]:
        """Returns a row's databases as SQL texts, and whether they were given as several."""
        if self.databases:
            return list(self.databases), len(self.databases) > 1
        document: Any = getattr(sample, self.database_in)
        found = at(document, self.database_field) if self.database_field else document
        if found is None:
            path = f"{self.database_in}.{self.database_field}".rstrip(".")
            raise UnscorableError(f"the row has no database at {path}")
        several = isinstance(found, list)
        # A number that is too large is said before anything is built.
        listed = found[: _MOST_DATABASES + 1] if isinstance(found, list) else [found]
        return [each if isinstance(each, str) else _script(each) for each in listed], several

    def _expected(self, database: str, reference: Any) -> _Result:
        result = _reference_result(database, reference) if isinstance(reference, str) else _listed(reference)
        if self.column_names and result.columns is None:
            raise UnscorableError("the reference's rows are arrays, so they have no column names to compare")
        if self.order == "never":
            runs = [(0, len(result.rows))]
        elif self.order == "always":
            runs = [(start, start + 1) for start in range(len(result.rows))]
        else:
            runs = result.runs
        if self.absolute_tolerance or self.relative_tolerance:
            for start, end in runs:
                groups = Counter(_signature(row) for row in result.rows[start:end])
                if max(groups.values(), default=0) > _MOST_ALIKE:
                    raise UnscorableError(
                        f"the reference returns more than {_MOST_ALIKE} rows that differ in nothing but "
                        "numbers, which is too many to compare by a tolerance"
                    )
        return _Result(result.columns, result.width, result.rows, runs, reads=result.reads)

    def _difference(self, expected: _Result, made: _Result) -> str:
        """Says how a result is not the expected one; empty where it is."""
        if expected.reads and not made.reads:
            return "the query reads no table"
        if made.width != expected.width:
            return f"the query returns {made.width} columns, not {expected.width}"
        names = [[name.casefold() for name in result.columns or ()] for result in (expected, made)]
        if self.column_names and names[0] != names[1]:
            return f"the columns are called {', '.join(names[1])[:200]}, not {', '.join(names[0])[:200]}"
        if len(made.rows) != len(expected.rows):
            more = " or more" if len(made.rows) > len(expected.rows) else ""
            return f"the query returns {len(made.rows)}{more} rows, not {len(expected.rows)}"
        for start, end in expected.runs:
            if not self._same(expected.rows[start:end], made.rows[start:end]):
                ordered = len(expected.runs) > 1 and Counter(expected.rows) == Counter(made.rows)
                return "the rows are in another order" if ordered else "the query returns other rows"
        return ""

    def _same(self, expected: list[Row], made: list[Row]) -> bool:
        """Tells whether two lists hold the same rows, each as often, in any order."""
        if Counter(expected) == Counter(made):
            return True
        if not self.absolute_tolerance and not self.relative_tolerance:
            return False
        groups: dict[Row, tuple[list[Row], list[Row]]] = {}
        for side, rows in enumerate((expected, made)):
            for row in rows:
                groups.setdefault(_signature(row), ([], []))[side].append(row)
        return all(len(one) == len(two) and self._paired(one, two) for one, two in groups.values())

    def _paired(self, expected: list[Row], made: list[Row]) -> bool:
        """Tells whether every row can have one of its own within the tolerance: a perfect matching."""
        spans = [[self._span(cell) for cell in row if _is_number(cell)] for row in expected]
        values = [[_decimal(cell) for cell in row if _is_number(cell)] for row in made]
        near = [
            [
                position
                for position, numbers in enumerate(values)
                if all(low <= number <= high for (low, high), number in zip(span, numbers, strict=True))
            ]
            for span in spans
        ]
        owner = [-1] * len(made)
        for start in range(len(expected)):
            # A shortest augmenting path, breadth first; `via` is the row from which a partner was reached.
            via: dict[int, int] = {}
            queue = [start]
            free = -1
            for row in queue:
                for position in near[row]:
                    if position in via:
                        continue
                    via[position] = row
                    if owner[position] < 0:
                        free = position
                        break
                    queue.append(owner[position])
                if free >= 0:
                    break
            if free < 0:
                return False
            while free >= 0:
                row = via[free]
                previous = owner.index(row) if row in owner else -1
                owner[free] = row
                free = previous
        return True

    def _span(self, wanted: Any) -> tuple[Decimal, Decimal]:
        """Returns the least and the most a number may be, in decimals: 1.1 is within 0.01 of 1.11."""
        number = _decimal(wanted)
        if not number.is_finite():
            return number, number
        absolute, relative = Decimal(repr(self.absolute_tolerance)), Decimal(repr(self.relative_tolerance))
        allowed = max(absolute, relative * abs(number))
        return number - allowed, number + allowed


@dataclass(frozen=True, slots=True)
class _Result:
    """What a query returned.

    Attributes:
        columns: Their names; None where there are none to know.
        width: How many columns there are.
        rows: The rows.
        runs: Where, in the rows, parts begin and end within which the order is free.
        reads: Whether the query reads a table.
    """

    columns: tuple[str, ...] | None
    width: int
    rows: list[Row]
    runs: list[tuple[int, int]]
    reads: bool


class _DatabaseError(ValueError):
    """A database cannot be built."""


class _QueryError(ValueError):
    """A query cannot be run."""


class _Allowance:
    """What may still be spent, counted by SQLite's steps and, where those are slow, by processor time."""

    def __init__(self) -> None:
        self.steps = _STEPS
        self._until = time.thread_time() + _SECONDS

    def is_spent(self) -> bool:
        """Counts one interval; SQLite stops what it is doing where this is true."""
        self.steps -= _INTERVAL
        return self.steps < 0 or time.thread_time() > self._until


@functools.cache
def _counts_memory() -> bool:
    with closing(sqlite3.connect(":memory:")) as connection:
        return ("DEFAULT_MEMSTATUS=0",) not in connection.execute("PRAGMA compile_options").fetchall()


# A group of completions shares its row; 32 rows of the largest size are 64 MB.
@functools.lru_cache(maxsize=32)
def _image(script: str) -> bytes:
    """Builds a database and returns its file.

    Raises:
        _DatabaseError: The script is too long, fails, does what it may not, or makes no table.
    """
    if len(script) > _LONGEST_DATABASE:
        raise _DatabaseError(f"has {len(script)} characters; {_LONGEST_DATABASE} are allowed")

    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        # What a dump of SQLite begins with; it changes nothing here.
        if action == sqlite3.SQLITE_PRAGMA and str(first).lower() == "foreign_keys":
            return sqlite3.SQLITE_IGNORE
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if str(second).lower() in _FUNCTIONS else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK if action in _BUILDING else sqlite3.SQLITE_DENY

    spent = _Allowance()
    with _opened(_LONGEST_DATABASE) as connection:
        connection.execute(f"PRAGMA max_page_count = {_LARGEST_IMAGE // 4096}")
        connection.set_authorizer(authorize)
        connection.set_progress_handler(spent.is_spent, _INTERVAL)
        try:
            connection.executescript(script)
            connection.commit()
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
            raise _DatabaseError(f"cannot be built: {_words(error)}") from None
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
        if not _tables(connection):
            raise _DatabaseError("has no table")
        return connection.serialize()


@functools.lru_cache(maxsize=32)
def _reference_result(database: str, query: str) -> _Result:
    """Runs a reference query.

    Raises:
        _DatabaseError: The database cannot be built.
        _QueryError: The query cannot be run, or returns too much.
    """
    result = _run(_image(database), query, _Allowance(), _MOST_ROWS)
    if len(result.rows) > _MOST_ROWS:
        raise _QueryError(f"it returns more than {_MOST_ROWS} rows")
    return replace(result, runs=_runs(result.rows, _ties(_tokens(query), result.columns or ())))


def _run(image: bytes, query: str, spent: _Allowance, most_rows: int) -> _Result:
    """Runs one query on a database of its own; returns one more than ``most_rows`` rows where there are more.

    Raises:
        _QueryError: The query is none, fails, does what it may not, or costs too much.
    """
    if len(query) > _LONGEST_QUERY:
        raise _QueryError(f"it has {len(query)} characters; {_LONGEST_QUERY} are allowed")
    first = next(iter(_tokens(query)), "SELECT")
    if first.upper() not in {"SELECT", "WITH", "VALUES"}:
        raise _QueryError(f"it begins with {first[:60]!r}, not with SELECT, WITH or VALUES")
    with _opened(_LONGEST_QUERY) as connection:
        connection.deserialize(image)
        tables = _tables(connection)
        reads: set[str] = set()

        def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
            allowed = action in _QUERYING
            if action == sqlite3.SQLITE_FUNCTION:
                allowed = str(second).lower() in _FUNCTIONS
            if action == sqlite3.SQLITE_READ:
                name = str(first).lower()
                # Without a column it may be the name of a common table expression, whose rows are counted.
                allowed = name in tables or (not second and not name.startswith(("sqlite_", "pragma_")))
                reads.update({name} & tables)
            return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(authorize)
        connection.set_progress_handler(spent.is_spent, _INTERVAL)
        try:
            cursor = connection.execute(query)
            if cursor.description is None:
                raise _QueryError("it is empty")
            columns = tuple(str(column[0]) for column in cursor.description)
            rows: list[Row] = []
            size = 0
            for row in cursor:
                rows.append(row)
                size += sum(len(cell) if isinstance(cell, (str, bytes)) else 8 for cell in row)
                if size > _LARGEST_RESULT:
                    raise _QueryError(f"it returns more than {_LARGEST_RESULT:,} bytes")
                if len(rows) > most_rows:
                    break
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
            if isinstance(error, _QueryError):
                raise
            raise _QueryError(_words(error)) from None
    return _Result(columns, len(columns), rows, [(0, len(rows))], reads=bool(reads))


@contextmanager
def _opened(longest: int) -> Iterator[sqlite3.Connection]:
    """Opens an empty database in memory, with every limit set."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    plain = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for one in (connection, plain):
            for limit, value in _LIMITS.items():
                one.setlimit(limit, value)
        plain.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, longest)
        # For all of this process, which has no other use for SQLite; it can only ever be lowered.
        connection.execute(f"PRAGMA hard_heap_limit = {_MEMORY}")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        for name in _DATES:
            dated = functools.partial(_dated, plain, name)
            connection.create_function(name, -1, dated, deterministic=True)
        for name in _TRIMS:
            trimmed = functools.partial(_trimmed, plain, name)
            connection.create_function(name, 2, trimmed, deterministic=True)
        yield connection
    finally:
        connection.close()
        plain.close()


def _dated(plain: sqlite3.Connection, name: str, *arguments: Cell) -> Any:
    """Calls one of SQLite's functions of time, unless the clock or the time zone would answer."""
    times = {"strftime": arguments[1:2], "timediff": arguments[:2]}.get(name, arguments[:1])
    words = {str(each).lower() for each in arguments}
    if not times or words & {"now", "subsec", "subsecond", "localtime", "utc"}:
        raise ValueError
    marks = ", ".join("?" * len(arguments))
    return plain.execute(f"SELECT {name}({marks})", arguments).fetchone()[0]


def _trimmed(plain: sqlite3.Connection, name: str, text: Cell, characters: Cell) -> Any:
    """Calls SQLite's trim, whose time is the product of both lengths."""
    if isinstance(characters, (str, bytes)) and len(characters) > _LONGEST_TRIMMED:
        raise ValueError
    return plain.execute(f"SELECT {name}(?, ?)", (text, characters)).fetchone()[0]


def _words(error: Exception) -> str:
    """Says what SQLite refused."""
    if isinstance(error, MemoryError):
        return f"it takes more than {_MEMORY // 2**20} MB"
    return {
        "interrupted": f"it takes more than {_STEPS:,} steps or {_SECONDS:g} s",
        "user-defined function raised exception": (
            "a function is called wrongly, or one of time reads the clock or the time zone"
        ),
    }.get(str(error), str(error)[:200])


def _tables(connection: sqlite3.Connection) -> set[str]:
    names = connection.execute(
        "SELECT lower(name) FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite^_%' "
        "ESCAPE '^'"
    )
    return {name for (name,) in names}


def _script(database: Any) -> str:
    """Writes a database given as tables of rows as SQL.

    Raises:
        UnscorableError: It is none.
    """
    if not isinstance(database, Mapping) or not database:
        raise UnscorableError(f"a database is SQL text or a table of tables, not {type(database).__name__}")
    lines: list[str] = []
    for table, rows in database.items():
        if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
            raise UnscorableError(f"table {table!r} is no list of at least one object")
        columns = list(rows[0])
        if not columns or any(list(row) != columns for row in rows):
            raise UnscorableError(f"the rows of table {table!r} have not all the same columns, in one order")
        lines.append(f"CREATE TABLE {_name(table)} ({', '.join(map(_name, columns))});")
        values = ", ".join(f"({', '.join(_literal(row[key]) for key in columns)})" for row in rows)
        lines.append(f"INSERT INTO {_name(table)} VALUES {values};")  # noqa: S608 - every part is quoted
    return "\n".join(lines)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Any) -> str:
    cell = _cell(value)
    if cell is None:
        return "NULL"
    if isinstance(cell, str):
        return "'" + cell.replace("'", "''") + "'"
    return repr(cell)


def _listed(reference: Any) -> _Result:
    """Reads expected rows: arrays of cells, or objects with the same keys.

    Raises:
        UnscorableError: They are none, or too many.
    """
    if not isinstance(reference, list):
        raise UnscorableError(f"the reference is {type(reference).__name__}, not a query or a list of rows")
    if len(reference) > _MOST_ROWS:
        raise UnscorableError(f"the reference has {len(reference)} rows; {_MOST_ROWS} are allowed")
    columns: tuple[str, ...] | None = None
    if reference and all(isinstance(row, Mapping) for row in reference):
        columns = tuple(reference[0])
        if any(tuple(row) != columns for row in reference):
            raise UnscorableError("the reference's rows have not all the same columns, in one order")
        reference = [list(row.values()) for row in reference]
    if not all(isinstance(row, list) for row in reference) or len({len(row) for row in reference}) > 1:
        raise UnscorableError("the reference's rows are not arrays of the same length, or objects")
    rows: list[Row] = [tuple(map(_cell, row)) for row in reference]
    return _Result(columns, len(rows[0]) if rows else 0, rows, [(0, len(rows))], reads=False)


def _cell(value: Any) -> Cell:
    """Reads a JSON value as SQLite keeps it.

    Raises:
        UnscorableError: SQLite has no such value.
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UnscorableError("an integer of the row has more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnscorableError("a number of the row is not finite")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise UnscorableError(f"a cell of the row is {type(value).__name__}, not text, a number or null")


def _tokens(query: str) -> Iterator[str]:
    """Yields the words and signs of a query, without its comments."""
    return (token[0] for token in _TOKEN.finditer(query) if not token["comment"])


def _ties(words: Iterable[str], columns: Sequence[str]) -> list[int] | None:
    """Returns the positions of the columns a query orders its rows by.

    None means that it does not order them. Where it orders by something it does not return, all columns are
    meant, and its rows have just one order.
    """
    whole = list(range(len(columns)))
    level = 0
    outer: list[str] = []
    # Everything in brackets becomes one word, so that the commas that are left part what they seem to.
    for word in words:
        level -= word == ")" and level > 0
        if level or word == ")":
            outer[-1] += " " + _folded(word)
        else:
            outer.append(_folded(word))
        level += word == "("
    starts = [place for place in range(len(outer) - 1) if outer[place : place + 2] == ["order", "by"]]
    if not starts:
        return None
    end = outer.index("limit", starts[-1]) if "limit" in outer[starts[-1] :] else len(outer)
    items = _items(outer[: starts[-1]]) if not {"union", "intersect", "except"} & {*outer} else []
    names = [name.casefold() for name in columns]
    found: list[int] = []
    for term in _split(outer[starts[-1] + 2 : end]):
        if term[-1:] == [";"]:
            term.pop()
        if term[-2:-1] == ["nulls"]:
            term = term[:-2]
        if term[-1:] in (["asc"], ["desc"]):
            term = term[:-1]
        if len(term) == 1 and re.fullmatch(r"[0-9]{1,3}", term[0]) and 0 < int(term[0]) <= len(columns):
            found.append(int(term[0]) - 1)
        elif len(term) == 1 and names.count(term[0]) == 1:
            found.append(names.index(term[0]))
        elif len(items) == len(columns) and term in items:
            found.append(items.index(term))
        else:
            return whole
    return found


def _items(outer: Sequence[str]) -> list[list[str]]:
    """Returns what a SELECT returns, expression by expression, without their names."""
    start = outer.index("select") + 1 if "select" in outer else len(outer)
    end = outer.index("from", start) if "from" in outer[start:] else len(outer)
    start += outer[start : start + 1] in (["distinct"], ["all"])
    return [item[:-2] if item[-2:-1] == ["as"] else item for item in _split(outer[start:end])]


def _split(words: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == ",":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _folded(word: str) -> str:
    """Writes a name one way; texts stay as they are, quotes and all."""
    return word if word.startswith("'") else word.strip('"`[]').casefold() or word


def _runs(rows: Sequence[Row], ties: Sequence[int] | None) -> list[tuple[int, int]]:
    """Returns where parts of the rows begin and end within which the order is free."""
    if ties is None:
        return [(0, len(rows))]
    keys = [tuple(row[place] for place in ties) for row in rows]
    starts = [place for place in range(len(rows)) if place == 0 or keys[place] != keys[place - 1]]
    # No rows are one part as well, an empty one.
    return list(zip(starts or [0], [*starts[1:], len(rows)], strict=True))


def _signature(row: Row) -> Row:
    """Returns what has to be equal of a row by any tolerance: all of it, with 0 for every number."""
    return tuple(0 if _is_number(cell) else cell for cell in row)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, (int, float))


def _decimal(value: Any) -> Decimal:
    return Decimal(repr(value))


def _only(blocks: Sequence[str]) -> str | None:
    return blocks[0] if len(blocks) == 1 else None
