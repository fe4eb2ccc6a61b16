"""Followed markets whose next snapshot must show that unknown messages changed no book: asked for bit by bit. Pure.

Nothing is lost yet, so nothing is in a hurry: what it costs must stay small beside the data, however many markets a
connection has and however often such messages come.
"""

from __future__ import annotations

from collections.abc import Iterable


class Proofs:
    """Each market waits for a snapshot and is asked for again while it gets none; never twice within a while."""

    def __init__(self, every_ns: int, again_ns: int) -> None:
        """One batch is asked for in `every_ns`, one market once in `again_ns`."""
        self._every_ns = every_ns
        self._again_ns = again_ns
        self._waiting: dict[str, None] = {}
        self._asked_ns: dict[str, int] = {}
        self._last_ns: int | None = None

    def want(self, tickers: Iterable[str]) -> None:
        """These markets wait for their next snapshot."""
        self._waiting.update(dict.fromkeys(tickers))

    def came(self, ticker: str) -> None:
        """The market has a new snapshot."""
        self._waiting.pop(ticker, None)

    def forget(self, ticker: str) -> None:
        """The market is not followed any more."""
        self._waiting.pop(ticker, None)
        self._asked_ns.pop(ticker, None)

    def due(self, now_ns: int, most: int) -> tuple[str, ...]:
        """The markets to ask for now, at most so many; they count as asked."""
        if not self._waiting or (self._last_ns is not None and now_ns - self._last_ns < self._every_ns):
            return ()
        long_ago = now_ns - self._again_ns
        due: list[str] = []
        for ticker in self._waiting:
            if self._asked_ns.get(ticker, long_ago) <= long_ago:
                due.append(ticker)
                if len(due) >= most:
                    break
        if due:
            self._last_ns = now_ns
            self._asked_ns.update(dict.fromkeys(due, now_ns))
        return tuple(due)
