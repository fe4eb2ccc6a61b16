"""Lets a simulated exchange trade by a fast clock while three gatherers record and faults are injected."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.lab.proof.errors import Interrupted, ProofFailed
from kalshi_platform.lab.proof.faults.inject import Injector
from kalshi_platform.lab.proof.faults.observe import Observer
from kalshi_platform.lab.proof.faults.schedule import PlannedFault
from kalshi_platform.lab.proof.kinds import RECOVERY_S, InjectedFault
from kalshi_platform.lab.proof.simulated.stack import SimulatedStack
from kalshi_platform.lab.waiting import wait_for_answer
from kalshi_platform.market.times import us_from_datetime

READY_S = 90.0
LAST_WORDS_S = 1.5
PROGRESS_S = 15.0
STEP_S = 0.2


@dataclass(frozen=True)
class Recorded:
    """What was done. Times by the exchange's clock; `seconds` of the machine."""

    begin: datetime
    end: datetime
    seconds: float
    published: dict[str, int]
    faults: Sequence[InjectedFault]
    silent: tuple[str, ...]


class FastRecording:
    """Runs a started stack from its present time until `end`. `on_step` is called now and then meanwhile."""

    def __init__(
        self,
        stack: SimulatedStack,
        names: tuple[str, ...],
        stop: threading.Event,
        say: Callable[[str], None],
        machine: Clock,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._stack = stack
        self._names = names
        self._stop = stop
        self._say = say
        self._machine = machine
        self._on_step = on_step
        self._next_progress = float("inf")

    def run(self, end: datetime, rate: float, speed: float, kinds: Sequence[tuple[str, str | None]]) -> Recorded:
        """Trade until `end` at `speed`; do one fault of `kinds` after the other, evenly spread; then stand still.

        Raises Interrupted, ProofFailed.
        """
        stack, machine = self._stack, self._machine
        self._until_ready()
        seen = Observer(stack, self._names, self.wait, stack.clock)
        injector = Injector(stack, self._names, self.wait, stack.clock, seen)
        begin, began_s = stack.clock.now(), machine.monotonic()
        stack.clock_file.change_speed(speed)
        stack.venue.rate(rate)
        self._say(f"{len(self._names)} gatherers hold every book; from {begin:%Y-%m-%d %H:%M} on at {speed:g} x")
        self._next_progress = began_s + PROGRESS_S
        for number, (kind, gatherer) in enumerate(kinds, 1):
            self._until(begin + (end - begin) * number / (len(kinds) + 2))
            done = injector.inject(PlannedFault(0.0, kind, gatherer, 2.0))
            self._say(f"[{stack.clock.now():%d %H:%M}] {done.name}: {done.effect or 'no effect was observed'}")
        silent = injector.recover()
        self._until(end)
        # Markets are announced, open and close as long as time goes on, also when nothing is traded.
        stack.clock_file.change_speed(0.0)
        self.wait(LAST_WORDS_S)
        stack.venue.rate(0.0)
        self.soon(stack.venue.drained, RECOVERY_S)
        self.soon(lambda: all(not stack.ingest_status(name).behind_bytes for name in self._names), RECOVERY_S)
        self.wait(LAST_WORDS_S)
        stack.stop_services()
        return Recorded(
            begin=begin,
            end=stack.clock.now(),
            seconds=machine.monotonic() - began_s,
            published=stack.venue.state()["published"],
            faults=tuple(injector.done),
            silent=silent,
        )

    def wait(self, seconds: float) -> None:
        """Let the machine's time pass; children that ended are started again. Raises Interrupted."""
        deadline = self._machine.monotonic() + seconds
        while True:
            self._stack.group.poll()
            if self._stop.is_set():
                raise Interrupted("stopped before the end; nothing is proven")
            self._on_step()
            if self._machine.monotonic() >= self._next_progress:
                self._next_progress = self._machine.monotonic() + PROGRESS_S
                state = self._stack.venue.state()
                waiting = max((each["waiting_bytes"] for each in state["connections"]), default=0)
                self._say(
                    f"[{self._stack.clock.now():%d %H:%M}] {state['published']['total']:,} messages published,"
                    f" {waiting / 1e3:.0f} kB wait for readers"
                )
            left = deadline - self._machine.monotonic()
            if left <= 0:
                return
            self._machine.wait(self._stop, min(STEP_S, left))

    def soon(self, probe: Callable[[], bool], patience_s: float) -> bool:
        """Wait until `probe` holds; return whether it does."""
        return bool(wait_for_answer(probe, patience_s, self.wait, self._machine, 0.1))

    def _until(self, moment: datetime) -> None:
        while (left_us := us_from_datetime(moment) - us_from_datetime(self._stack.clock.now())) > 0:
            pace = self._stack.clock.pace()
            self.wait(min(STEP_S, left_us / 1e6 / pace) if pace > 0 else STEP_S)

    def _until_ready(self) -> None:
        venue = self._stack.venue
        if not self.soon(lambda: all(venue.holding_all(name) for name in self._names), READY_S):
            raise ProofFailed(
                f"the gatherers did not get going within {READY_S:.0f} s; see {self._stack.group.log_dir}"
            )
        self.wait(0.5)


def planned_kinds(names: Sequence[str], seed: int, *, few: bool) -> list[tuple[str, str | None]]:
    """Return the faults of a simulated day, in an order of the seed: cuts, lost frames, kills, a stall, odd frames."""
    pick = random.Random(seed)  # noqa: S311 - repeatable, not secret
    if few:
        return [("cut", pick.choice(names)), ("kill", pick.choice(names)), ("drop_frame", pick.choice(names))]
    kinds: list[tuple[str, str | None]] = [
        (kind, name) for name in names for kind in ("cut", "drop_frame", "kill", "drop_frame")
    ]
    kinds += [("stall", pick.choice(names)), ("unknown_frames", pick.choice(names)), ("rest_429", None)]
    pick.shuffle(kinds)
    return kinds
