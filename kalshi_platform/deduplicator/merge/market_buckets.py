"""Numbers markets as they appear, and puts each into a bucket by a hash of its ticker. Thread-safe.

A part `i/n` of all markets (`market.parts`) is cut again, by the same hash, into buckets that fit into memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.market.parts import WHOLE, MarketPart, hash_ticker

Ints: TypeAlias = npt.NDArray[np.int64]
_ELSEWHERE = -1


class MarketBuckets:
    """`buckets` buckets of the markets of one part; markets have numbers from 0 on, those of other parts too."""

    def __init__(self, buckets: int = 1, part: MarketPart = WHOLE) -> None:
        self.count = buckets
        self.part = part
        self.tickers: list[str] = []
        self._numbers: dict[str, int] = {}
        self._bucket_of = np.empty(0, dtype=np.int64)
        self._lock = threading.Lock()

    def number(self, tickers: Iterable[str]) -> Ints:
        """Return the number of each ticker; new ones get the next."""
        with self._lock:
            found = np.fromiter((self._number(ticker) for ticker in tickers), dtype=np.int64)
            if len(self._bucket_of) < len(self.tickers):
                new = [self._bucket(ticker) for ticker in self.tickers[len(self._bucket_of) :]]
                self._bucket_of = np.concatenate([self._bucket_of, np.array(new, dtype=np.int64)])
        return found

    def number_column(self, column: pa.Array) -> Ints:
        """Return the number of each row of a text column without nulls."""
        encoded = pc.dictionary_encode(column)
        found: Ints = self.number(encoded.dictionary.to_pylist())[encoded.indices.to_numpy(zero_copy_only=False)]
        return found

    def buckets_of(self, numbers: Ints) -> Ints:
        """Return the bucket (0 …) of each market; negative for markets of other parts."""
        found: Ints = self._bucket_of[numbers]
        return found

    def bucket_of(self, ticker: str) -> int:
        """Return the bucket of one market, numbered or not."""
        return self._bucket(ticker)

    def _number(self, ticker: str) -> int:
        number = self._numbers.get(ticker)
        if number is None:
            number = self._numbers[ticker] = len(self.tickers)
            self.tickers.append(ticker)
        return number

    def _bucket(self, ticker: str) -> int:
        hashed = hash_ticker(ticker)
        if hashed % self.part.total != self.part.number - 1:
            return _ELSEWHERE
        return hashed // self.part.total % self.count
