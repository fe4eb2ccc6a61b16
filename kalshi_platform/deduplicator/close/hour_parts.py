"""Keeps what was found of the parts of an hour in production, and joins them to the whole.

A division of an hour's markets into parts has one number of close, which its first part takes: what the live merge
brings after that reopens the hour, whichever part had read it. Nothing of a part can be seen in production's record
before all parts are done; the last one writes all in the transaction that every close ends with.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import polars as pl

from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.close.hour_work import HourWork, sum_counts, sum_quarantined
from kalshi_platform.deduplicator.close.overlap import sum_statistics
from kalshi_platform.deduplicator.close.verify_hour import HourVerification, join_verifications
from kalshi_platform.deduplicator.coverage.verification.verify_claims import Verification
from kalshi_platform.errors import CloseSuperseded
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

Value = TypeVar("Value")
_FORMAT = 1


class Division(NamedTuple):
    """A division of an hour that is being closed. `close_no`, `begun_at`: of its first part."""

    hour: datetime
    part: MarketPart
    close_no: int
    begun_at: datetime

    def key(self) -> tuple[datetime, int]:
        """What names the division."""
        return self.hour, self.part.total


def begin_part(transaction: Transaction, hour: datetime, part: MarketPart) -> Division:
    """Begin a part, or begin it anew."""
    transaction.execute(_SQL["drop_old_parts"])
    row = transaction.fetch_one(_SQL["begin_part"], {"hour": hour, "parts": part.total, "part": part.number})
    assert row is not None  # noqa: S101 - the statement returns its row
    return Division(hour, part, int(row[0]), row[1])


def finish_part(transaction: Transaction, division: Division, work: HourWork) -> tuple[int, ...]:
    """Keep what was found of a part; return the numbers of the parts that are not done.

    Raises CloseSuperseded when the hour was closed meanwhile by another close.
    """
    hour, part = division.hour, division.part
    kept = transaction.execute(
        _SQL["finish_part"],
        {
            "hour": hour, "parts": part.total, "part": part.number, "close_no": division.close_no,
            "content": encode_work(work),
        },
    )  # fmt: skip
    if not kept:
        raise CloseSuperseded(
            f"{hour:%Y-%m-%dT%H} was closed by another close while part {part} of it was worked on; nothing of this"
            " part is kept"
        )
    done = {row[0] for row in transaction.fetch_all(_SQL["find_done_parts"], division.key())}
    return tuple(number for number in range(1, part.total + 1) if number not in done)


def read_parts(transaction: Transaction, division: Division) -> tuple[dict[int, HourWork], tuple[int, ...]]:
    """Read what was found of the parts that are done, by number, and which of them another version kept."""
    works: dict[int, HourWork] = {}
    unreadable: list[int] = []
    for number, content in transaction.fetch_all(_SQL["read_parts"], division.key()):
        try:
            works[number] = decode_work(bytes(content))
        except ValueError:
            unreadable.append(number)
    return works, tuple(unreadable)


def reject_unequal(
    transaction: Transaction, division: Division, works: Mapping[int, HourWork], unreadable: Sequence[int] = ()
) -> tuple[int, ...]:
    """Return parts that lacked a gatherer which others read, or cannot be read, and have them done again."""
    most = frozenset().union(*(each.gatherers_read for each in works.values()))
    unequal = (number for number, each in works.items() if frozenset(each.gatherers_read) != most)
    wrong = tuple(sorted({*unequal, *unreadable}))
    transaction.execute(_SQL["reject_parts"], (*division.key(), list(wrong)))
    return wrong


def delete_parts(transaction: Transaction, hour: datetime) -> None:
    """Remove what is kept of parts: the hour is closed as a whole."""
    transaction.execute(_SQL["delete_parts"], (hour,))


def join_works(works: Sequence[HourWork]) -> HourWork:
    """Join the parts of an hour, all of which read the same gatherers. Pure."""
    statistics = sum_statistics(each.statistics.drop("agreement") for each in works)
    verified = [each.verified for each in works]
    streams = _in_all([each.streams for each in verified], frozenset.intersection)
    replaced = verified[0].replaced
    for each in verified[1:]:
        replaced = replaced.join(each.replaced, on=["gatherer", "stream_id"], how="semi")
    joined = HourVerification(
        verified[0].hour,
        join_verifications(each.verification for each in verified),
        pl.concat([each.derived for each in verified]).sort("ticker"),
        # Each part has measured the streams as a whole.
        pl.concat([each.regressions for each in verified]).unique(maintain_order=True),
        verified[0].max_out_of_orderness_us,
        streams,
        tuple(sorted({hour for each in verified for hour in each.contradicted_hours})),
        lambda: chain.from_iterable(each.checkpoints() for each in verified),
        replaced,
    )
    return HourWork(
        works[0].gatherers_read,
        dict(chain.from_iterable(each.missed.items() for each in works)),
        {
            name: frozenset().union(*(each.incomplete.get(name, frozenset()) for each in works))
            for name in sorted({name for each in works for name in each.incomplete})
        },
        frozenset().union(*(each.not_shown for each in works)),
        {table: max(each.rows[table] for each in works) for table in works[0].rows},
        sum(each.held_deltas for each in works),
        sum_counts(each.inserted for each in works),
        sum_quarantined(each.quarantined for each in works),
        statistics,
        joined,
        _in_all([each.held for each in works], lambda first, *_: first),
        any(each.may_grow for each in works),
    )


class _Stored(msgspec.Struct, frozen=True):
    """What is kept of a part; frames are Arrow files."""

    format: int
    gatherers_read: tuple[str, ...]
    missed: dict[str, str]
    incomplete: dict[str, list[str]]
    not_shown: list[str]
    rows: dict[str, int]
    held_deltas: int
    inserted: dict[str, int]
    quarantined: list[tuple[str, str, int, str]]
    may_grow: bool
    hour: datetime
    max_out_of_orderness_us: int
    streams: dict[str, list[int]]
    contradicted_hours: list[datetime]
    coverage: dict[str, list[Interval]]
    alarms: list[close_store.Alarm]
    frames: dict[str, bytes]
    held: dict[str, bytes]
    checkpoints: list[bytes]


def encode_work(work: HourWork) -> bytes:
    """Encode what was found of a part. Pure, but for reading its checkpoints."""
    verified = work.verified
    frames = {
        "claims": verified.verification.claims, "proofs": verified.verification.proofs, "derived": verified.derived,
        "regressions": verified.regressions, "replaced": verified.replaced, "statistics": work.statistics,
    }  # fmt: skip
    return msgspec.msgpack.encode(
        _Stored(
            _FORMAT,
            work.gatherers_read,
            dict(work.missed),
            {name: sorted(tables) for name, tables in work.incomplete.items()},
            sorted(work.not_shown),
            dict(work.rows),
            work.held_deltas,
            dict(work.inserted),
            [(*subject, *found) for subject, found in work.quarantined.items()],
            work.may_grow,
            verified.hour,
            verified.max_out_of_orderness_us,
            {name: sorted(ids) for name, ids in verified.streams.items()},
            list(verified.contradicted_hours),
            dict(verified.verification.coverage),
            verified.verification.alarms,
            {name: _encode_frame(frame) for name, frame in frames.items()},
            {name: _encode_frame(frame) for name, frame in work.held.items()},
            [_encode_frame(frame) for frame in verified.checkpoints() if frame.height],
        )
    )  # fmt: skip


def decode_work(content: bytes) -> HourWork:
    """Decode what encode_work() made. Raises ValueError when another version of the platform did."""
    try:
        stored = msgspec.msgpack.decode(content, type=_Stored)
    except msgspec.DecodeError as error:
        raise ValueError(f"a part of the hour was worked on by another version: {error}") from error
    if stored.format != _FORMAT:
        raise ValueError(f"a part of the hour was worked on by another version: format {stored.format}")
    frames = {name: _decode_frame(frame) for name, frame in stored.frames.items()}
    checkpoints = stored.checkpoints

    def read_checkpoints() -> Iterator[pl.DataFrame]:
        return map(_decode_frame, checkpoints)

    coverage = {ticker: [(low, high) for low, high in each] for ticker, each in stored.coverage.items()}
    verified = HourVerification(
        stored.hour, Verification(frames["claims"], coverage, frames["proofs"], stored.alarms), frames["derived"],
        frames["regressions"], stored.max_out_of_orderness_us,
        {name: frozenset(ids) for name, ids in stored.streams.items()}, tuple(stored.contradicted_hours),
        read_checkpoints, frames["replaced"],
    )  # fmt: skip
    return HourWork(
        stored.gatherers_read, stored.missed,
        {name: frozenset(tables) for name, tables in stored.incomplete.items()}, frozenset(stored.not_shown),
        stored.rows, stored.held_deltas, stored.inserted,
        {(table, reason): (count, detail) for table, reason, count, detail in stored.quarantined},
        frames["statistics"], verified, {name: _decode_frame(frame) for name, frame in stored.held.items()},
        stored.may_grow,
    )  # fmt: skip


def _encode_frame(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_ipc(file, compression="zstd")
    return file.getvalue()


def _decode_frame(content: bytes) -> pl.DataFrame:
    return pl.read_ipc(content)


def _in_all(every: Iterable[Mapping[str, Value]], join: Callable[..., Value]) -> dict[str, Value]:
    """Join the values of the names that all have."""
    parts = list(every)
    names = [name for name in parts[0] if all(name in each for each in parts)]
    return {name: join(*(each[name] for each in parts)) for name in names}
