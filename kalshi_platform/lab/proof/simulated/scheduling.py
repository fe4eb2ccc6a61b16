"""Works a simulated platform as Dagster's daemon would: evaluates every schedule and sensor by the simulated clock.

    python -m kalshi_platform.lab.simulated_clock FILE -m kalshi_platform.lab.proof.simulated.scheduling FILE FROM SPEED

runs until it gets SIGTERM, and writes a line of JSON for each evaluation. While one is at work the clock goes as the
machine's: a batch takes as long of the simulated day as of ours. Of what was missed since FROM, when it starts, each
schedule's newest moment counts, as the daemon has it.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.simulated_clock import ClockFile
from kalshi_platform.orchestration.in_process_ticks import MINUTE, DoneTick, InProcessTicks

LOOK_S = 0.1


def work(clock_file: ClockFile, since: datetime, speed: float, stop: threading.Event) -> None:
    """Evaluate what is due until `stop`."""

    @contextmanager
    def slowly() -> Iterator[None]:
        clock_file.change_speed(1.0, lead_s=0.0)
        yield
        clock_file.change_speed(speed, lead_s=0.0)

    with InProcessTicks() as ticks:
        now = SYSTEM_CLOCK.now()
        due = sorted((moment, name) for name, moment in {name: at for at, name in ticks.due(since, now)}.items())
        sensors_at = now
        while not stop.is_set():
            for moment, name in due:
                with slowly():
                    tell(ticks.evaluate(name, moment))
                if stop.is_set():
                    return
            since, now = now, SYSTEM_CLOCK.now()
            due = ticks.due(since, now)
            if now >= sensors_at + MINUTE and not due:
                sensors_at = now
                for tick in ticks.evaluate_sensors(now):
                    tell(tick)
            SYSTEM_CLOCK.wait(stop, LOOK_S)


def tell(tick: DoneTick) -> None:
    """Write a line for whoever started this."""
    sys.stdout.write(json.dumps(asdict(tick) | {"moment": tick.moment.isoformat()}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Work until a signal."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    file, since, speed = sys.argv[1:]
    work(ClockFile(Path(file)), datetime.fromisoformat(since).astimezone(UTC), float(speed), stop)


if __name__ == "__main__":
    main()
