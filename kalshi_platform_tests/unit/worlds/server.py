"""The exchange's end of one connection: commands in, frames out, numbered per sid. Truthful, but it may lag behind."""

from __future__ import annotations

import json
import random
from collections import Counter

from kalshi_platform_tests.unit.worlds.venue import Change, Level, Shape, Venue


class Server:
    """One connection. `out` holds what was sent: (frame, whether it carries a number)."""

    def __init__(self, venue: Venue, pick: random.Random, shape: Shape, published: int) -> None:
        """`published`: how many deltas the venue has published; the server may begin behind them."""
        self._pick = pick
        self._shape = shape
        self._order = venue.order()
        start = max(0, published - pick.randint(0, shape.lag))
        self._position = next((at for at, each in enumerate(self._order) if each.place >= start), len(self._order))
        self._books: dict[str, Counter[Level]] = {}
        for change in self._order[: self._position]:
            self._book(change)
        self._acks_take_numbers = pick.random() < 0.5
        self._acks: list[int] = []
        self._ack_after = 0
        self._alive = False
        self._sid = self._seq = 0
        self._markets: set[str] = set()
        self.out: list[tuple[bytes, bool]] = []

    def go_on(self, published: int, most: int) -> None:
        """Send what is subscribed of the next deltas: of those published, at most so many."""
        for _ in range(most):
            if self._position >= len(self._order) or self._order[self._position].place >= published:
                return
            change = self._order[self._position]
            self._position += 1
            self._book(change)
            if change.ticker in self._markets:
                if self._shape.odd and self._pick.random() < self._shape.odd:
                    self._odd("harmless", self._pick.choice((None, None, change.ticker, "Q")))
                if self._shape.hidden and change.size > 0 and self._pick.random() < self._shape.hidden:
                    self._odd("hiding", self._pick.choice((None, change.ticker)))
                else:
                    self.out.append((change.frame(self._sid, self._number()), True))
            self._acknowledge()

    def command(self, raw: bytes) -> None:
        """Do what the client asks."""
        command = json.loads(raw)
        number, params = command["id"], command["params"]
        tickers = params["market_tickers"]
        if command["cmd"] == "subscribe":
            fresh = [ticker for ticker in tickers if ticker not in self._markets]
            self._markets.update(tickers)
            if self._alive:
                self._ok(number)
            else:
                self._alive, self._sid, self._seq = True, self._sid + 1, 0
                text = f'{{"type":"subscribed","id":{number},"msg":{{"channel":"orderbook_delta","sid":{self._sid}}}}}'
                self.out.append((text.encode(), False))
            self._snapshots(fresh)
        elif not self._alive or params["sids"] != [self._sid]:
            self.out.append((f'{{"type":"error","id":{number},"msg":{{"code":7,"msg":"no"}}}}'.encode(), False))
        elif params["action"] == "get_snapshot":
            self._snapshots(tickers, number)
        elif params["action"] == "add_markets":
            fresh = [ticker for ticker in tickers if ticker not in self._markets]
            self._markets.update(fresh)
            self._ok(number)
            self._snapshots(fresh)
        else:
            # The market stops at once; that it did is said later, other markets go on meanwhile.
            self._markets.difference_update(tickers)
            self._acks.append(number)
            self._ack_after = self._pick.choice((0, 3, 10, 20))

    def end(self) -> None:
        """End the subscription."""
        if self._alive:
            text = f'{{"type":"error","sid":{self._sid},"seq":{self._number()},"msg":{{"code":25,"msg":"over"}}}}'
            self.out.append((text.encode(), False))
            self._alive = False
            self._markets.clear()
            self._acks.clear()

    def _book(self, change: Change) -> None:
        self._books.setdefault(change.ticker, Counter())[change.side, change.price] += change.size

    def _number(self) -> int:
        self._seq += 1
        return self._seq

    def _acknowledge(self) -> None:
        if self._acks and self._ack_after <= 0:
            self._ok(self._acks.pop(0))
        self._ack_after -= 1

    def quiet(self) -> None:
        """A step of time without deltas: late answers come all the same."""
        self._acknowledge()

    def _odd(self, kind: str, ticker: str | None) -> None:
        """A message that no client knows."""
        named = "" if ticker is None else f'"market_ticker":"{ticker}"'
        text = f'{{"type":"{kind}","sid":{self._sid},"seq":{self._number()},"msg":{{{named}}}}}'
        self.out.append((text.encode(), True))

    def _ok(self, number: int) -> None:
        seq = f'"seq":{self._number()},' if self._acks_take_numbers else ""
        text = f'{{"type":"ok","id":{number},"sid":{self._sid},{seq}"msg":{{}}}}'
        self.out.append((text.encode(), self._acks_take_numbers))

    def _snapshots(self, tickers: list[str], number: int | None = None) -> None:
        for ticker in tickers:
            asked = "" if number is None else f'"id":{number},'
            sides = "".join(self._side(ticker, side) for side in ("yes", "no"))
            text = (
                f'{{"type":"orderbook_snapshot",{asked}"sid":{self._sid},"seq":{self._number()},'
                f'"msg":{{"market_ticker":"{ticker}","market_id":"m"{sides}}}}}'
            )
            self.out.append((text.encode(), True))

    def _side(self, ticker: str, side: str) -> str:
        """One side of a book; a side without orders is left out."""
        book = self._books.get(ticker, Counter())
        levels = [
            f'["0.{price:04d}","{size // 100}.{size % 100:02d}"]'
            for (of, price), size in sorted(book.items())
            if of == side and size
        ]
        return f',"{side}_dollars_fp":[{",".join(levels)}]' if levels else ""
