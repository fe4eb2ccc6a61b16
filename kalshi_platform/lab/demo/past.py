"""Runs the past of a demo: services record it by a fast clock; Dagster's runs close it, and take the services over.

While time passes fast, gatherers and merge are children of `up`, by a clock of their own. They hold the services'
locks, so that Dagster's sensors launch nothing. Once it is now, they are stopped, the first gatherer before the others,
so that one always records; the sensors launch runs in their place, by the machine's clock.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError, StartFailed
from kalshi_platform.lab.demo.dagster_runs import ANY_ASSETS, DagsterRefused, DagsterRuns
from kalshi_platform.lab.demo.plan import DAY, SETTLED, PastPlan
from kalshi_platform.lab.simulated_clock import (
    LEAD_S,
    MACHINE,
    ClockFile,
    Piece,
    SimulatedClock,
    catching_up,
    command_line,
    ns_of,
)
from kalshi_platform.lab.simulator_client import SimulatorClient
from kalshi_platform.lake.datasets import DAILY_DATASETS
from kalshi_platform.local.patience import wait_saying
from kalshi_platform.local.simulator_process import SimulationOptions
from kalshi_platform.local.stack import Stack
from kalshi_platform.market.times import HOUR
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

PATIENCE_S = 900.0
"""For each thing that is waited for; a machine that needs longer is not slow but stuck."""
_LIVES = ("--births", "0.03", "--life", "10800", "--open-after", "10800", "--settle-after", "600", "--backpressure")
"""Markets are announced long before they open: at high speed a gatherer needs some of their time to subscribe."""
_LIVE_LIVES = {
    "births_per_minute": 2.0, "mischief_per_minute": 2.0, "open_after_s": 3.0, "life_s": 60.0,
    "determine_after_s": 5.0, "settle_after_s": 5.0,
}  # fmt: skip
"""As of an exchange that begins now: something of each kind happens within minutes."""
_READ_TOKENS_S = 200
_ATTEMPTS = 2
_SAME_TIME = timedelta(seconds=0.5)
_SETTINGS = {"KALSHI_SNAPSHOT_INTERVAL_S": "900"}
_SQL = load(Path(__file__).with_name("queries.sql"))
_HOUR_KEY, _DAY_KEY = "%Y-%m-%d-%H:%M", "%Y-%m-%d"
_log = event_logger(__name__)


class DemoPast:
    """One past. `local.stack` asks it what to start, `local.run_up` when to go on."""

    def __init__(self, data_dir: Path, say: Callable[[str], None], clock: Clock) -> None:
        self._say = say
        self._machine = clock
        self._plan = PastPlan.of(clock.now())
        self._file = ClockFile(data_dir / "clock")
        self._live_rate = 0.0
        self._threads: list[threading.Thread] = []
        self._ui_ready = threading.Event()
        self._take_over_ended = threading.Event()
        self._clock: SimulatedClock

    @property
    def begin(self) -> datetime:
        """Its first hour."""
        return self._plan.begin

    def prepare(self) -> None:
        """Begin with the pace of the machine; called before anything is started by this clock."""
        self._file.write([Piece(MACHINE.now_ns(), ns_of(self.begin), 1.0)])
        self._clock = self._file.clock()

    def simulation(self, given: SimulationOptions) -> SimulationOptions:
        """Return the options of the exchange, which stands still until time passes."""
        self._live_rate = given.rate
        tokens = f"{_READ_TOKENS_S * self._plan.speed(self._machine.now()):g}"
        return replace(given, rate=0.0, more=(*_LIVES, "--read-rate", tokens, *given.more))

    def command_line(self, *command: str) -> Sequence[str]:
        """Return how a command of the platform is run by the clock of this past."""
        return command_line(self._file.path, *command)

    def settings(self) -> Mapping[str, str]:
        """Return the settings of services while time passes fast."""
        return _SETTINGS

    def start(self, stack: Stack, stop: threading.Event) -> None:
        """Wait until every gatherer has every book, and let time pass. Raises StartFailed."""
        venue = _venue(stack)

        def waiting_for() -> list[str]:
            return [name for name in stack.names if not venue.holding_all(name)]

        def are_ready() -> bool:
            stack.poll()
            return not waiting_for()

        what = lambda: f"the first books of {', '.join(waiting_for())} (see {stack.group.log_dir})"  # noqa: E731
        if not self._wait(what, are_ready, stop):
            return
        now, at_ns = self._machine.now(), MACHINE.now_ns() + int(LEAD_S * 1e9)
        first, speed = self._file.read()[0], self._plan.speed(now)
        self._file.write([first, *catching_up(first.at(at_ns), speed, at_ns)])
        venue.rate(self._plan.rate(now))
        self._say(
            f"{', '.join(stack.names)} have every book after {stack.elapsed_s():.0f} s; it is"
            f" {self.begin:%Y-%m-%d %H:%M} UTC there, and will be now in about"
            f" {(now - self.begin).total_seconds() / speed:.0f} s"
        )
        for name, work in (("past-take-over", self._take_over), ("past-runs", self._request_runs)):
            thread = threading.Thread(target=self._guarded, args=(work, stack, stop), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def ui_is_ready(self) -> None:
        """Called once Dagster has loaded the code location."""
        self._ui_ready.set()

    def join(self, timeout_s: float) -> None:
        """Wait for what still works on it, after `stop` was set."""
        for thread in self._threads:
            thread.join(timeout_s)

    def describe(self) -> str:
        """Return the exchange's time while it is not now, for status lines."""
        return "" if self._is_now() else f"{self._clock.now():%d %H:%M} at the exchange; "

    def _is_now(self) -> bool:
        return self._machine.now() - self._clock.now() < _SAME_TIME

    def _guarded(self, work: Callable[[Stack, threading.Event], None], stack: Stack, stop: threading.Event) -> None:
        try:
            work(stack, stop)
        except KalshiPlatformError as error:
            if not stop.is_set():
                self._say(f"the past is not complete in the UI: {error}; Dagster's schedules go on with it")
                _log.warning("past_incomplete", error=error)
        except Exception:
            _log.exception("past_failed")
            raise

    # -- services ------------------------------------------------------------------------------------------------------

    def _take_over(self, stack: Stack, stop: threading.Event) -> None:
        """Once it is now: stop the children, and wait for the runs that the sensors launch in their place."""
        try:
            if self._hand_over(stack, stop):
                self._say(f"{', '.join(stack.names)} record as runs of Dagster after {stack.elapsed_s():.0f} s")
        finally:  # what comes after it comes also where a run is late
            self._take_over_ended.set()

    def _hand_over(self, stack: Stack, stop: threading.Event) -> bool:
        """Return whether all gatherers are runs; False on `stop`. Raises StartFailed."""
        venue = _venue(stack)
        while not self._is_now():
            if self._machine.wait(stop, 0.2):
                return False
        venue.rate(self._live_rate, backpressure=False)
        venue.scenario(**_LIVE_LIVES)
        if not self._wait(lambda: "gatherers to read what was published fast", venue.drained, stop):
            return False
        stack.note_caught_up(self._machine.now())
        self._say(f"the exchange's time is now, after {stack.elapsed_s():.0f} s")
        if not _wait_until_set(self._ui_ready, stop, self._machine):  # `up` waits for it aloud
            return False
        first, *others = stack.names
        stack.stop_children_of(first)
        if not self._wait(lambda: f"the run of {first}", partial(stack.is_hosted_by_run, first), stop):
            return False
        stack.stop_children_of(*others, "dedup")
        hosted = lambda: all(map(stack.is_hosted_by_run, others))  # noqa: E731
        if not self._wait(lambda: "the runs of the other gatherers", hosted, stop):
            return False
        stack.publish()
        return True

    # -- runs ----------------------------------------------------------------------------------------------------------

    def _request_runs(self, stack: Stack, stop: threading.Event) -> None:
        """Let Dagster close and export the past: first what one whole day needs, then the rest."""
        if not _wait_until_set(self._ui_ready, stop, self._machine):  # `up` waits for it aloud
            return
        runs, plan = DagsterRuns(str(stack.ui_url), self._machine), self._plan
        first, last = plan.first_hours
        if not self._recorded(stack, last + HOUR + SETTLED, stop):
            return
        self._run(runs, "close_hours", (), (f"{first:{_HOUR_KEY}}", f"{last:{_HOUR_KEY}}"), stop)
        self._say(
            f"hours {first:%d %H:00} to {last:%d %H:00} are closed, checked and in the lake after"
            f" {stack.elapsed_s():.0f} s: {stack.ui_url}/assets/production/orderbook_deltas"
        )
        day = f"{plan.day:{_DAY_KEY}}"
        daily = [*(f"lake/{name}" for name in DAILY_DATASETS), "production/trades_backfill"]
        self._run(runs, ANY_ASSETS, daily, (day, day), stop)
        self._say(f"quotes, candles and the other data sets of {day} are in the lake after {stack.elapsed_s():.0f} s")
        self._run(runs, ANY_ASSETS, OF_NO_DAY, (stack.names[0], stack.names[-1]), stop)
        if not _wait_until_set(self._take_over_ended, stop, self._machine):
            return
        self._say_what_to_try(stack)
        others = plan.other_hours(self._machine.now())
        if others is not None:
            first, last = others
            if not self._recorded(stack, last + HOUR, stop):
                return
            self._run(runs, "close_hours", (), (f"{first:{_HOUR_KEY}}", f"{last:{_HOUR_KEY}}"), stop)
            self._say(f"hours {first:%d %H:00} to {last:%d %H:00} are, too, after {stack.elapsed_s():.0f} s")

    def _say_what_to_try(self, stack: Stack) -> None:
        """Say three things to try next, as commands that can be pasted."""
        ticker = _busiest_market(stack.settings().deduplicator.production_url, self._plan)
        pid = stack.pid_of(stack.names[1] if len(stack.names) > 1 else stack.names[0])
        day, command = f"{self._plan.day:{_DAY_KEY}}", command_of_user()
        if ticker is None:
            return
        for text in (
            "three things to try, in a second terminal in this folder:",
            f"  the book of a market at a moment:        {command} query book {ticker} --at {day}T23:30",
            f"  its evening in one picture:              {command} draw {ticker} {day}",
            f"  a killed gatherer, which comes back:     kill -9 {pid} && {command} status",
        ):
            self._say(text)

    def _run(
        self,
        runs: DagsterRuns,
        job: str,
        assets: Sequence[str],
        partitions: tuple[str, str] | None,
        stop: threading.Event,
    ) -> None:
        """Launch a run and wait for it; again where it has failed, and only then. Raises DagsterRefused."""
        run_id: str | None = None
        for _ in range(_ATTEMPTS):
            run_id = runs.launch_surely(job, assets, partitions, stop, PATIENCE_S)
            if run_id is None or runs.wait(run_id, stop, PATIENCE_S) or stop.is_set():
                return
        raise DagsterRefused(f"run {run_id} of {job} did not succeed")

    def _recorded(self, stack: Stack, moment: datetime, stop: threading.Event) -> bool:
        """Wait until every gatherer has committed what was published until `moment`."""

        def is_there() -> bool:
            return all(
                until is not None and until >= moment
                for until in (_recorded_until(each.timeseries_url) for each in stack.settings().gatherers.values())
            )

        return self._wait(lambda: f"records until {moment:%d %H:%M}", is_there, stop)

    def _wait(self, what: Callable[[], str], probe: Callable[[], bool], stop: threading.Event) -> bool:
        """Return whether it came; False on `stop`. Raises StartFailed where it does not come."""
        came = wait_saying(what, probe, stop, self._say, self._machine, PATIENCE_S)
        if not came and not stop.is_set():
            raise StartFailed(f"waited {PATIENCE_S:.0f} s in vain for {what()}")
        return came


OF_NO_DAY = (
    "gatherer/exchange_status", "production/series", "production/events", "production/markets", "lake/tables",
    "lake/lifecycle_rules", "lake/retention", "lake/dagster_retention",
)  # fmt: skip
"""Assets without a day or an hour, which a healthy platform has made once; those of gatherers among them."""


def _wait_until_set(event: threading.Event, stop: threading.Event, clock: Clock) -> bool:
    """Wait for an event; False on `stop`."""
    while not event.is_set():
        if clock.wait(stop, 0.2):
            return False
    return not stop.is_set()


def _venue(stack: Stack) -> SimulatorClient:
    assert stack.exchange is not None  # noqa: S101 - a past has a simulated exchange
    return SimulatorClient(stack.exchange.control_url)


def _recorded_until(timeseries_url: str) -> datetime | None:
    database = Database(timeseries_url, name="timeseries", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(_SQL["recorded_until"])
    finally:
        database.dispose()
    moment: datetime | None = None if row is None else row[0]
    return moment


def _busiest_market(production_url: str, plan: PastPlan) -> str | None:
    database = Database(production_url, name="production", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(_SQL["busiest_market"], {"low": plan.begin, "high": plan.day + DAY})
    finally:
        database.dispose()
    return None if row is None else str(row[0])


def command_of_user() -> str:
    """Return how a user calls the platform from the current folder, quoted for a shell."""
    program = Path(sys.prefix) / "bin" / "kalshi-platform"
    if not program.exists():
        return f"{shlex.quote(sys.executable)} -m kalshi_platform.cli"
    with contextlib.suppress(ValueError):
        program = program.relative_to(Path.cwd())
    return shlex.quote(str(program))
