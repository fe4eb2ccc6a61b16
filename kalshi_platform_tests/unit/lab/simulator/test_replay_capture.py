from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.replay.capture import read_capture, recorded_delta, recorded_levels, recorded_time_us
from kalshi_platform.lab.simulator.replay.recording import record


@pytest.mark.parametrize(
    ("msg", "us"),
    [
        ({"ts": "2026-08-07T06:46:28.97871Z", "ts_ms": 1_786_085_188_978}, 1_786_085_188_978_710),
        ({"ts": 1_786_085_188, "ts_ms": 1_786_085_188_978}, 1_786_085_188_978_000),
        ({"ts": 1_786_085_188}, 1_786_085_188_000_000),
        ({"ts": "soon", "ts_ms": 1_786_085_188_978}, 1_786_085_188_978_000),
        ({"time": "2026-08-07T06:46:28.000001Z", "ts_ms": 1_786_085_188_000}, 1_786_085_188_000_001),
        ({}, 7),
    ],
)
def test_exchange_time_of_every_shape(msg: dict[str, Any], us: int) -> None:
    assert recorded_time_us(msg, 7_000) == us


def test_legacy_and_current_deltas_agree() -> None:
    legacy = {"price": 56, "delta": 100, "side": "yes"}
    current = {"price_dollars": "0.56", "delta_fp": "100.00", "side": "yes"}
    assert recorded_delta(legacy) == recorded_delta(current) == (0, 5_600, 10_000)


def test_levels_of_all_three_shapes_agree() -> None:
    shapes: list[dict[str, Any]] = [
        {"yes": [[56, 100]]},
        {"yes_dollars": [["0.56", 100]]},
        {"yes_dollars_fp": [["0.5600", "100.00"]]},
    ]
    assert [recorded_levels(shape, 0) for shape in shapes] == [{5_600: 10_000}] * 3
    assert recorded_levels(shapes[0], 1) == {}


def test_acks_are_left_out_and_unknown_types_are_kept(tmp_path: Path) -> None:
    frames = [
        {"type": "subscribed", "msg": {"channel": "orderbook_delta", "sid": 1}},
        {"type": "ok", "sid": 1, "seq": 2, "msg": {}},
        {"type": "from_the_future", "msg": {"market_ticker": "A-B"}},
    ]
    path = tmp_path / "capture.jsonl"
    path.write_text("".join(json.dumps({"received_at_ns": 1, "frame": frame}) + "\n" for frame in frames))
    assert [frame.kind for frame in read_capture(path)] == ["from_the_future"]


def test_a_file_that_is_no_capture_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    path.write_text('{"received_at_ns": 1, "frame": {"type": "trade", "msg": {}}}\nnonsense\n')
    with pytest.raises(ConfigurationError, match=r"capture\.jsonl:2"):
        read_capture(path)
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_capture(tmp_path / "absent")


def test_a_recorded_venue_reads_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    count = record(path, markets=10, messages=500, rate=1_000, start_us=1_795_380_000_000_000)
    frames = read_capture(path)
    assert len(frames) == count + 10
    times = [frame.us for frame in frames if frame.kind == "orderbook_delta"]
    assert times == sorted(times)
    assert {frame.kind for frame in frames} == {"orderbook_snapshot", "orderbook_delta", "trade", "ticker"}
