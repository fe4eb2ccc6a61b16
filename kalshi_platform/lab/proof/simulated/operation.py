"""`kalshi-platform prove --faults operation`: some simulated hours with every schedule, and what they must put right.

The end of one day and the beginning of the next, by a fast clock. Hours close and are exported, the day is exported,
tables are registered, old rows dropped. Meanwhile a file of a closed partition is cut short, the lake's store is away
while an hour is exported, and for more than an hour nobody records while Dagster is away, too. All of it must be found
by the schedules, and at the end nothing be missing.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kalshi_platform import config
from kalshi_platform.clock import Clock
from kalshi_platform.config.stack import deployment_file
from kalshi_platform.deduplicator.close.hours import find_silent_hours
from kalshi_platform.lab.proof.comparison.truth import read_truth
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lab.proof.simulated import closing
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.lab.proof.simulated.operator_log import OperatorLog
from kalshi_platform.lab.proof.simulated.options import OperationOptions
from kalshi_platform.lab.proof.simulated.recording import FastRecording
from kalshi_platform.lab.proof.simulated.rows import compare_stores, compare_truth
from kalshi_platform.lab.proof.simulated.stack import Births, SimulatedStack
from kalshi_platform.lab.simulated_clock import command_line
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.iceberg.register import register
from kalshi_platform.lake.stale import stale_lately
from kalshi_platform.lake.store import open_store
from kalshi_platform.local.processes.process_group import ChildSpec
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.orchestration.partitions import hour_key
from kalshi_platform.storage.pool import Database

OPERATOR = "operator"
NO_BIRTHS = Births(0.0, 86_400.0)
"""A market that comes while nobody records is no part of this proof."""
MINUTE = timedelta(minutes=1)
LENGTH = timedelta(hours=5, minutes=42)
DAMAGED = "raw/trades"


class Run(msgspec.Struct, frozen=True):
    """A run as the operator tells of it."""

    job: str
    run_id: str
    success: bool
    partitions: list[str] = []
    assets: list[str] = []

    def makes(self, partition: str) -> bool:
        """Whether a partition is among those of the run."""
        return bool(self.partitions) and self.partitions[0] <= partition <= self.partitions[-1]


class Tick(msgspec.Struct, frozen=True):
    """An evaluation as the operator tells of it."""

    name: str
    moment: datetime
    runs: list[Run] = []
    skipped: str = ""
    error: str = ""


@dataclass
class Repair:
    """Something that was broken, which partition it was, and which evaluation put it right."""

    what: str
    partition: str
    broken_at: datetime
    repaired_by: str = ""
    repaired_at: datetime | None = None


def prove_operation(
    options: OperationOptions, stop: threading.Event, say: Callable[[str], None], machine: Clock
) -> bool:
    """Run the hours and judge; return whether everything was made, found and repaired.

    Raises ConfigurationError before anything starts, Interrupted, ProofFailed.
    """
    options.check()
    began_s = machine.monotonic()
    midnight = (machine.now() - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight - HOUR
    end = start + LENGTH
    say(
        f"operation of {LENGTH / HOUR:.1f} simulated hours from {start:%Y-%m-%d %H:%M}: {options.gatherers} gatherers,"
        f" {options.rate:.3g} messages/s of their clock over {options.markets} markets, {options.speed:g} x"
    )
    with SimulatedStack(options, start, options.speed, NO_BIRTHS, say, machine, options.settings(start)) as stack:
        operation = _Operation(stack, options, midnight, say, machine)
        recording = FastRecording(stack, options.names, stop, say, machine, operation.step)
        operation.start_operator(start)
        recorded = recording.run(end, options.rate, options.speed, ())
        operation.stop_operator()
        stack.stop_exchange()  # it finishes its ledger
        closing.merge_rest(stack.settings, stack.clock)
        hours = closing.hours_between(start, recorded.end - 5 * MINUTE)
        found = [
            _compare_hours(stack, hours, recorded.end),
            _compare_tables(stack),
            compare_stores(stack.settings, stack.lake_folder, hours),
            compare_truth(stack.settings, read_truth(stack.truth_folder, us_from_datetime(recorded.begin))),
        ]
    problems = [*judge(operation.ticks, operation.repairs), *(each for some in found for each in some.problems)]
    for name, count in sorted(Counter(tick.name for tick in operation.ticks).items()):
        runs = [run for tick in operation.ticks if tick.name == name for run in tick.runs]
        say(f"{name}: {count} evaluations, {len(runs)} runs, {sum(not run.success for run in runs)} failed")
    for repair in operation.repairs:
        say(f"{repair.what} ({repair.partition}): {_outcome(repair)}")
    for comparison in found:
        say(comparison.as_text())
    seconds = machine.monotonic() - began_s
    say(f"{'NOT PROVEN: ' + '; '.join(problems) if problems else 'PROVEN'} ({seconds:.0f} s)")
    if options.json_file is not None:
        content = _as_json(operation, found, problems, seconds)
        options.json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return not problems


def judge(ticks: Sequence[Tick], repairs: Sequence[Repair]) -> list[str]:
    """Say what should not have been, of evaluations and repairs. Pure."""
    problems = [
        f"{tick.name} at {tick.moment:%H:%M} could not be evaluated: {tick.error}" for tick in ticks if tick.error
    ]
    made = {run.job for tick in ticks for run in tick.runs if run.success}
    problems += [
        f"no run of {job} succeeded"
        for job in ("close_hours", "export_days", "register_tables", "retention")
        if job not in made
    ]
    problems += [f"{repair.what} ({repair.partition}) was not repaired" for repair in repairs if not repair.repaired_by]
    broken = {repair.partition for repair in repairs}
    problems += [
        f"run {run.run_id} of {run.job} {'–'.join(run.partitions)} failed"
        for tick in ticks
        for run in tick.runs
        if not run.success and not any(run.makes(partition) for partition in broken)
    ]
    return problems


class _Operation:
    """Hosts the operator, follows what it tells, and breaks things at their time."""

    def __init__(
        self,
        stack: SimulatedStack,
        options: OperationOptions,
        midnight: datetime,
        say: Callable[[str], None],
        machine: Clock,
    ) -> None:
        self._stack = stack
        self._options = options
        self._say = say
        self._machine = machine
        self._log = OperatorLog(stack.group.log_dir / f"{OPERATOR}.log")
        self._stopped_at: datetime | None = None
        self._is_away = False
        self._is_silent = False
        self._lake_away = stack.folder / "raw-away"
        self._first, self._second, self._silent = midnight - HOUR, midnight, midnight + 2 * HOUR
        self._first_is_closed = False
        self.ticks: list[Tick] = []
        self.repairs: list[Repair] = []
        self._steps: list[tuple[datetime, Callable[[], None]]] = [
            (midnight + 12 * MINUTE, self._damage_file),
            (midnight + HOUR - 2 * MINUTE, self._take_store_away),
            (midnight + 2 * HOUR - 2 * MINUTE, self._fall_silent),
            (midnight + 3 * HOUR - 6 * MINUTE, self._leave),
            (midnight + 3 * HOUR + MINUTE, self._record_again),
            (midnight + 4 * HOUR + 10 * MINUTE, self._come_back),
        ]

    def start_operator(self, since: datetime) -> None:
        """Start the operator, which is an instance of Dagster of its own."""
        stack = self._stack
        shutil.copy(deployment_file("dagster.yaml"), stack.folder / "dagster.yaml")
        self._log = OperatorLog(stack.group.log_dir / f"{OPERATOR}.log")  # a process that starts writes its log anew
        argv = command_line(
            stack.clock_file.path, "-m", "kalshi_platform.lab.proof.simulated.scheduling",
            str(stack.clock_file.path), since.isoformat(), f"{self._options.speed:g}",
        )  # fmt: skip
        stack.group.start(
            ChildSpec(
                OPERATOR, argv, stack.environ, stack.folder, restart=False, stop_timeout_s=120,
                stop_signal=signal.SIGTERM,
            )
        )  # fmt: skip
        self._is_away = False

    def stop_operator(self) -> None:
        """Let the operator end what it does, and stop it."""
        self._stack.group.stop(OPERATOR)
        self._follow()
        self._is_away = True

    def step(self) -> None:
        """Look at everything; called some times a second."""
        self._follow()
        if not self._is_away and self._stack.group.pid(OPERATOR) is None:
            raise ProofFailed(f"the operator has ended; see {self._stack.group.log_dir / OPERATOR}.log")
        if self._is_silent and self._stack.pid(self._options.names[0]) is not None:
            self._trade_when_ready()
        if self._first_is_closed and self._steps and self._stack.clock.now() >= self._steps[0][0]:
            self._steps.pop(0)[1]()

    # -- what is broken

    def _damage_file(self) -> None:
        hour = self._first
        folder = self._stack.lake_folder / DAMAGED / f"date={hour:%Y-%m-%d}" / f"hour={hour:%H}"
        file = max(folder.glob("part-*.parquet"), key=lambda each: each.stat().st_size)
        with file.open("r+b") as damaged:
            damaged.truncate(file.stat().st_size // 2)
        self._break(f"a file of {DAMAGED} cut short", hour)

    def _take_store_away(self) -> None:
        raw = self._stack.lake_folder / "raw"
        raw.rename(self._lake_away)
        raw.write_text("not a folder", encoding="utf-8")
        self._break("the lake's store away during the export", self._second)

    def _bring_store_back(self) -> None:
        raw = self._stack.lake_folder / "raw"
        raw.unlink()
        self._lake_away.rename(raw)
        self._say(f"[{self._stack.clock.now():%d %H:%M}] the lake's store is back")

    def _fall_silent(self) -> None:
        self._stack.venue.rate(0.0)
        never = threading.Event()
        while not self._stack.venue.drained():
            self._machine.wait(never, 0.1)
        self._machine.wait(never, 1.5)
        self._stack.stop_gatherers()
        self._break("an hour that nobody recorded, and no close of it", self._silent)

    def _record_again(self) -> None:
        self._stack.start_gatherers()
        self._is_silent = True

    def _trade_when_ready(self) -> None:
        if all(self._stack.venue.holding_all(name) for name in self._options.names):
            self._stack.venue.rate(self._options.rate)
            self._is_silent = False
            self._say(f"[{self._stack.clock.now():%d %H:%M}] all gatherers record again")

    def _leave(self) -> None:
        self._stopped_at = self._stack.clock.now()
        self.stop_operator()
        self._stack.clock_file.change_speed(self._options.speed)
        self._say(f"[{self._stopped_at:%d %H:%M}] Dagster is away")

    def _come_back(self) -> None:
        assert self._stopped_at is not None  # noqa: S101 - it left before
        self.start_operator(self._stopped_at)
        self._say(f"[{self._stack.clock.now():%d %H:%M}] Dagster is back")

    def _break(self, what: str, hour: datetime) -> None:
        repair = Repair(what, hour_key(hour), self._stack.clock.now())
        self.repairs.append(repair)
        self._say(f"[{repair.broken_at:%d %H:%M}] {what} ({repair.partition})")

    # -- what the operator tells

    def _follow(self) -> None:
        for line in self._log.read_new(b'{"name"'):
            self._take(msgspec.json.decode(line, type=Tick))

    def _take(self, tick: Tick) -> None:
        self.ticks.append(tick)
        for run in tick.runs:
            partitions = "–".join(run.partitions)
            self._say(
                f"[{tick.moment:%d %H:%M}] {tick.name}: {run.job} {partitions} {'done' if run.success else 'FAILED'}"
            )
            for repair in self.repairs:
                if run.success and not repair.repaired_by and run.makes(repair.partition):
                    repair.repaired_by, repair.repaired_at = tick.name, tick.moment
            if self._lake_away.exists() and not run.success:
                self._bring_store_back()
            if run.job == "close_hours" and run.success and run.makes(hour_key(self._first)):
                self._first_is_closed = True


def _compare_hours(stack: SimulatedStack, hours: Sequence[datetime], now: datetime) -> Compared:
    """Every hour is closed, and no partition of the lake is missing, damaged, or not that of the present close."""
    url = stack.settings.deduplicator.production_url
    production = Database(url, name="production")
    try:
        with production.transaction() as transaction:
            closed = {row[0] for row in transaction.fetch_all("SELECT hour FROM hour_closes")}
            gone = transaction.fetch_all("SELECT count(*) FROM hour_activity WHERE hour = ANY (%s)", (list(hours),))
        silent = find_silent_hours(production, hours[0], hours[-1] + HOUR)
    finally:
        production.dispose()
    dropped = sum(_dropped_hours(each.timeseries_url) for each in stack.settings.gatherers.values())
    stale = stale_lately(open_store(stack.settings.lake), url, now)
    problems = [f"the hour {hour:%d %H:00} is not closed" for hour in hours if hour not in closed]
    problems += [f"the hour {hour:%d %H:00} has neither rows nor a close" for hour in silent]
    problems += [f"{each.partition.dataset.key} {each.partition.key}: {each.reason}" for each in stale]
    if not dropped:
        problems.append("retention has dropped nothing")
    figures = {
        "hours closed": len(closed), "hours and tables with rows": gone[0][0], "stale partitions": len(stale),
        "tables of hours dropped by gatherers": dropped,
    }  # fmt: skip
    return Compared("closes and partitions", figures, tuple(problems))


def _dropped_hours(url: str) -> int:
    database = Database(url, name="timeseries", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one("SELECT count(*) FROM dropped_hours")
    finally:
        database.dispose()
    return int(row[0]) if row else 0


def _compare_tables(stack: SimulatedStack) -> Compared:
    """What the Iceberg tables name is what the closed partitions hold: another registration finds nothing to do."""
    found = register(open_store(stack.settings.lake), config.load_iceberg(stack.environ), DATASETS.values())
    problems = [
        f"the table of {each.dataset.key} lacked {each.files_added} files, or had {each.files_removed} too many"
        for each in found
        if each.files_added or each.files_removed
    ]
    figures = {
        "tables": len(found),
        "rows": sum(each.rows for each in found),
        "files": sum(each.files for each in found),
    }
    if not figures["rows"]:
        problems.append("no table has a row")
    return Compared("Iceberg tables against closed partitions", figures, tuple(problems))


def _outcome(repair: Repair) -> str:
    if repair.repaired_at is None:
        return f"broken at {repair.broken_at:%d %H:%M}, NOT repaired"
    return f"broken at {repair.broken_at:%d %H:%M}, repaired by {repair.repaired_by} of {repair.repaired_at:%d %H:%M}"


def _as_json(
    operation: _Operation, found: Sequence[Compared], problems: Sequence[str], seconds: float
) -> dict[str, Any]:
    return {
        "proven": not problems,
        "problems": list(problems),
        "seconds": round(seconds, 1),
        "ticks": [msgspec.to_builtins(tick) for tick in operation.ticks if tick.runs or tick.error],
        "evaluations": dict(Counter(tick.name for tick in operation.ticks)),
        "repairs": [msgspec.to_builtins(repair) for repair in operation.repairs],
        "compared": {each.name: dict(each.figures) for each in found},
    }
