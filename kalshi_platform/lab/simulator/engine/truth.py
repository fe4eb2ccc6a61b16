"""The ground-truth ledger: everything the exchange published, as Parquet parts.

One row per published message unless said otherwise; `n` is the order of publication over all tables::

    deltas     n, exchange_ts_us, ticker, side, price_e4, delta_e2
    trades     n, exchange_ts_us, ticker, trade_id, yes_price_e4, count_e2, taker_side, is_block_trade
    tickers    n, exchange_ts_us, ticker, body (the published JSON), initial (sent to one subscriber only)
    lifecycle  n, published_us, ticker, type, event_type, body (JSON), suppressed (a fault kept it from everybody)
    books      phase ('first' or 'last', the latter at close), ticker, side, price_e4, size_e2: one row per level
    markets    ticker, status, result, settlement_e4, open_us, close_us (at close)
    served     n, ticker, connection, user_agent: a book was sent to one subscriber after message n
    faults     id, kind, at_us, hits, params, effects (JSON; at close)

`first` books plus the deltas in order of `n` give the `last` books. A market that came later begins empty.

The last file of a ledger is `complete.json` (`<prefix>-complete.json`), the rows of every table:
`{"rows": {table: count}}`. A ledger without it was cut off.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMAS: dict[str, Any] = {
    "deltas": pa.schema(
        [
            ("n", pa.int64()), ("exchange_ts_us", pa.int64()), ("ticker", pa.string()), ("side", pa.string()),
            ("price_e4", pa.int32()), ("delta_e2", pa.int64()),
        ]
    ),
    "trades": pa.schema(
        [
            ("n", pa.int64()), ("exchange_ts_us", pa.int64()), ("ticker", pa.string()), ("trade_id", pa.string()),
            ("yes_price_e4", pa.int32()), ("count_e2", pa.int64()), ("taker_side", pa.string()),
            ("is_block_trade", pa.bool_()),
        ]
    ),
    "tickers": pa.schema(
        [
            ("n", pa.int64()), ("exchange_ts_us", pa.int64()), ("ticker", pa.string()), ("body", pa.string()),
            ("initial", pa.bool_()),
        ]
    ),
    "lifecycle": pa.schema(
        [
            ("n", pa.int64()), ("published_us", pa.int64()), ("ticker", pa.string()), ("type", pa.string()),
            ("event_type", pa.string()), ("body", pa.string()), ("suppressed", pa.bool_()),
        ]
    ),
    "books": pa.schema(
        [
            ("phase", pa.string()), ("ticker", pa.string()), ("side", pa.string()), ("price_e4", pa.int32()),
            ("size_e2", pa.int64()),
        ]
    ),
    "markets": pa.schema(
        [
            ("ticker", pa.string()), ("status", pa.string()), ("result", pa.string()), ("settlement_e4", pa.int32()),
            ("open_us", pa.int64()), ("close_us", pa.int64()),
        ]
    ),
    "served": pa.schema(
        [("n", pa.int64()), ("ticker", pa.string()), ("connection", pa.string()), ("user_agent", pa.string())]
    ),
    "faults": pa.schema(
        [
            ("id", pa.int64()), ("kind", pa.string()), ("at_us", pa.int64()), ("hits", pa.int64()),
            ("params", pa.string()), ("effects", pa.string()),
        ]
    ),
}  # fmt: skip
ROWS_PER_PART = 100_000


def complete_file(target: Path) -> Path:
    """Return the file that says that a ledger is whole; `target` as for `part_pattern`."""
    if target.suffix == ".parquet":
        return target.with_name(f"{target.stem}-complete.json")
    return target / "complete.json"


def part_pattern(target: Path, table: str) -> str:
    """Return the glob of a table's parts; `target` is a folder, or a prefix that ends in `.parquet`."""
    if target.suffix == ".parquet":
        return str(target.with_name(f"{target.stem}-{table}-*.parquet"))
    return str(target / f"{table}-*.parquet")


class TruthLedger:
    """Buffers rows and writes them as parts in a thread of its own. With no target it only counts."""

    def __init__(self, target: Path | None) -> None:
        self._target = target
        self.deltas: list[tuple[Any, ...]] = []
        self.trades: list[tuple[Any, ...]] = []
        self.tickers: list[tuple[Any, ...]] = []
        self.lifecycle: list[tuple[Any, ...]] = []
        self.served: list[tuple[Any, ...]] = []
        self.n = 0
        self._parts = dict.fromkeys(SCHEMAS, 0)
        self._rows = dict.fromkeys(SCHEMAS, 0)
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="truth")
        self._pending: list[Future[None]] = []
        if target is not None:
            folder = target.parent if target.suffix == ".parquet" else target
            folder.mkdir(parents=True, exist_ok=True)
            complete_file(target).unlink(missing_ok=True)
            for table in SCHEMAS:
                # Parts of an earlier run would be read as this one's.
                pattern = Path(part_pattern(target, table))
                for old in pattern.parent.glob(pattern.name):
                    old.unlink()

    @property
    def enabled(self) -> bool:
        """Whether rows are kept at all."""
        return self._target is not None

    def spill(self, *, everything: bool = False) -> None:
        """Hand full buffers (or all of them) to the writing thread; call often."""
        if self._target is None:
            return
        for table in ("deltas", "trades", "tickers", "lifecycle", "served"):
            rows: list[tuple[Any, ...]] = getattr(self, table)
            if rows and (everything or len(rows) >= ROWS_PER_PART):
                setattr(self, table, [])
                self.write(table, rows)

    def write(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows of any table as its next part (in the background)."""
        if self._target is not None and rows:
            self._pending.append(self._writer.submit(self._write_part, table, rows))

    def flush(self) -> None:
        """Return when every row published so far is in a finished file; raises what the writing thread raised.

        Nothing may be published meanwhile: where something may, spill on the publishing thread and `wait` elsewhere.
        """
        self.spill(everything=True)
        self.wait()

    def wait(self) -> None:
        """Return when everything that was handed to the writing thread is in finished files."""
        with self._lock:
            pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def close(self) -> None:
        """Flush, end the writing thread and say that the ledger is complete."""
        self.flush()
        self._writer.shutdown()
        if self._target is not None:
            path = complete_file(self._target)
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps({"rows": self._rows}) + "\n", encoding="utf-8")
            unfinished.replace(path)

    def _write_part(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        assert self._target is not None  # noqa: S101 - write() checked
        schema = SCHEMAS[table]
        columns = [
            pa.array(column, type=field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        path = Path(part_pattern(self._target, table).replace("*", f"{self._parts[table]:04d}"))
        self._parts[table] += 1
        unfinished = path.with_suffix(".tmp")
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), unfinished, compression="zstd")
        unfinished.replace(path)
        self._rows[table] += len(rows)
