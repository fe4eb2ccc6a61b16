"""Drops production's old rows, table by table, partition by partition."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from kalshi_platform.lake.closes import HourState
from kalshi_platform.lake.queries import closes_query
from kalshi_platform.lake.retention.drop import (
    Dropper,
    OldPartition,
    count_rows,
    describe_refusals,
    find_old_partitions,
    refuse_rows_between,
)
from kalshi_platform.lake.retention.gate import HeldHour, HourRefused, LakeGate
from kalshi_platform.lake.retention.report import Outcome
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.tables import CLOSE_TABLES, PRODUCTION_TABLES
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

PRODUCTION = "production"
BULK = ("orderbook_deltas", "orderbook_snapshots", "tickers")
"""Tables of which production keeps the newest days."""
HISTORY = ("trades", "market_lifecycle", "book_checkpoints", "coverage")
"""Tables that production keeps for ever unless a setting says otherwise."""


def read_hour_states(production: Database, low: datetime, high: datetime) -> dict[datetime, HourState]:
    """Return what production says of the hours of [low, high)."""
    with production.transaction() as transaction:
        return {row[0]: HourState(*row) for row in transaction.fetch_all(closes_query(low, high))}


def drop_production(
    production: Database,
    store: ObjectStore,
    gate: LakeGate,
    dropper: Dropper,
    tables: tuple[str, ...],
    before: datetime,
    *,
    dry_run: bool,
) -> Iterator[Outcome]:
    """Drop the partitions of these tables that end by `before` and that the lake holds; yield what came of each."""
    for table in tables:
        time = {**PRODUCTION_TABLES, **CLOSE_TABLES}[table].time_column
        for old in find_old_partitions(production, table, time, before):
            counts: dict[datetime, int] = {}
            refused: str | None = None
            try:
                with production.transaction() as transaction:  # before the count: what comes after it is noticed
                    activity = _read_activity(transaction, old)
                counts = count_rows(production, old)
                held = _check(production, gate, old, counts)
                if not dry_run:
                    recheck = (
                        partial(_refuse_changed, held=held, old=old, activity=activity)
                        if held
                        else partial(refuse_rows_between, old=old)
                    )
                    dropper.drop(production, store, old, held, recheck)
            except HourRefused as refusal:
                refused = str(refusal)
            yield Outcome(PRODUCTION, table, old.low, old.high, sum(counts.values()), old.bytes, refused)


def _check(production: Database, gate: LakeGate, old: OldPartition, counts: dict[datetime, int]) -> list[HeldHour]:
    if not counts:
        return []
    states = read_hour_states(production, old.low, old.high)
    with production.transaction() as transaction:
        dropped = {
            hour for (hour,) in transaction.fetch_all(_SQL["find_dropped_hours"], (old.table, old.low, old.high))
        }
    held: list[HeldHour] = []
    refusals: dict[datetime, str] = {}
    for hour, rows in counts.items():
        try:
            held.append(_check_hour(gate, old.table, states[hour], rows, is_dropped=hour in dropped))
        except HourRefused as refusal:
            refusals[hour] = str(refusal)
    if refusals:
        raise HourRefused(describe_refusals(refusals))
    return held


def _check_hour(gate: LakeGate, table: str, state: HourState, rows: int, *, is_dropped: bool) -> HeldHour:
    if is_dropped:
        raise HourRefused(
            f"{rows} rows of {table} {state.hour:%Y-%m-%dT%H} came after that was dropped, and the lake does not hold"
            " them: they stay"
        )
    found = gate.check(table, state)
    if rows > found.rows:
        raise HourRefused(
            f"production holds {rows} rows of {table} {state.hour:%Y-%m-%dT%H}, the lake {found.rows}:"
            " kalshi-platform close-hour, then export"
        )
    return found


def _read_activity(transaction: Transaction, old: OldPartition) -> list[tuple[datetime, int, int]]:
    """Read what came to a partition so far, and which closes its hours had."""
    return transaction.fetch_all(_SQL["read_activity"], {"table": old.table, "low": old.low, "high": old.high})


def _refuse_changed(
    transaction: Transaction,
    held: list[HeldHour],
    old: OldPartition,
    activity: list[tuple[datetime, int, int]],
) -> None:
    """Raise HourRefused where an hour was closed again, or got rows, since the lake was looked at.

    Hours count too that had no row then: a partition of a day goes with all of its hours.
    """
    hours, close_ids = [one.partition.start for one in held], [one.close_id for one in held]
    changed = [hour for (hour,) in transaction.fetch_all(_SQL["find_changed_hours"], (hours, close_ids))]
    came = set(_read_activity(transaction, old)) ^ set(activity)
    changed.extend(sorted(hour for hour, *_ in came))
    if changed:
        raise HourRefused(f"{changed[0]:%Y-%m-%dT%H} got rows or was closed again meanwhile: the next run looks again")
