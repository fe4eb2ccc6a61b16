"""Assigns the books of markets to connections. Pure.

A market keeps its connection for as long as it is wanted. New ones go to the connection with the most room, and the
number of connections grows with the number of markets. Where that leaves one connection with many more markets than
another, `plan_move` names some to be moved.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOVE_AT_ONCE = 500
"""Most markets in one move: one command on each side."""
_UNEVEN = 0.2
"""Part of a connection's limit by which two may differ before markets are moved."""


MOST_CONNECTIONS = 50
"""Most connections, however many markets are refused: the exchange limits the connections of an account."""
_ANOTHER_LIMIT = 10
"""A refusal below a tenth of the known limit has another reason: the account's limit, perhaps."""


class Move(NamedTuple):
    """Names the markets that are to change their connection."""

    tickers: tuple[str, ...]
    source: int
    target: int


class ShardAssignment:
    """Keeps the markets of each connection, numbered from 0. For one thread."""

    def __init__(self, connections: int, limit: int) -> None:
        """Use at least `connections`, each with at most `limit` markets until the exchange refuses some."""
        self._limit = limit
        self._is_known = False
        self._limits = [limit] * connections
        self._markets: list[dict[str, int]] = [{} for _ in range(connections)]
        self._connection_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._markets)

    def markets(self, number: int) -> Mapping[str, int]:
        """Return the markets of a connection: ticker → exchange_index."""
        return self._markets[number]

    def assign(self, wanted: Mapping[str, int]) -> set[int]:
        """Apply the whole set of wanted markets; return the connections whose markets changed."""
        changed: set[int] = set()
        for ticker in self._connection_of.keys() - wanted.keys():
            number = self._connection_of.pop(ticker)
            del self._markets[number][ticker]
            changed.add(number)
        joining = wanted.keys() - self._connection_of.keys()
        if not joining:
            return changed
        self._make_room(len(wanted))
        pairs = zip(self._markets, self._limits, strict=True)
        room = [(len(markets) - limit, number) for number, (markets, limit) in enumerate(pairs)]
        heapq.heapify(room)
        for ticker in sorted(joining):
            load, number = room[0]
            heapq.heapreplace(room, (load + 1, number))
            self._place(ticker, wanted[ticker], number)
            changed.add(number)
        return changed

    def handle_refusal(self, number: int, refused: Sequence[str]) -> set[int]:
        """Move the refused markets of a full connection to others; return the connections whose markets changed.

        The connection's limit becomes what it carries without them. A connection that may carry nothing, or far less
        than another one could, keeps its markets: others would be refused them, too. So do all connections when no more
        may be opened.
        """
        carried = len(self._markets[number].keys() - set(refused))
        if carried < max(1, self._limit // _ANOTHER_LIMIT if self._is_known else 1):
            return set()
        self._limits[number] = min(self._limits[number], carried)
        # A limit of one connection is assumed for all.
        self._limit = min(self._limit, self._limits[number])
        self._is_known = True
        room = self._room_elsewhere(number)
        leaving = [ticker for ticker in refused if ticker in self._markets[number]][:room]
        moving = {ticker: self._markets[number].pop(ticker) for ticker in leaving}
        for ticker in moving:
            del self._connection_of[ticker]
        wanted = {ticker: index for markets in self._markets for ticker, index in markets.items()}
        return {number, *self.assign({**wanted, **moving})} if moving else set()

    def plan_move(self) -> Move | None:
        """Return a move that makes the connections more even; None while they are even enough."""
        loads = [len(markets) for markets in self._markets]
        source = max(range(len(loads)), key=loads.__getitem__)
        target = min(range(len(loads)), key=loads.__getitem__)
        excess, room = loads[source] - loads[target], self._limits[target] - loads[target]
        if excess <= max(2, int(_UNEVEN * self._limit)) or room <= 0:
            return None
        count = min(MOVE_AT_ONCE, excess // 2, room)
        tickers = tuple(ticker for ticker, _ in zip(self._markets[source], range(count), strict=False))
        return Move(tickers, source, target)

    def apply_move(self, move: Move) -> None:
        """Assign the markets of a move to their new connection, without those that are no longer wanted."""
        for ticker in move.tickers:
            if self._connection_of.get(ticker) == move.source:
                self._place(ticker, self._markets[move.source].pop(ticker), move.target)

    def _place(self, ticker: str, exchange_index: int, number: int) -> None:
        self._markets[number][ticker] = exchange_index
        self._connection_of[ticker] = number

    def _room_elsewhere(self, number: int) -> int:
        """Return how many more markets the other connections may carry, those that may be opened included."""
        pairs = enumerate(zip(self._markets, self._limits, strict=True))
        free = sum(max(0, limit - len(markets)) for other, (markets, limit) in pairs if other != number)
        return free + max(0, MOST_CONNECTIONS - len(self)) * self._limit

    def _make_room(self, count: int) -> None:
        while sum(self._limits) < count and len(self) < MOST_CONNECTIONS:
            self._limits.append(self._limit)
            self._markets.append({})
