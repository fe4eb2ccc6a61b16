"""Every run-time statement that has a name: described, and planned by the server against the schema of today."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from dagster_postgres import DagsterPostgresStorage

import kalshi_platform
from kalshi_platform.storage.migrate import FOLDERS
from kalshi_platform.storage.queries import Statement, statements
from kalshi_platform.storage.urls import sqlalchemy_url
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

ROOT = Path(kalshi_platform.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.sql") if path.relative_to(ROOT).parts[0] not in ("sql", "lab"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
# Statements without a plan; they are run, and rolled back.
_WITHOUT_PLAN = re.compile(r"(LOCK|SET|CREATE|TRUNCATE|DROP|SAVEPOINT|DO|COPY)\b", re.IGNORECASE)
_STATEMENT = re.compile(
    r"^\s*(SELECT\s|UPDATE \w+ (\w+ )?SET\s|WITH \w+ AS )"
    r"|\bSELECT\b.*\bFROM\b|\bINSERT INTO\b|\bDELETE FROM\b",
    re.DOTALL,
)
_PARAMETER = re.compile(r"%\((\w+)\)s|%s|\$(\d+)")


@pytest.fixture
def database_of(database_factory: DatabaseFactory, migrated_template: MigratedTemplate) -> Callable[[str], str]:
    """The URL of an empty, migrated database of a kind."""

    def find(kind: str) -> str:
        if kind == "dagster":
            url = database_factory()
            DagsterPostgresStorage(sqlalchemy_url(url), should_autocreate_tables=True)
            return url
        made = next((each for each in FOLDERS if each == kind), None)
        assert made is not None, f"say which database it is for: -- database: {' | '.join(FOLDERS)}"
        return database_factory(migrated_template(made))

    return find


def explained(statement: Statement) -> list[str]:
    """The parts of a statement (it may hold several) as the server is asked for their plans."""
    text = re.sub(
        r"\{(\w+)\}", lambda match: statement.examples.get(match[1], f"<no example of {match[1]}>"), statement.text
    )
    if text.startswith("WHERE "):  # a clause that another statement takes
        text = f"SELECT FROM {statement.examples['rows']} AS s {text}"
    return [_explain(part.strip(), statement) for part in text.split(";") if part.strip()]


def _explain(text: str, statement: Statement) -> str:
    numbers: dict[str, int] = {}
    places = itertools.count(1)

    def parameter(match: re.Match[str]) -> str:
        name = match[1] or match[2] or str(next(places))
        if name in statement.examples:
            return f"({statement.examples[name]})" if "," not in statement.examples[name] else statement.examples[name]
        return f"${numbers.setdefault(name, len(numbers) + 1)}"

    text = re.sub(r"VALUES %s", lambda _match: f"VALUES {_row(text, statement)}", text)
    bare = _PARAMETER.sub(parameter, text).replace("%%", "%")
    return bare if _WITHOUT_PLAN.match(bare) else f"EXPLAIN (GENERIC_PLAN) {bare}"


def _row(text: str, statement: Statement) -> str:
    """A row for `VALUES %s`: the example `row`, or as many NULLs as columns are named before or after it."""
    if "row" in statement.examples:
        return statement.examples["row"]
    named = re.search(r"\(([^()]*)\)\s*VALUES %s", text) or re.search(r"VALUES %s\)? AS \w+ \(([^()]*)\)", text)
    assert named is not None, f"{statement.name}: name the columns of VALUES %s, or give an example of its row"
    return f"({', '.join(['NULL'] * len(named[1].split(',')))})"


def texts_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a module but its docstrings: line, text; an f-string as a whole, with `?` for its values."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_statement_has_a_description_and_a_plan(path: Path, database_of: Callable[[str], str]) -> None:
    urls: dict[str, str] = {}
    problems = []
    found = list(statements(path))
    assert found, "a file without a named statement"
    assert len({each.name for each in found}) == len(found), "two statements of one name"
    for statement in found:
        if not statement.description:
            problems.append(f"{statement.name}: no description")
        if statement.database not in urls:
            urls[statement.database] = database_of(statement.database)
        connection = psycopg2.connect(urls[statement.database])
        try:
            with connection.cursor() as cursor:
                for part in explained(statement):
                    cursor.execute(part)
        except psycopg2.Error as error:
            problems.append(f"{statement.name}: {error}")
        finally:
            connection.close()
    assert not problems, "\n".join(problems)


def test_no_statement_stands_in_python() -> None:
    """Statements have a name, a description and a plan; psql's own commands in the runner of the server are none."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip()[:60]}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] != "lab" and path != ROOT / "local" / "postgres" / "server.py"
        for line, text in texts_of(ast.parse(path.read_text(encoding="utf-8")))
        if _STATEMENT.search(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "x = 'SELECT 1'",
        "x = f'NOT EXISTS (SELECT 1 FROM {table} o WHERE {same})'",
        "x = f'SELECT {columns}' f' FROM {table}'",
        "run('WITH a AS (SELECT 1) INSERT INTO t TABLE a')",
        "def f():\n    'Return rows.'\n    return 'DELETE FROM t'",
    ],
)
def test_a_statement_in_a_text_of_python_is_found(source: str) -> None:
    assert any(_STATEMENT.search(text) for _, text in texts_of(ast.parse(source)))


def test_prose_and_docstrings_hold_no_statement() -> None:
    source = "def f():\n    'SELECT a FROM b: an example.'\n    return 'select the rows from a table, then insert them'"
    assert not [text for _, text in texts_of(ast.parse(source)) if _STATEMENT.search(text)]
