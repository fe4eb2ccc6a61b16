"""Plots of asset pages: small enough for Dagster's event log at their largest, and PNG files."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from matplotlib.figure import Figure

from kalshi_platform.deduplicator.close.hour_traffic import HourTraffic, MinuteTraffic
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.asset_plots import MOST_BYTES, plot_metadata, plot_traffic
from kalshi_platform.orchestration.assets.external import make_source_events
from kalshi_platform.plots import hours as plots
from kalshi_platform.plots.busy_markets import BusyMarket, busy_markets

HOUR = datetime(2026, 11, 29, 4, tzinfo=UTC)
HOURS = [HOUR + timedelta(hours=number) for number in range(24)]
TICKERS = [f"KXMVESPORTSMULTIGAMEEXTENDED-S2026A1B2C3D4E5F-{number:06}" for number in range(30)]


def traffic_of(seed: int, skipped: range = range(0)) -> HourTraffic:
    draw = random.Random(seed)
    minutes = tuple(
        MinuteTraffic(HOUR + timedelta(minutes=number), draw.randrange(90_000), draw.random() * 50, draw.random() * 900)
        for number in range(60)
        if number not in skipped
    )
    return HourTraffic(minutes, minutes[0].at, minutes[-1].at, 100, 2, 60, HOUR, HOUR + timedelta(hours=1))


def coverage_map() -> Figure:
    draw = random.Random(1)
    return plots.coverage_map("t", HOURS, {each: {hour: draw.random() for hour in HOURS} for each in TICKERS})


def agreement() -> Figure:
    draw = random.Random(1)
    return plots.agreement("t", {f"g{n}": [(hour, draw.random()) for hour in HOURS] for n in range(6)}, 0.99)


def markets() -> Figure:
    return busy_markets("t", [BusyMarket(each, 10.0**number, number or None) for number, each in enumerate(TICKERS)])


@pytest.mark.parametrize("draw", [coverage_map, agreement, markets])
def test_the_largest_plot_of_its_kind_is_a_small_png(draw: object) -> None:
    assert callable(draw)
    text = str(plot_metadata(draw())["plot"].value)
    image = base64.b64decode(text.removeprefix("![plot](data:image/png;base64,").removesuffix(")"))
    assert image.startswith(b"\x89PNG")
    assert 1_000 < len(image) <= MOST_BYTES
    assert len(text) < 50_000


def test_what_gatherers_received_is_one_event_of_each_interface_with_a_small_plot() -> None:
    traffic = {f"g{number}": traffic_of(number) for number in range(6)}
    websocket, rest = make_source_events(HOUR, traffic)
    assert (websocket.asset_key, rest.asset_key) == (keys.WEBSOCKET, keys.REST)
    assert websocket.metadata["dagster/row_count"].value == sum(each.messages for each in traffic.values())
    assert websocket.metadata["time_max"].value == (HOUR + timedelta(minutes=59)).isoformat()
    assert rest.metadata["dagster/row_count"].value == 600
    assert 1_000 < len(str(websocket.metadata["plot"].value)) < 50_000


def test_minutes_without_a_message_are_drawn_as_such() -> None:
    drawn = plots.traffic("t", {"g1": [plots.Minute(HOUR, 5), plots.Minute(HOUR + timedelta(minutes=3), 7)]})
    line, _ = drawn.axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == [5, 0, 0, 7]


def test_an_hour_without_a_message_has_no_plot() -> None:
    assert plot_traffic(HOUR, {"g1": HourTraffic((), None, None, 0, 0, 0, None, None)}) == {}
