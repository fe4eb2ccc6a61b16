"""Reads every data set of a lake with each engine and compares it with pyarrow: rows, sums by ticker, and a filter.

Run by `make engines`: `python engines/compare.py FOLDER [ENGINE…]`. Prints one table; exit 1 where something differs.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from readers import READERS, Arrow, Source, Sums, Unavailable

ENGINES = ("duckdb", "polars", "pandas", "daft", "chdb", "pyspark")


def compare_engine(folder: Path, engine: str) -> list[dict[str, str]]:
    """The findings of one engine: data set → what was found for its files and for its table."""
    reader, truth = READERS[engine](), Arrow()
    findings = []
    for described in json.loads((folder / "datasets.json").read_text(encoding="utf-8")):
        source = Source(folder, described)
        finding = {"engine": engine, "key": source.key}
        rows = _normal_rows(truth.rows(source, as_table=False), has_null_lists=reader.has_null_lists)
        sums = _normal(truth.sums(source, as_table=False))
        finding["rows"] = f"{len(rows):,}"
        finding["files"] = _outcome(_look, source, reader, rows, sums)
        finding["table"] = _outcome(_look_at_table, source, reader, rows, sums)
        findings.append(finding)
    return findings


def _look(source: Source, reader: Any, rows: Any, sums: Any, *, as_table: bool = False) -> list[str]:
    return [
        _same("rows", _normal_rows(reader.rows(source, as_table=as_table)), rows),
        _same("sums", _normal(reader.sums(source, as_table=as_table)), sums),
    ]


def _look_at_table(source: Source, reader: Any, rows: Any, sums: Any) -> list[str]:
    differences = _look(source, reader, rows, sums, as_table=True)
    return [*differences, _same("filter", reader.before(source), Arrow().before(source))]


def _outcome(look: Callable[..., list[str]], *what: Any) -> str:
    try:
        return "; ".join(filter(None, look(*what))) or "same"
    except Unavailable as error:
        return f"- ({error})"
    except Exception as error:  # noqa: BLE001 - what an engine raises is what this is to find out
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _same(what: str, found: Any, wanted: Any) -> str:
    if found == wanted:
        return ""
    if isinstance(found, list) and len(found) == len(wanted):
        for one, other in zip(found, wanted, strict=True):
            if one != other:
                differing = [name for name in other if one.get(name) != other[name]]
                name = (differing or ["?"])[0]
                return f"{what} differ in {', '.join(differing)}: {one.get(name)!r}, not {other.get(name)!r}"
    if isinstance(found, dict):
        for ticker in wanted:
            if found.get(ticker) != wanted[ticker]:
                return f"{what} of {ticker} differ: {found.get(ticker)}, not {wanted[ticker]}"
    size = (len(found), len(wanted)) if hasattr(found, "__len__") else (found, wanted)
    return f"{what} differ: {size[0]}, not {size[1]}"


def _normal_rows(table: Any, *, has_null_lists: bool = True) -> list[dict[str, Any]]:
    """Rows in an order of their own, each value in one form."""
    made = [{name: _value(value) for name, value in row.items()} for row in table.to_pylist()]
    if not has_null_lists:
        lists = [field.name for field in table.schema if str(field.type).startswith("list")]
        made = [{**row, **{name: row[name] or [] for name in lists}} for row in made]
    return sorted(made, key=lambda row: [repr(row[name]) for name in sorted(row)])


def _normal(sums: Sums) -> dict[str, list[Any]]:
    return {str(ticker): [_value(part) for part in parts] for ticker, parts in sums.items()}


def _value(value: Any) -> Any:
    if value is None or value != value or str(value) in ("NaT", "<NA>"):  # noqa: PLR0124 - not a number
        return None
    if isinstance(value, bool | str | float):
        return value
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if hasattr(value, "tolist") and not isinstance(value, datetime):
        return _value(value.tolist())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return str(Decimal(value).normalize())


def main(folder: Path, engines: list[str]) -> int:
    """Run each engine in a process of its own, print the table, and return the exit code."""
    findings: list[dict[str, str]] = []
    for engine in engines:
        print(f"{engine} {importlib.metadata.version(engine)} …", flush=True)
        command = [sys.executable, __file__, str(folder), "--one", engine]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_800)
        lines = [line for line in done.stdout.splitlines() if line.startswith("FINDINGS ")]
        if done.returncode or not lines:
            died = f"died: {done.stderr[-300:]}"
            findings.append({"engine": engine, "key": "all", "rows": "", "files": died, "table": died})
        else:
            findings += json.loads(lines[-1].removeprefix("FINDINGS "))
    width = max(len(finding["key"]) for finding in findings)
    print(f"\n{'engine':8} {'data set':{width}} {'rows':>7}  Parquet files | Iceberg table")
    for finding in findings:
        start = f"{finding['engine']:8} {finding['key']:{width}} {finding['rows']:>7}"
        print(f"{start}  {finding['files']} | {finding['table']}")
    wrong = [finding for finding in findings for kind in ("files", "table") if not _is_good(finding[kind])]
    print(f"\n{'no difference' if not wrong else f'{len(wrong)} differences'} in {2 * len(findings)} comparisons")
    return 1 if wrong else 0


def _is_good(outcome: str) -> bool:
    return outcome == "same" or outcome.startswith("- (")


if __name__ == "__main__":
    place = Path(sys.argv[1]).absolute()
    if sys.argv[2:3] == ["--one"]:
        print("FINDINGS " + json.dumps(compare_engine(place, sys.argv[3])))
    else:
        sys.exit(main(place, sys.argv[2:] or list(ENGINES)))
