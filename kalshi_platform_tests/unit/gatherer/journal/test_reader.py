"""Reading a journal: the hot tail, finished and compressed segments, and every kind of damage."""

from __future__ import annotations

import errno
import shutil
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.gatherer.journal import segment_reader
from kalshi_platform.gatherer.journal.block_format import (
    BLOCK_HEADER,
    Block,
    Damage,
    Position,
    SegmentInfo,
    encode_segment_header,
)
from kalshi_platform.gatherer.journal.keeping import compress_segment
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.journal.segments import read_some, segment_name
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import (
    OPENED,
    RECEIVED_NS,
    SESSION,
    STREAM_OPENED,
    a_journal,
    batch_of,
    damages_of,
    frames_of,
    items_of,
)

FRAMES = [b"frame %d" % number for number in range(6)]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder whose first segment has eight blocks, of which five have a frame; the second begins with the sixth."""
    journal = a_journal(tmp_path / "journal")
    journal.append(SESSION, batch_of([], marks=[OPENED, STREAM_OPENED]))
    for number, frame in enumerate(FRAMES[:5], 1):
        journal.append(SESSION, batch_of([frame], first_number=number))
    journal.append(0, batch_of([], marks=[]) or FrameBatch())
    journal.append(SESSION, batch_of(FRAMES[5:], first_number=6, received_at_ns=RECEIVED_NS + 3_600 * 10**9))
    journal.close()
    return journal.folder


def first(folder: Path) -> Path:
    return folder / segment_name(1)


def blocks_of(items: Sequence[Block | Damage]) -> list[Block]:
    return [item for item in items if isinstance(item, Block)]


def starts(folder: Path, segment: int = 1) -> list[int]:
    return [block.position.offset for block in blocks_of(items_of(folder)) if block.position.segment == segment]


def test_every_bit_flip_damages_at_most_one_block_and_is_reported(small: Path) -> None:
    data, before = bytearray(first(small).read_bytes()), blocks_of(items_of(small))
    for at in range(len(data)):
        data[at] ^= 1 << (at % 8)
        first(small).write_bytes(data)
        data[at] ^= 1 << (at % 8)
        items = items_of(small)
        after = blocks_of(items)
        lost = [block for block in before if block not in after]
        assert [block for block in before if block not in lost] == after
        assert [block.position for block in lost] == [
            block.position for block in before if block.position <= Position(1, at) < block.end
        ]
        [damage] = damages_of(items)
        assert damage.position <= Position(1, at) < damage.end
        assert damage.blocks == len(lost)
        assert not damage.is_torn


def test_every_cut_costs_the_blocks_behind_it_and_is_reported(small: Path) -> None:
    data, before = first(small).read_bytes(), blocks_of(items_of(small))
    ends = [block.end.offset for block in before if block.position.segment == 1]
    for size in range(len(data)):
        first(small).write_bytes(data[:size])
        items = items_of(small)
        kept = [block for block in before if block.end <= Position(1, size) or block.position.segment == 2]
        assert blocks_of(items) == kept
        damages = damages_of(items)
        assert sum(damage.blocks or 0 for damage in damages) == len(before) - len(kept)
        assert len(damages) == 1, (size, ends, damages)


def test_a_cut_of_the_last_segment_is_the_place_where_a_writer_may_be(small: Path) -> None:
    last = small / segment_name(2)
    data = last.read_bytes()
    for size in range(len(data)):
        last.write_bytes(data[:size])
        assert damages_of(items_of(small)) == []
    following = a_journal(small)
    following.append(SESSION, batch_of([b"of the next process"], marks=[OPENED, STREAM_OPENED]))
    following.close()
    [torn] = damages_of(items_of(small))
    assert (torn.segment, torn.is_torn, torn.blocks) == (2, True, None)


def test_a_removed_block_is_reported_with_its_number(small: Path) -> None:
    data, at = first(small).read_bytes(), starts(small)
    first(small).write_bytes(data[: at[3]] + data[at[5] :])
    [damage] = damages_of(items_of(small))
    assert (damage.position, damage.size, damage.blocks) == (Position(1, at[3]), 0, 2)
    assert damage.what == "blocks 3 to 4 are missing"
    assert frames_of(items_of(small)) == [FRAMES[0], *FRAMES[3:]]


def test_a_block_that_stands_there_twice_is_read_once(small: Path) -> None:
    data, at = first(small).read_bytes(), starts(small)
    first(small).write_bytes(data[: at[4]] + data[at[2] :])
    items = items_of(small)
    assert frames_of(items) == FRAMES
    assert [damage.what for damage in damages_of(items)] == [f"block {n} stands here again" for n in (2, 3)]


def test_missing_segments_are_one_damage(tmp_path: Path) -> None:
    journal = a_journal(tmp_path, segment_bytes=1)
    for number, frame in enumerate(FRAMES, 1):
        journal.append(SESSION, batch_of([frame], first_number=number, marks=[OPENED, STREAM_OPENED]))
    journal.close()
    (tmp_path / segment_name(3)).unlink()
    (tmp_path / segment_name(4)).unlink()
    [damage] = damages_of(items_of(tmp_path))
    assert (damage.what, damage.segment, damage.end) == ("segments 3 to 4 are missing", 3, Position(5, 0))
    (tmp_path / segment_name(6)).unlink()
    assert [damage.segment for damage in damages_of(items_of(tmp_path))] == [3, 6]
    assert [damage.position for damage in damages_of(items_of(tmp_path, Position(4, 77)))] == [
        Position(4, 77),
        Position(6, 0),
    ]


def test_a_segment_under_another_number_is_no_part_of_the_journal(small: Path) -> None:
    shutil.copy(first(small), small / segment_name(3))
    items = items_of(small)
    [damage] = damages_of(items)
    assert (damage.segment, damage.what) == (3, "the file holds segment 1")
    assert frames_of(items) == FRAMES


def test_reading_from_every_block_gives_the_rest(small: Path) -> None:
    blocks = blocks_of(items_of(small))
    for at, block in enumerate(blocks):
        assert items_of(small, block.position) == blocks[at:]
    assert items_of(small, Position(1, 10**9)) == [block for block in blocks if block.position.segment == 2]
    assert items_of(small, blocks[-1].end) == []


def test_a_compressed_segment_reads_like_a_plain_one(small: Path) -> None:
    blocks = blocks_of(items_of(small))
    compressed = compress_segment(small, 1)
    assert not first(small).exists()
    for at, block in enumerate(blocks):
        assert items_of(small, block.position) == blocks[at:]
    compressed.write_bytes(compressed.read_bytes()[:-20])
    items = items_of(small)
    assert sum(damage.blocks or 0 for damage in damages_of(items)) == len(blocks) - len(blocks_of(items)) > 0
    assert blocks_of(items)[-1] == blocks[-1]


def test_every_change_of_a_compressed_segment_is_reported_or_costs_nothing(small: Path) -> None:
    before = items_of(small)
    compressed = compress_segment(small, 1)
    data = bytearray(compressed.read_bytes())
    for bit in range(0, 8 * len(data), 5):
        data[bit // 8] ^= 1 << bit % 8
        compressed.write_bytes(data)
        data[bit // 8] ^= 1 << bit % 8
        items = items_of(small)
        assert all(block in before for block in blocks_of(items))
        assert sum(damage.blocks or 0 for damage in damages_of(items)) == len(before) - len(blocks_of(items))


def test_a_segment_whose_disk_fails_is_given_up_after_some_attempts(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    reader = JournalReader(small)
    with monkeypatch.context() as failing:
        failing.setattr(segment_reader, "read_some", fail)
        for _ in range(4):
            with pytest.raises(OSError, match="Input/output error"):
                reader.next()
        damage = reader.next()
    assert isinstance(damage, Damage)
    assert (damage.position, damage.end) == (Position(1, 0), Position(2, 0))
    assert damage.what.endswith("cannot be read: Input/output error")
    block = reader.next()
    reader.close()
    assert block is not None
    assert block.position.segment == 2


@pytest.mark.parametrize("has_a_block_behind", [True, False])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_large_damage_is_searched_without_keeping_it_in_memory(
    small: Path, *, compressed: bool, has_a_block_behind: bool
) -> None:
    size, (at, until) = 8 * 1024**2, starts(small)[3:7:3]
    content = first(small).read_bytes()
    first(small).write_bytes(content[:at] + b"#" + bytes(size - 1) + (content[until:] if has_a_block_behind else b""))
    if compressed:
        compress_segment(small, 1)
    tracemalloc.start()
    try:
        items = items_of(small)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 1024**2
    (damage,) = damages_of(items)
    assert (damage.position.offset, damage.size, damage.payload[:2]) == (at, size, b"#\0")
    assert damage.blocks == (3 if has_a_block_behind else 4)
    assert len(damage.payload) == 64 * 1024


def test_a_given_list_of_files_ends_with_its_last(small: Path) -> None:
    assert frames_of(items_of([first(small)])) == FRAMES[:5]
    assert len(items_of(sorted(small.iterdir()))) == len(items_of(small))


def test_a_segment_of_another_version_is_said_with_the_remedy(small: Path) -> None:
    info = SegmentInfo(1, "g1", 1, 0, 0, "", None)
    first(small).write_bytes(encode_segment_header(info, version=2))
    with pytest.raises(ConfigurationError, match=r"segment 1 .*version 2; this program reads 1"):
        items_of(small)


def test_a_reader_beside_a_writing_thread_sees_every_block_once(tmp_path: Path) -> None:
    journal = a_journal(tmp_path, SYSTEM_CLOCK, segment_bytes=5_000)
    journal.append(SESSION, batch_of([], marks=[OPENED, STREAM_OPENED]))
    sent = [b"%d" % number * (number % 50 + 1) for number in range(3_000)]

    def write() -> None:
        for number, frame in enumerate(sent, 1):
            journal.append(SESSION, batch_of([frame], first_number=number, received_at_ns=SYSTEM_CLOCK.now_ns()))

    thread = threading.Thread(target=write)
    thread.start()
    reader, frames = JournalReader(tmp_path), list[bytes]()
    while len(frames) < len(sent):
        item = reader.next()
        if item is None:
            with journal.appended:
                journal.appended.wait_for(lambda: journal.end > reader.position, timeout=20)
            continue
        assert isinstance(item, Block), item
        frames += item.batch.payloads
    thread.join(20)
    assert frames == sent
    assert reader.next() is None
    assert reader.position == journal.end
    reader.close()
    journal.close()


@pytest.mark.parametrize("empty_reads", [1, 2, 3])
def test_blocks_that_are_appended_between_two_reads_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_reads: int
) -> None:
    journal, reader = a_journal(tmp_path), JournalReader(tmp_path)
    journal.append(SESSION, batch_of([b"0"], marks=[OPENED, STREAM_OPENED]))
    assert len([reader.next(), reader.next()]) == 2
    reads = [0]

    def read_and_append(file: BinaryIO, size: int) -> bytes:
        data = read_some(file, size)
        reads[0] += not data
        if not data and reads[0] == empty_reads:
            journal.append(SESSION, batch_of([b"1"]))
            journal.append(SESSION, batch_of([b"2"]))
        return data

    monkeypatch.setattr(segment_reader, "read_some", read_and_append)
    items = [item for item in (reader.next() for _ in range(8)) if item is not None]
    reader.close()
    journal.close()
    assert damages_of(items) == []
    assert frames_of(items) == [b"1", b"2"]


def test_a_part_of_a_block_that_the_writer_cut_off_again_is_forgotten(small: Path) -> None:
    last = small / segment_name(2)
    data, reader = last.read_bytes(), JournalReader(small)
    block = blocks_of(items_of(small))[-1]
    half = block.position.offset + BLOCK_HEADER.size + 3
    last.write_bytes(data[: half - 1] + b"?")
    while reader.next() is not None:
        pass
    assert reader.position == block.position
    last.write_bytes(data)
    assert reader.next() == block
    reader.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.integers(0, 500), st.integers(1, 3))
def test_before_finds_the_first_block_received_so_long_before(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int], span_s: int, per_segment: int
) -> None:
    folder, clock = tmp_path_factory.mktemp("journal"), FakeClock()
    journal = a_journal(folder, clock, segment_bytes=200 * per_segment)
    times = sorted(seconds)
    for time in times:
        clock.step(RECEIVED_NS / 1e9 + time - clock.now_ns() / 1e9)
        journal.append(0, FrameBatch([b"x" * 60], [RECEIVED_NS + time * 10**9], [0], [0], [0]))
    journal.close()
    blocks = [block for block in blocks_of(items_of(folder)) if block.batch.payloads]
    found = JournalReader(folder).before(journal.end, span_s, least_blocks=1)
    expected = next(block for block in blocks if block.received_at_ns >= blocks[-1].received_at_ns - span_s * 10**9)
    assert next(each.position for each in blocks if each.position >= found) == expected.position
    assert JournalReader(folder).before(Position(1, 0), span_s) == Position(1, 0)


def test_before_does_not_go_back_over_a_clock_that_was_set(tmp_path: Path) -> None:
    """Set forward by ten minutes, or back by 40: no long way back, and some blocks in any case."""
    hour = 3_600 * 10**9
    base = RECEIVED_NS - RECEIVED_NS % hour
    for name, times in ("forward", [*range(1_000, 1_100), 1_700]), ("back", [*range(3_000, 3_100), *range(600, 610)]):
        journal = a_journal(tmp_path / name)
        for second in times:
            journal.append(0, FrameBatch([b"x"], [base + second * 10**9], [0], [0], [0]))
        journal.close()
        blocks = [block for block in blocks_of(items_of(journal.folder)) if block.batch.payloads]
        reader = JournalReader(journal.folder)
        found = [reader.before(journal.end, 120, least_blocks=least) for least in (1, 50)]
        in_time = 1 if name == "forward" else 10
        assert found == [blocks[-in_time].position, blocks[-50].position]
