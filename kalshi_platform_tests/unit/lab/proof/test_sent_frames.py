"""Journals against the exchange's record of what it sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from kalshi_platform.lab.proof.comparison.sent_frames import JournalSession, SentLine, compare_sent, match_sessions
from kalshi_platform.lab.simulator.server.sent_record import CLOSE, TEXT, SentRecord, read_sent
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journal_recorder import Recorder, delta

FRAMES = [b"first", b"second", b"third", b"fourth"]


def record(folder: Path, connections: Sequence[tuple[str, Sequence[bytes], bool]]) -> None:
    sent = SentRecord(folder, 1_000_000, FakeClock())
    for number, (name, frames, has_goodbye) in enumerate(connections):
        connection = sent.open(f"c{number}", f"kalshi-platform/0.1 (g1 {name})", "key")
        connection.append(TEXT, frames)
        if has_goodbye:
            connection.append(CLOSE, [b"\x03\xe9"])
    sent.close()


def session(number: int, frames: Sequence[bytes], reason: str | None = None, name: str = "books-1") -> JournalSession:
    return JournalSession(number, name, 0, [hash(frame) for frame in frames], reason)


def match(folder: Path, *sessions: JournalSession) -> tuple[list[SentLine], list[str]]:
    return match_sessions("g1", read_sent(folder), sessions)


def test_sessions_with_the_frames_of_their_connections_are_right(tmp_path: Path) -> None:
    record(tmp_path, [("books-1", FRAMES, True), ("feed", FRAMES[:2], False), ("books-1", FRAMES[1:], False)])
    lines, problems = match(
        tmp_path,
        session(7, FRAMES, "connection lost"),
        session(8, FRAMES[:2], "stopped", "feed"),
        session(9, FRAMES[1:3]),
    )
    assert problems == []
    assert [(line.sent, line.journaled, line.unread, line.ending) for line in lines] == [
        (4, 4, 0, "in order"),
        (2, 2, 0, "by the gatherer"),
        (3, 2, 1, "killed"),
    ]


@pytest.mark.parametrize(
    "journaled",
    [
        [b"first", b"third"],
        [b"first", b"second", b"third", b"fourth", b"fifth"],
        [b"second", b"first"],
        [b"first", b"First"],
        [b"first", b"first"],
    ],
)
def test_frames_that_are_changed_doubled_missing_or_in_another_order_are_found(
    tmp_path: Path, journaled: list[bytes]
) -> None:
    record(tmp_path, [("books-1", FRAMES, False)])
    _, problems = match(tmp_path, session(7, journaled))
    assert len(problems) == 1
    assert "holds what was sent on no connection" in problems[0]


def test_of_a_connection_that_the_exchange_closed_in_order_nothing_may_be_absent(tmp_path: Path) -> None:
    record(tmp_path, [("books-1", FRAMES, True)])
    _, problems = match(tmp_path, session(7, FRAMES[:3], "connection lost"))
    assert problems == [
        "g1: 1 of 4 frames of connection 1 (books-1), which the exchange closed in order, are not in its journal"
    ]


def test_a_connection_that_left_no_session_is_shown(tmp_path: Path) -> None:
    record(tmp_path, [("books-1", [], False), ("books-1", FRAMES, False)])
    lines, problems = match(tmp_path, session(7, FRAMES))
    assert problems == []
    assert [(line.number, line.journaled) for line in lines] == [(1, 0), (2, 4)]


def test_a_journal_on_disk_is_compared_with_the_record(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "journal")
    recorder.write(11, [delta(1), delta(2)])
    recorder.close()
    sent = [json.dumps(delta(number)).encode() for number in (1, 2, 3)]
    record(tmp_path / "sent", [("A", sent, False), ("B", [], False)])
    found = compare_sent(tmp_path / "sent", {"g1": tmp_path / "journal"})
    assert found.problems == []
    assert (found.sent, found.journaled, found.unread, found.undelivered) == (3, 2, 1, 0)


def test_a_journal_that_lacks_most_of_what_came_is_found(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "journal")
    recorder.write(11, [delta(1)])
    recorder.close()
    sent = [json.dumps(delta(number)).encode() for number in (1, 2, 3)]
    record(tmp_path / "sent", [("A", sent, False), ("B", [], False)])
    found = compare_sent(tmp_path / "sent", {"g1": tmp_path / "journal"})
    assert found.problems == ["g1: of 3 frames that came to its kernel its journal has 1"]


def test_frames_of_a_session_whose_opening_is_damaged_are_of_no_connection(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "journal")
    for number in (1, 2):
        recorder.write(11, [delta(number)])
    recorder.close()
    for path in (tmp_path / "journal").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"seq": 1', b'"seq": 7'))
    record(tmp_path / "sent", [("A", [json.dumps(delta(number)).encode() for number in (1, 2)], False)])
    found = compare_sent(tmp_path / "sent", {"g1": tmp_path / "journal"})
    assert "holds what was sent on no connection" in found.problems[0]
