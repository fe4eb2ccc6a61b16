"""The spool: in order, on disk, and indifferent to a kill in the middle of a write."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.gatherer.journal.record_codec import decode_records, encode_records
from kalshi_platform.gatherer.journal.spool import Spool, SpoolAlarm, SpoolFull
from kalshi_platform.gatherer.journal.spool_file import MAGIC, BlockReader, CorruptRange, block_size
from kalshi_platform.market.records import BookSnapshot, Record
from kalshi_platform_tests.fixtures.disk import full_disk
from kalshi_platform_tests.fixtures.gathered import STEPS, Stream


def block(number: int) -> list[Record]:
    stream = Stream(stream_id=100 + number)
    stream.snapshot()
    stream.delta()
    return stream.records


def drain(spool: Spool) -> list[list[Record] | CorruptRange]:
    blocks = []
    while (block_read := spool.next_block()) is not None:
        blocks.append(block_read)
    spool.drop_read()
    return blocks


def test_every_record_survives_encoding_and_decoding() -> None:
    stream = Stream()
    for step in STEPS:
        stream.step(step)
    stream.close()
    assert decode_records(encode_records(stream.records)) == stream.records


def test_a_number_beyond_64_bits_survives_encoding_and_decoding() -> None:
    stream = Stream()
    stream.snapshot()
    book = stream.records[2]
    assert isinstance(book, BookSnapshot)
    stream.records[2] = msgspec.structs.replace(book, yes=((100, 2**70),))
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


@settings(max_examples=40, deadline=None)
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
    found = read_all(again)
    assert [each for each in found if not isinstance(each, CorruptRange)] == [block(1), block(3)]
    damages = [each for each in found if isinstance(each, CorruptRange)]
    assert len(damages) == again.damages == (1 if torn > first_end else 0)
    assert all(each.is_torn for each in damages)


def write_blocks(folder: Path, blocks: int, *, segment_bytes: int = 1_000_000) -> list[Path]:
    """Write so many blocks; return the files."""
    spool = Spool(folder, segment_bytes)
    for number in range(1, blocks + 1):
        spool.append(block(number))
    spool.close()
    return sorted(folder.iterdir())


def read_all(spool: Spool) -> list[list[Record] | CorruptRange]:
    found = []
    while (block_read := spool.next_block()) is not None:
        found.append(block_read)
    return found


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_one_wrong_byte_costs_one_block_and_is_returned_in_its_place(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    (path,) = write_blocks(folder, 3)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    spool = Spool(folder)
    found = read_all(spool)
    (damage,) = [each for each in found if isinstance(each, CorruptRange)]
    place = found.index(damage)
    whole = [block(number) for number in (1, 2, 3)]
    kept = [each for each in found if not isinstance(each, CorruptRange)]
    if damage.offset == 0:
        # The file's own mark: no block is lost, and nothing can show that.
        assert kept == whole
    else:
        assert kept == whole[:place] + whole[place + 1 :]
        assert damage.size > 0
    assert not damage.is_torn or place == 2
    spool.drop_read()
    assert spool.is_empty()


def test_a_corrupt_range_is_returned_again_after_a_rewind(tmp_path: Path) -> None:
    (path,) = write_blocks(tmp_path, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    spool = Spool(tmp_path)
    first = read_all(spool)
    spool.rewind()
    assert read_all(spool) == first
    assert [type(each) for each in first] == [list, CorruptRange, list]


def test_a_removed_file_is_returned_as_corrupt_in_its_place(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path, 4, segment_bytes=1)
    paths[1].unlink()
    found = read_all(Spool(tmp_path))
    assert [each for each in found if not isinstance(each, CorruptRange)] == [block(1), block(3), block(4)]
    assert isinstance(found[1], CorruptRange)
    assert found[1].file == paths[1].name


def test_a_file_removed_while_others_are_read_is_returned_as_corrupt(tmp_path: Path) -> None:
    paths = write_blocks(tmp_path, 3, segment_bytes=1)
    spool = Spool(tmp_path)
    assert spool.next_block() == block(1)
    paths[1].unlink()
    damage, last = read_all(spool)
    assert isinstance(damage, CorruptRange)
    assert damage.file == paths[1].name
    assert last == block(3)
    spool.drop_read()
    assert spool.is_empty()


def test_missing_blocks_between_others_are_returned_as_corrupt(tmp_path: Path) -> None:
    (path,) = write_blocks(tmp_path / "one", 1)
    first = path.read_bytes()
    (path,) = write_blocks(tmp_path / "two", 2)
    both = path.read_bytes()
    (path,) = write_blocks(tmp_path / "three", 3)
    whole = path.read_bytes()
    path.write_bytes(first + whole[len(both) :])
    found = read_all(Spool(tmp_path / "three"))
    assert [type(each) for each in found] == [list, CorruptRange, list]


class Device:
    """Gives an error instead of some of the reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[str, int] = {}
        monkeypatch.setattr("kalshi_platform.gatherer.journal.spool.BlockReader", self._open)

    def _open(self, path: Path) -> BlockReader:
        if self.errors.get(path.name, 0) > 0:
            self.errors[path.name] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return BlockReader(path)


def read_repeatedly(spool: Spool, attempts: int) -> list[list[Record] | CorruptRange]:
    for _ in range(attempts - 1):
        with pytest.raises(OSError, match="Input/output error"):
            read_all(spool)
        spool.rewind()
    return read_all(spool)


def test_an_error_of_the_device_that_passes_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_blocks(tmp_path, 3, segment_bytes=1)
    spool, device = Spool(tmp_path), Device(monkeypatch)
    device.errors[paths[1].name] = 3
    assert read_repeatedly(spool, attempts=4) == [block(1), block(2), block(3)]
    spool.drop_read()
    assert list(tmp_path.iterdir()) == []
    assert spool.damages == 0


def test_a_file_that_stays_unreadable_is_returned_as_corrupt_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_blocks(tmp_path, 3, segment_bytes=1)
    content = paths[1].read_bytes()
    spool, device = Spool(tmp_path), Device(monkeypatch)
    device.errors[paths[1].name] = 1_000
    found = read_repeatedly(spool, attempts=5)
    assert [type(each) for each in found] == [list, CorruptRange, list]
    # Read again because the database did not take it: it is given up at once.
    spool.rewind()
    assert read_all(spool) == found
    spool.drop_read()
    (kept,) = tmp_path.iterdir()
    assert kept.name == paths[1].with_suffix(".damaged").name
    assert kept.read_bytes() == content


def test_a_damaged_file_is_kept_and_neither_read_again_nor_counted_nor_overwritten(tmp_path: Path) -> None:
    for times in (1, 2):
        spool = Spool(tmp_path)
        spool.append(block(times))
        spool.close()
        (path,) = tmp_path.glob("*.spool")
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        spool = Spool(tmp_path)
        (damage,) = drain(spool)
        assert isinstance(damage, CorruptRange)
        kept = sorted(tmp_path.iterdir())
        assert [each.suffix for each in kept] == [".damaged"] * times
        assert kept[-1].read_bytes() == content
        assert Spool(tmp_path).is_empty()
        assert Spool(tmp_path).bytes_on_disk() == 0


def test_numbers_go_on_after_the_spool_ran_empty_and_what_was_removed_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []
    fsync = os.fsync

    def recording_fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            synced.append(sorted(os.listdir(file)))
        fsync(file)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    spool = Spool(tmp_path)
    numbers = []
    for number in range(3):
        spool.append(block(number))
        numbers.append(spool.last_number() or 0)
        assert drain(spool) == [block(number)]
        assert synced[-1] == []
    assert numbers == sorted(set(numbers))


# -- limits


def test_a_full_spool_refuses_blocks_until_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=1, max_bytes=1_000)
    written = 0
    while spool.bytes_on_disk() + len(MAGIC) + block_size(encode_records(block(written))) <= 1_000:
        spool.append(block(written))
        written += 1
    with pytest.raises(SpoolFull, match="may hold"):
        spool.append(block(written))
    assert 1 < written < 100
    assert spool.bytes_on_disk() <= 1_000
    assert spool.fill().share > 0.8
    assert spool.next_block() == block(0)
    assert spool.next_block() == block(1)
    spool.drop_read()
    spool.append(block(written))
    assert drain(spool) == [block(number) for number in range(2, written + 1)]
    assert spool.fill().used == 0


def test_some_of_the_disk_stays_free_except_at_the_very_end(tmp_path: Path) -> None:
    free = [10_000]
    spool = Spool(tmp_path, min_free_bytes=5_000, free_bytes=lambda _: free[0])
    spool.append(block(1))
    assert spool.fill().capacity == spool.bytes_on_disk() + 5_000
    free[0] = 5_010
    with pytest.raises(SpoolFull, match="stay free"):
        spool.append(block(2))
    spool.append(block(2), last=True)
    assert drain(spool) == [block(1), block(2)]


def test_each_level_is_logged_once_and_again_only_after_the_spool_was_emptier(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, segment_bytes=1, max_bytes=10_000)
    refused: list[str] = []
    levels: list[int] = []
    alarm = SpoolAlarm("g1", spool, lambda: levels.append(1))

    def check() -> None:
        alarm.check_usage(refused[-1] if refused else None)

    def fill_up() -> None:
        try:
            while True:
                spool.append(block(1))
                check()
        except SpoolFull as error:
            refused.append(str(error))
            check()
            check()

    fill_up()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "ERROR", "CRITICAL"]
    assert [share in caplog.text for share in ("percent=50", "percent=80", "percent=95")] == [True] * 3
    refused.clear()
    check()
    assert len(levels) == 4
    drain(spool)
    check()
    fill_up()
    assert len(levels) == 8


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
        spool.append(block(3))
    spool.append(block(3))
    assert drain(spool) == [block(2), block(3)]
    assert spool.damages == 0
    assert list(tmp_path.iterdir()) == []
