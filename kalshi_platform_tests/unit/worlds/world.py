"""A world: an exchange, its gatherers, and the merge that runs meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from kalshi_platform.exchange.protocol.session import Session
from kalshi_platform_tests.unit.worlds.gatherer import DecoderMaker, Gatherer, SessionMaker, real_decoder
from kalshi_platform_tests.unit.worlds.moments import Moment, all_streams
from kalshi_platform_tests.unit.worlds.tables import GathererTables, Production
from kalshi_platform_tests.unit.worlds.venue import START_US, Shape, Venue

STREAMS_OF_A_GATHERER = 1_000
NewRows = Callable[[GathererTables, int, int], tuple[int, pa.Table | None]]
"""Tables, cursor and rows per pass → the next cursor and the rows."""


def by_batch_number(tables: GathererTables, cursor: int, rows_per_pass: int) -> tuple[int, pa.Table | None]:
    planned, rows = tables.read_new(cursor, rows_per_pass)
    return planned.until, rows


@dataclass(frozen=True)
class Rules:
    """Parts of the path that a test may put a simpler rule in for."""

    session: SessionMaker = Session
    decoder: DecoderMaker = real_decoder
    gatherer_key: tuple[str, ...] | None = None
    new_rows: NewRows = by_batch_number


class World:
    """Lives from the first delta to the last.

    `production` is then what the live merge has brought together, and `moments` are a close on the way (not in all
    worlds) and one at the end.
    """

    def __init__(self, seed: int, shape: Shape, rules: Rules | None = None) -> None:
        self.seed, self.shape = seed, shape
        self.pick = pick = random.Random(seed)
        self.rules = rules or Rules()
        self.venue = Venue(pick, shape)
        self.gatherers = [
            Gatherer(
                f"g{number}",
                self.venue,
                pick,
                shape,
                range(number * STREAMS_OF_A_GATHERER, (number + 1) * STREAMS_OF_A_GATHERER),
                self.rules.session,
                self.rules.decoder,
                self.rules.gatherer_key,
            )
            for number in range(1, shape.gatherers + 1)
        ]
        self.production = Production()
        self.moments: list[Moment] = []
        now_ns = START_US * 1_000
        published, total = 0, len(self.venue.published)
        close_at = pick.randint(0, 2 * total)
        while published < total:
            for gatherer in self.gatherers:
                gatherer.step(published, now_ns)
            now_ns += 5_000_000
            published += pick.choice((0, 1, 1, 2, 3))
            if pick.random() < 0.05:
                self.merge(self.production)
            if published >= close_at and not self.moments:
                self.close_on_the_way()
        if shape.calm or pick.random() < 0.5:
            for gatherer in self.gatherers:
                gatherer.settle(total, now_ns)
        self.catch_up(self.production)
        self.close_at_the_end()

    def close_on_the_way(self) -> None:
        """All rows are merged at once, whatever the cursors say; the live merge goes on as if nothing had been."""
        production = Production()
        production.rows |= self.production.rows
        self.merge_again(production)
        self._close(production)

    def close_at_the_end(self) -> None:
        self._close(self.production)
        last = self.moments[-1]
        if self.shape.calm:
            last.shards = [shard for gatherer in self.gatherers for shard in gatherer.shards]
        before = set(self.production.rows)
        last.left = self.merge_again(self.production)
        if self.pick.random() < 0.3:
            # The same in another order and other passes.
            other = Production()
            self.catch_up(other)
            last.left += len(before.symmetric_difference(other.rows))

    def _close(self, production: Production) -> None:
        edge = self.pick.choice(self.venue.published).ts
        windows = [(-1_000, 10**6)] if self.pick.random() < 0.7 else [(-1_000, edge), (edge, 10**6)]
        streams = all_streams(gatherer.tables for gatherer in self.gatherers)
        self.moments.append(Moment(self.venue, streams, list(production.rows), windows))

    def merge(self, production: Production) -> bool:
        """One pass of the live merge over the gatherers that answer; return whether one was behind."""
        parts, moved, behind = {}, {}, False
        for gatherer in self.pick.sample(self.gatherers, len(self.gatherers)):
            if self.pick.random() < 0.2:
                behind = True
                continue
            before = production.cursors.get(gatherer.name, 0)
            until, rows = self.rules.new_rows(gatherer.tables, before, self.pick.randint(1, 200))
            moved[gatherer.name] = until
            behind |= until != before
            if rows is not None:
                parts[gatherer.name] = rows
        production.insert(parts)
        production.cursors |= moved
        return behind

    def catch_up(self, production: Production) -> None:
        while self.merge(production):
            pass

    def merge_again(self, production: Production) -> int:
        """All rows of all gatherers once more; return how many were new."""
        parts = {gatherer.name: gatherer.tables.read_all() for gatherer in self.gatherers}
        return production.insert({name: rows for name, rows in parts.items() if rows is not None})
