"""The control channel of a simulated exchange that runs as a child, as a client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from kalshi_platform.errors import ExchangeUnavailable
from kalshi_platform.surroundings import loopback

BOOK_CHANNEL = "orderbook_delta"
FEED_CHANNELS = frozenset({"trade", "ticker", "market_lifecycle_v2"})
TIMEOUT_S = 30.0


class SimulatorClient:
    """Asks and drives a running simulated exchange. Raises ExchangeUnavailable when it does not answer."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url.rstrip("/")

    def state(self) -> dict[str, Any]:
        """Connections, counts, clock; see the simulator's control channel."""
        return self._ask("GET", "/state")

    def faults(self) -> list[dict[str, Any]]:
        """Every fault with its effects."""
        found: list[dict[str, Any]] = self._ask("GET", "/faults")["faults"]
        return found

    def fault(self, kind: str, **params: Any) -> dict[str, Any]:
        """Arm a fault and return it."""
        return self._ask("POST", "/faults", {"kind": kind, **params})

    def rate(self, rate: float, *, backpressure: bool | None = None) -> None:
        """Change the messages per second; 0 pauses generation. `backpressure`: whether it waits for slow readers."""
        self._ask("POST", "/rate", {"rate": rate} | ({} if backpressure is None else {"backpressure": backpressure}))

    def scenario(self, **values: float) -> None:
        """Change how markets come and go: fields of the simulator's `ScenarioSettings`."""
        self._ask("POST", "/scenario", values)

    def create_market(self) -> str:
        """Announce a new event with one market; return its ticker."""
        created = self._ask("POST", "/markets", {"action": "create", "open_in_s": 3.0, "close_in_s": 3_600.0})
        return str(created["ticker"])

    def list_market(self, ticker: str, life_s: float) -> None:
        """Announce a market under a name of our own, open at once, in which orders move until it closes."""
        self._ask(
            "POST",
            "/markets",
            {"action": "create", "ticker": ticker, "open_in_s": 0.0, "close_in_s": life_s, "visible_in_s": 0.0},
        )

    def publish(self, items: list[dict[str, Any]]) -> list[int]:
        """Publish given messages in order; return their exchange times in µs."""
        times: list[int] = self._ask("POST", "/publish", {"items": items})["exchange_ts_us"]
        return times

    def clear(self, kind: str) -> None:
        """End the faults of a kind."""
        self._ask("DELETE", f"/faults?kind={kind}")

    def following(self, gatherer: str) -> bool:
        """Whether this gatherer is connected, subscribed, and was sent every book that it subscribed to."""
        return _books_held(self.state(), gatherer) is not None

    def books_held(self, gatherer: str) -> int:
        """Books that it follows, on all of its connections; 0 unless it was sent all of them, and hears the feeds."""
        return _books_held(self.state(), gatherer) or 0

    def connections_of(self, gatherer: str) -> int:
        """Living connections under this gatherer's name."""
        return sum(f"({gatherer} " in connection["user_agent"] for connection in self.state()["connections"])

    def clock_us(self) -> int:
        """The exchange's clock."""
        return int(self.state()["clock_us"])

    def holding_all(self, gatherer: str) -> bool:
        """Whether it also subscribed to the book of every market in which orders move, or that is about to open."""
        state = self.state()
        held = _books_held(state, gatherer)
        return held is not None and held >= state["quoting"] + state["markets"].get("initialized", 0)

    def drained(self) -> bool:
        """Whether every connection's bytes were taken by its reader."""
        return all(connection["waiting_bytes"] == 0 for connection in self.state()["connections"])

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self._url}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with loopback.open(request, timeout=TIMEOUT_S) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            raise ExchangeUnavailable(f"the simulated exchange refused {method} {path}: {detail}") from error
        except (OSError, ValueError) as error:
            raise ExchangeUnavailable(f"the simulated exchange does not answer {method} {path}: {error}") from error


def _books_held(state: Mapping[str, Any], gatherer: str) -> int | None:
    """How many books it follows on all of its connections; None unless it was sent all, and hears the feeds."""
    held, complete, feeds = 0, True, set()
    for connection in state["connections"]:
        if connection["stalled"] or f"({gatherer} " not in connection["user_agent"]:
            continue
        for each in connection["subscriptions"]:
            if each["channel"] == BOOK_CHANNEL and each["markets"]:
                complete = complete and each["snapshots"] >= each["markets"]
                held += each["markets"]
            feeds.add(each["channel"])
    return held if held and complete and feeds >= FEED_CHANNELS else None
