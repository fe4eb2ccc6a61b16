"""The same seed and the same times give the same stream, whatever is subscribed and whenever one looks."""

from __future__ import annotations

import json
from pathlib import Path

from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.subscriptions import Session
from kalshi_platform.lab.simulator.settings import ScenarioSettings, SimulatorSettings
from kalshi_platform_tests.unit.lab.simulator.helpers import START_US

BUSY = ScenarioSettings(
    births_per_minute=30, open_after_s=0.5, life_s=4, determine_after_s=1, settle_after_s=1, mischief_per_minute=60
)


class SteppedClock:
    """A clock that stands still until it is told the time."""

    def __init__(self) -> None:
        self.ns = START_US * 1_000

    def now_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def pace(self) -> float:
        return 1.0


def stream(seed: int, *, seconds: float = 20.0) -> list[bytes]:
    """Every frame that one subscriber of everything is sent."""
    clock = SteppedClock()
    settings = SimulatorSettings(key_file=Path("unused"), markets=30, rate=500, seed=seed, scenario=BUSY)
    exchange = Exchange(settings, clock)  # type: ignore[arg-type]
    session = Session(exchange, exchange.router)
    tickers = [market.ticker for market in exchange.venue.quoting]
    for number, params in enumerate(
        (
            {"channels": ["orderbook_delta"], "market_tickers": tickers},
            {"channels": ["trade", "ticker", "market_lifecycle_v2"]},
        ),
        1,
    ):
        session.command(json.dumps({"id": number, "cmd": "subscribe", "params": params}))
    for _ in range(int(seconds * 100)):
        clock.ns += 10_000_000
        exchange.advance(hold=False)
    return session.frames


def test_the_same_seed_and_times_give_the_same_frames() -> None:
    first, second = stream(7), stream(7)
    assert len(first) > 8_000
    assert first == second


def test_another_seed_gives_another_stream() -> None:
    assert stream(7, seconds=1) != stream(8, seconds=1)
