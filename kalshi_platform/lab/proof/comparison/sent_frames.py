"""Compares the frames in gatherers' journals with the frames that the exchange wrote to their sockets, byte for byte.

A session of a journal must hold the first frames of one connection, in order, and nothing else. What it lacks at the
end was not delivered by the kernel, or lay unread in a socket that the gatherer closed or died with: of a connection
that the exchange closed in order nothing may be absent, and of what a gatherer's kernel had in all not the most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from kalshi_platform.lab.simulator.replay.journal_segments import Frame, Mark, find_segments, read_segment
from kalshi_platform.lab.simulator.server.sent_record import SentConnection, read_sent, read_sent_books

Ending: TypeAlias = Literal["in order", "connection lost", "by the gatherer", "killed"]
_REST_BOOKS = 8
_LOST = "connection lost"


@dataclass
class JournalSession:
    """One session of a journal: its frames as hashes, in order. `close_reason` is None where it has no end."""

    session_id: int
    connection: str
    opened_at_ns: int
    frames: list[int] = field(default_factory=list)
    close_reason: str | None = None


@dataclass(frozen=True)
class SentLine:
    """One connection: frames sent and journaled, and of the absent ones how many the peer's kernel did not have."""

    gatherer: str
    connection: str
    number: int
    sent: int
    journaled: int
    undelivered: int
    ending: Ending

    @property
    def unread(self) -> int:
        """Frames that the peer's kernel had, and nobody read."""
        return self.sent - self.journaled - self.undelivered


@dataclass(frozen=True)
class SentFound:
    """All connections of a run, and what contradicts the record of the exchange."""

    lines: Sequence[SentLine] = ()
    books: int = 0
    problems: Sequence[str] = ()

    @property
    def sent(self) -> int:
        """Frames sent on all connections."""
        return sum(line.sent for line in self.lines)

    @property
    def journaled(self) -> int:
        """Frames that the journals have."""
        return sum(line.journaled for line in self.lines)

    @property
    def undelivered(self) -> int:
        """Frames that never came to the gatherer's kernel."""
        return sum(line.undelivered for line in self.lines)

    @property
    def unread(self) -> int:
        """Frames in sockets that gatherers closed or died with."""
        return sum(line.unread for line in self.lines)


def compare_sent(record: Path, journals: Mapping[str, Path]) -> SentFound:
    """Compare the record of the exchange with the journals, by gatherer.

    Raises ConfigurationError where a journal cannot be read, SentRecordDamaged.
    """
    connections = read_sent(record)
    bodies = {hash(body) for _, body in read_sent_books(record)}
    lines: list[SentLine] = []
    problems: list[str] = []
    books = 0
    for gatherer, folder in journals.items():
        sessions, journaled_bodies = read_sessions(folder)
        books += len(journaled_bodies)
        unknown = sum(body not in bodies for body in journaled_bodies)
        if unknown:
            problems.append(f"{gatherer}: {unknown} answers with books in its journal were not sent like that")
        own = [each for each in connections if f"({gatherer} " in each.user_agent]
        compared, wrong = match_sessions(gatherer, own, sessions)
        lines += compared
        problems += wrong
        had, has = sum(line.sent - line.undelivered for line in compared), sum(line.journaled for line in compared)
        if 2 * has < had:
            problems.append(f"{gatherer}: of {had:,} frames that came to its kernel its journal has {has:,}")
    return SentFound(lines, books, problems)


def read_sessions(folder: Path) -> tuple[list[JournalSession], list[int]]:
    """Return the sessions of a journal in order, and the hashes of its answers with books."""
    sessions: dict[int, JournalSession] = {}
    bodies: list[int] = []
    for segment in find_segments(folder, None):
        for item in read_segment(segment):
            if isinstance(item, Frame):
                if item.kind == _REST_BOOKS:
                    bodies.append(hash(item.payload))
                else:
                    # One whose opening cannot be read is of no known connection.
                    session = sessions.setdefault(item.session_id, JournalSession(item.session_id, "", 0))
                    session.frames.append(hash(item.payload))
            else:
                _apply(item, sessions)
    return list(sessions.values()), bodies


def _apply(mark: Mark, sessions: dict[int, JournalSession]) -> None:
    content = mark.content
    if mark.name == "SessionOpened" and content["session_id"] not in sessions:
        sessions[content["session_id"]] = JournalSession(
            content["session_id"], content["connection"], content["opened_at_ns"]
        )
    elif mark.name == "SessionClosed" and content["session_id"] in sessions:
        sessions[content["session_id"]].close_reason = content["reason"]


def match_sessions(
    gatherer: str, connections: Sequence[SentConnection], sessions: Iterable[JournalSession]
) -> tuple[list[SentLine], list[str]]:
    """Return a line for each connection of a gatherer, and what does not match.

    Sessions come in the order of their handshakes by connection, but one that died at once may have left none.
    """
    waiting: dict[str, list[SentConnection]] = defaultdict(list)
    for connection in connections:
        waiting[_name_of(connection)].append(connection)
    lines: list[SentLine] = []
    problems: list[str] = []
    for session in sessions:
        candidates = waiting[session.connection]
        for place, connection in enumerate(candidates):
            sent = [(hash(payload), end) for payload, end in connection.frames()]
            if [each for each, _ in sent[: len(session.frames)]] == session.frames:
                line = _line(gatherer, connection, session, sent)
                lines.append(line)
                problems += _problems(line)
                del candidates[place]
                break
        else:
            problems.append(
                f"{gatherer}: session {session.session_id} of {session.connection} ({len(session.frames)} frames) holds"
                " what was sent on no connection" + _first_difference(session, candidates)
            )
    for left in waiting.values():
        for connection in left:
            sent = [(hash(payload), end) for payload, end in connection.frames()]
            session = JournalSession(0, _name_of(connection), connection.opened_at_ns)
            line = _line(gatherer, connection, session, sent)
            lines.append(line)
            problems += _problems(line)
    return sorted(lines, key=lambda line: line.number), problems


def _line(
    gatherer: str, connection: SentConnection, session: JournalSession, sent: Sequence[tuple[int, int]]
) -> SentLine:
    ending: Ending = "killed" if session.close_reason is None else "by the gatherer"
    if session.close_reason == _LOST:
        ending = "in order" if connection.has_goodbye else "connection lost"
    absent = sent[len(session.frames) :]
    delivered = connection.delivered_bytes
    undelivered = 0 if delivered is None else sum(end > delivered for _, end in absent)
    return SentLine(
        gatherer, session.connection, connection.number, len(sent), len(session.frames), undelivered, ending
    )


def _problems(line: SentLine) -> list[str]:
    absent = line.sent - line.journaled
    if line.ending == "in order" and absent:
        return [
            f"{line.gatherer}: {absent} of {line.sent} frames of connection {line.number} ({line.connection}), which"
            " the exchange closed in order, are not in its journal"
        ]
    return []


def _name_of(connection: SentConnection) -> str:
    """Return the connection's name in a User-Agent such as `kalshi-platform/0.1 (g1 books-1)`."""
    return connection.user_agent.rpartition("(")[2].rstrip(")").partition(" ")[2]


def _first_difference(session: JournalSession, candidates: Sequence[SentConnection]) -> str:
    best = 0
    for connection in candidates:
        equal = 0
        for (payload, _), journaled in zip(connection.frames(), session.frames, strict=False):
            if hash(payload) != journaled:
                break
            equal += 1
        best = max(best, equal)
    return f"; the first {best} are equal to those of one"
