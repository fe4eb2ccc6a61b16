"""Reads the raw data sets of a lake as recorded messages in the order of time, in bounded memory.

Shares no code with the platform's reader: it finds an hour's files by their manifest, and reads them by Arrow, so that
neither hides a mistake of the other. An hour is read in slices of time of about `ROWS_PER_SLICE` deltas; rows of one
market and moment come in the order of their stream.

Books begin as the newest checkpoint before the range plus the deltas up to it. A market without one begins with its
first checkpoint in an hour minus the deltas before it. At each further checkpoint the book is sent again where the
deltas did not lead to it: there the record has a hole.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from kalshi_platform.errors import ConfigurationError, LakeUnavailable
from kalshi_platform.lab.simulator.engine.book import NO, ONE_DOLLAR_E4, SIDES, YES
from kalshi_platform.lab.simulator.engine.payloads import (
    DOLLARS,
    count_text,
    delta_body,
    delta_head,
    encode,
    time_text,
    trade,
)
from kalshi_platform.lab.simulator.engine.universe import Trade
from kalshi_platform.lab.simulator.replay.recorded import CHANNELS, Json, Recorded, StartState

_log = logging.getLogger(__name__)

ROWS_PER_SLICE = 100_000
BATCH_ROWS = 32_768
HOUR_US = 3_600_000_000
MS_US = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DELTAS, CHECKPOINTS, TRADES, TICKERS, LIFECYCLE = (
    "orderbook_deltas", "book_checkpoints", "trades", "tickers", "market_lifecycle",
)  # fmt: skip
TIMES = {
    DELTAS: "exchange_ts", CHECKPOINTS: "checkpoint_ts", TRADES: "exchange_ts", TICKERS: "exchange_ts",
    LIFECYCLE: "received_at",
}  # fmt: skip
MARKET_TABLES = (CHECKPOINTS, DELTAS, TRADES, TICKERS)
KINDS = {"event_created": "event_lifecycle", "event_fee_update": "event_fee_update"}
LEVEL_COLUMNS = ("yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2")
Levels: TypeAlias = dict[tuple[int, int], int]
"""(side, price_e4) → 1/100 contracts."""


class Checkpoint(NamedTuple):
    """A book at the end of a microsecond."""

    us: int
    ticker: str
    levels: Levels


class LakeSource:
    """The closed hours of [from_us, to_us). Raises ConfigurationError when the lake has no deltas there.

    Raises LakeUnavailable, also while it is read. S3 is reached as Arrow does it, not by the lake's settings.
    """

    channels = frozenset(CHANNELS[kind] for kind in ("orderbook_delta", "trade", "ticker", "market_lifecycle_v2"))

    def __init__(self, root: str, from_us: int, to_us: int, rows_per_slice: int = ROWS_PER_SLICE) -> None:
        """`root`: a folder, or a URL of a file or of S3, which Arrow takes with its own parameters."""
        if to_us <= from_us:
            raise ConfigurationError(["a replay's --to must lie after its --from"])
        try:
            files, folder = fs.FileSystem.from_uri(root) if "://" in root else (fs.LocalFileSystem(), root)
        except (pa.ArrowInvalid, OSError) as problem:
            raise ConfigurationError([f"{_shown(root)} is no lake that can be opened: {problem}"]) from problem
        self._hours = _Hours(files, folder.rstrip("/"))
        self._from_us, self._to_us = from_us, to_us
        self._rows_per_slice = rows_per_slice
        self._starts = range(from_us // HOUR_US * HOUR_US, to_us, HOUR_US)
        missing = [hour for hour in self._starts if self._hours.files(DELTAS, hour) is None]
        if len(missing) == len(self._starts):
            raise ConfigurationError([f"{_shown(root)} has no closed hour of raw/{DELTAS} in the range"])
        for hour in missing:
            _log.warning("replay_hour_missing hour=%s", _moment(hour).isoformat())
        self._missing = len(missing)
        self._heads: dict[str, tuple[str, str]] = {}
        self._known: set[str] = set()
        """Markets whose book is known at the place that is played."""

    def describe(self) -> Json:
        """Return how many hours there are, and how many of them lack."""
        return {"hours": len(self._starts), "missing_hours": self._missing}

    def start(self) -> StartState:
        """Return every market of the range, and the books at its beginning."""
        tickers = sorted({ticker for hour in self._starts for ticker in self._tickers(hour)})
        first = self._starts[0]
        books = self._before(first)
        books.update(self._first_books(first, self._from_us, books.keys()))
        self._known.update(books)
        return StartState(
            {ticker: self._head(ticker)[1] for ticker in {*tickers, *books}},
            self._from_us,
            {ticker: self._snapshot(ticker, levels) for ticker, levels in books.items()},
        )

    def messages(self) -> Iterator[Recorded]:
        """Yield everything in the order of time; of one microsecond, changes of books before the books."""
        for hour in self._starts:
            low, high = max(hour, self._from_us), min(hour + HOUR_US, self._to_us)
            if hour != self._starts[0]:
                books = self._first_books(hour, low, self._known)
                self._known.update(books)
                yield from (self._book(Checkpoint(low, ticker, levels)) for ticker, levels in books.items() if levels)
            slices = max(1, -(-self._hours.rows(DELTAS, hour) // self._rows_per_slice))
            width = max(MS_US, -(-HOUR_US // slices // MS_US) * MS_US)
            edges = [low, *(edge for edge in range(hour + width, hour + HOUR_US, width) if low < edge < high), high]
            for begin, end in pairwise(edges):
                yield from self._slice(hour, begin, end)

    # --- the state before ----------------------------------------------------------------------------------------

    def _before(self, hour: int) -> dict[str, Levels]:
        """Return books at the range's beginning, of markets with a checkpoint before it."""
        latest: dict[str, Checkpoint] = {}
        for each in (hour - HOUR_US, hour):
            for checkpoint in self._checkpoints(each, each, min(each + HOUR_US, self._from_us)):
                latest[checkpoint.ticker] = checkpoint
        if not latest:
            return {}
        low = min(checkpoint.us for checkpoint in latest.values()) + 1
        for each in (hour - HOUR_US, hour):
            for us, ticker, side, price, change in self._deltas(each, low, self._from_us):
                known = latest.get(ticker)
                if known is not None and us > known.us:
                    _add(known.levels, (side, price), change)
        return {ticker: checkpoint.levels for ticker, checkpoint in latest.items()}

    def _first_books(self, hour: int, low: int, known: Sequence[str] | set[str] | Any) -> dict[str, Levels]:
        """Return books at `low` of an hour's markets that are not known: their first checkpoint minus what led to it.

        A level that would be below zero says that the record before the checkpoint has a hole; then the book is empty.
        """
        firsts: dict[str, Checkpoint] = {}
        for checkpoint in self._checkpoints(hour, low, hour + HOUR_US):
            if checkpoint.ticker not in known:
                firsts.setdefault(checkpoint.ticker, checkpoint)
        if not firsts:
            return {}
        high = max(checkpoint.us for checkpoint in firsts.values()) + 1
        for us, ticker, side, price, change in self._deltas(hour, low, high, list(firsts)):
            first = firsts[ticker]
            if us <= first.us:
                _add(first.levels, (side, price), -change)
        return {
            ticker: {} if any(size < 0 for size in first.levels.values()) else first.levels
            for ticker, first in firsts.items()
        }

    def _tickers(self, hour: int) -> set[str]:
        found: set[str] = set()
        for table in MARKET_TABLES:
            for batch in self._hours.batches(table, hour, ["ticker"]):
                found.update(pc.unique(batch.column("ticker")).to_pylist())
        return found

    # --- messages ------------------------------------------------------------------------------------------------

    def _slice(self, hour: int, low: int, high: int) -> Iterator[Recorded]:
        parts = (
            self._lifecycle(hour, low, high),
            (self._delta(row) for row in self._deltas(hour, low, high)),
            (self._book(each) for each in self._checkpoints(hour, low, high)),
            self._trades(hour, low, high),
            self._ticker_updates(hour, low, high),
        )
        # Stable: at one time the parts follow each other as they stand here.
        return merge(*parts, key=lambda message: message.us)

    def _deltas(
        self, hour: int, low: int, high: int, tickers: Sequence[str] | None = None
    ) -> Iterator[tuple[int, str, int, int, int]]:
        """Yield changes by time, those of one time in the order of their stream.

        What several streams brought of one time has no order: there what fills a level comes before what takes away.
        """
        names = ("exchange_ts", "stream_id", "seq", "ticker", "side", "price_e4", "delta_e2")
        rows = self._hours.sorted_rows(DELTAS, hour, names, low, high, tickers, keys=names[:3])
        for us, group in groupby(rows, key=itemgetter(0)):
            together = list(group)
            if len(together) > 1 and len({stream for _, stream, *_ in together}) > 1:
                together.sort(key=lambda row: row[-1] < 0)
            for _, _, _, ticker, side, price, change in together:
                yield us, ticker, SIDES.index(side), price, change

    def _checkpoints(self, hour: int, low: int, high: int) -> Iterator[Checkpoint]:
        names = ("checkpoint_ts", "ticker", *LEVEL_COLUMNS)
        for us, ticker, *lists in self._hours.sorted_rows(CHECKPOINTS, hour, names, low, high):
            levels = {
                (side, price): size for side in (YES, NO) for price, size in zip(*lists[2 * side :][:2], strict=True)
            }
            yield Checkpoint(us, ticker, levels)

    def _delta(self, row: tuple[int, str, int, int, int]) -> Recorded:
        us, ticker, side, price, change = row
        body = delta_body(self._head(ticker)[0], us, side, price, change)
        return _message("orderbook_delta", ticker, us, body, change=(side, price, change))

    def _book(self, checkpoint: Checkpoint) -> Recorded:
        msg = self._snapshot(checkpoint.ticker, checkpoint.levels)
        return _message("orderbook_snapshot", checkpoint.ticker, checkpoint.us, encode(msg), msg)

    def _trades(self, hour: int, low: int, high: int) -> Iterator[Recorded]:
        names = (
            "exchange_ts", "ticker", "trade_id", "yes_price_e4", "count_e2", "taker_side", "is_block_trade",
            "created_time",
        )  # fmt: skip
        rows = self._hours.sorted_rows(TRADES, hour, names, low, high, optional=("trade_id_text",))
        timed = [
            (us if created is None else created, ticker, _trade_id(*ids), price, count, taker, is_block)
            for us, ticker, trade_id, price, count, taker, is_block, created, *text in rows
            for ids in [(trade_id, *text)]
        ]
        for us, ticker, trade_id, price, count, taker, is_block in sorted(timed, key=itemgetter(0)):
            body = trade(Trade(us, trade_id, ticker, price, count, SIDES.index(taker), bool(is_block)))
            yield _message("trade", ticker, us, body, json.loads(body))

    def _ticker_updates(self, hour: int, low: int, high: int) -> Iterator[Recorded]:
        names = (
            "exchange_ts", "ticker", "price_e4", "yes_bid_e4", "yes_ask_e4", "volume_e2", "open_interest_e2",
            "dollar_volume", "dollar_open_interest", "yes_bid_size_e2", "yes_ask_size_e2", "last_trade_size_e2",
        )  # fmt: skip
        for us, ticker, *values in self._hours.sorted_rows(TICKERS, hour, names, low, high):
            yield _message("ticker", ticker, us, _ticker_body(ticker, self._head(ticker)[1], us, values))

    def _lifecycle(self, hour: int, low: int, high: int) -> Iterator[Recorded]:
        names = ("received_at", "ticker", "event_type", "content")
        for us, ticker, event_type, content in self._hours.sorted_rows(LIFECYCLE, hour, names, low, high):
            msg = json.loads(content)
            is_combo = ticker.startswith("KXMVE")
            kind = KINDS.get(event_type, "multivariate_market_lifecycle" if is_combo else "market_lifecycle_v2")
            yield _message(kind, ticker, us, encode(msg), msg)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _head(self, ticker: str) -> tuple[str, str]:
        """Return the beginning of a market's deltas, and its id, which the lake does not have."""
        found = self._heads.get(ticker)
        if found is None:
            market_id = str(uuid.uuid5(uuid.NAMESPACE_OID, ticker))
            found = self._heads[ticker] = delta_head(ticker, market_id), market_id
        return found

    def _snapshot(self, ticker: str, levels: Levels) -> Json:
        msg: Json = {"market_ticker": ticker, "market_id": self._head(ticker)[1]}
        sides: dict[int, list[list[str]]] = defaultdict(list)
        for (side, price), size in sorted(levels.items()):
            if size > 0:
                sides[side].append([DOLLARS[price], count_text(size)])
        return msg | {f"{SIDES[side]}_dollars_fp": rows for side, rows in sides.items()}


class _Hours:
    """Finds and reads the files of closed hours."""

    def __init__(self, files: fs.FileSystem, root: str) -> None:
        self._files = files
        self._root = root
        self._manifests: dict[tuple[str, int], Mapping[str, Any] | None] = {}

    def files(self, table: str, hour: int) -> list[str] | None:
        """Return the files of a closed hour; None where there is none."""
        manifest = self._manifest(table, hour)
        folder = self._folder(table, hour)
        return None if manifest is None else [f"{folder}/{each['name']}" for each in manifest["files"]]

    def rows(self, table: str, hour: int) -> int:
        """Return how many rows a closed hour has; 0 where there is none."""
        manifest = self._manifest(table, hour)
        return 0 if manifest is None else int(manifest["rows"])

    def batches(
        self, table: str, hour: int, names: Sequence[str], where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield columns of an hour in the order of its files, some thousand rows at a time."""
        for path in self.files(table, hour) or ():
            with _translated(path):
                data = ds.dataset(path, format="parquet", filesystem=self._files)
                columns = [name for name in names if name in data.schema.names]
                # Little is read ahead: memory counts more than a moment.
                yield from data.scanner(
                    columns=columns, filter=where, batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=0,
                    use_threads=False,
                ).to_batches()  # fmt: skip

    def sorted_rows(
        self,
        table: str,
        hour: int,
        names: Sequence[str],
        low: int,
        high: int,
        tickers: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        keys: Sequence[str] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of [low, high) by time (the first of `names`, in µs), or by `keys`; equal ones as in the file."""
        time = TIMES[table]
        zone = pa.timestamp("us", "UTC")
        where = (pc.field(time) >= pa.scalar(low, zone)) & (pc.field(time) < pa.scalar(high, zone))
        if tickers is not None:
            where &= pc.field("ticker").isin(list(tickers))
        batches = [batch for batch in self.batches(table, hour, [*names, *optional], where) if batch.num_rows]
        if not batches:
            return
        rows = pa.Table.from_batches(batches)
        rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in keys or (time,)]))
        columns = [_values(rows.column(name)) for name in (*names, *optional) if name in rows.schema.names]
        yield from zip(*columns, strict=True)

    def _manifest(self, table: str, hour: int) -> Mapping[str, Any] | None:
        key = table, hour
        if key not in self._manifests:
            self._manifests[key] = self._read_manifest(table, hour)
        return self._manifests[key]

    def _read_manifest(self, table: str, hour: int) -> Mapping[str, Any] | None:
        path = f"{self._folder(table, hour)}/_manifest.json"
        try:
            with _translated(path), self._files.open_input_stream(path) as stream:
                content: Mapping[str, Any] = json.loads(stream.read())
        except FileNotFoundError:
            return None
        return content if content.get("state") == "closed" else None

    def _folder(self, table: str, hour: int) -> str:
        return f"{self._root}/raw/{table}/{_moment(hour):date=%Y-%m-%d/hour=%H}"


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LakeUnavailable(f"{path}: {error}") from error


def _shown(root: str) -> str:
    """The root without a login: in Arrow's URLs of S3 it is the key and its secret."""
    scheme, is_url, rest = root.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if is_url else root


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        return list(column.cast(pa.int64()).to_pylist())
    return list(column.to_pylist())


def _message(
    kind: str, ticker: str, us: int, body: bytes, msg: Json | None = None, change: tuple[int, int, int] | None = None
) -> Recorded:
    return Recorded(us * 1_000, kind, CHANNELS[kind], ticker, us, body, change, msg or {})


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def _add(levels: Levels, place: tuple[int, int], change: int) -> None:
    size = levels.get(place, 0) + change
    if size:
        levels[place] = size
    else:
        levels.pop(place, None)


def _trade_id(value: object, text: str | None = None) -> str:
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value))
    return str(value if value is not None else text or "")


def _ticker_body(ticker: str, market_id: str, us: int, values: Sequence[int | None]) -> bytes:
    price, bid, ask, volume, interest, dollars, dollar_interest, bid_size, ask_size, last_size = values
    msg: Json = {"market_id": market_id, "market_ticker": ticker}
    for name, price_e4 in (("price_dollars", price), ("yes_bid_dollars", bid), ("yes_ask_dollars", ask)):
        if price_e4 is not None and 0 <= price_e4 <= ONE_DOLLAR_E4:
            msg[name] = DOLLARS[price_e4]
    counts = (
        ("volume_fp", volume), ("open_interest_fp", interest), ("yes_bid_size_fp", bid_size),
        ("yes_ask_size_fp", ask_size), ("last_trade_size_fp", last_size),
    )  # fmt: skip
    msg.update({name: count_text(count) for name, count in counts if count is not None})
    whole = (("dollar_volume", dollars), ("dollar_open_interest", dollar_interest))
    msg.update({name: count for name, count in whole if count is not None})
    return encode({**msg, "ts": us // 1_000_000, "ts_ms": us // 1_000, "time": time_text(us)})
