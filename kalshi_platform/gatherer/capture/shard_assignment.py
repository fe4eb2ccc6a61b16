"""Which connection follows the book of which market. Pure.

A market keeps its connection for as long as it is wanted. New ones go to the connection with the most room, and the
number of connections grows with the number of markets. Where that leaves one connection with many more markets than
another, `plan_move` names some to be moved.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOVE_AT_ONCE = 500
"""Markets in one move: one command on each side."""
_UNEVEN = 0.2
"""Part of a connection's limit by which two may differ before markets are moved."""


MOST_CONNECTIONS = 50
"""More than these are not opened, whatever the exchange refuses: an account may have but so many."""
_ANOTHER_LIMIT = 10
"""A connection that is refused at a tenth of the known limit met another one: that of the account, perhaps."""


class Move(NamedTuple):
    """Markets that are to change their connection."""

    tickers: tuple[str, ...]
    source: int
    target: int


class ShardAssignment:
    """Markets by connection, numbered from 0. For one thread."""

    def __init__(self, connections: int, limit: int) -> None:
        """`connections`: at least so many are used; `limit`: markets that one may carry until it is told otherwise."""
        self._limit = limit
        self._is_known = False
        self._limits = [limit] * connections
        self._markets: list[dict[str, int]] = [{} for _ in range(connections)]
        self._home: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._markets)

    def markets(self, number: int) -> Mapping[str, int]:
        """What a connection follows: ticker → exchange_index."""
        return self._markets[number]

    def assign(self, wanted: Mapping[str, int]) -> set[int]:
        """Take the whole set of wanted markets; return the connections whose markets changed."""
        touched: set[int] = set()
        for ticker in self._home.keys() - wanted.keys():
            number = self._home.pop(ticker)
            del self._markets[number][ticker]
            touched.add(number)
        joining = wanted.keys() - self._home.keys()
        if not joining:
            return touched
        self._make_room(len(wanted))
        pairs = zip(self._markets, self._limits, strict=True)
        room = [(len(markets) - limit, number) for number, (markets, limit) in enumerate(pairs)]
        heapq.heapify(room)
        for ticker in sorted(joining):
            taken, number = room[0]
            heapq.heapreplace(room, (taken + 1, number))
            self._put(ticker, wanted[ticker], number)
            touched.add(number)
        return touched

    def handle_refusal(self, number: int, refused: Sequence[str]) -> set[int]:
        """The exchange lets a connection carry no more than the markets it has without the refused ones: they move.

        Return the connections whose markets changed. A connection that may carry nothing, or far less than another one
        could, keeps its markets: others would be refused them, too. So do all when no more of them may be opened.
        """
        holds = len(self._markets[number].keys() - set(refused))
        if holds < max(1, self._limit // _ANOTHER_LIMIT if self._is_known else 1):
            return set()
        self._limits[number] = min(self._limits[number], holds)
        # What one connection is refused, none will get.
        self._limit = min(self._limit, self._limits[number])
        self._is_known = True
        room = self._room_elsewhere(number)
        leaving = [ticker for ticker in refused if ticker in self._markets[number]][:room]
        moving = {ticker: self._markets[number].pop(ticker) for ticker in leaving}
        for ticker in moving:
            del self._home[ticker]
        wanted = {ticker: index for markets in self._markets for ticker, index in markets.items()}
        return {number, *self.assign({**wanted, **moving})} if moving else set()

    def plan_move(self) -> Move | None:
        """Markets whose move makes the connections more even; None while they are even enough."""
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
        """The markets of a move belong to their new connection; those that are not wanted any more to none."""
        for ticker in move.tickers:
            if self._home.get(ticker) == move.source:
                self._put(ticker, self._markets[move.source].pop(ticker), move.target)

    def _put(self, ticker: str, exchange_index: int, number: int) -> None:
        self._markets[number][ticker] = exchange_index
        self._home[ticker] = number

    def _room_elsewhere(self, number: int) -> int:
        """How many markets the other connections may carry more, and those that may yet be opened."""
        pairs = enumerate(zip(self._markets, self._limits, strict=True))
        free = sum(max(0, limit - len(markets)) for other, (markets, limit) in pairs if other != number)
        return free + max(0, MOST_CONNECTIONS - len(self)) * self._limit

    def _make_room(self, count: int) -> None:
        while sum(self._limits) < count and len(self) < MOST_CONNECTIONS:
            self._limits.append(self._limit)
            self._markets.append({})
