"""The spool: in order, on disk, and indifferent to a kill in the middle of a write."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.gatherer.record_codec import decode_records, encode_records
from kalshi_platform.gatherer.spool import Spool
from kalshi_platform.market.records import Record
from kalshi_platform_tests.fixtures.disk import full_disk
from kalshi_platform_tests.fixtures.gathered import STEPS, Stream


def block(number: int) -> list[Record]:
    stream = Stream(stream_id=100 + number)
    stream.snapshot()
    stream.delta()
    return stream.records


def drain(spool: Spool) -> list[list[Record]]:
    blocks = []
    while (taken := spool.next_block()) is not None:
        blocks.append(taken)
    spool.drop_read()
    return blocks


def test_every_record_survives_the_way_to_disk() -> None:
    stream = Stream()
    for step in STEPS:
        stream.step(step)
    stream.close()
    assert decode_records(encode_records(stream.records)) == stream.records


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_records(data)


def test_blocks_come_back_in_order_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=600)
    for number in range(6):
        spool.append(block(number))
    spool.close()
    assert len(list(tmp_path.iterdir())) > 1
    again = Spool(tmp_path)
    again.append(block(6))
    assert drain(again) == [block(number) for number in range(7)]
    assert again.is_empty()
    assert list(tmp_path.iterdir()) == []


def test_a_prepended_block_comes_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(block(2))
    spool.prepend(block(1))
    spool.append(block(3))
    assert drain(spool) == [block(1), block(2), block(3)]


def test_what_is_read_but_not_dropped_is_read_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(block(1))
    spool.append(block(2))
    assert spool.next_block() == block(1)
    spool.rewind()
    assert spool.next_block() == block(1)
    spool.close()
    assert drain(Spool(tmp_path)) == [block(1), block(2)]


def test_blocks_may_be_added_while_others_are_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(block(1))
    assert spool.next_block() == block(1)
    spool.append(block(2))
    assert spool.next_block() == block(2)
    spool.drop_read()
    assert not spool.is_empty()
    assert spool.next_block() is None
    spool.drop_read()
    assert spool.is_empty()


@settings(max_examples=40)
@given(cut=st.integers(1, 400))
def test_a_torn_tail_costs_only_the_block_it_tore(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder)
    spool.append(block(1))
    (path,) = folder.iterdir()
    first_end = path.stat().st_size
    spool.append(block(2))
    spool.close()
    size = path.stat().st_size
    torn = max(first_end, size - cut)
    with path.open("r+b") as file:
        file.truncate(torn)
    again = Spool(folder)
    again.append(block(3))
    assert drain(again) == [block(1), block(3)]
    assert again.damaged_blocks == (1 if torn > first_end else 0)


def test_a_flipped_bit_ends_the_file_but_not_the_next_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path)
    spool.append(block(1))
    spool.close()
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    again = Spool(tmp_path)
    again.append(block(2))
    with caplog.at_level(logging.WARNING):
        assert drain(again) == [block(2)]
    assert "torn" in caplog.text


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert Spool(tmp_path).is_empty()


@pytest.mark.parametrize("free_bytes", [0, 4, 8, 20])
def test_a_full_disk_leaves_no_file_that_is_in_the_way_later(free_bytes: int, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with full_disk(free_bytes), pytest.raises(OSError, match="File too large"):
        spool.append(block(2))
    spool.append(block(2))
    with full_disk(free_bytes), pytest.raises(OSError, match="File too large"):
        spool.prepend(block(1))
    spool.prepend(block(1))
    with full_disk(free_bytes), pytest.raises(OSError, match="File too large"):
        spool.append(block(3))
    spool.append(block(3))
    assert drain(spool) == [block(1), block(2), block(3)]
    assert spool.damaged_blocks == 0
    assert list(tmp_path.iterdir()) == []
