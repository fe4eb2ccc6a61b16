"""Named statements: what a file of them says, and what of it is sent to the server."""

from __future__ import annotations

from pathlib import Path

from kalshi_platform.storage.queries import load, statements

TEXT = """-- database: production
-- example low: 1
--
-- Of the whole file.

-- name: first
-- What it returns,
-- in two lines.
-- example row: (1, 2)
SELECT 1 -- of the statement
WHERE true

-- Of the next ones.

-- name: second
-- database: timeseries
SELECT '%%'
"""


def test_statements_of_a_file_have_their_text_description_and_examples(tmp_path: Path) -> None:
    path = tmp_path / "queries.sql"
    path.write_text(TEXT, encoding="utf-8")
    first, second = statements(path)
    assert (first.name, first.text) == ("first", "SELECT 1 -- of the statement\nWHERE true")
    assert (first.description, first.database) == ("What it returns, in two lines.", "production")
    assert first.examples == {"low": "1", "row": "(1, 2)"}
    assert (second.text, second.description, second.database) == ("SELECT '%%'", "", "timeseries")
    assert load(path) == {"first": first.text, "second": second.text}


def test_statements_of_a_subject_are_loaded_by_its_name() -> None:
    assert load("services")["switch"] == "SELECT enabled, reason FROM service_switches WHERE service = %s"
