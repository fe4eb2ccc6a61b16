"""Works a simulated platform day by day as schedules would: closes hours, exports, applies retention, as Dagster runs.

    python -m kalshi_platform.lab.simulated_clock FILE -m kalshi_platform.lab.proof.simulated.operating FROM KEEP_DAYS

runs until it gets SIGTERM. A process of its own, because its clock is the simulated one; it writes a line of JSON for
each thing that it has done. Dagster dates its runs by the machine's clock: they are deleted by the moment at which the
simulated clock was KEEP_DAYS younger.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.lab.simulated_clock import MACHINE
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.orchestration.in_process import InProcessRuns
from kalshi_platform.storage.pool import Database

SETTLED = timedelta(hours=2)
"""After the end of an hour: what the pace makes late has come."""
HOURS_AT_ONCE = 12
DAY = timedelta(days=1)


def work(start: datetime, keep_days: float, stop: threading.Event) -> None:
    """Do what is due until `stop`. Raises RunFailed."""
    closed_until, day = start, start.replace(hour=0) + DAY
    met: deque[tuple[datetime, datetime]] = deque()
    production = Database(config.load_production_url(), name="production")
    with InProcessRuns() as runs:
        while not stop.is_set():
            now = SYSTEM_CLOCK.now()
            met.append((now, MACHINE.now()))
            due = first_range(find_hours_to_close(production, now - SETTLED))
            if due:
                runs.close_hours(due)
                closed_until = max(closed_until, due[-1] + HOUR)
            else:
                # Hours without rows need no close.
                closed_until = max(closed_until, hour_of(now - SETTLED))
                SYSTEM_CLOCK.wait(stop, 0.2)
            tell("closed", closed_until)
            while day + DAY + HOUR <= closed_until:
                runs.export_day(day)
                runs.retention()
                before = None
                while met and met[0][0] < now - timedelta(days=keep_days):
                    before = met.popleft()[1]
                deleted = 0 if before is None else runs.delete_runs(before)
                tell("day", day, runs_deleted=deleted)
                day += DAY
    production.dispose()


def first_range(hours: Sequence[datetime]) -> list[datetime]:
    """Return the first of some hours with those that follow it without a hole, some at the most. Pure."""
    found = list(hours[:1])
    for hour in hours[1:HOURS_AT_ONCE]:
        if hour != found[-1] + HOUR:
            break
        found.append(hour)
    return found


def tell(event: str, moment: datetime, **more: object) -> None:
    """Write a line for whoever started this."""
    sys.stdout.write(json.dumps({"event": event, "moment": moment.isoformat(), **more}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Work until a signal."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    work(datetime.fromisoformat(sys.argv[1]).astimezone(UTC), float(sys.argv[2]), stop)


if __name__ == "__main__":
    main()
