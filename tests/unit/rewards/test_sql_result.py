"""What a query returns, on every database of the row, and nothing it says about it."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.contract import Sample, UnscorableError, score_samples
from lambdas.rewards import sql_result
from lambdas.rewards.sql_result import SqlResult

SHOP = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer, amount REAL, day TEXT);
CREATE VIEW swiss AS SELECT * FROM customer WHERE city IN ('Bern', 'Chur');
INSERT INTO customer VALUES (1, 'Ada', 'Bern'), (2, 'Bob', 'Chur'), (3, 'Cid', NULL), (4, 'Dora', 'Bern');
INSERT INTO purchase VALUES (1, 1, 10.5, '2024-01-31'), (2, 1, 4.5, '2024-02-01'), (3, 2, 15, '2024-02-02'),
    (4, 4, 7, '2023-12-31');
"""
OTHER_SHOP = SHOP.replace("(4, 'Dora', 'Bern')", "(4, 'Dora', 'Chur'), (5, 'Eve', 'Chur')")


def reward(query, reference, database=SHOP, **parameters):
    row = {"query": reference, "database": database}
    completion = query if "form" in parameters else f"```sql\n{query}\n```"
    return SqlResult(**parameters).score(Sample("a", (), completion, reference_answer=row))


# form, completion, score
NAMES = "SELECT name FROM customer"
FORMS = [
    ("fenced", f"```sql\n{NAMES}\n```", 1.0),
    ("fenced", f"Here it is:\n```\n{NAMES};\n```\nDone.", 1.0),
    ("fenced", NAMES, 0.0),
    ("fenced", f"```sql\n{NAMES}", 0.0),
    ("fenced", f"```sql\nSELECT 1\n```\n```sql\n{NAMES}\n```", 0.0),
    ("fenced", "```sql\n\n```", 0.0),
    ("fenced", f"```sql {NAMES}```", 0.0),
    ("fenced", "", 0.0),
    ("whole", NAMES, 1.0),
    ("whole", f"\n  {NAMES} ;  \n", 1.0),
    ("whole", f"```sql\n{NAMES}\n```", 0.0),
    ("whole", f"The query is {NAMES}", 0.0),
    ("whole", "  \n", 0.0),
    ("either", NAMES, 1.0),
    ("either", f"So:\n```sql\n{NAMES}\n```", 1.0),
    ("either", f"```\n{NAMES}\n```\n```\n{NAMES}\n```", 0.0),
    ("tag", f"thinking... <answer>{NAMES}</answer>", 1.0),
    ("tag", f"<answer>\n```sql\n{NAMES}\n```\n</answer>", 1.0),
    ("tag", f"<answer>SELECT 1</answer><answer>{NAMES}</answer>", 0.0),
    ("tag", NAMES, 0.0),
    ("json", json.dumps({"sql": NAMES}), 1.0),
    ("json", f"```json\n{json.dumps({'sql': NAMES})}\n```", 1.0),
    ("json", json.dumps({"query": NAMES}), 0.0),
    ("json", f'{{"sql": "SELECT 1", "sql": "{NAMES}"}}', 0.0),
    ("json", NAMES, 0.0),
]


@pytest.mark.parametrize(("form", "completion", "score"), FORMS)
def test_the_query_is_looked_for_where_it_was_declared(form, completion, score):
    assert reward(completion, NAMES, form=form).score == score


# query, reference, parameters, score
RESULTS = [
    # the same rows by another way
    ("SELECT c.name FROM customer AS c WHERE 1", NAMES, {}, 1.0),
    ("SELECT name FROM main.customer ORDER BY name DESC", NAMES, {}, 1.0),
    ("WITH c AS (SELECT name FROM customer) SELECT * FROM c", NAMES, {}, 1.0),
    ("-- all of them\nSELECT name /* only */ FROM customer -- done", NAMES, {}, 1.0),
    ("SELECT name FROM customer WHERE city = 'Bern'", "SELECT name FROM swiss WHERE city <> 'Chur'", {}, 1.0),
    (
        "SELECT name FROM customer WHERE id IN (SELECT customer FROM purchase)",
        "SELECT DISTINCT name FROM customer JOIN purchase ON customer.id = customer",
        {},
        1.0,
    ),
    (
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4) "
        "SELECT count(*), 4 FROM n, swiss",
        "SELECT 4 * count(*), count(DISTINCT id) + 1 FROM swiss",
        {},
        1.0,
    ),
    # rows as often as they occur
    ("SELECT city FROM customer", "SELECT city FROM customer", {}, 1.0),
    ("SELECT DISTINCT city FROM customer", "SELECT city FROM customer", {}, 0.0),
    ("SELECT city FROM customer UNION ALL SELECT 'Bern'", "SELECT city FROM customer", {}, 0.0),
    (
        "SELECT 'Chur' FROM customer WHERE id < 3 UNION ALL SELECT 'Bern' FROM customer WHERE id < 2",
        "SELECT 'Bern' FROM customer WHERE id < 3 UNION ALL SELECT 'Chur' FROM customer WHERE id < 2",
        {},
        0.0,
    ),
    # fewer, more, other
    ("SELECT name FROM customer LIMIT 3", NAMES, {}, 0.0),
    ("SELECT name FROM customer, purchase", NAMES, {}, 0.0),
    ("SELECT city FROM customer", NAMES, {}, 0.0),
    ("SELECT upper(name) FROM customer", NAMES, {}, 0.0),
    ("SELECT name FROM customer WHERE 0", NAMES, {}, 0.0),
    # columns by position
    ("SELECT name, id FROM customer", "SELECT id, name FROM customer", {}, 0.0),
    ("SELECT name, 1 FROM customer", NAMES, {}, 0.0),
    ("SELECT name AS x FROM customer", NAMES, {}, 1.0),
    ("SELECT name AS x FROM customer", NAMES, {"column_names": True}, 0.0),
    ("SELECT name AS NAME FROM customer", NAMES, {"column_names": True}, 1.0),
    # order only where the reference has one
    ("SELECT name FROM customer ORDER BY id DESC", "SELECT name FROM customer ORDER BY id", {}, 0.0),
    ("SELECT name FROM customer ORDER BY name", "SELECT name FROM customer ORDER BY id", {}, 1.0),
    (
        "SELECT name FROM customer ORDER BY id DESC",
        "SELECT name FROM (SELECT * FROM customer ORDER BY id)",
        {},
        1.0,
    ),
    (
        "SELECT name, rank() OVER (ORDER BY id) FROM customer ORDER BY id DESC",
        "SELECT name, rank() OVER (ORDER BY id) FROM customer",
        {},
        1.0,
    ),
    ("SELECT name FROM customer ORDER BY id DESC", "SELECT name FROM customer -- ORDER BY id", {}, 1.0),
    (
        "SELECT name FROM customer ORDER BY id DESC",
        "SELECT name FROM customer WHERE city <> 'ORDER BY id' OR 1",
        {},
        1.0,
    ),
    ("SELECT name FROM customer ORDER BY id DESC", "SELECT name FROM customer order\nby id", {}, 0.0),
    (
        "SELECT name FROM customer ORDER BY 1 DESC",
        "SELECT name FROM customer WHERE id < 3 UNION SELECT name FROM customer ORDER BY name",
        {},
        0.0,
    ),
    (
        "SELECT name FROM customer ORDER BY id DESC",
        "SELECT name FROM customer ORDER BY id",
        {"order": "never"},
        1.0,
    ),
    ("SELECT name FROM customer ORDER BY id DESC", NAMES, {"order": "always"}, 0.0),
    # rows that tie may change places, and no others
    (
        "SELECT name, city FROM customer ORDER BY city, id DESC",
        "SELECT name, city FROM customer ORDER BY city",
        {},
        1.0,
    ),
    (
        "SELECT name, city FROM customer ORDER BY city, id DESC",
        "SELECT name, city FROM customer ORDER BY 2 ASC",
        {},
        1.0,
    ),
    (
        "SELECT name, city FROM customer ORDER BY city, id DESC",
        "SELECT c.name, c.city FROM customer c ORDER BY c.city NULLS FIRST LIMIT 9",
        {},
        1.0,
    ),
    (
        "SELECT name, city FROM customer ORDER BY city, id DESC",
        "SELECT name, city FROM customer ORDER BY city, id",
        {},
        0.0,
    ),
    ("SELECT name, city FROM customer ORDER BY id", "SELECT name, city FROM customer ORDER BY city", {}, 0.0),
    (
        "SELECT city, count(*) FROM customer GROUP BY city ORDER BY count(*) DESC, city DESC",
        "SELECT city, count(*) AS people FROM customer GROUP BY city ORDER BY count(*) DESC, city",
        {},
        0.0,
    ),
    (
        "SELECT city, count(*) FROM customer GROUP BY city ORDER BY count(*) DESC, city DESC",
        "SELECT city, count(*) AS people FROM customer GROUP BY city ORDER BY count( * ) DESC",
        {},
        1.0,
    ),
    (
        "SELECT city, count(*) FROM customer GROUP BY city ORDER BY 2",
        "SELECT city, count(*) AS people FROM customer GROUP BY city ORDER BY people DESC",
        {},
        0.0,
    ),
    # an order by what is not returned is taken as it comes
    ("SELECT name FROM customer ORDER BY city, id DESC", "SELECT name FROM customer ORDER BY city", {}, 0.0),
    # values
    ("SELECT 1.0 * id FROM customer", "SELECT id FROM customer", {}, 1.0),
    ("SELECT CAST(id AS TEXT) FROM customer", "SELECT id FROM customer", {}, 0.0),
    ("SELECT id + 0.1 FROM customer", "SELECT id FROM customer", {}, 0.0),
    ("SELECT coalesce(city, '') FROM customer", "SELECT city FROM customer", {}, 0.0),
    ("SELECT coalesce(city, 'NULL') FROM customer", "SELECT city FROM customer", {}, 0.0),
    ("SELECT coalesce(city, 0) FROM customer", "SELECT city FROM customer", {}, 0.0),
    ("SELECT CAST(name AS BLOB) FROM customer", NAMES, {}, 0.0),
    ("SELECT id = 1 FROM customer", "SELECT id <> 2 AND id < 3 FROM customer", {}, 1.0),
    ("SELECT 9007199254740993 FROM swiss", "SELECT 9007199254740992 FROM swiss", {}, 0.0),
    # tolerance
    ("SELECT amount + 0.01 FROM purchase", "SELECT amount FROM purchase", {"absolute_tolerance": 0.01}, 1.0),
    (
        "SELECT amount + 0.0101 FROM purchase",
        "SELECT amount FROM purchase",
        {"absolute_tolerance": 0.01},
        0.0,
    ),
    ("SELECT amount * 1.01 FROM purchase", "SELECT amount FROM purchase", {"relative_tolerance": 0.011}, 1.0),
    ("SELECT amount * 1.01 FROM purchase", "SELECT amount FROM purchase", {"relative_tolerance": 0.009}, 0.0),
    (
        "SELECT name, id + 0.1 FROM customer",
        "SELECT name, id FROM customer",
        {"absolute_tolerance": 0.2},
        1.0,
    ),
    ("SELECT 'Ada', id + 0.1 FROM customer", "SELECT name, id FROM customer", {"absolute_tolerance": 9}, 0.0),
    ("SELECT CAST(id AS TEXT) FROM customer", "SELECT id FROM customer", {"absolute_tolerance": 9}, 0.0),
    ("SELECT NULL FROM customer", "SELECT id FROM customer", {"absolute_tolerance": 9}, 0.0),
    ("SELECT 9e999 FROM customer", "SELECT 9e999 FROM customer", {"relative_tolerance": 0.1}, 1.0),
    ("SELECT id FROM customer", "SELECT 9e999 FROM customer", {"relative_tolerance": 0.1}, 0.0),
]


@pytest.mark.parametrize(("query", "reference", "parameters", "score"), RESULTS)
def test_results_are_compared_as_the_reference_means_them(query, reference, parameters, score):
    assert reward(query, reference, **parameters).score == score


def pairs(*rows):
    return "VALUES " + ", ".join(map(str, rows))


@pytest.mark.parametrize(
    ("made", "expected", "score"),
    [
        # In sorted order 0.3 would be beside the wrong one of two.
        ([(0.3, 5), (0.3000001, 2)], [(0.3, 2), (0.3, 5)], 1.0),
        ([(0.3, 5), (0.3000001, 5)], [(0.3, 2), (0.3, 5)], 0.0),
        # The first row that is near takes the place of one that has no other.
        ([(1.0, 1.0), (1.5, 1.0)], [(1.4, 1.0), (0.9, 1.0)], 1.0),
        ([(1.0, 0), (2.0, 0), (3.0, 0)], [(1.5, 0), (2.5, 0), (3.5, 0)], 1.0),
        ([(1.0, 0), (2.0, 0), (2.1, 0)], [(1.5, 0), (2.5, 0), (3.5, 0)], 0.0),
    ],
)
def test_rows_within_a_tolerance_are_paired_as_well_as_they_can_be(made, expected, score):
    rows = [list(row) for row in expected]
    assert reward(pairs(*made), rows, absolute_tolerance=0.5).score == score


def test_a_query_that_fits_one_database_by_chance_fails_on_another():
    reference = "SELECT count(*) FROM customer WHERE city = 'Bern'"
    for guess in (
        "SELECT 2 FROM customer LIMIT 1",
        "SELECT min(id) + 1 FROM customer",
        "SELECT count(*) / 2 FROM customer",
    ):
        assert reward(guess, reference).score == 1.0
        found = reward(guess, reference, [SHOP, OTHER_SHOP])
        assert (found.score, found.metrics["databases_right"]) == (0.0, 0.5)
        assert found.reason == "the query returns other rows on database 2"
    assert reward(reference, reference, [SHOP, OTHER_SHOP]).score == 1.0


def test_a_query_that_reads_no_table_is_wrong_where_the_reference_reads_one():
    assert (
        reward("SELECT 2", "SELECT count(*) FROM customer WHERE city = 'Bern'").reason
        == "the query reads no table"
    )
    assert reward("SELECT 2", "SELECT 1 + 1").score == 1.0
    assert reward("SELECT count(*) FROM swiss", "SELECT count(*) FROM customer WHERE city > ''").score == 1.0


@pytest.mark.parametrize(
    ("database", "reference", "parameters"),
    [
        (SHOP, [["Ada"], ["Bob"], ["Cid"], ["Dora"]], {}),
        (SHOP, [{"name": "Dora"}, {"name": "Bob"}, {"name": "Cid"}, {"name": "Ada"}], {"column_names": True}),
        ({"customer": [{"name": name} for name in ("Ada", "Bob", "Cid", "Dora")]}, NAMES, {}),
        ([SHOP, {"customer": [{"name": "Eve"}]}], [[["Ada"], ["Bob"], ["Cid"], ["Dora"]], [["Eve"]]], {}),
        ([SHOP], [[["Ada"], ["Bob"], ["Cid"], ["Dora"]]], {}),
        ("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;" + SHOP + "COMMIT;", NAMES, {}),
        (None, NAMES, {"databases": [SHOP]}),
        (None, NAMES, {"databases": [SHOP, OTHER_SHOP], "least_databases": 2}),
    ],
)
def test_databases_and_references_have_several_shapes(database, reference, parameters):
    assert reward(NAMES, reference, database, **parameters).score == 1.0
    assert reward("SELECT city FROM customer", reference, database, **parameters).score == 0.0


def test_a_database_may_stand_in_the_metadata_and_the_query_be_the_whole_reference():
    sample = Sample("a", (), NAMES, reference_answer=NAMES, metadata={"db": {"sql": SHOP}})
    function = SqlResult(form="whole", reference_field="", database_in="metadata", database_field="db.sql")
    assert function.score(sample).score == 1.0


def test_tables_of_rows_keep_every_json_value():
    cells = {"n": None, "t": 'O\'Neil "x"; --', "i": 2**63 - 1, "f": 0.1, "b": True}
    database = {'odd "name"': [cells, {**cells, "i": -(2**63)}]}
    expected = [[None, cells["t"], 2**63 - 1, 0.1, 1], [None, cells["t"], -(2**63), 0.1, 1]]
    assert reward('SELECT * FROM "odd ""name"""', expected, database).score == 1.0


@pytest.mark.parametrize(
    ("reference", "database", "parameters", "says"),
    [
        (None, SHOP, {}, "no query and no rows at 'query'"),
        (7, SHOP, {}, "int, not a query or a list of rows"),
        (
            "SELECT nme FROM customer",
            SHOP,
            {},
            "reference query fails on the database: no such column: nme",
        ),
        ("SELECT nme FROM customer", [SHOP, SHOP], {}, "reference query fails on database 1"),
        ("SELECT * FROM customer WHERE 0", SHOP, {}, "returns no rows from any database"),
        ([], SHOP, {}, "returns no rows from any database"),
        ("", SHOP, {}, "it is empty"),
        ("DELETE FROM customer", SHOP, {}, "begins with 'DELETE'"),
        ("SELECT date('now') FROM customer", SHOP, {}, "reads the clock"),
        ("SELECT random() FROM customer", SHOP, {}, "random"),
        (
            "SELECT a.id FROM purchase a, purchase b, purchase c, purchase d, purchase e, purchase f",
            SHOP,
            {},
            "1000 rows",
        ),
        ([[1], [1, 2]], SHOP, {}, "arrays of the same length"),
        ([{"a": 1}, {"b": 1}], SHOP, {}, "same columns"),
        ([[{"a": 1}]], SHOP, {}, "a cell of the row is dict"),
        ([[2**63]], SHOP, {}, "more than 64 bits"),
        ([[float("nan")]], SHOP, {}, "not finite"),
        ([[1]] * 1001, SHOP, {}, "1001 rows; 1000 are allowed"),
        ([["Ada"]], SHOP, {"column_names": True}, "no column names"),
        ([["Ada"]], [SHOP, SHOP], {}, "one list of rows for each of 2"),
        ([[number / 7] for number in range(201)], SHOP, {"absolute_tolerance": 0.1}, "too many to compare"),
        (NAMES, None, {}, "no database at reference_answer.database"),
        (NAMES, 7, {}, "SQL text or a table of tables, not int"),
        (NAMES, {}, {}, "SQL text or a table of tables"),
        (NAMES, {"customer": []}, {}, "'customer' is no list of at least one object"),
        (NAMES, {"customer": [{"a": 1}, {"b": 1}]}, {}, "not all the same columns"),
        (NAMES, {"customer": [{"a": [1]}]}, {}, "a cell of the row is list"),
        (NAMES, "", {}, "the database has no table"),
        (NAMES, "CREATE TABLE customer (name", {}, "the database cannot be built: "),
        (NAMES, [SHOP, "nonsense"], {}, 'database 2 cannot be built: near "nonsense"'),
        (NAMES, "ATTACH '/etc/passwd' AS x;" + SHOP, {}, "cannot be built: not authorized"),
        (NAMES, SHOP + "PRAGMA writable_schema = ON;", {}, "cannot be built: not authorized"),
        (NAMES, SHOP + "CREATE VIRTUAL TABLE f USING fts5(x);", {}, "cannot be built: not authorized"),
        (NAMES, SHOP + "INSERT INTO customer SELECT random(), 'x', 'y';", {}, "random"),
        (NAMES, " " * 1_000_001, {}, "1000001 characters"),
        (NAMES, [SHOP] * 9, {}, "9 databases; 1 to 8"),
        (NAMES, SHOP, {"least_databases": 2}, "1 databases; 2 to 8"),
    ],
)
def test_a_row_without_a_usable_database_and_reference_cannot_be_scored(
    reference, database, parameters, says
):
    with pytest.raises(UnscorableError, match=says):
        reward(NAMES, reference, database, **parameters)


FILLED = (
    "CREATE TABLE big (x TEXT);"
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n {}) INSERT INTO big "
)


@pytest.mark.parametrize(
    "database",
    [
        FILLED.format("") + "SELECT max(i) FROM n",
        FILLED.format("WHERE i < 1000000") + "SELECT printf('%9000d', i) FROM n",
        "CREATE TABLE big (x TEXT);" + "INSERT INTO big SELECT hex(hex(hex(name))) FROM big;" * 10_000,
    ],
    ids=["endless", "large", "many"],
)
def test_no_database_is_expensive_to_build(database):
    started = time.thread_time()
    with pytest.raises(UnscorableError, match="cannot be built"):
        reward(NAMES, NAMES, database)
    assert time.thread_time() - started < 1.5


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT name FROM customer WHERE city = 'Bern'", "the query returns 2 rows, not 4"),
        ("SELECT name FROM customer, purchase", "the query returns 5 or more rows, not 4"),
        ("SELECT name, id FROM customer", "the query returns 2 columns, not 1"),
        ("SELECT city FROM customer", "the query returns other rows"),
        ("SELECT name FROM customer ORDER BY id DESC", "the rows are in another order"),
        ("SELECT nme FROM customer", "the query fails: no such column: nme"),
        ("SELEC name", "the query fails: it begins with 'SELEC', not with SELECT, WITH or VALUES"),
        ("-- nothing", "the query fails: it is empty"),
        ("SELECT 1; SELECT 2", "the query fails: You can only execute one statement at a time."),
    ],
)
def test_every_score_says_why(query, reason):
    found = reward(query, "SELECT name FROM customer ORDER BY name")
    assert (found.score, found.reason) == (0.0, reason)
    assert found.metrics["valid_query"] == float("fails" not in reason)
    assert found.extracted == query + "\n"
    assert reward("", NAMES, form="whole").metrics == {
        "answered": 0.0,
        "valid_query": 0.0,
        "databases_right": 0.0,
    }


# What a query may not do; all of it is refused before anything runs.
FORBIDDEN = {
    "attach": "ATTACH DATABASE '/tmp/x.db' AS x",
    "detach": "DETACH DATABASE main",
    "pragma": "PRAGMA table_info(customer)",
    "pragma off": "PRAGMA query_only = OFF",
    "pragma function": "SELECT name FROM pragma_table_info('customer')",
    "pragma count": "SELECT count(*) FROM pragma_database_list",
    "vacuum": "VACUUM INTO '/tmp/x.db'",
    "insert": "INSERT INTO customer VALUES (9, 'Zoe', 'Bern')",
    "insert after with": "WITH x AS (SELECT 9) INSERT INTO customer SELECT 9, 'Zoe', 'Bern' FROM x",
    "delete returning": "WITH x AS (SELECT 9) DELETE FROM customer RETURNING name",
    "update returning": "WITH x AS (SELECT 9) UPDATE customer SET name = 'x' RETURNING name",
    "replace": "WITH x AS (SELECT 9) REPLACE INTO customer SELECT 1, 'x', 'y'",
    "drop": "DROP TABLE customer",
    "create": "CREATE TEMP TABLE x AS SELECT name FROM customer",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON customer BEGIN SELECT 1; END",
    "transaction": "BEGIN",
    "explain": "EXPLAIN SELECT name FROM customer",
    "two statements": "SELECT name FROM customer; SELECT name FROM customer",
    "hidden second": "SELECT name FROM customer; -- \nDROP TABLE customer",
    "schema": "SELECT sql FROM sqlite_master",
    "schema by another name": "SELECT name FROM sqlite_schema",
    "schema count": "SELECT count(*) FROM sqlite_master",
    "schema in a subquery": "SELECT name FROM customer WHERE (SELECT count(sql) FROM sqlite_master) > 0",
    "schema under an alias": "WITH s AS (SELECT sql FROM main.sqlite_master) SELECT sql FROM s",
    "temp schema": "SELECT name FROM sqlite_temp_master",
    "pages": "SELECT data FROM sqlite_dbpage",
    "statements": "SELECT sql FROM sqlite_stmt",
    "statistics": "SELECT name FROM dbstat",
    "table function": "SELECT value FROM json_each('[\"Ada\"]')",
    "extension": "SELECT load_extension('/tmp/x.so')",
    "read a file": "SELECT readfile('/etc/passwd')",
    "full text": "SELECT fts3_tokenizer('simple')",
    "log": "SELECT sqlite_log(1, 'x')",
    "version": "SELECT sqlite_version()",
    "chance": "SELECT random()",
    "chance in an order": "SELECT name FROM customer ORDER BY random()",
    "random bytes": "SELECT randomblob(8)",
    "zero bytes": "SELECT zeroblob(1000000000)",
    "changes": "SELECT total_changes()",
    "clock": "SELECT date('now')",
    "clock in capitals": "SELECT strftime('%Y', 'NOW')",
    "clock put together": "SELECT date('no' || 'w')",
    "clock by default": "SELECT datetime()",
    "clock by format": "SELECT strftime('%s')",
    "clock word": "SELECT CURRENT_TIMESTAMP",
    "time zone": "SELECT datetime(day, 'localtime') FROM purchase",
    "parameter": "SELECT ?",
    "named parameter": "SELECT :name",
    "null character": "SELECT name FROM customer\0",
    "surrogate": "SELECT name, '\ud800' FROM customer",
    "too long": NAMES + " " * 10_000,
}


@pytest.mark.parametrize("query", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_query_reads_the_tables_of_the_row_and_nothing_else(query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = reward(query, NAMES, form="whole")
    assert (found.score, found.metrics["valid_query"]) == (0.0, 0.0)
    assert found.reason.startswith("the query fails: ")
    assert not list(tmp_path.iterdir())
    # Whatever it was, the next query finds the database as it was.
    assert reward(NAMES, NAMES).score == 1.0


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("strftime('%Y-%m', '2024-02-29')", "2024-02"),
        ("date('2024-02-29', '+1 year')", "2025-03-01"),
        ("time('12:00:01')", "12:00:01"),
        ("datetime(0, 'unixepoch')", "1970-01-01 00:00:00"),
        ("julianday('2024-01-02') - julianday('2024-01-01')", 1),
        ("date(NULL)", None),
        ("date('nonsense')", None),
        ("trim('  x  ')", "x"),
        ("trim('--x--', '-')", "x"),
        ("ltrim('--x--', '-') || rtrim('--x--', '-')", "x----x"),
        ("trim(NULL, '-')", None),
        ("round(2.5) || printf('%.2f', 1) || substr('abc', 2, 1)", "3.01.00b"),
        ("'Ada' LIKE 'a%' AND 'Ada' GLOB 'A*' AND instr('Ada', 'd') = 2", 1),
        ("json_extract('{\"a\": [1, 2]}', '$.a[1]')", 2),
        ("sqrt(16) + power(2, 3)", 12),
        ("CASE WHEN 1 THEN iif(0, 1, 'x') END", "x"),
    ],
)
def test_the_functions_that_queries_need_are_there(expression, value):
    assert reward(f"SELECT {expression}", [[value]]).score == 1.0


def test_the_functions_of_windows_and_aggregates_are_there():
    windows = "row_number() OVER w, rank() OVER w, dense_rank() OVER w, ntile(2) OVER w, lag(id) OVER w"
    more = "first_value(id) OVER w, last_value(id) OVER w, sum(id) OVER w"
    query = f"SELECT {windows}, {more} FROM customer WINDOW w AS (ORDER BY id)"
    rows = [
        [1, 1, 1, 1, None, 1, 1, 1],
        [2, 2, 2, 1, 1, 1, 2, 3],
        [3, 3, 3, 2, 2, 1, 3, 6],
        [4, 4, 4, 2, 3, 1, 4, 10],
    ]
    assert reward(query, rows).score == 1.0
    aggregates = "count(*), sum(id), avg(id), min(id), max(id), total(id), group_concat(name, '/')"
    assert (
        reward(f"SELECT {aggregates} FROM customer", [[4, 10, 2.5, 1, 4, 10, "Ada/Bob/Cid/Dora"]]).score
        == 1.0
    )


TEN = "(SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5)"
LONG = "replace(printf('%9900d', p.id), ' ', 'a')"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
MANY = ", ".join(f"purchase p{number}" for number in range(12))


def columns(expression, count=60):
    """Many calls of one function on long texts, in a join that never ends."""
    listed = ", ".join(f"sum(length({expression.format(f's || {number}')}))" for number in range(count))
    return f"SELECT {listed} FROM (SELECT {LONG} AS s FROM purchase p, {MANY})"


def doubling(select, levels=60):
    """Common table expressions each of which stands twice in the next one."""
    steps = "".join(f", c{n} AS ({select.format(f'c{n - 1}')})" for n in range(1, levels))
    return f"WITH c0 AS (SELECT 1 AS x){steps} SELECT count(*) FROM c{levels - 1}"


EXPENSIVE = {
    "join": f"SELECT count(*) FROM {MANY}, {MANY.replace('p', 'q').replace('qurchase', 'purchase')}",
    "join of constants": f"SELECT count(*) FROM {', '.join([TEN] * 20)}",
    "join of 64": "SELECT count(*) FROM " + ", ".join(f"purchase p{number}" for number in range(64)),
    "recursion": f"{ENDLESS} SELECT max(i) FROM n",
    "recursion in order": f"{ENDLESS} SELECT i FROM n ORDER BY i DESC",
    "recursion that grows": (
        "WITH RECURSIVE n(i) AS (SELECT printf('%9000d', 1) UNION ALL SELECT i FROM n, purchase) "
        "SELECT max(i) FROM n"
    ),
    "recursion of texts": ENDLESS.replace("i + 1", "i || 'a'") + " SELECT max(i) FROM n",
    "sort": f"SELECT printf('%9000d', p0.id) AS x FROM {MANY} ORDER BY x",
    "distinct": f"SELECT count(DISTINCT printf('%9000d', p0.id + 9 * p1.id + 99 * p2.id)) FROM {MANY}",
    "window": f"SELECT sum(p0.id) OVER (ORDER BY p1.id) FROM {MANY}",
    "rows": f"SELECT 1 FROM {MANY}",
    "wide rows": "SELECT " + ", ".join(["printf('%9000d', 1)"] * 200) + " FROM customer",
    "printf": "SELECT printf('%1000000000d', 1)",
    "printf of decimals": "SELECT printf('%.1000000000f', 1)",
    "doubled text": "SELECT hex(hex(hex(hex(printf('%9999d', 1)))))",
    "replaced text": "SELECT replace(replace(printf('%9000d', 1), ' ', 'aaaaaaaaaa'), 'a', 'bbbbbbbbbb')",
    "group_concat": f"SELECT group_concat(printf('%9000d', p0.id)) FROM {MANY}",
    "instr": columns("instr({}, " + LONG.replace("9900", "5000").replace("p.id", "1") + " || 'b')"),
    "replace": columns("replace({}, " + LONG.replace("9900", "5000").replace("p.id", "1") + " || 'b', '')"),
    "like": columns("{} LIKE '" + "%a_" * 30 + "b%'"),
    "glob": columns("{} GLOB '*[" + "b" * 90 + "]*'"),
    "trim": columns("trim({}, 'bcdefghijklmnopqrstuvwxyz12345a')"),
    "long trim": "SELECT trim(name, printf('%9000d', 1)) FROM customer",
    "upper": columns("upper(lower({}))"),
    "dates": columns("date({})"),
    "json": columns("json_extract('[' || replace({}, 'a', '1,') || '1]', '$[4000]')"),
    "deep json": "SELECT json_extract(replace(printf('%9900d', 1), ' ', '['), '$')",
    "doubling unions": doubling("SELECT x FROM {0} UNION ALL SELECT x FROM {0}"),
    "doubling joins": doubling("SELECT p.x FROM {0} p, {0} q"),
    "doubling columns": doubling("SELECT * FROM {0} p, {0} q"),
    "brackets": "SELECT " + "(" * 4_900 + "1" + ")" * 4_900,
    "subqueries": "SELECT " + "(SELECT " * 900 + "1" + ")" * 900,
    "nots": "SELECT " + "NOT " * 2_400 + "1",
    "ors": f"SELECT count(*) FROM {MANY} WHERE " + " OR ".join(["p0.id = p1.id + 9"] * 199),
    "ands": f"SELECT count(*) FROM {MANY} WHERE "
    + " AND ".join(f"p{n % 12}.id = p{(n * 7 + 1) % 12}.id" for n in range(199)),
    "unions": "SELECT 1" + " UNION SELECT 2" * 600,
    "list": "SELECT id FROM customer WHERE id IN (" + "1," * 4_900 + "1)",
    "comments": "/*" * 4_900,
    "quotes": "SELECT " + "'" * 9_000,
    "fences": "```" * 130_000,
    "tags": "<answer>" * 50_000,
}


@pytest.mark.parametrize("query", EXPENSIVE.values(), ids=EXPENSIVE.keys())
def test_no_query_is_expensive(query, monkeypatch):
    # What takes longer than this takes any limit there is, so a short one shows it as well.
    monkeypatch.setattr(sql_result, "_SECONDS", 0.1)
    started = time.thread_time()
    found = reward(query, NAMES, form="either")
    assert time.thread_time() - started < 0.6
    assert found.score == 0.0


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT printf('%9999d', 1) || name FROM customer", "string or blob too big"),
        (EXPENSIVE["wide rows"], "more than 1,000,000 bytes"),
        (EXPENSIVE["doubling columns"], "too many columns in result set"),
        (EXPENSIVE["unions"], "too many terms in compound SELECT"),
        ("SELECT name LIKE '" + "a" * 101 + "' FROM customer", "LIKE or GLOB pattern too complex"),
        ("SELECT max(" + "1," * 32 + "1)", "too many arguments on function max"),
        ("SELECT 1" + " + 1" * 200, "Expression tree is too large"),
        ("SELECT ?", "too many SQL variables"),
    ],
)
def test_the_limits_of_a_query_are_set(query, says):
    assert says in reward(query, NAMES).reason


def test_a_sqlite_that_cannot_limit_its_memory_is_not_used(monkeypatch):
    monkeypatch.setattr(sql_result, "_counts_memory", lambda: False)
    with pytest.raises(ValueError, match="needs a SQLite that counts its memory"):
        SqlResult()


@pytest.mark.parametrize("name", ["sort", "recursion that grows", "doubling unions"])
def test_the_memory_of_a_query_is_limited(name):
    assert "more than 32 MB" in reward(EXPENSIVE[name], NAMES).reason


def test_the_limit_is_for_all_databases_together():
    joined = ", ".join(f"purchase p{number}" for number in range(9))
    query = f"{NAMES} WHERE (SELECT count(*) FROM {joined}) > 0"
    assert reward(query, NAMES, [SHOP] * 2).score == 1.0
    assert "5,000,000 steps" in reward(query, NAMES, [SHOP] * 8).reason


def test_a_query_over_the_samples_own_limit_is_counted_as_such():
    row = {"query": NAMES, "database": SHOP}
    slow = Sample("slow", (), f"```sql\n{EXPENSIVE['trim']}\n```", reference_answer=row)
    right = Sample("right", (), f"```sql\n{NAMES}\n```", reference_answer=row)
    outcomes = score_samples(SqlResult().score, [slow, right], seconds_per_sample=0.3)
    assert [(outcome.trouble, outcome.reward.score) for outcome in outcomes] == [
        ("over_time", 0.0),
        ("", 1.0),
    ]
    assert outcomes[0].seconds < 0.8


@pytest.mark.parametrize(
    ("parameters", "completion"),
    [
        ({}, f"Hm.\n\n```sql\n{NAMES}\n```"),
        ({"form": "whole"}, NAMES),
        ({"form": "either"}, NAMES),
        ({"form": "tag"}, f"Hm.\n\n<answer>{NAMES}</answer>"),
        ({"form": "json", "json_field": "a.b"}, json.dumps({"a": {"b": NAMES}})),
    ],
)
def test_a_reference_query_becomes_a_completion_that_earns_everything(parameters, completion):
    function = SqlResult(**parameters)
    sample = Sample("a", (), "Hm.", reference_answer={"query": NAMES, "database": SHOP})
    assert function.reference_completion(sample) == completion
    written = Sample("a", (), completion, reference_answer=sample.reference_answer)
    assert function.score(written).score == 1.0
    assert function.reference_completion(written) == completion
    rows = {"query": [["Ada"]], "database": SHOP}
    assert function.reference_completion(Sample("a", (), "", reference_answer=rows)) is None


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"form": "boxed"}, "form is one of fenced, either"),
        ({"tag": "<a>"}, "tag is a name such as answer"),
        ({"json_field": ""}, "json_field is the name of a field"),
        ({"database_in": "messages"}, "database_in is one of reference_answer, metadata"),
        ({"database_in": "metadata", "database_field": ""}, "database_field is the name of a field"),
        ({"order": "yes"}, "order is one of reference, always, never"),
        ({"column_names": "no"}, "column_names is true or false"),
        ({"least_databases": 0}, "least_databases is a whole number of 1 to 8"),
        ({"least_databases": True}, "least_databases is a whole number of 1 to 8"),
        ({"absolute_tolerance": -1}, "absolute_tolerance is a number of at least 0"),
        ({"relative_tolerance": float("nan")}, "relative_tolerance is a number"),
        ({"databases": SHOP}, "databases is a list of SQL texts"),
        ({"databases": [SHOP], "least_databases": 2}, "databases has 1 of 2 to 8"),
        ({"databases": [SHOP, "nonsense"]}, "databases, number 2: cannot be built: near"),
    ],
)
def test_wrong_parameters_are_refused_in_words(parameters, says):
    with pytest.raises(ValueError, match=says):
        SqlResult(**parameters)


WORDS = "SELECT FROM WHERE customer name city ( ) , * ' \" ; -- /* */ ORDER BY LIMIT 1 count WITH AS UNION"
words = st.sampled_from(WORDS.split())


@settings(max_examples=200)
@given(
    st.lists(words, max_size=15).map(" ".join) | st.text(st.characters(exclude_categories=()), max_size=40),
    st.sampled_from(["{}", "SELECT {}", f"{NAMES} {{}}", "SELECT name FROM ({})"]),
)
def test_any_text_gets_a_score_and_the_same_one_again(text, frame):
    query = frame.format(text)
    first = reward(query, NAMES, form="either")
    assert first == reward(query, NAMES, form="either")
    assert first.score in {0.0, 1.0}


cells = st.none() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "a", "b", ""])


@settings(max_examples=100)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rows_never_matters_where_there_is_none(rows, draw):
    shuffled = draw.sample(rows, len(rows))
    database = {"t": [{"a": a, "b": b} for a, b in shuffled]}
    expected = [list(row) for row in rows]
    for tolerance in (0.0, 0.25):
        assert reward("SELECT a, b FROM t", expected, database, absolute_tolerance=tolerance).score == 1.0
        assert reward("SELECT a, b FROM t LIMIT -1 OFFSET 1", expected, database).score == 0.0


def test_a_reference_without_rows_is_told_whatever_its_order():
    empty = "SELECT name FROM customer WHERE id > 99 ORDER BY name"
    with pytest.raises(UnscorableError, match="no rows"):
        reward(NAMES, empty)
    row = {"query": "SELECT name FROM customer WHERE id > 4 ORDER BY name", "database": [SHOP, OTHER_SHOP]}
    sample = Sample("a", (), f"```sql\n{row['query']}\n```", reference_answer=row)
    assert SqlResult().score(sample).score == 1.0
