"""`kalshi-platform prove --faults weeks`: weeks at speed with retention on; databases become no larger."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kalshi_platform.clock import Clock
from kalshi_platform.config.stack import deployment_file
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lab.proof.simulated.operator_log import OperatorLog
from kalshi_platform.lab.proof.simulated.options import WeeksOptions
from kalshi_platform.lab.proof.simulated.recording import FastRecording
from kalshi_platform.lab.proof.simulated.stack import Births, SimulatedStack
from kalshi_platform.lab.simulated_clock import command_line
from kalshi_platform.local.processes.process_group import ChildSpec
from kalshi_platform.plots.disk import MIB, disk
from kalshi_platform.plots.timeline import png
from kalshi_platform.storage.pool import Database

OPERATOR = "operator"
BIRTHS = Births(0.005, 43_200.0)
LAGS, CATCHES_UP = timedelta(hours=30), timedelta(hours=10)
"""The clock goes slower while the operator is so far behind, until it is that near again."""
SLOWER = 6.0
TRADING_HOURS = range(12, 18)
"""Of each day: what is the same every hour need not be seen every hour."""
LAST_HOURS_S = 240.0
MOST_GROWTH, MOST_GROWTH_MIB = 0.15, 6.0
"""From the first to the last third of the days after the retention: of the size, or in MiB where that is more."""


@dataclass
class Sizes:
    """Bytes of each database by simulated days since the start; `lake`: bytes of the lake's folder."""

    databases: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    lake: list[tuple[float, int]] = field(default_factory=list)


def prove_weeks(options: WeeksOptions, stop: threading.Event, say: Callable[[str], None], machine: Clock) -> bool:
    """Run the weeks and judge; return whether every database stays as large as it is after its retention.

    Raises ConfigurationError before anything starts, Interrupted, ProofFailed.
    """
    options.check()
    start = (machine.now() - timedelta(days=options.days + 2)).replace(hour=0, minute=0, second=0, microsecond=0)
    end = start + timedelta(days=options.days)
    say(
        f"{options.days} simulated days from {start:%Y-%m-%d}: {options.gatherers} gatherers, {options.rate:g}"
        f" messages/s of their clock over {options.markets} markets, {options.speed:g} x; retention"
        f" {options.gatherer_days:g} and {options.production_days:g} days"
    )
    began_s = machine.monotonic()
    settings = options.settings(start)
    with SimulatedStack(options, start, options.speed, BIRTHS, say, machine, settings) as stack:
        weeks = _Weeks(stack, options, start, say)
        recording = FastRecording(stack, options.names, stop, say, machine, weeks.step)
        weeks.begin()
        kinds = [("cut", name) for name in options.names] + [("kill", options.names[0])]
        recorded = recording.run(end, options.rate, options.speed, kinds)
        recording.soon(lambda: weeks.closed_until >= end - timedelta(hours=3), LAST_HOURS_S)
        weeks.end()
    problems = [*weeks.problems, *judge(weeks.sizes.databases, options.flat_from_days)]
    if weeks.closed_until < end - LAGS:
        problems.append(f"hours were closed until {weeks.closed_until:%Y-%m-%d %H:%M} only")
    seconds = machine.monotonic() - began_s
    for name, points in weeks.sizes.databases.items():
        say(f"{name}: {', '.join(f'{size / MIB:.1f}' for _, size in points)} MiB by day")
    verdict = "NOT FLAT: " + "; ".join(problems) if problems else "FLAT"
    messages = recorded.published["total"]
    say(f"{verdict} ({messages:,} messages, {weeks.runs_deleted:,} runs of Dagster deleted, {seconds:.0f} s)")
    if options.json_file is not None:
        content = {
            "flat": not problems, "problems": problems, "seconds": round(seconds, 1), "published": recorded.published,
            "sizes": weeks.sizes.databases, "lake": weeks.sizes.lake,
        }  # fmt: skip
        options.json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.plot_file is not None:
        title = f"{options.days} days: databases {'grow' if problems else 'stay as large as they are'} after retention"
        options.plot_file.write_bytes(png(disk(title, weeks.sizes.databases, options.flat_from_days)))
    return not problems


def judge(sizes: Mapping[str, Sequence[tuple[float, int]]], flat_from_days: float) -> list[str]:
    """Compare the means of the first and the last third of the days after the retention. Pure."""
    problems = []
    for name, points in sizes.items():
        flat = [size for at, size in points if at >= flat_from_days]
        if len(flat) < 3:
            problems.append(f"{name}: only {len(flat)} samples after the retention")
            continue
        third = max(1, len(flat) // 3)
        early, late = sum(flat[:third]) / third, sum(flat[-third:]) / third
        if late - early > max(MOST_GROWTH * early, MOST_GROWTH_MIB * MIB):
            problems.append(f"{name} grows from {early / MIB:.1f} to {late / MIB:.1f} MiB after the retention")
    return problems


class _Weeks:
    """Hosts the operator, follows what it tells, samples sizes once a day, and slows the clock while it lags."""

    def __init__(
        self, stack: SimulatedStack, options: WeeksOptions, start: datetime, say: Callable[[str], None]
    ) -> None:
        self._stack = stack
        self._options = options
        self._start = start
        self._say = say
        self._log = OperatorLog(stack.group.log_dir / f"{OPERATOR}.log")
        self._slow = False
        self._is_trading = True
        self._next_sample = start + timedelta(days=1)
        self.sizes = Sizes()
        self.closed_until = start
        self.runs_deleted = 0
        self.problems: list[str] = []

    def begin(self) -> None:
        """Start the operator, which is an instance of Dagster of its own."""
        stack = self._stack
        shutil.copy(deployment_file("dagster.yaml"), stack.folder / "dagster.yaml")
        argv = command_line(
            stack.clock_file.path, "-m", "kalshi_platform.lab.proof.simulated.operating", self._start.isoformat(),
            f"{self._options.dagster_days:g}",
        )  # fmt: skip
        stack.group.start(
            ChildSpec(
                OPERATOR,
                argv,
                stack.environ,
                stack.folder,
                restart=False,
                stop_timeout_s=60,
                stop_signal=signal.SIGTERM,
            )
        )

    def end(self) -> None:
        """Stop the operator, and sample a last time."""
        self._stack.group.stop(OPERATOR)
        self._follow()
        self._sample()

    def step(self) -> None:
        """Look at everything; called some times a second."""
        self._follow()
        now = self._stack.clock.now()
        is_trading = now.hour in TRADING_HOURS
        if is_trading != self._is_trading and self._stack.clock.pace() > 1:
            self._is_trading = is_trading
            self._stack.venue.rate(self._options.rate if is_trading else 0.0)
        if self._stack.group.pid(OPERATOR) is None:
            raise ProofFailed(f"the operator has ended; see {self._stack.group.log_dir / OPERATOR}.log")
        if now >= self._next_sample:
            self._next_sample += timedelta(days=1)
            self._sample()
        behind = now - self.closed_until
        wanted = behind > (CATCHES_UP if self._slow else LAGS)
        if wanted != self._slow and self._stack.clock.pace() > 1:
            self._slow = wanted
            self._stack.clock_file.change_speed(self._options.speed / (SLOWER if wanted else 1.0))

    def _follow(self) -> None:
        for line in self._log.read_new(b'{"event"'):
            self._take(json.loads(line))

    def _take(self, told: Mapping[str, str]) -> None:
        if told["event"] == "closed":
            self.closed_until = datetime.fromisoformat(told["moment"])
        else:
            self.runs_deleted += int(told["runs_deleted"])

    def _sample(self) -> None:
        settings, at = self._stack.settings, (self._stack.clock.now() - self._start) / timedelta(days=1)
        urls = {f"{name} timeseries": each.timeseries_url for name, each in settings.gatherers.items()}
        urls |= {f"{name} catalog": each.catalog_url for name, each in settings.gatherers.items()}
        urls |= {"production": settings.deduplicator.production_url, "Dagster": self._stack.dagster_url}
        for name, url in urls.items():
            database = Database(url, name=name, pool_size=1)
            try:
                with database.transaction() as transaction:
                    row = transaction.fetch_one("SELECT pg_database_size(current_database())")
            finally:
                database.dispose()
            self.sizes.databases.setdefault(name, []).append((round(at, 2), int(row[0]) if row else 0))
        lake = sum(file.stat().st_size for file in self._stack.lake_folder.rglob("*") if file.is_file())
        self.sizes.lake.append((round(at, 2), lake))
        total = sum(points[-1][1] for points in self.sizes.databases.values())
        self._say(
            f"day {at:.1f}: databases {total / MIB:.0f} MiB, lake {lake / MIB:.0f} MiB, closed until"
            f" {self.closed_until:%m-%d %H:%M}"
        )
