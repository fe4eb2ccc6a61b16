"""The status as JSON, and what it takes more than one moment to know."""

from __future__ import annotations

import json
from pathlib import Path

from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.gatherer.status.status import ChannelStatus, GathererStatus, IngestStatus
from kalshi_platform.gatherer.status.status_snapshot import RateMeter, StatusTrends, StreamCounts
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform.monitoring.heartbeat import Heartbeat, decode_details, encode, read_file, write_file
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.gatherer_status import well_status


def test_messages_are_counted_by_channel_with_the_time_of_the_last_one() -> None:
    first, second = ChannelCounters(), ChannelCounters()
    channel_of = {5: "orderbook_delta"}
    first.count(FrameBatch(stream_ids=[5, 5, 5, 5, 0], kinds=[0, 0, 1, 0, 0]), channel_of, 500.0)
    second.count(FrameBatch(stream_ids=[5], kinds=[0]), channel_of, 300.0)
    assert first.ages_s(510.0) == {"orderbook_delta": 10.0}
    total = ChannelCounters.sum([first, second], 510.0)
    assert total["orderbook_delta"] == ChannelStatus(messages=4, last_message_age_s=10.0)
    assert total["trade"] == ChannelStatus()


def test_rates_are_measured_between_updates_a_second_or_more_apart() -> None:
    rates = RateMeter(100.0)
    rates.update({"trade": 50}, 100.5)
    assert rates.per_s is None
    rates.update({"trade": 50}, 105.0)
    assert rates.per_s == {"trade": 10.0}
    rates.update({"trade": 50, "ticker": 10}, 110.0)
    assert rates.per_s == {"trade": 0.0, "ticker": 2.0}


def test_trends_add_rates_and_how_long_books_are_missing() -> None:
    trends = StatusTrends(100.0)
    for now_s in (105.0, 115.0):
        trends.update(well_status(followed_markets=3, desired_markets=10), now_s)
    status = well_status()
    trends.add_to(status, 120.0)
    assert status.ingest is not None
    assert (status.uptime_s, status.short_of_books_s) == (20.0, 15.0)
    assert (status.channels["orderbook_delta"].per_s, status.ingest.rows_per_s) == (0.0, 0.0)


def test_a_ledger_behind_the_journal_is_not_short_of_books() -> None:
    trends = StatusTrends(100.0)
    status = well_status()
    assert status.ingest is not None
    assert status.ledger is not None
    status.ledger.subscriptions = 0
    status.ingest.behind_s = 8.0
    trends.update(status, 105.0)
    trends.add_to(status, 110.0)
    assert status.ledger.short_of_books_s is None
    status.ingest.behind_s = 0.2
    trends.update(status, 115.0)
    trends.add_to(status, 120.0)
    assert status.ledger.short_of_books_s == 5.0


def test_a_report_of_streams_has_what_came_since_the_last_one() -> None:
    clock = FakeClock()
    counts = StreamCounts(clock.now())
    assert counts.report(well_status(), clock.now()).rows == {"orderbook_deltas": 7}
    later = well_status(ingest=IngestStatus(rows={"orderbook_deltas": 9, "trades": 1}, commits=4))
    report = counts.report(later, clock.now())
    assert (report.rows, report.commits, report.gaps) == ({"orderbook_deltas": 2, "trades": 1}, 1, 0)


def test_the_json_keeps_its_documented_names() -> None:
    names = json.loads(encode(well_status())).keys()
    assert names >= {
        "note", "followed", "wanted", "short_of_books_s", "ledger", "dead_letters_last_minute", "suspects", "markets",
        "channels", "connections", "fleet", "journal", "ingest", "catalog", "books", "clock", "alarms", "problems",
        "lease", "process", "health", "reasons", "troubles",
    }  # fmt: skip


def test_a_status_of_another_version_is_read_as_far_as_it_is_known() -> None:
    found = decode_details('{"followed": 3, "ingest": {"commits": 5, "turbo": 1}, "lanes": [1]}', GathererStatus)
    assert found == GathererStatus(followed_markets=3, ingest=IngestStatus(commits=5))
    assert decode_details('{"ingest": 7}', GathererStatus) == GathererStatus()
    assert decode_details("{}", GathererStatus) == GathererStatus()


def test_a_heartbeat_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, now = tmp_path / "g1" / "heartbeat.json", FakeClock().now()
    heartbeat = Heartbeat("gatherer/g1", now, now, "running", well_status(), run_id="r1")
    assert read_file(path, GathererStatus) is None
    write_file(path, heartbeat)
    assert read_file(path, GathererStatus) == heartbeat
    path.write_text(f'{{"at": "{now:%Y-%m-%dT%H:%M:%S}", "state": "running", "details": {{"ingest": 7}}}}')
    found = read_file(path, GathererStatus)
    assert found is not None
    assert (found.at, found.state, found.run_id) == (now.replace(microsecond=0), "running", None)
    path.write_text('{"state": "runn')
    assert read_file(path, GathererStatus) is None


def test_half_a_surrogate_pair_in_a_text_does_not_block_the_heartbeat() -> None:
    assert json.loads(encode(GathererStatus(note="\ud800 from the wire")))["note"] == "? from the wire"
