"""`kalshi-platform prove --faults healing`: kills of a real `up` from start to verdict."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.hours import find_active_hours
from kalshi_platform.errors import ExchangeUnavailable
from kalshi_platform.lab.proof import report
from kalshi_platform.lab.proof.errors import Interrupted, ProofFailed
from kalshi_platform.lab.proof.examine import Findings, examine
from kalshi_platform.lab.proof.healing.kills import LIMIT_S, Kill, Killer
from kalshi_platform.lab.proof.healing.stack import UpStack
from kalshi_platform.lab.proof.kinds import RECOVERY_S
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.proof.simulated.closing import merge_rest
from kalshi_platform.lab.proof.verdict import RunRecord, failures
from kalshi_platform.lab.waiting import wait_for_answer
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.export import export_raw
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.pool import Database

READY_S = 400.0
"""For the start of everything, on a busy machine."""
SETTLE_S = 3.5
"""Between two kills, so that something can be claimed in between."""
LAST_WORDS_S = 1.5


def prove_healing(options: ProofOptions, stop: threading.Event, say: Callable[[str], None], clock: Clock) -> bool:
    """Kill one process of a running `up` after the other, compare at the end; return whether all healed, and is equal.

    Raises ConfigurationError before anything starts, Interrupted when `stop` is set, ProofFailed and whatever kept the
    run from being one.
    """
    options.check()
    say(
        f"healing: `up --simulate` with {options.gatherers} gatherers, {options.rate:g} messages/s over"
        f" {options.markets} markets, seed {options.seed}; each must work again within {LIMIT_S:.0f} s"
    )
    with UpStack(options, say, clock) as stack:
        run = _Healing(stack, options, stop, say, clock)
        record = run.record()
        say("comparing production and lake with what was published")
        found = examine(stack.settings, stack.truth_folder, stack.lake_folder, record.run, record.faults)
    against = failures(record, found)
    say(report.as_text(record, found, against))
    kills = [fault for fault in record.faults if isinstance(fault, Kill)]
    say("\n".join(table(kills)))
    if options.json_file is not None:
        content = as_json(kills, record, found, against)
        options.json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return not against


def table(kills: Sequence[Kill]) -> list[str]:
    """Return the kills as a Markdown table, a line each. Pure."""
    lines = ["| killed | works again after | seen |", "|---|---:|---|"]
    for kill in kills:
        after = "not" if kill.works_again_s is None else f"{kill.works_again_s:.1f} s"
        lines.append(f"| {kill.name} | {after} | {kill.effect or 'no effect was observed'} |")
    return lines


def as_json(kills: Sequence[Kill], record: RunRecord, found: Findings, against: Sequence[str]) -> dict[str, Any]:
    """Return the findings of the comparison, and each kill with its seconds. Pure."""
    content = report.as_json(record, found, against)
    content["limit_s"] = LIMIT_S
    content["kills"] = [
        {
            "kind": kill.kind,
            "gatherer": kill.gatherer,
            "at": kill.at.isoformat(timespec="milliseconds"),
            "works_again_s": kill.works_again_s,
            "seen": kill.effect,
            "told": list(kill.told),
        }
        for kill in kills
    ]
    return content


class _Healing:
    def __init__(
        self, stack: UpStack, options: ProofOptions, stop: threading.Event, say: Callable[[str], None], clock: Clock
    ) -> None:
        self._stack = stack
        self._options = options
        self._stop = stop
        self._say = say
        self._clock = clock

    def record(self) -> RunRecord:
        """Let the exchange trade, do the kills, stop in order, merge and export."""
        stack, names = self._stack, self._options.names
        started = self._clock.monotonic()
        self._need(stack.is_described, "the stack did not start")
        self._need(stack.dagster.answers, "the UI did not answer")
        self._need(self._all_hold, "the gatherers did not get going")
        self._say(f"all gatherers hold every book after {self._clock.monotonic() - started:.0f} s")
        venue = stack.venue
        before = venue.state()
        venue.rate(self._options.rate)
        began = self._clock.monotonic()
        killer = Killer(stack, names, self._soon, self._clock)
        for kind, gatherer, act in killer.plan():
            self._soon(self._all_follow, RECOVERY_S)
            self._wait(SETTLE_S)
            done = killer.kill(kind, gatherer, act)
            after = "does NOT work again" if done.works_again_s is None else f"works again after {done.works_again_s} s"
            self._say(f"[{self._clock.monotonic() - began:4.0f} s] {done.name}: {after}; {done.effect or 'no effect'}")
        self._soon(self._all_follow, RECOVERY_S)
        silent = tuple(name for name in names if not venue.following(name))
        self._wait(SETTLE_S)
        seconds = self._clock.monotonic() - began
        after_state = venue.state()
        venue.rate(0.0)
        end_us = venue.clock_us()
        counted = self._stop_in_order()
        self._merge_and_export()
        return RunRecord(
            level="healing",
            gatherers=names,
            rate=self._options.rate,
            seconds=seconds,
            run=(int(before["clock_us"]), end_us),
            published=after_state["published"]["total"] - before["published"]["total"],
            faults=tuple(killer.done),
            counted=counted,
            left_in_journals=sum(map(self._behind_bytes, names)),
            silent=silent,
        )

    def _stop_in_order(self) -> dict[str, int]:
        """The exchange first, so that its ledger is final; return what it counted."""
        stack = self._stack
        self._wait(LAST_WORDS_S)
        self._soon(stack.venue.drained, RECOVERY_S)
        published = stack.venue.state()["published"]
        stack.stop_exchange(self._soon)
        self._soon(lambda: not any(map(self._behind_bytes, self._options.names)), RECOVERY_S)
        self._say("stopping `up`")
        stack.stop_up()
        return {kind: published[kind] for kind in ("delta", "trade", "ticker")}

    def _behind_bytes(self, name: str) -> int:
        beat = self._stack.heartbeat(name)
        return 0 if beat is None or beat.details.ingest is None else beat.details.ingest.behind_bytes

    def _merge_and_export(self) -> None:
        stack = self._stack
        stack.start_databases()
        settings = stack.settings
        merge_rest(settings, self._clock)
        production = Database(settings.deduplicator.production_url, name="production")
        try:
            hours = find_active_hours(production)
        finally:
            production.dispose()
        for hour in hours:
            is_over = hour + HOUR <= self._clock.now() - timedelta(seconds=1)
            closed = close_hour(settings.deduplicator, hour, self._clock, settings.bounds, final=is_over)
            for name in RAW_TABLES:
                export_raw(
                    settings.lake,
                    settings.deduplicator.production_url,
                    name,
                    hour,
                    state="closed" if closed.final else "open",
                )

    def _all_hold(self) -> bool:
        try:
            return all(self._stack.venue.holding_all(name) for name in self._options.names)
        except ExchangeUnavailable:
            return False

    def _all_follow(self) -> bool:
        return all(self._stack.venue.following(name) for name in self._options.names)

    def _need(self, probe: Callable[[], bool], problem: str) -> None:
        if not self._soon(probe, READY_S):
            raise ProofFailed(f"{problem} within {READY_S:.0f} s; see {self._stack.logs}")

    def _soon(self, probe: Callable[[], bool], patience_s: float) -> bool:
        return bool(wait_for_answer(probe, patience_s, self._wait, self._clock, 0.2))

    def _wait(self, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            self._stack.check()
            if self._stop.is_set():
                raise Interrupted("stopped before the end; nothing is proven")
            self._clock.wait(self._stop, min(0.5, left))
