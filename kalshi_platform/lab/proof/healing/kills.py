"""What is killed under a running platform, and by what it is seen that each works again.

A kill is SIGKILL of one process, found by what the platform says of itself. What works again is told by somebody else
than the killed: the exchange, a database, a file of another process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lab.proof.healing.dagster_client import DagsterAway, Run
from kalshi_platform.lab.proof.healing.stack import UpStack
from kalshi_platform.lab.proof.kinds import InjectedFault
from kalshi_platform.local.dagster_processes import CODE_SERVER, DAEMON, WEBSERVER
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.process_tree import TREE_VARIABLE
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.orchestration.keys import LAKE_RAW, PRODUCTION_HOURLY
from kalshi_platform.orchestration.partitions import hour_key
from kalshi_platform.orchestration.services import DEDUPLICATOR
from kalshi_platform.storage.pool import Database

LIMIT_S = 120.0
"""Within this time each must work again."""
START_S = 60.0
"""For a batch to be launched and to come to the place at which it is killed."""
PRODUCTION = "production"
_MERGED_ROWS = "SELECT coalesce(sum(rows_inserted), 0) FROM hour_activity"
_MERGES_PID = "SELECT pid FROM heartbeats WHERE service = %s"
_NOW = "SELECT extract(epoch FROM clock_timestamp())"
_WAITING = (
    "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted"
    " AND l.relation = %s::regclass AND extract(epoch FROM a.backend_start) > %s"
)
"""Sessions that wait for a table and are younger than a moment: the merge's, and others of before, wait as well."""


@dataclass
class Kill(InjectedFault):
    """One kill. `works_again_s`: seconds from the kill, None where it did not within LIMIT_S.

    `told`: lines of `up` that name it, or the status by which Dagster reports it.
    """

    works_again_s: float | None = None
    told: list[str] = field(default_factory=list)


class Killer:
    """Does the kills. `soon` waits until a probe says true, at most for some seconds; it raises when the run ends."""

    def __init__(
        self,
        stack: UpStack,
        gatherers: Sequence[str],
        soon: Callable[[Callable[[], bool], float], bool],
        clock: Clock,
    ) -> None:
        self._stack = stack
        self._gatherers = gatherers
        self._soon = soon
        self._clock = clock
        self._began = 0.0
        self.done: list[Kill] = []

    def plan(self) -> list[tuple[str, str | None, Callable[[Kill], str | None]]]:
        """Return what is killed, in order: kind, the gatherer it is done to, and what does it."""
        first, second = self._gatherers[0], self._gatherers[-1]
        closes, exports = ([key.path for key in keys] for keys in (PRODUCTION_HOURLY, LAKE_RAW))
        return [
            ("kill", first, lambda kill: self._gatherer(kill, first)),
            ("merge_killed", None, self._merge),
            ("close_killed", None, lambda kill: self._batch(kill, closes, "close_alarms")),
            ("export_killed", None, lambda kill: self._batch(kill, exports, "coverage")),
            ("close_and_code_server_killed", None, lambda kill: self._batch(kill, closes, "close_alarms", CODE_SERVER)),
            ("code_server_killed", None, self._code_server),
            ("daemon_killed", None, self._daemon),
            ("webserver_killed", None, self._webserver),
            ("server_killed", second, lambda kill: self._gatherers_server(kill, second)),
            ("production_server_killed", None, self._production_server),
        ]

    def kill(self, kind: str, gatherer: str | None, act: Callable[[Kill], str | None]) -> Kill:
        """Do one kill and wait until its victim works again."""
        said = len(self._stack.told())
        kill = Kill(kind, gatherer, self._clock.now(), self._stack.venue.clock_us())
        self.done.append(kill)
        kill.effect = act(kill)
        kill.until_us = self._stack.venue.clock_us()
        lines = self._stack.told()[said:].splitlines()
        kill.told += [line for line in lines if "ended with code" in line or line.startswith("database server")]
        if kill.works_again_s is None:
            kill.broken.append(f"it does not work again {LIMIT_S:.0f} s later")
        return kill

    # -- runs

    def _gatherer(self, kill: Kill, name: str) -> str | None:
        beat = self._stack.heartbeat(name)
        before = 0 if beat is None else beat.pid
        self._kill(kill, before)

        def records() -> bool:
            now = self._stack.heartbeat(name)
            return now is not None and now.pid != before and self._stack.venue.following(name)

        self._until(kill, records)
        now = self._stack.heartbeat(name)
        return None if now is None or now.pid == before else f"run {now.run_id} follows every book, pid {now.pid}"

    def _merge(self, kill: Kill) -> str | None:
        before = int(self._number(_MERGES_PID, DEDUPLICATOR))
        self._kill(kill, before)
        rows = self._number(_MERGED_ROWS)
        self._until(
            kill, lambda: self._number(_MERGES_PID, DEDUPLICATOR) != before and self._number(_MERGED_ROWS) > rows
        )
        pid = int(self._number(_MERGES_PID, DEDUPLICATOR))
        return None if pid == before else f"merges again, pid {pid}"

    def _batch(self, kill: Kill, assets: Sequence[Sequence[str]], table: str, before: str | None = None) -> str | None:
        """Kill the run of a batch that waits for a lock on a table of production, and wait for the run in its place.

        `before`: a child of `up` that is killed a moment earlier, and cannot tell of the other's death.
        """
        dagster = self._stack.dagster
        with self._locked(table):
            launched_at = self._number(_NOW)
            run_id = dagster.launch("close_hours", hour_key(self._past_hour()), assets)
            if not self._soon(lambda: dagster.has_begun(run_id), START_S):
                return None
            if not self._soon(lambda: self._number(_WAITING, table, launched_at) > 0, START_S):
                return None
            pid = dagster.pid(run_id)
            if before is not None:
                os.kill(self._child_pid(before), signal.SIGKILL)
            self._kill(kill, pid)
        if not self._soon(lambda: self._status(run_id) == "FAILURE", LIMIT_S):
            return None
        kill.told.append(f"run {run_id} FAILURE after {self._elapsed():.1f} s")

        def is_repeated() -> bool:
            return any(each.status == "SUCCESS" for each in self._repeated(run_id))

        self._until(kill, is_repeated)
        again = self._repeated(run_id)
        return f"run {again[0].run_id} in its place: {again[0].status}" if again else None

    def _status(self, run_id: str) -> str:
        try:
            return self._stack.dagster.run(run_id).status
        except DagsterAway:
            return ""

    def _repeated(self, run_id: str) -> list[Run]:
        try:
            return self._stack.dagster.retries(run_id)
        except DagsterAway:
            return []

    # -- Dagster

    def _code_server(self, kill: Kill) -> str | None:
        pids = self._recording_pids()
        self._kill(kill, self._child_pid(CODE_SERVER))
        self._until_ticks(kill)
        stayed = len(pids & self._recording_pids())
        if stayed != len(pids):
            kill.broken.append(f"{len(pids) - stayed} gatherers were started anew")
        return f"sensors tick; {stayed} gatherers went on meanwhile"

    def _daemon(self, kill: Kill) -> str | None:
        self._kill(kill, self._child_pid(DAEMON))
        self._until_ticks(kill, times=2)  # the code server may still end the tick that was under way
        return "sensors tick"

    def _webserver(self, kill: Kill) -> str | None:
        pids = self._recording_pids()
        self._kill(kill, self._child_pid(WEBSERVER))
        self._until(kill, self._stack.dagster.answers)
        stayed = len(pids & self._recording_pids())
        if stayed != len(pids):
            kill.broken.append(f"{len(pids) - stayed} gatherers were started anew")
        return f"answers queries; {stayed} gatherers went on meanwhile"

    def _until_ticks(self, kill: Kill, times: int = 1) -> None:
        seen = {self._stack.supervisor_heartbeat()}

        def ticked() -> bool:
            seen.add(self._stack.supervisor_heartbeat())
            return len(seen) > times

        self._until(kill, ticked)

    # -- database servers

    def _gatherers_server(self, kill: Kill, name: str) -> str | None:
        pid = self._stack.server_pid(name)
        self._kill(kill, pid)
        away = self._soon(lambda: self._database_error(name), 15.0)

        def settled() -> bool:
            beat = self._stack.heartbeat(name)
            ingest = None if beat is None else beat.details.ingest
            return ingest is not None and ingest.is_current

        self._until(kill, settled)
        noticed = "it was noticed, frames waited in the journal" if away else "it was away too shortly to be noticed"
        return f"postmaster {pid} replaced; {noticed}; all is written"

    def _database_error(self, name: str) -> bool:
        beat = self._stack.heartbeat(name)
        ingest = None if beat is None else beat.details.ingest
        return ingest is not None and ingest.database_error is not None

    def _production_server(self, kill: Kill) -> str | None:
        rows = self._number(_MERGED_ROWS)
        seen = {self._stack.supervisor_heartbeat()}
        pid = self._stack.server_pid(PRODUCTION)
        self._kill(kill, pid)
        parts: dict[str, float] = {}

        def ticked() -> bool:
            seen.add(self._stack.supervisor_heartbeat())
            return len(seen) > 2

        probes: dict[str, Callable[[], bool]] = {
            "production answers": lambda: self._number(_MERGED_ROWS) >= 0,
            "it merges": lambda: self._number(_MERGED_ROWS) > rows,
            "the UI answers": self._stack.dagster.answers,
            "sensors tick": ticked,
        }

        def all_work() -> bool:
            for name, probe in probes.items():
                if name not in parts and probe():
                    parts[name] = self._elapsed()
            return len(parts) == len(probes)

        self._until(kill, all_work)
        return f"postmaster {pid}; " + ", ".join(f"{name} after {at_s:.0f} s" for name, at_s in parts.items())

    # -- helpers

    def _child_pid(self, name: str) -> int:
        """Return the process of a child of `up`, which may have been started again."""
        found = process_table.find_by_environment(TREE_VARIABLE, lambda value: value.endswith(f"/{name}"))
        leaders = {pid for pid in found if process_table.group_of(pid) == pid and self._stack.owns(pid)}
        if len(leaders) != 1:
            raise ProofFailed(f"{len(leaders)} processes are {name}; see {self._stack.logs}")
        return leaders.pop()

    def _kill(self, kill: Kill, pid: int) -> None:
        kill.at, kill.at_us = self._clock.now(), self._stack.venue.clock_us()
        self._began = self._clock.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._soon(lambda: not process_table.is_alive(pid), 10.0)

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._began

    def _until(self, kill: Kill, works: Callable[[], bool]) -> None:
        if self._soon(works, LIMIT_S - self._elapsed()):
            kill.works_again_s = round(self._elapsed(), 1)

    def _recording_pids(self) -> set[int]:
        beats = map(self._stack.heartbeat, self._gatherers)
        return {beat.pid for beat in beats if beat is not None and process_table.is_alive(beat.pid)}

    def _past_hour(self) -> datetime:
        return hour_of(self._clock.now()) - HOUR

    def _number(self, query: str, *params: object) -> float:
        """Ask production for a number; -1 while it is away, or has none."""
        database = Database(self._stack.settings.deduplicator.production_url, name="proof", pool_size=1)
        try:
            with database.transaction() as transaction:
                row = transaction.fetch_one(query, params)
        except DatabaseUnavailable:
            return -1.0
        finally:
            database.dispose()
        return -1.0 if row is None or row[0] is None else float(row[0])

    @contextmanager
    def _locked(self, table: str) -> Iterator[None]:
        database = Database(self._stack.settings.deduplicator.production_url, name="proof", pool_size=1)
        try:
            with database.transaction() as transaction:
                transaction.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            database.dispose()
