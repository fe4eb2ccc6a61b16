"""A soak: gatherers record a steady stream for a long time, and nothing of them may grow.

Simulated exchange → sockets → gatherers → embedded PostgreSQL, watched from outside and through the heartbeat files. At
the end every trade that the exchange says it published, and every delta that it sent, must be committed, once.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.errors import TransientError
from kalshi_platform.gatherer.status.status import IngestStatus
from kalshi_platform.lab.bench.soak.flatness import Sample, judge
from kalshi_platform.lab.bench.soak.soak_report import SoakRun, as_json, as_text, failures, picture
from kalshi_platform.lab.bench.soak.usage import usage
from kalshi_platform.lab.recording_stack import RecordingStack
from kalshi_platform.lab.run_options import RunOptions
from kalshi_platform.lab.waiting import wait_for_answer
from kalshi_platform.local.simulator_process import SimulationOptions
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.pool import Database

SHORTEST_S = 600.0
_READY_S, _SETTLE_S, _LAST_WORDS_S = 120.0, 120.0, 1.5
_MOST_SAMPLES, _SHORTEST_STEP_S = 600, 1.0
_PROGRESS_S = 60.0
# Streams whose frames are numbered, and whether the ledger has every number from the first to the last.
_NUMBERED = ("orderbook_delta", "trade")
_RECEIVED = """
SELECT channel, max(seq_to),
  range_agg(int8range(seq_from, seq_to, '[]')) = int8multirange(int8range(1, max(seq_to), '[]'))
FROM stream_segments JOIN streams USING (stream_id) WHERE channel = ANY (%s) GROUP BY stream_id, channel
"""
_TABLES = {"delta": "orderbook_deltas", "trade": "trades", "ticker": "tickers"}


class SoakEnded(TransientError):
    """The soak came to no verdict."""


@dataclass(frozen=True, kw_only=True)
class SoakOptions(RunOptions):
    """A soak has a shortest length: what fills caches at first is no growth."""

    def length_problems(self) -> list[str]:
        """What is wrong with `seconds`."""
        if self.seconds >= SHORTEST_S:
            return []
        return [f"--seconds is {self.seconds:g}: use at least {SHORTEST_S:g}; the first 300 are warm-up"]


def run_soak(options: SoakOptions, stop: threading.Event, say: Callable[[str], None], clock: Clock) -> bool:
    """Run, tell, write; return whether nothing grew and nothing was lost.

    Raises ConfigurationError before anything starts, SoakEnded when `stop` is set or the gatherers do not get going.
    """
    options.check()
    say(
        f"soak: {options.gatherers} gatherers, {options.rate:g} messages/s over {options.markets} markets for"
        f" {options.seconds:g} s"
    )
    simulation = SimulationOptions(options.markets, 0.0, options.seed)
    with RecordingStack(options.data_dir, options.names, simulation, say, clock, keep=options.keep) as stack:
        ran = _Soak(stack, options, stop, say, clock).run()
    verdicts = {name: judge(samples) for name, samples in ran.samples.items()}
    against = failures(ran, verdicts)
    content = as_json(ran, verdicts, against)
    say(as_text(content))
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.plot_file is not None:
        options.plot_file.write_bytes(picture(ran, against))
    return not against


class _Soak:
    """Runs a stack and watches it."""

    def __init__(
        self,
        stack: RecordingStack,
        options: SoakOptions,
        stop: threading.Event,
        say: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._stack = stack
        self._options = options
        self._stop = stop
        self._say = say
        self._clock = clock
        self._samples: dict[str, list[Sample]] = {name: [] for name in options.names}
        self._peaks = dict.fromkeys(options.names, 0.0)

    def run(self) -> SoakRun:
        stack, options, clock = self._stack, self._options, self._clock
        if not self._soon(lambda: all(stack.venue.holding_all(name) for name in options.names), _READY_S):
            raise SoakEnded(f"the gatherers did not get going within {_READY_S:.0f} s; see {stack.group.log_dir}")
        self._wait(1.0)
        before = stack.venue.state()
        own_before = _own_mib()
        stack.venue.rate(options.rate)
        self._say(f"{len(options.names)} gatherers hold every book; the exchange begins to trade")
        began = clock.monotonic()
        step_s = max(_SHORTEST_STEP_S, options.seconds / _MOST_SAMPLES)
        next_sample, next_progress = began, began + _PROGRESS_S
        while clock.monotonic() < began + options.seconds:
            now = clock.monotonic()
            if now >= next_sample:
                next_sample = max(next_sample + step_s, now)
                self._sample(now - began)
            if now >= next_progress:
                next_progress += _PROGRESS_S
                self._progress(now - began, before)
            self._wait(max(0.01, min(next_sample, began + options.seconds) - clock.monotonic()))
        seconds = clock.monotonic() - began
        stack.venue.rate(0.0)
        own_after = _own_mib()
        settled, sent = self._settle(before)
        stack.stop_gatherers()
        # Markets are made also while nothing is traded, and begin with orders: what came in the meantime may be stored.
        at_most = self._published(stack.venue.state(), before)
        committed = {name: self._committed(name, int(before["clock_us"])) for name in options.names}
        missed = {name: self._missed(name, sent[name]) for name in options.names}
        own_mib = own_before, own_after
        return SoakRun(options.rate, seconds, self._samples, settled, at_most, committed, missed, self._peaks, own_mib)

    # -- watching

    def _sample(self, at_s: float) -> None:
        for name in self._options.names:
            pid = self._stack.pid(name)
            used = None if pid is None else usage(pid)
            if pid is None or used is None:
                continue
            status = self._stack.status(name)
            ingest = status.ingest or IngestStatus()
            self._peaks[name] = max(self._peaks[name], used.peak_rss_mib)
            self._samples[name].append(
                Sample(
                    at_s=at_s,
                    pid=pid,
                    rss_mib=used.rss_mib,
                    threads=used.threads,
                    handles=used.handles,
                    cpu_s=used.cpu_s,
                    lag_p50_ms=ingest.lag_p50_ms,
                    lag_p99_ms=ingest.lag_p99_ms,
                    behind_mib=ingest.behind_bytes / 2**20,
                    followed=status.followed_markets or 0,
                )
            )

    def _progress(self, at_s: float, before: Mapping[str, Any]) -> None:
        published = self._stack.venue.state()["published"]["total"] - before["published"]["total"]
        latest = [
            f"{name}: {each.rss_mib:.0f} MiB, p99 {each.lag_p99_ms or 0:.0f} ms, {each.threads} threads,"
            f" {each.handles} handles"
            for name, samples in self._samples.items()
            for each in samples[-1:]
        ]
        self._say(f"[{at_s:5.0f} s] {published:,} messages published; {'; '.join(latest)}")

    # -- the end

    def _settle(self, before: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, list[tuple[str, int]]]]:
        """Let everything arrive and be committed; return what was published.

        That is the counts by kind, and, by gatherer, channel and last number of every numbered stream that is open.
        """
        stack = self._stack
        self._wait(_LAST_WORDS_S)
        self._soon(stack.venue.drained, _SETTLE_S)
        state = stack.venue.state()
        sent = {
            name: [
                (str(each["channel"]), int(each["seq"]))
                for connection in state["connections"]
                if f"({name} " in connection["user_agent"]
                for each in connection["subscriptions"]
                if each["channel"] in _NUMBERED
            ]
            for name in self._options.names
        }
        self._soon(lambda: all(not stack.ingest_status(name).behind_bytes for name in self._options.names), _SETTLE_S)
        return self._published(state, before), sent

    def _published(self, state: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, int]:
        return {kind: state["published"][kind] - before["published"][kind] for kind in _TABLES}

    def _missed(self, name: str, sent: Sequence[tuple[str, int]]) -> list[str]:
        """What the ledger lacks: numbers within a stream, or the last ones that the exchange sent on an open one."""
        database = Database(self._stack.settings.gatherers[name].timeseries_url, name=f"{name} timeseries")
        try:
            with database.transaction() as transaction:
                streams = transaction.fetch_all(_RECEIVED, (list(_NUMBERED),))
        finally:
            database.dispose()
        problems = [f"numbers are missing in a stream of {channel}" for channel, _, whole in streams if not whole]
        for wanted in sorted({channel for channel, _ in sent}):
            lasts = sorted((last for channel, last in sent if channel == wanted), reverse=True)
            ends = sorted((int(end) for channel, end, _ in streams if channel == wanted), reverse=True)
            if len(ends) < len(lasts) or any(end < last for end, last in zip(ends, lasts, strict=False)):
                problems.append(f"the exchange sent {lasts} frames of {wanted}, the ledger ends at {ends}")
        return problems

    def _committed(self, name: str, from_us: int) -> dict[str, int]:
        database = Database(self._stack.settings.gatherers[name].timeseries_url, name=f"{name} timeseries")
        try:
            with database.transaction() as transaction:
                counted = {}
                for kind, table in _TABLES.items():
                    query = f"SELECT count(*) FROM {table} WHERE exchange_ts >= %s"  # noqa: S608 - our own names
                    row = transaction.fetch_one(query, (datetime_from_us(from_us // 1_000 * 1_000),))
                    counted[kind] = 0 if row is None else int(row[0])
                return counted
        finally:
            database.dispose()

    # -- time

    def _wait(self, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        while True:
            self._stack.group.poll()
            if self._stop.is_set():
                raise SoakEnded("stopped before the end")
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.wait(self._stop, min(0.5, left))

    def _soon(self, probe: Callable[[], bool], patience_s: float) -> bool:
        return bool(wait_for_answer(probe, patience_s, self._wait, self._clock, 0.2))


def _own_mib() -> float:
    used = usage(os.getpid())
    return 0.0 if used is None else used.rss_mib
