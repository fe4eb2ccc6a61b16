from __future__ import annotations

from typing import Any

import pytest

from kalshi_platform.lab.simulator.engine.faults import FaultBoard, Peer, UnknownFault

FIRST = Peer("c1", 0, "gatherer-a/books")
SECOND = Peer("c2", 1, "gatherer-b/books")


def arm(board: FaultBoard, kind: str, now: float = 0.0, **params: Any) -> Any:
    return board.arm(kind, params, now=now, at_us=0)


def test_a_counted_fault_ends_after_its_hits_and_keeps_their_effects() -> None:
    board = FaultBoard()
    fault = arm(board, "rest_status", count=2, status=503)
    for number in range(2):
        hit = board.rest("rest_status", "/x", 1.0)
        assert hit is not None
        assert hit is fault
        hit.hit({"number": number})
    assert board.rest("rest_status", "/x", 1.0) is None
    assert fault.describe(1.0)["effects"] == [{"number": 0}, {"number": 1}]


def test_a_timed_fault_ends_at_its_time() -> None:
    board = FaultBoard()
    arm(board, "stall", now=10.0, seconds=5)
    assert board.active("stall", 14.9)
    assert not board.active("stall", 15.0)


def test_faults_of_one_occasion_hold_once_by_default_and_states_hold_until_cleared() -> None:
    board = FaultBoard()
    assert arm(board, "refuse_handshake").left == 1
    assert arm(board, "exchange_pause").left is None
    assert board.clear("exchange_pause") == 1
    assert not board.active("exchange_pause", 0.0)


@pytest.mark.parametrize(
    ("params", "selected"),
    [
        ({}, {"c1", "c2"}),
        ({"connection": "all"}, {"c1", "c2"}),
        ({"connection": 1}, {"c2"}),
        ({"connection": "c1"}, {"c1"}),
        ({"connection": ["c1", "c2"]}, {"c1", "c2"}),
        ({"user_agent": "gatherer-b"}, {"c2"}),
        ({"user_agent": "nobody"}, set()),
    ],
)
def test_connections_are_selected_by_index_id_or_user_agent(params: dict[str, Any], selected: set[str]) -> None:
    fault = arm(FaultBoard(), "stall", **params)
    assert {peer.id for peer in (FIRST, SECOND) if fault.selects(peer)} == selected


def test_rest_faults_match_a_regular_expression_in_the_path() -> None:
    board = FaultBoard()
    arm(board, "slow_rest", path="/markets/[^/]+$", seconds=9)
    assert board.rest("slow_rest", "/trade-api/v2/markets/ABC", 0.0) is not None
    assert board.rest("slow_rest", "/trade-api/v2/events", 0.0) is None


def test_skew_adds_up_and_keeps_to_its_scope() -> None:
    board = FaultBoard()
    arm(board, "clock_skew", offset_s=60, scope="handshake")
    arm(board, "clock_skew", offset_s=-1.5)
    assert board.skew_us(0.0, "messages") == -1_500_000
    assert board.skew_us(0.0, "handshake") == 58_500_000


@pytest.mark.parametrize("params", [{"count": 0}, {"count": "many"}, {"seconds": 0}, {"seconds": "long"}])
def test_senseless_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(UnknownFault):
        arm(FaultBoard(), "stall", **params)


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UnknownFault, match="drop_frame"):
        arm(FaultBoard(), "meteor")
