"""The faults of `ground`: the ground moves under a running stack.

What a gatherer or production was told is taken back, clocks are set, a second process turns up, the exchange sends
poison, the lake's store fails, partitions are dropped.

Each does one thing, waits until all is well again, and returns what was observed, by somebody else than whom it was
done to. What must not be seen meanwhile is noted in `broken` of the fault; the alarms are judged elsewhere.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

import polars as pl

from kalshi_platform.catalog.store import CatalogStore
from kalshi_platform.catalog.sync import sync_markets
from kalshi_platform.clock import Clock
from kalshi_platform.config import catalog_variable, timeseries_variable
from kalshi_platform.errors import KalshiPlatformError, LakeUnavailable
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.lab.proof.comparison.stored_rows import proven_books
from kalshi_platform.lab.proof.errors import Interrupted, ProofFailed
from kalshi_platform.lab.proof.faults.copies import Replica, base_backup, put_back
from kalshi_platform.lab.proof.faults.failing_store import FailingStore
from kalshi_platform.lab.proof.faults.forwarder import Forwarder
from kalshi_platform.lab.proof.faults.observe import Observer, logged
from kalshi_platform.lab.proof.faults.past_hour import PastHour
from kalshi_platform.lab.proof.faults.schedule import PlannedFault
from kalshi_platform.lab.proof.faults.stack import MERGE, SECOND, ProofStack
from kalshi_platform.lab.proof.faults.watch import Watch
from kalshi_platform.lab.proof.kinds import RECOVERY_S, InjectedFault
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.store import open_store
from kalshi_platform.local.platform_status import platform_status
from kalshi_platform.market.intervals import Interval
from kalshi_platform.storage.pool import Database

Act: TypeAlias = Callable[[InjectedFault, PlannedFault], str | None]
FORGOTTEN_S = 8.0
"""What a restored database does not know any more."""
LAG_S = 5.0
"""How far a replica lags that takes over."""
NOTICE_S = 75.0
"""State and ledger are compared every minute: after that a fallen back ledger claims again."""
AHEAD_S, BEHIND_S = 120.0, -90.0
BACK_S = 300.0
"""Steps of clocks. Signatures are refused at half a minute; what a person sets wrong is minutes or hours."""
LATE_TRADES = 40
FLOOD_PER_S, FLOOD_S = 2_000, 5.0
NUMBERED_PER_S = 0.5
STORED_AT_MOST = 0.25
"""Of a flood: the part that may be kept as rows. The rest is counted."""
PROVEN_S = 90.0
"""A book is asked for anew at most once a minute."""
ENOUGH_OF_FLOOD = 0.8
"""The part of a flood's time that must be claimed."""
POISON = ("KXPOISON-" + "P" * 3_494, "KXPOISON-\x00\x1b[31mRED\nline")
"""Tickers of 3,503 characters, more than an index takes, and of control characters."""
POISON_S = 8.0
_PRODUCTIONS_TIMES = (
    ("hour_closes", "closed_at"), ("hour_activity", "last_merged_at"), ("merge_cursors", "merged_at"),
    ("merge_cursors", "last_error_at"), ("trade_checks", "checked_at"), ("close_alarms", "raised_at"),
    ("dropped_hours", "dropped_at"),
)  # fmt: skip
"""Where production keeps moments of its own clock."""


@dataclass
class Ground:
    """`told`: books that production called proven in the middle of the run, as `recorded.proven_books` gives them."""

    stack: ProofStack
    gatherers: tuple[str, ...]
    wait: Callable[[float], None]
    clock: Clock
    seen: Observer
    past: PastHour
    watch: Watch
    told: list[pl.DataFrame] = field(default_factory=list)
    _doubted: list[tuple[InjectedFault, int, int]] = field(default_factory=list)
    _late: count[int] = field(default_factory=lambda: count(1))

    def acts(self) -> dict[str, Act]:
        """Kind → what is done. What the platform's own code raises then is no end of the run, but an failure."""

        def guarded(act: Act) -> Act:
            def run(fault: InjectedFault, planned: PlannedFault) -> str | None:
                try:
                    return act(fault, planned)
                except (Interrupted, ProofFailed):
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, it should not have come
                    self._broken(fault, f"{type(error).__name__}: {str(error)[:300]!a}")
                    return None

            return run

        return {kind: guarded(act) for kind, act in self._acts().items()}

    def _acts(self) -> dict[str, Act]:
        return {
            "restored_from_copy": self._restored_from_copy,
            "failed_over": self._failed_over,
            "production_restored": self._production_restored,
            "production_clock_back": self._production_clock_back,
            "clock_ahead": lambda fault, _: self._clock_off(fault, AHEAD_S),
            "clock_behind": lambda fault, _: self._clock_off(fault, BEHIND_S),
            "second_process": self._second_process,
            "poison_ticker": self._poison_ticker,
            "flood": self._flood,
            "export_fails": self._export_fails,
            "production_partitions_dropped": self._production_partitions_dropped,
            "gatherers_partitions_dropped": self._gatherers_partitions_dropped,
            "server_killed": self._server_killed,
        }

    # -- databases that fall back

    def _restored_from_copy(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        gatherer = str(fault.gatherer)
        server = self.stack.server(gatherer)
        copy = base_backup(server, f"{gatherer}-copy")
        self._until_merged_beyond(gatherer, self.seen.batch_no(gatherer), FORGOTTEN_S)
        before = self.seen.batch_no(gatherer)
        put_back(server, copy)
        return self._fallen_back(fault, before, "restored from a copy")

    def _failed_over(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        gatherer = str(fault.gatherer)
        replica = Replica(self.stack.server(gatherer))
        try:
            follows = self.seen.soon(lambda: replica.lag_bytes() == 0)
            replica.cut_off()
            fault.at_us = self.stack.venue.clock_us()  # so far nothing was done to the gatherer
            self._until_merged_beyond(gatherer, self.seen.batch_no(gatherer), LAG_S)
            before = self.seen.batch_no(gatherer)
            replica.take_over()
        finally:
            replica.close()
        return self._fallen_back(fault, before, "a replica took over") if follows else None

    def _until_merged_beyond(self, gatherer: str, batch_no: int, least_s: float) -> None:
        """Let some time pass, and until production has read what the gatherer will not know any more."""
        self.wait(least_s)
        url = self.stack.settings.deduplicator.production_url
        query = "SELECT batch_no FROM merge_cursors WHERE gatherer = %s"
        self.seen.soon(lambda: (self.seen.asked(url, query, gatherer) or 0) > batch_no, every_s=0.5)

    def _fallen_back(self, fault: InjectedFault, before: int, what: str) -> str | None:
        """Wait until the gatherer claims again, and say so."""
        gatherer = str(fault.gatherer)
        began = self.clock.monotonic()
        after = self.seen.batch_no(gatherer)
        claims = self.seen.claims_again(gatherer, NOTICE_S)
        again_s = self.clock.monotonic() - began
        if not claims:
            self._broken(
                fault,
                f"{gatherer} follows its books and claims nothing of them {again_s:.0f} s later, health:"
                f" {self._health(gatherer)}",
            )
        if after >= before:
            return None
        again = f"claims again after {again_s:.1f} s" if claims else "claims nothing any more"
        return f"{what}: fell back from batch {before:,} to {after:,}; {again}"

    def _production_restored(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        server = self.stack.server("production")
        copy = base_backup(server, "production-copy")
        self.wait(FORGOTTEN_S)
        before = self._merged_rows()
        server.stop()
        # A quiet machine puts the copy in place between two passes of the merge, which then misses nothing.
        self.seen.soon(lambda: self.watch.is_unwell("dedup", "production"), 30.0)
        put_back(server, copy)
        began = self.clock.monotonic()
        after = self._merged_rows()
        if not self.seen.soon(lambda: self._merged_rows() > before):
            self._broken(fault, f"{RECOVERY_S:.0f} s later the live merge has not brought back what it had merged")
        again_s = self.clock.monotonic() - began
        if after >= before:
            return None
        return f"fell back from {before:,} merged rows to {after:,}; all merged again after {again_s:.1f} s"

    def _merged_rows(self) -> int:
        url = self.stack.settings.deduplicator.production_url
        return int(self.seen.asked(url, "SELECT coalesce(sum(rows_inserted), 0) FROM hour_activity") or 0)

    def _server_killed(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        gatherer = str(fault.gatherer)
        server = self.stack.server(gatherer)
        pid = int((server.cluster / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        os.kill(pid, signal.SIGKILL)
        began = self.clock.monotonic()
        died = self.seen.soon(lambda: not server.is_running(), 10.0)
        noticed = self.seen.soon(lambda: self.stack.ingest_status(gatherer).database_error, 15.0)
        server.start()
        settled = self.seen.soon(lambda: self.stack.ingest_status(gatherer).is_current)
        if not settled or not self.seen.claims_again(gatherer):
            self._broken(fault, f"{gatherer} does not record and claim again {RECOVERY_S:.0f} s later")
        if not died or not noticed:
            return None
        return f"postmaster {pid} killed, recovered and all claimed after {self.clock.monotonic() - began:.1f} s"

    # -- clocks

    def _clock_off(self, fault: InjectedFault, offset_s: float) -> str | None:
        gatherer = str(fault.gatherer)
        self.stack.step_clock(f"gather-{gatherer}", offset_s)
        self.wait(0.5)
        self.stack.venue.create_market()  # so that it asks the exchange something, whose answers are dated
        off_s = self.seen.number(
            fault,
            "SELECT extract(epoch FROM received_at - clock_timestamp()) FROM orderbook_deltas"
            " WHERE exchange_ts > %s ORDER BY exchange_ts DESC LIMIT 1",
            lambda seconds: abs(seconds - offset_s) < abs(offset_s) / 2,
            20.0,
        )
        self.seen.soon(lambda: self.watch.is_unwell(gatherer, "clock is"), 25.0)
        service = f"gatherer/{gatherer}"
        status = platform_status(self.stack.settings.deduplicator, self.stack.folder / "state", self.clock)
        if not status.services[service].alive:
            self._broken(fault, f"the status calls {service} dead, which records")
        self.stack.step_clock(f"gather-{gatherer}", 0.0)
        self.seen.soon(lambda: not self.watch.is_unwell(gatherer, "clock is"), 25.0)
        if not self.seen.claims_again(gatherer):
            self._broken(fault, f"{gatherer} does not claim again {RECOVERY_S:.0f} s after its clock was set right")
        return None if off_s is None else f"its rows were dated {off_s:+.0f} s off by its database's clock"

    def _production_clock_back(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        """Move every moment of its own that a server keeps, since its clock cannot be set from here.

        That is the same to whoever compares them with its clock. The clock of the merge's process is set.
        """
        self.stack.step_clock(MERGE, -BACK_S)
        moved = self._move_production_times(BACK_S)
        late = self._late_trades()
        if not self.seen.soon(self.past.is_to_close, 20.0):
            self._broken(fault, f"{late} trades came after the close of {self.past.hour:%H:00} and do not reopen it")
        self.stack.step_clock(MERGE, 0.0)
        self.past.close()
        self._export(fault)
        if not moved or not late:
            return None
        ahead = f"{moved} moments that production keeps lie {BACK_S:.0f} s ahead of its clock"
        return f"{ahead}; then came {late} late trades"

    def _move_production_times(self, seconds: float) -> int:
        moved = 0
        database = Database(self.stack.settings.deduplicator.production_url, name="production", pool_size=1)
        try:
            with database.transaction() as transaction:
                for table, column in _PRODUCTIONS_TIMES:
                    if transaction.fetch_one("SELECT to_regclass(%s)", (table,)) not in (None, (None,)):
                        moved += transaction.execute(
                            f"UPDATE {table} SET {column} = {column} + %s * INTERVAL '1 second'"  # noqa: S608 - our own
                            f" WHERE {column} IS NOT NULL",
                            (seconds,),
                        )
        finally:
            database.dispose()
        return moved

    # -- a second process

    def _second_process(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        gatherer = str(fault.gatherer)
        venue, first = self.stack.venue, self.stack.pid(gatherer)
        lines, open_before = venue.connections_of(gatherer), self._open_books(gatherer)
        with Forwarder(self.stack.server(gatherer).port) as way:
            port = self.stack.server(gatherer).port
            changes = {
                variable: self.stack.environ[variable].replace(f":{port}/", f":{way.port}/")
                for variable in (timeseries_variable(gatherer), catalog_variable(gatherer))
            }
            changes |= {"KALSHI_STATE_DIR": str(self.stack.folder / "second-state"), "KALSHI_METRICS_PORT": ""}
            pid = self.stack.start_second(gatherer, changes)
            came = self.seen.soon(lambda: venue.connections_of(gatherer) > lines, 60.0)
            self.wait(3.0)
            way.let_in()
            ended = self.seen.soon(lambda: self.stack.group.pid(SECOND) is None, RECOVERY_S)
            if not ended:
                self._broken(fault, f"a second process of {gatherer} was let in and works on")
                self.stack.group.stop(SECOND)
        self.wait(1.0)
        if self.stack.pid(gatherer) != first:
            self._broken(fault, f"the healthy process of {gatherer} ended")
        if not self.seen.claims_again(gatherer, 15.0):
            open_after = self._open_books(gatherer)
            self._broken(
                fault,
                f"{gatherer} claims nothing any more (books followed in its ledger: {open_before} before,"
                f" {open_after} after), health: {self._health(gatherer)}",
            )
            self.seen.claims_again(gatherer, NOTICE_S)
        if not came:
            return None
        return f"pid {pid} recorded under the same name, cut off from its database; let in, it ended: {bool(ended)}"

    def _open_books(self, gatherer: str) -> int:
        url = self.stack.settings.gatherers[gatherer].timeseries_url
        return int(
            self.seen.asked(
                url,
                "SELECT count(DISTINCT m.ticker) FROM book_subscriptions m JOIN streams s USING (stream_id)"
                " WHERE m.seq_to IS NULL AND s.ended_at IS NULL",
            )
            or 0
        )

    def _health(self, gatherer: str) -> str:
        return self.stack.status(gatherer).health or "unknown"

    # -- what the exchange sends

    def _poison_ticker(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        for ticker in POISON:
            self.stack.venue.list_market(ticker, life_s=POISON_S)
        self.wait(POISON_S / 2)
        # The gatherers hear of them over the stream, and read all listings but every few minutes.
        listed = self._listed(self.gatherers[0])
        self.wait(POISON_S / 2)
        then_us = self.stack.venue.clock_us()
        for gatherer in self.gatherers:
            url = self.stack.settings.gatherers[gatherer].timeseries_url

            def has_newer(url: str = url) -> bool:
                query = "SELECT extract(epoch FROM max(exchange_ts)) * 1000000 FROM orderbook_deltas"
                return (self.seen.asked(url, query) or 0.0) > then_us

            if not self.seen.soon(has_newer, 20.0):
                self._broken(fault, f"{gatherer} commits nothing any more that came after the poison")
        letters = {
            gatherer: int(
                self.seen.asked(
                    self.stack.settings.gatherers[gatherer].timeseries_url,
                    "SELECT count(*) FROM dead_letters WHERE received_at >= %s",
                    fault.at,
                )
                or 0
            )
            for gatherer in self.gatherers
        }
        if not all(letters.values()) or not listed:
            return None
        told = ", ".join(f"{name} {number}" for name, number in letters.items())
        kinds = f"tickers of {len(POISON[0]):,} and of control characters"
        return f"markets with {kinds} traded; listing: {listed[:60]!a}; rows in dead_letters: {told}"

    def _listed(self, gatherer: str) -> str:
        """Read the whole listing into a gatherer's catalog, as its assets do; return what it says that it lacks."""
        settings = self.stack.settings
        database = Database(settings.gatherers[gatherer].catalog_url, name=f"{gatherer} catalog", pool_size=1)
        try:
            rest = RestClient(settings.exchange, self.clock)
            report = sync_markets(rest, CatalogStore(database, rest.clock_offset), self.clock, full=True)
        finally:
            database.dispose()
        self._note("refusal", f"listing: {report.lacks}")
        return report.lacks or ""

    def _flood(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        gatherer, venue = str(fault.gatherer), self.stack.venue
        books = f"({gatherer} books"
        flood = venue.fault("flood", user_agent=books, per_second=FLOOD_PER_S, seconds=FLOOD_S)
        news = venue.fault("flood", user_agent=books, per_second=NUMBERED_PER_S, numbered=True, seconds=FLOOD_S + 3.0)
        low_us = venue.clock_us() + 1_000_000
        self.wait(FLOOD_S + 3.5)
        high_us = venue.clock_us()
        sent, numbered = (sum(each["frames"] for each in self.seen.effects(armed["id"])) for armed in (flood, news))
        kept = (
            self.seen.number(fault, "SELECT count(*) FROM dead_letters WHERE received_at >= %s", lambda _: True) or 0.0
        )
        if kept > STORED_AT_MOST * sent:
            self._broken(fault, f"{kept:,.0f} rows were kept of {sent:,} frames of one unknown kind")
        # The books' next snapshots prove that nothing was changed, and they take their time: looked at when it has
        # passed, unless what is done to the same gatherer meanwhile would take the proof away.
        self._doubted.append((fault, low_us, high_us))
        if len(self.gatherers) < 3:
            self.settle()
        if not sent or not numbered:
            return None
        return f"{sent:,} frames of an unknown type and {numbered} numbered ones sent, {kept:,.0f} rows in dead_letters"

    def settle(self) -> None:
        """After the last fault: wait for what proves that harmless messages were harmless."""
        for fault, low_us, high_us in self._doubted:
            gatherer = str(fault.gatherer)

            def is_claimed(gatherer: str = gatherer, span: Interval = (low_us, high_us)) -> bool:
                return self.seen.claimed_share(gatherer, *span) > ENOUGH_OF_FLOOD

            if not self.seen.soon(is_claimed, PROVEN_S, every_s=2.0):
                share = self.seen.claimed_share(gatherer, low_us, high_us)
                self._broken(fault, f"{share:.0%} is claimed of a time in which numbers meant nothing to any book")
        self._doubted.clear()

    # -- an hour that is over

    def _late_trades(self) -> int:
        """Let the exchange publish trades of the past hour; wait until production has them. How many came."""
        before = self.past.rows("trades")
        tickers = self._past_tickers(5)
        items = []
        for number in range(LATE_TRADES):
            at_us = self.past.past.phase[1] + 60_000_000 + next(self._late) * 1_000_000
            items.append(
                {
                    "kind": "trade", "ticker": tickers[number % len(tickers)], "yes_price_e4": 5_000, "count_e2": 100,
                    "taker_side": "yes", "exchange_ts_us": at_us // 1_000 * 1_000,
                }
            )  # fmt: skip
        self.stack.venue.publish(items)
        self.seen.soon(lambda: self.past.rows("trades") >= before + LATE_TRADES, 30.0)
        return self.past.rows("trades") - before

    def _past_tickers(self, most: int) -> list[str]:
        database = Database(self.stack.settings.deduplicator.production_url, name="production", pool_size=1)
        try:
            with database.transaction() as transaction:
                rows = transaction.fetch_all(
                    "SELECT DISTINCT ticker FROM trades WHERE exchange_ts >= %s AND exchange_ts < %s"
                    " ORDER BY ticker LIMIT %s",
                    (self.past.hour, self.past.end, most),
                )
        finally:
            database.dispose()
        return [row[0] for row in rows]

    def _export(self, fault: InjectedFault) -> None:
        try:
            self.past.export()
        except KalshiPlatformError as error:
            self._broken(fault, f"the past hour cannot be exported: {error}")

    def _export_fails(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        """An hour with news is exported again, while the store fails at its first change, its second, and so on."""
        settings, past = self.stack.settings, self.past
        before = past.lake_rows("trades")
        late = self._late_trades()
        past.close()
        least = most = before
        failures = 0

        def look() -> None:
            nonlocal least, most
            rows = past.lake_rows("trades")
            least, most = min(least, rows), max(most, rows)

        for at in range(1, 20):
            store = FailingStore(open_store(settings.lake), at, look)
            try:
                export_raw(store.as_store(), settings.deduplicator.production_url, "trades", past.hour, state="closed")
                break
            except LakeUnavailable as error:
                failures += 1
                self._note("refusal", str(error))
                look()
                read = past.trades_read()
                if read not in (before, before + late):
                    found = f"the reader finds {read:,} trades of the {before:,} published ones"
                    self._broken(fault, f"after a failed export {found}")
        look()
        if least < before:
            self._broken(fault, f"during an export the pattern of the files gave {least:,} rows of {before:,}")
        after = past.trades_read()
        if after != before + late:
            self._broken(fault, f"the new export holds {after:,} trades, production {before + late:,}")
        self._export(fault)
        if not failures or not late:
            return None
        what = f"an hour of {before:,} trades exported again with {late} more"
        return f"{what}; the store failed {failures} times meanwhile"

    def _gatherers_partitions_dropped(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        """Production alone holds the hour then, and what it says of it must stay when the hour is closed again."""
        past = self.past
        covered = past.covered_us()
        dropped = left = 0
        for gatherer in self.gatherers:
            url = self.stack.settings.gatherers[gatherer].timeseries_url
            dropped += self._drop(url)
            left += self._deltas_left(url)
        closed = past.close()
        again = past.covered_us()
        if again < covered:
            self._broken(
                fault,
                f"the hour closed again is covered for {again / 1e6:,.1f} market-seconds,"
                f" before for {covered / 1e6:,.1f}",
            )
        if closed.failed:
            self._broken(fault, f"the books of {len(closed.failed)} true markets fail their proof: {closed.failed[0]}")
        for name, tables in closed.gatherers_incomplete.items():
            self._note("close", f"{name} no longer holds {', '.join(tables)}")
        for kind, subject, detail in closed.alarms:
            self._note("close", f"{kind}: {subject}: {detail}")
            if kind in ("claims_disagree", "book_proof"):
                self._broken(fault, f"the close raises {kind} of {subject}: {detail}")
                break
        self._export(fault)
        if not dropped or left:
            return None
        kept = f"{again / 1e6:,.1f} market-seconds are covered"
        return f"{dropped} partitions of {len(self.gatherers)} gatherers dropped; the hour closed again: {kept}"

    def _production_partitions_dropped(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        past = self.past
        rows, lake_rows, covered = past.rows("orderbook_deltas"), past.lake_rows("orderbook_deltas"), past.covered_us()
        url = self.stack.settings.deduplicator.production_url
        dropped = self._drop(url)
        left = self._deltas_left(url)
        if past.covered_us() and not left:
            stated = f"{past.covered_us() / 1e6:,.1f} market-seconds"
            self._broken(fault, f"{stated} are stated to be covered of an hour without deltas")
        self._ask_books()
        with logged("kalshi_platform.lake.export") as lines:
            try:
                past.export_table("orderbook_deltas")
            except KalshiPlatformError as error:
                self._note("refusal", str(error))
        for line in lines:
            self._note("log proof", line)
        if past.lake_rows("orderbook_deltas") < lake_rows:
            self._broken(
                fault,
                f"an export replaced {lake_rows:,} rows of the closed hour by {past.lake_rows('orderbook_deltas'):,}",
            )
        past.close()
        back = past.rows("orderbook_deltas")
        if back >= rows and past.covered_us() < covered:
            self._broken(fault, "all deltas of the hour are there again, and less is covered than before")
        self._ask_books()
        self._export(fault)
        if not dropped or left:
            return None
        return f"{dropped} partitions with {rows:,} deltas of a closed hour dropped; {back:,} back after another close"

    def _drop(self, url: str) -> int:
        """Drop everything before the end of the past hour, with the platform's own function."""
        dropped, query = 0, "SELECT sum(drop_partitions_before(table_name, %s)) FROM series_tables"
        for _ in range(5):
            dropped += int(self.seen.asked(url, query, self.past.end) or 0)
            if not self._deltas_left(url):
                break
        return dropped

    def _deltas_left(self, url: str) -> int:
        query = "SELECT count(*) FROM orderbook_deltas WHERE exchange_ts < %s"
        return int(self.seen.asked(url, query, self.past.end) or 0)

    def _ask_books(self) -> None:
        """Remember which books of the past hour production calls proven; they are judged at the end."""
        low, high = self.past.past.phase
        moments = [low + (high - low) * part // 6 for part in range(1, 6)]
        samples = [(ticker, moment) for ticker in self._past_tickers(8) for moment in moments]
        self.told.append(proven_books(self.stack.settings.deduplicator.production_url, samples))

    # -- telling

    def _broken(self, fault: InjectedFault, clause: str) -> None:
        if clause not in fault.broken:
            fault.broken.append(clause)

    def _note(self, where: str, text: str) -> None:
        self.watch.note(where, text, self.stack.venue.clock_us())
