"""A journal that the platform wrote, read by the simulated exchange's own code."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.gatherer.journal.block_format import SegmentInfo, encode_segment_header
from kalshi_platform.gatherer.journal.keeping import compress_segment
from kalshi_platform.lab.simulator.replay.journal import JournalSource
from kalshi_platform.lab.simulator.replay.journal_segments import (
    Frame,
    Mark,
    find_archived,
    find_segments,
    read_segment,
)
from kalshi_platform.market.frames import FrameKind
from kalshi_platform.market.records import BookSubscriptionEnded, SessionClosed
from kalshi_platform_tests.fixtures.journal_recorder import START_NS, Recorder, delta, snapshot


def source(path: Path, gatherer: str | None = None) -> JournalSource:
    return JournalSource(find_segments(path, gatherer))


def played(folder: Path) -> list[str]:
    """What is played: S and the size of a snapshot, or the microsecond of a delta."""
    found = []
    for message in source(folder).messages():
        msg = json.loads(message.body)
        found.append(msg["ts"][20:26].lstrip("0") if "ts" in msg else f"S{msg['yes_dollars_fp'][0][1]}")
    return found


def test_frames_and_marks_are_read_as_they_were_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [snapshot(5), delta(2)])
    recorder.mark(11, SessionClosed(11, START_NS, "test"))
    recorder.close()
    (segment,) = find_segments(tmp_path, None)
    items = list(read_segment(segment))
    frames = [each for each in items if isinstance(each, Frame)]
    assert [json.loads(each.payload) for each in frames] == [snapshot(5), delta(2)]
    assert [(each.stream_id, each.session_id, each.kind) for each in frames] == [(11, 11, 0)] * 2
    assert [each.received_at_ns - START_NS for each in frames] == [10**9, 2 * 10**9]
    names = [each.name for each in items if isinstance(each, Mark)]
    assert names == ["GathererStarted", *["SessionOpened", "StreamOpened"] * 2, "SessionClosed"]


def test_what_two_connections_received_is_played_once_and_the_second_goes_on_where_the_first_ends(
    tmp_path: Path,
) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [snapshot(5), delta(2), delta(3)])
    recorder.write(12, [snapshot(7), delta(4), delta(5)])  # it is ahead
    recorder.write(11, [delta(4)])
    recorder.mark(11, BookSubscriptionEnded(11, "KX-A", 4, "handed over"))
    recorder.write(12, [delta(6)])
    recorder.write(11, [delta(5), delta(6), delta(7)])  # what the ended one still receives
    recorder.close()
    assert played(tmp_path) == ["S5.00", "2", "3", "4", "5", "6", "7"]


def test_equal_deltas_of_one_stream_are_all_played(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [snapshot(5), delta(2), delta(2)])
    recorder.write(12, [snapshot(7), delta(2), delta(2), delta(2)])
    recorder.mark(11, SessionClosed(11, START_NS, "test"))
    recorder.close()
    assert played(tmp_path) == ["S5.00", "2", "2", "2"]


def test_after_a_hole_the_next_snapshot_is_played(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [snapshot(5), delta(2)])
    recorder.mark(11, SessionClosed(11, START_NS, "test"))
    recorder.write(12, [snapshot(9), delta(8)])
    recorder.close()
    assert played(tmp_path) == ["S5.00", "2", "S9.00", "8"]


def test_responses_and_what_is_of_no_stream_are_not_played(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [snapshot(5)])
    recorder.write(11, [{"type": "ok", "sid": 1, "seq": 2, "msg": {}}], kind=FrameKind.CONTROL)
    recorder.write(11, [delta(3)], kind=FrameKind.REPEATED)
    recorder.write(
        11, [{"type": "future", "sid": 1, "seq": 4, "msg": {"ts": "x" * 20 + "000004Z"}}], kind=FrameKind.UNKNOWN_TYPE
    )
    recorder.close()
    assert played(tmp_path) == ["S5.00", "4"]


def test_segments_are_played_in_order_compressed_or_not_and_damage_costs_its_block(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, segment_bytes=1)
    for number in range(2, 8):
        recorder.write(11, [delta(number)])
    recorder.close()
    segments = find_segments(tmp_path, "g1")
    compress_segment(tmp_path, segments[4].info["number"])
    assert played(tmp_path) == ["2", "3", "4", "5", "6", "7"]
    damaged = Path(segments[5].path)
    content = bytearray(damaged.read_bytes())
    content[-10] ^= 1
    damaged.write_bytes(content)
    assert len(played(tmp_path)) == 5
    assert len(list(source(Path(segments[6].path)).messages())) == 1


def test_of_several_gatherers_one_must_be_named(tmp_path: Path) -> None:
    for name in ("g1", "g2"):
        recorder = Recorder(tmp_path / name, name)
        recorder.write(11, [snapshot(5)])
        recorder.close()
    with pytest.raises(ConfigurationError, match="name one by --gatherer"):
        source(tmp_path)
    assert source(tmp_path, "g2").describe() == {"gatherer": "g2", "segments": 1}
    with pytest.raises(ConfigurationError, match="no journal of g3"):
        source(tmp_path, "g3")


def test_the_state_before_the_first_message_is_the_first_snapshots(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [snapshot(5), delta(2), snapshot(6, "KX-B"), delta(2, "KX-B")])
    recorder.close()
    start = source(tmp_path).start()
    assert dict(start.markets) == {"KX-A": "m", "KX-B": "m"}
    assert {ticker: msg["yes_dollars_fp"] for ticker, msg in start.books.items()} == {
        "KX-A": [["0.1200", "5.00"]],
        "KX-B": [["0.1200", "6.00"]],
    }
    assert start.first_us == START_NS // 1_000 + 1_000_000


def test_a_segment_from_the_middle_begins_with_the_book_before_its_first_change(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(11, [delta(2), delta(3), snapshot(9), delta(4)])
    recorder.write(12, [delta(2, "KX-B")])
    books = {
        "orderbooks": [{"ticker": "KX-B", "orderbook_fp": {"yes_dollars": [["0.1200", "3.00"]], "no_dollars": []}}]
    }
    recorder.write(0, [{"seq": 0, **books}], kind=FrameKind.REST_BOOKS)
    recorder.write(12, [delta(3, "KX-B")])
    recorder.close()
    start = source(tmp_path).start()
    assert start.pending == frozenset()
    assert {ticker: msg["yes_dollars_fp"] for ticker, msg in start.books.items()} == {
        "KX-A": [["0.1200", "7.00"]],
        "KX-B": [["0.1200", "2.00"]],
    }


def test_hours_of_a_lake_are_played_of_one_gatherer(tmp_path: Path) -> None:
    for name in ("g1", "g2"):
        recorder = Recorder(tmp_path / name, name)
        recorder.write(11, [snapshot(5), delta(2)])
        recorder.close()
        (segment,) = find_segments(tmp_path / name, None)
        archived = compress_segment(tmp_path / name, segment.info["number"])
        moment = datetime.fromtimestamp(START_NS / 1e9, UTC)
        partition = tmp_path / "lake" / "raw" / "frames" / f"{moment:date=%Y-%m-%d/hour=%H}" / f"gatherer={name}"
        partition.mkdir(parents=True)
        archived.rename(partition / archived.name)
    start_us = START_NS // 1_000
    (found,) = find_archived(str(tmp_path / "lake"), "g2", start_us, start_us + 1)
    assert found.info["gatherer"] == "g2"
    assert len(list(JournalSource([found]).messages())) == 2
    assert len(list(JournalSource([found], start_us + 2_000_000).messages())) == 1
    # What the manifest does not name is left over from an archive run that was cut short.
    (partition / f"{2:012}.journal.zst").write_bytes((partition / archived.name).read_bytes())
    assert len(find_archived(str(tmp_path / "lake"), "g2", start_us, start_us + 1)) == 2
    (partition / "_manifest.json").write_text(json.dumps({"segments": [{"name": archived.name}]}))
    assert find_archived(str(tmp_path / "lake"), "g2", start_us, start_us + 1) == [found]
    with pytest.raises(ConfigurationError, match="holds no journal of g2"):
        find_archived(str(tmp_path / "lake"), "g2", start_us + 7_200_000_000, start_us + 7_200_000_001)


def test_segments_with_numbers_of_lost_ones_are_played_when_they_were_recorded(tmp_path: Path) -> None:
    """Segments 1 and 2, and another 1 and 2 of the same journal that were begun after them."""
    for place, (number, created_ns) in enumerate([(1, 4), (2, 2), (2, 5), (1, 1)]):
        info = SegmentInfo(7, "g1", number, created_ns, START_NS, "1")
        (tmp_path / f"{place}.journal").write_bytes(encode_segment_header(info))
    assert [each.info["created_at_ns"] for each in find_segments(tmp_path, None)] == [1, 2, 4, 5]
