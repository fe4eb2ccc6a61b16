"""When the old connection may let go."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kalshi_platform.gatherer.capture.handover import Handover

S = 1_000_000


class ConnectionView:
    """A connection as a handover sees it."""

    def __init__(self, *followed: str) -> None:
        self.is_open = True
        self.has_channels = True
        self.books = frozenset(followed)
        self.silent: frozenset[str] = frozenset()
        self.times: dict[int, tuple[int, int]] = {}
        self.watches = 0
        self.joined: frozenset[str] = frozenset()

    def followed(self) -> frozenset[str]:
        return self.books

    def unresponsive(self) -> frozenset[str]:
        return self.silent

    def start_overlap_tracking(self) -> None:
        self.watches += 1
        self.joined = frozenset()

    def resubscribed(self) -> frozenset[str]:
        return self.joined

    def feed_times(self) -> Mapping[int, tuple[int, int]]:
        return self.times


def handover(source: ConnectionView, target: ConnectionView, *tickers: str) -> Handover:
    return Handover(source, target, frozenset(tickers) or None, overlap_s=4.0, patience_s=100.0, now=0.0)


def test_the_old_connection_stays_until_every_snapshot_is_there() -> None:
    source, target = ConnectionView("A", "B"), ConnectionView("A")
    change = handover(source, target)
    assert not change.is_done(99.0, {0})
    assert source.watches == 0
    assert not change.is_stuck(100.0)
    assert change.is_stuck(101.0)
    target.books = frozenset("AB")
    assert not change.is_done(102.0, {0})
    assert (source.watches, target.watches) == (1, 1)
    assert not change.is_stuck(300.0)


def test_the_old_connection_stays_until_deltas_of_both_overlap_beyond_the_margins() -> None:
    source, target = ConnectionView("A"), ConnectionView("A")
    change = handover(source, target)
    assert not change.is_done(0.0, {0, 2})
    source.times = {0: (0, 90 * S), 2: (0, 13 * S)}
    target.times = {0: (10 * S, 90 * S), 2: (10 * S, 90 * S)}
    assert not change.is_done(3.0, {0})  # too soon by the clock
    assert not change.is_done(20.0, {0, 2})  # what the old one saw of feed 2 ends too early
    source.times[2] = (0, 14 * S + 1)
    assert change.is_done(20.0, {0, 2})
    del target.times[2]
    assert not change.is_done(20.0, {0, 2})


def test_a_feed_in_which_nothing_happens_is_waited_for_with_patience_only() -> None:
    change = handover(ConnectionView("A"), ConnectionView("A"))
    assert not change.is_done(0.0, {0})
    assert not change.is_done(99.0, {0})
    assert change.is_done(100.0, {0})


def test_one_unresponsive_market_on_the_new_connection_does_not_delay_the_handover() -> None:
    books = [f"M{number}" for number in range(100)]
    source, target = ConnectionView(*books), ConnectionView(*books[:-1])
    target.silent = frozenset(books[-1:])
    change = handover(source, target)
    change.is_done(0.0, set())
    assert change.is_done(4.0, set())


@pytest.mark.parametrize("silent", [100, 3])
def test_a_new_connection_with_many_unresponsive_markets_is_given_up(silent: int) -> None:
    books = [f"M{number}" for number in range(100)]
    source, target = ConnectionView(*books), ConnectionView(*books[silent:])
    target.silent = frozenset(books[:silent])
    change = handover(source, target)
    assert not change.is_done(0.0, set())
    assert not change.is_done(101.0, set())
    assert change.is_stuck(101.0)


def test_a_new_connection_that_is_refused_a_market_is_given_up() -> None:
    books = [f"M{number}" for number in range(100)]
    change = handover(ConnectionView(*books), ConnectionView(*books[:-1]))
    assert not change.is_done(0.0, set())
    assert not change.is_done(101.0, set())
    assert change.is_stuck(101.0)


def test_only_the_markets_that_move_count() -> None:
    source, target = ConnectionView("A", "B", "C"), ConnectionView("A")
    change = handover(source, target, "A")
    change.is_done(0.0, set())
    assert change.is_done(4.0, set())


def test_a_new_connection_that_breaks_starts_again_and_a_broken_old_one_may_end() -> None:
    source, target = ConnectionView("A"), ConnectionView("A")
    change = handover(source, target)
    assert not change.is_done(0.0, set())
    target.is_open = False
    assert not change.is_done(50.0, set())
    target.is_open = True
    assert not change.is_done(51.0, set())
    assert change.is_done(55.0, set())
    source.is_open = False
    assert handover(source, target).is_done(0.0, {0})


def test_a_loss_on_the_new_connection_restarts_the_overlap() -> None:
    source, target = ConnectionView("A", "B"), ConnectionView("A", "B")
    change = handover(source, target)
    assert not change.is_done(0.0, set())
    target.joined = frozenset("B")
    assert not change.is_done(19.0, set())
    assert not change.is_done(20.0, set())
    assert not change.is_done(23.0, set())
    assert change.is_done(24.0, set())


def test_markets_that_are_new_on_both_connections_do_not_restart_the_overlap() -> None:
    source, target = ConnectionView("A"), ConnectionView("A")
    change = handover(source, target)
    assert not change.is_done(0.0, set())
    source.books = target.books = frozenset("AB")
    target.joined = frozenset("B")
    assert change.is_done(4.0, set())


def test_a_connection_of_channels_waits_for_its_channels() -> None:
    source, target = ConnectionView(), ConnectionView()
    target.has_channels = False
    change = handover(source, target)
    assert not change.is_done(0.0, set())
    target.has_channels = True
    assert not change.is_done(10.0, set())
    assert change.is_done(14.0, set())
