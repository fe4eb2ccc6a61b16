"""Books over REST within a budget, the most uncertain first; and waiting for a closed exchange."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform import config
from kalshi_platform.errors import ConfigurationError, ExchangeUnavailable, JournalUnwritable
from kalshi_platform.gatherer.capture.snapshot_poller import (
    BookActivity,
    PollBudget,
    Recovery,
    SnapshotPoller,
    cost_of_books,
    poll_once,
    record_books,
)
from kalshi_platform.gatherer.journal.block_format import Block
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.reports import BooksPolled
from kalshi_platform.gatherer.wait_for_exchange import wait_until_active
from kalshi_platform.market.catalog import BooksAnswer, EndpointCosts, ExchangeStatus
from kalshi_platform.market.frames import FrameKind, RestBooksReceived
from kalshi_platform.market.records import BookDelta, Levels
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import a_journal, items_of

MINUTE = 1_795_380_000 * 1_000_000


class Books:
    """Answers every request, but for those of `failing` numbers; `absent` markets are in no answer."""

    def __init__(self, clock: FakeClock, failing: Sequence[int] = (), absent: Sequence[str] = ()) -> None:
        self.requests: list[list[str]] = []
        self._clock = clock
        self._failing = failing
        self._absent = absent

    def books(self, tickers: Sequence[str]) -> BooksAnswer:
        self.requests.append(list(tickers))
        if len(self.requests) in self._failing:
            raise ExchangeUnavailable("down", status=503)
        asked_ns = self._clock.now_ns()
        self._clock.step(0.25)
        found: dict[str, tuple[Levels, Levels]] = {
            ticker: (((100, 5),), ()) for ticker in tickers if ticker not in self._absent
        }
        return BooksAnswer(books=found, requested_at_ns=asked_ns, answered_at_ns=self._clock.now_ns())


class Recorded:
    """Keeps the answers that it is given."""

    def __init__(self) -> None:
        self.answers: list[tuple[BooksAnswer, str, int | None]] = []

    def __call__(self, answer: BooksAnswer, source: str, snapshot_ts_us: int | None) -> None:
        self.answers.append((answer, source, snapshot_ts_us))


def settings(tmp_path: Path, **changes: Any) -> GathererSettings:
    return GathererSettings(
        name="g1", timeseries_url="postgresql://h/t", catalog_url="postgresql://h/c", state_dir=tmp_path, **changes
    )


def test_a_poll_requests_a_hundred_at_a_time_and_dates_books_by_its_minute() -> None:
    clock, recorded = FakeClock(), Recorded()
    rest = Books(clock)
    tickers = [f"M{number:03}" for number in range(250)]
    report = poll_once(rest, tickers, recorded, clock, MINUTE)
    assert [len(request) for request in rest.requests] == [100, 100, 50]
    assert (report.asked, report.stored, report.skipped, report.failed) == (250, 250, 0, 0)
    assert [source_and_time for _, *source_and_time in recorded.answers] == [["rest", MINUTE]] * 3
    assert all(each.answered_at_ns - each.requested_at_ns == 250_000_000 for each, *_ in recorded.answers)


def test_an_answer_is_recorded_as_it_came_with_its_times(tmp_path: Path) -> None:
    clock = FakeClock()
    journal = a_journal(tmp_path, clock)
    answer = BooksAnswer(books={}, requested_at_ns=5, answered_at_ns=9, body=b'{"orderbooks": []}')
    record_books(journal, answer, "rest", MINUTE)
    journal.close()
    block = items_of(tmp_path)[-1]
    assert isinstance(block, Block)
    assert (block.session_id, block.streams, block.batch.payloads, block.batch.received_at_ns) == (
        0, (), [answer.body], [9],
    )  # fmt: skip
    assert block.batch.kinds == [FrameKind.REST_BOOKS]
    assert block.batch.marks == [(0, RestBooksReceived("rest", 5, MINUTE))]


def test_a_journal_that_takes_nothing_makes_a_failed_request() -> None:
    def refuse(*_: object) -> None:
        raise JournalUnwritable("the disk is full", "make room")

    clock = FakeClock()
    report = poll_once(Books(clock), ["A", "B"], refuse, clock, MINUTE)
    assert (report.stored, report.failed) == (0, 2)


def test_markets_beyond_the_budget_are_counted_and_come_first_next_time(tmp_path: Path) -> None:
    clock, reports = FakeClock(), list[BooksPolled]()
    rest = Books(clock)
    tickers = [f"M{number:03}" for number in range(250)]
    poller = SnapshotPoller(
        settings(tmp_path, poll_share=0.5, snapshot_interval_s=4.0),
        rest, clock, lambda *_: None, lambda: tickers, lambda: ["M249"], reports.append,
        BookActivity(),
    )  # fmt: skip
    assert poller.max_requests(PollBudget(10.0)) == 2
    poller.poll(MINUTE, threading.Event(), PollBudget(10.0))
    assert (reports[0].asked, reports[0].skipped) == (200, 50)
    assert rest.requests[0][0] == "M249"
    poller.poll(MINUTE + 1, threading.Event(), PollBudget(10.0))
    second = [ticker for request in rest.requests[2:] for ticker in request]
    assert second[0] == "M249"
    assert set(second) >= set(tickers) - {ticker for request in rest.requests[:2] for ticker in request}


def test_dearer_requests_are_fewer(tmp_path: Path) -> None:
    clock, reports = FakeClock(), list[BooksPolled]()
    poller = SnapshotPoller(
        settings(tmp_path, poll_share=0.5, snapshot_interval_s=60.0),
        Books(clock), clock, lambda *_: None, lambda: [f"M{number}" for number in range(1_000)], list, reports.append,
        BookActivity(),
    )  # fmt: skip
    costs = EndpointCosts(default_cost=10.0, by_endpoint={("GET", "/trade-api/v2/markets/orderbooks"): 60.0})
    poller.poll(MINUTE, threading.Event(), PollBudget(10.0, cost_of_books(costs)))
    assert (reports[0].requests, reports[0].tokens, reports[0].asked) == (5, 300.0, 500)
    assert cost_of_books(EndpointCosts(default_cost=7.0, by_endpoint={("POST", "/markets/orderbooks"): 1.0})) == 7.0


def test_failed_requests_are_counted_and_three_in_a_row_end_the_poll() -> None:
    clock = FakeClock()
    tickers = [f"M{number:03}" for number in range(600)]
    some = poll_once(Books(clock, failing=[2]), tickers, lambda *_: None, clock, MINUTE)
    assert (some.requests, some.failed, some.stored) == (6, 100, 500)
    none = poll_once(Books(clock, failing=range(1, 10)), tickers, lambda *_: None, clock, MINUTE)
    assert (none.requests, none.failed, none.skipped) == (3, 300, 300)


def test_polls_begin_with_the_interval(tmp_path: Path) -> None:
    clock, stop = FakeClock(), threading.Event()
    minutes: list[int] = []

    def polled(report: BooksPolled) -> None:
        minutes.append(report.minute.minute)
        assert report.started_at.second == 0 or len(minutes) == 1
        if len(minutes) == 4:
            stop.set()

    clock.step(42.0)
    SnapshotPoller(
        settings(tmp_path), Books(clock), clock, lambda *_: None, lambda: ["A"], list, polled, BookActivity()
    ).run(stop, PollBudget())  # fmt: skip
    assert minutes == [0, 1, 2, 3]


def test_a_clock_that_is_set_back_delays_no_poll(tmp_path: Path) -> None:
    clock, stop = FakeClock(), threading.Event()
    at_s: list[float] = []

    def polled(_: BooksPolled) -> None:
        at_s.append(clock.monotonic())
        if len(at_s) == 2:
            clock.set_wall(-600.0)
        elif len(at_s) == 3:
            # As NTP slews over the turn of a minute.
            clock.set_wall(-0.5)
        elif len(at_s) == 5:
            stop.set()

    SnapshotPoller(
        settings(tmp_path), Books(clock), clock, lambda *_: None, lambda: ["A"], list, polled, BookActivity()
    ).run(stop, PollBudget())  # fmt: skip
    spans = [later - earlier for earlier, later in itertools.pairwise(at_s)]
    assert spans == pytest.approx([60.0, 0.25, 60.25, 60.0], abs=0.1)


def test_a_recovery_resubscribes_even_if_rest_fails(tmp_path: Path) -> None:
    clock, stop = FakeClock(), threading.Event()
    recorded = Recorded()
    renewed: list[Sequence[str]] = []

    def resubscribe(tickers: Sequence[str]) -> None:
        renewed.append(tickers)
        if len(renewed) == 1:
            recovery.request(["B"])
        else:
            stop.set()

    recovery = Recovery(settings(tmp_path), Books(clock, failing=[2]), clock, recorded, resubscribe)
    recovery.request(["A"])
    recovery.run(stop)
    assert renewed == [["A"], ["B"]]
    ((answer, source, moment_us),) = recorded.answers
    assert (list(answer.books), source, moment_us) == (["A"], "rest_recovery", None)


class Status:
    """Inactive for the first answers; a text is an error."""

    def __init__(self, *answers: int | str | None) -> None:
        self.answers = list(answers)

    def exchange_status(self) -> ExchangeStatus:
        if not self.answers:
            return status(active=True)
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            raise ExchangeUnavailable(answer, status=500)
        return status(active=False, resume_us=answer)


def status(*, active: bool, resume_us: int | None = None) -> ExchangeStatus:
    return ExchangeStatus(
        exchange_active=active, trading_active=active, estimated_resume_us=resume_us, shards=(), payload=""
    )


def test_the_status_of_an_inactive_exchange_is_read_again_at_its_resume_time() -> None:
    clock = FakeClock()
    resume_us = clock.now_ns() // 1_000 + 120_000_000
    lines: list[str] = []
    read: list[bool] = []
    assert wait_until_active(
        Status(resume_us), clock, threading.Event(), 300.0, lines.append, lambda each: read.append(each.exchange_active)
    )
    assert read == [False, True]
    assert 120 <= clock.waits[0] <= 122
    assert "inactive" in lines[0]


def test_the_wait_is_capped_and_never_zero() -> None:
    clock = FakeClock()
    far = clock.now_ns() // 1_000 + 10**12
    assert wait_until_active(Status(far, 1, None), clock, threading.Event(), 60.0)
    assert 60 <= clock.waits[0] <= 62
    assert clock.waits[1] >= 0.2
    assert 15 <= clock.waits[2] <= 17


def test_the_status_of_an_exchange_without_answer_is_read_ever_more_rarely() -> None:
    clock = FakeClock()
    assert wait_until_active(Status(*["down"] * 12), clock, threading.Event(), 100.0)
    assert clock.waits[-1] <= 100
    assert clock.waits[-1] > clock.waits[0]


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    stop.set()
    assert not wait_until_active(Status(), FakeClock(), stop, 100.0)


def test_settings_report_every_invalid_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, connections=0, poll_share=0.0, flush_rows=10, lag_rows=5)
    assert len(caught.value.problems) == 3
    assert "secret" not in repr(
        GathererSettings(name="g", timeseries_url="postgresql://u:secret@h/t", catalog_url="", state_dir=tmp_path)
    )


def test_one_connection_carries_the_books_by_default(tmp_path: Path) -> None:
    environment = {
        "KALSHI_GATHERERS": "g1",
        "KALSHI_G1_TIMESERIES_DATABASE_URL": "postgresql://h/t",
        "KALSHI_G1_CATALOG_DATABASE_URL": "postgresql://h/c",
    }
    assert settings(tmp_path).connections == config.load_gatherer("g1", environment).connections == 1


def delta(ticker: str, at_us: int) -> BookDelta:
    return BookDelta(ticker, "yes", 5600, 100, at_us, at_us * 1_000, 11, 1, 0)


def poller_of(tickers: list[str], tmp_path: Path, clock: FakeClock, **options: Any) -> SnapshotPoller:
    return SnapshotPoller(
        settings(tmp_path, snapshot_interval_s=60.0),
        options.get("rest", Books(clock)), clock, lambda *_: None, lambda: tickers,
        lambda: options.get("out_of_sync", ()), options.get("reports", list[BooksPolled]()).append,
        options.get("activity", BookActivity()),
    )  # fmt: skip


def test_gapped_markets_are_requested_first_then_active_ones_then_the_longest_unrequested(tmp_path: Path) -> None:
    clock, interval, activity = FakeClock(), 60_000_000, BookActivity()
    poller = poller_of(["A", "B", "C", "D", "GAP"], tmp_path, clock, out_of_sync=["GAP"], activity=activity)
    poller.poll(MINUTE, threading.Event(), PollBudget())
    activity.observe([delta("D", MINUTE + 9), delta("C", MINUTE + 5), delta("D", MINUTE + 2)])
    assert poller.order(MINUTE + interval) == ["GAP", "C", "D", "A", "B"]
    activity.observe([delta("D", MINUTE + 12)])
    assert poller.order(MINUTE + interval) == ["GAP", "D", "C", "A", "B"]
    poller.poll(MINUTE + interval, threading.Event(), PollBudget())
    # What was asked since its last delta is certain again.
    activity.observe([delta("B", MINUTE + interval + 3)])
    assert poller.order(MINUTE + 2 * interval)[:2] == ["GAP", "B"]


def test_a_quiet_market_is_not_forgotten_behind_busy_ones(tmp_path: Path) -> None:
    clock, activity = FakeClock(), BookActivity()
    tickers = [f"BUSY{number:03}" for number in range(150)] + ["QUIET"]
    rest = Books(clock)
    poller = poller_of(tickers, tmp_path, clock, rest=rest, activity=activity)
    poller.poll(MINUTE, threading.Event(), PollBudget())
    asked = []
    for minute in range(1, 14):
        now_us = MINUTE + minute * 60_000_000
        activity.observe([delta(ticker, now_us - 1) for ticker in tickers[:-1]])
        poller.poll(now_us, threading.Event(), PollBudget(20.0 / 60.0))
        asked += [minute for request in rest.requests if "QUIET" in request]
        rest.requests.clear()
    assert asked[1:] == [10]


@pytest.mark.parametrize(
    ("stops", "failing", "budget", "why"),
    [(True, (), 200.0, "the gatherer stops"), (False, (), 0.2, "they did not fit into the budget"),
     (False, range(9), 200.0, "requests keep failing")],
)  # fmt: skip
def test_skipped_markets_are_logged_with_the_reason(
    stops: bool, failing: Sequence[int], budget: float, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, stop = FakeClock(), threading.Event()
    poller = poller_of([f"M{number:03}" for number in range(400)], tmp_path, clock, rest=Books(clock, failing))
    if stops:
        stop.set()
    with caplog.at_level("INFO"):
        poller.poll(MINUTE, stop, PollBudget(budget))
    (line,) = [each for each in caplog.messages if each.startswith("rest_books_skipped ")]
    assert line.endswith(f'markets=400 reason="{why}"')


def test_a_poll_reports_its_cost_and_the_age_of_the_oldest_book(tmp_path: Path) -> None:
    clock, reports = FakeClock(), list[BooksPolled]()
    minute_us = clock.now_ns() // 1_000
    tickers = [f"M{number:03}" for number in range(150)]
    poller = poller_of(tickers, tmp_path, clock, rest=Books(clock, absent=["M007"]), reports=reports)
    poller.poll(minute_us, threading.Event(), PollBudget())
    clock.step(59.5)
    poller.poll(minute_us + 60_000_000, threading.Event(), PollBudget())
    assert [(each.requests, each.tokens, each.stored) for each in reports] == [(2, 20.0, 149)] * 2
    # One market never had an answer: its age counts from when it was first wanted.
    assert [each.oldest_age_s for each in reports] == [0.5, 60.5]
