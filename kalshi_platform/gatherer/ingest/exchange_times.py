"""Checks exchange times: those near their receipt are accepted, and those near the message before.

A message dated days before or after its receipt would create useless partitions, and withdraw claims for all the time
between. If a whole stream is as old, the time is right all the same: a recorded capture is replayed, or our clock is
wrong. So a far time is accepted where the message before it in its stream had about the same, or where there was none
before; an isolated one is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalshi_platform.market.records import NO_STREAM, BookDelta, Record, TickerUpdate, Trade
from kalshi_platform.storage.partitions import PartitionBounds

Dated = BookDelta | Trade | TickerUpdate
_STREAMS_KEPT = 10_000
_US = timedelta(microseconds=1)


class ExchangeTimes:
    """Keeps the last exchange time of each stream. For one thread, which passes every row in order."""

    def __init__(self, bounds: PartitionBounds) -> None:
        self._behind_us = bounds.behind // _US
        self._ahead_us = bounds.ahead // _US
        self._last_us: dict[int, int] = {}
        # Stream → number of its last row, where that was isolated: it is checked again when its batch is repeated.
        self._alone: dict[int, int] = {}

    def are_all_near(self, tables: Mapping[str, pa.Table]) -> bool:
        """Return whether every row is near its receipt, and if so keep their times; if not, call `accepts` for each."""
        columns = [
            tuple(_numbers(table, name) for name in ("exchange_ts", "received_at", "stream_id"))
            for table in tables.values()
        ]
        for exchange_us, received_us, _ in columns:
            late_us = received_us - exchange_us
            if late_us.max() > self._behind_us or -late_us.min() > self._ahead_us:
                return False
        for exchange_us, _, streams in columns:
            found, places = np.unique(streams[::-1], return_index=True)
            last_us = exchange_us[::-1][places]
            self._last_us.update(zip(found.tolist(), last_us.tolist(), strict=True))
        self._drop_oldest()
        return True

    def accepts(self, record: Dated) -> bool:
        """Return whether a row's exchange time is accepted; it is kept in any case."""
        time_us, stream = record.exchange_ts_us, record.stream_id
        last_us = self._last_us.get(stream)
        if self._alone.get(stream) == record.seq and last_us == time_us:
            return False
        self._last_us[stream] = time_us
        self._drop_oldest()
        if stream == NO_STREAM or last_us is None or self._is_near(time_us, record.received_at_ns // 1_000):
            return True
        if self._is_near(time_us, last_us):
            return True
        self._alone[stream] = record.seq
        return False

    def observe(self, records: Iterable[Record]) -> None:
        """Keep the times of rows that were checked before, in an earlier process."""
        for record in records:
            if isinstance(record, Dated):
                self.accepts(record)

    def _is_near(self, time_us: int, other_us: int) -> bool:
        return -self._behind_us <= time_us - other_us <= self._ahead_us

    def _drop_oldest(self) -> None:
        while len(self._last_us) > _STREAMS_KEPT:
            forgotten = next(iter(self._last_us))
            del self._last_us[forgotten]
            self._alone.pop(forgotten, None)


def _numbers(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    return np.asarray(table.column(column).cast(pa.int64()), dtype=np.int64)
