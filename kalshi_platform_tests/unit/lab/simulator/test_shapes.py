"""Changes of shape of single messages and answers."""

from __future__ import annotations

from typing import Any

import pytest

from kalshi_platform.lab.simulator.engine.faults import UnknownFault
from kalshi_platform.lab.simulator.engine.shapes import change_answer, change_frame, check_shape_params

DELTA: dict[str, Any] = {"type": "orderbook_delta", "sid": 1, "seq": 4, "msg": {"price_dollars": "0.1200", "ts_ms": 1}}


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("add_field", {"name": "fresh", "value": [1]}, {"price_dollars": "0.1200", "ts_ms": 1, "fresh": [1]}),
        ("rename_field", {"name": "price_dollars", "to": "price_usd"}, {"price_usd": "0.1200", "ts_ms": 1}),
        ("more_decimals", {"name": "price_dollars", "digits": "34"}, {"price_dollars": "0.120034", "ts_ms": 1}),
    ],
)
def test_a_frame_of_the_type_changes_its_shape(kind: str, params: dict[str, Any], expected: dict[str, Any]) -> None:
    params = {"type": "orderbook_delta", **params}
    check_shape_params(kind, params)
    frame = {**DELTA, "msg": dict(DELTA["msg"])}
    assert change_frame(kind, params, frame)
    assert frame["msg"] == expected
    assert not change_frame(kind, {**params, "type": "trade"}, frame)


def test_decimals_of_levels_grow_one_by_one() -> None:
    frame = {"type": "orderbook_snapshot", "msg": {"yes_dollars_fp": [["0.1200", "5"]]}}
    assert change_frame("more_decimals", {"type": "orderbook_snapshot", "name": "yes_dollars_fp"}, frame)
    assert frame["msg"] == {"yes_dollars_fp": [["0.12005", "5.5"]]}


def test_objects_of_an_answer_change_wherever_they_stand() -> None:
    body: dict[str, Any] = {
        "events": [{"event_ticker": "E", "markets": [{"ticker": "A"}, {"ticker": "B"}]}],
        "cursor": "",
    }
    assert change_answer("add_field", {"object": "market", "name": "fresh", "value": None}, body) == 2
    assert body["events"][0]["markets"] == [{"ticker": "A", "fresh": None}, {"ticker": "B", "fresh": None}]


def test_a_field_inside_another_is_named_by_its_path() -> None:
    body = {"market": {"custom_strike": {"word": "x"}}}
    assert change_answer("rename_field", {"object": "market", "name": "custom_strike.word", "to": "term"}, body) == 1
    assert body == {"market": {"custom_strike": {"term": "x"}}}


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("add_field", {"name": "a", "value": 1}),
        ("add_field", {"type": "trade", "object": "market", "name": "a", "value": 1}),
        ("add_field", {"object": "planet", "name": "a", "value": 1}),
        ("add_field", {"type": "trade", "name": "a"}),
        ("rename_field", {"type": "trade", "name": "a"}),
        ("rename_field", {"type": "trade", "to": "a"}),
        ("more_decimals", {"type": "trade", "name": "a", "digits": "x"}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(UnknownFault):
        check_shape_params(kind, params)
