"""`kalshi-platform prove --faults day`: a simulated day from start to verdict."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from kalshi_platform.clock import Clock
from kalshi_platform.lab.proof.comparison.truth import read_truth
from kalshi_platform.lab.proof.simulated import closing
from kalshi_platform.lab.proof.simulated.books import TrueBooks, compare_book_at, compare_book_deltas, samples
from kalshi_platform.lab.proof.simulated.candles import compare_endpoint, compare_sql, fetch_candles
from kalshi_platform.lab.proof.simulated.catalog import compare_settlements
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.lab.proof.simulated.options import DAYS_AGO, LEAD, DayOptions
from kalshi_platform.lab.proof.simulated.quotes import compare_quotes
from kalshi_platform.lab.proof.simulated.recording import FastRecording, Recorded, planned_kinds
from kalshi_platform.lab.proof.simulated.rows import compare_stores, compare_truth
from kalshi_platform.lab.proof.simulated.stack import Births, SimulatedStack
from kalshi_platform.market.times import HOUR, us_from_datetime

WHOLE_DAY = timedelta(days=1)
AFTER = timedelta(minutes=10)
"""After the last hour: its trades are listed, and what came late has come."""
BIRTHS, BIRTHS_OF_HOURS = Births(0.1, 10_800.0), Births(0.3, 1_500.0)
"""Of a whole day, and of a few hours, in which markets must be settled, too."""


def prove_day(options: DayOptions, stop: threading.Event, say: Callable[[str], None], machine: Clock) -> bool:
    """Record a day, close and export it, compare everything; return whether it is proven.

    Raises ConfigurationError before anything starts, Interrupted, and whatever kept the run from being one.
    """
    options.check()
    began_s = machine.monotonic()
    day = (machine.now() - DAYS_AGO).replace(hour=0, minute=0, second=0, microsecond=0)
    start = day + WHOLE_DAY - timedelta(hours=options.hours) - LEAD
    last = day + WHOLE_DAY + LEAD
    say(
        f"simulated day {day:%Y-%m-%d}: {options.gatherers} gatherers, {options.rate:.3g} messages/s of its clock over"
        f" {options.markets} markets, its last {options.hours} hours, one before and one after, {options.speed:g} x,"
        f" seed {options.seed}"
    )
    timings: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        before = machine.monotonic()
        yield
        timings[what] = round(machine.monotonic() - before, 1)
        say(f"{what}: {timings[what]:.1f} s")

    found: list[Compared] = []
    is_whole = timedelta(hours=options.hours) == WHOLE_DAY
    births = BIRTHS if is_whole else BIRTHS_OF_HOURS
    with SimulatedStack(options, start, options.speed, births, say, machine) as stack:
        recording = FastRecording(stack, options.names, stop, say, machine)
        with timed("recording"):
            recorded = recording.run(
                last + AFTER,
                options.rate,
                options.speed,
                planned_kinds(options.names, options.seed, few=not is_whole),
            )
        hours = closing.hours_between(start, recorded.end)
        with timed("merge of the rest"):
            closing.merge_rest(stack.settings, stack.clock)
        with timed("close of all hours"):
            closed = closing.close_hours(stack.settings, stack.environ, hours, stack.clock)
        with timed("candles of the endpoint"):
            candles = fetch_candles(stack.settings, stack.environ, day, max(day, start + LEAD), stack.clock)
        stack.stop_exchange()
        with timed("export of raw hours"):
            rows = closing.export_hours(stack.settings, hours, stack.clock)
        say(f"{len(hours)} hours closed and exported: {rows:,} rows")
        with timed("export of daily data sets"):
            closing.export_day(stack.settings, day, stack.clock, say)
        truth = read_truth(stack.truth_folder, us_from_datetime(recorded.begin))
        with timed("comparison of stores"):
            found.append(compare_stores(stack.settings, stack.lake_folder, hours))
        with timed("comparison with what was published"):
            found.append(compare_truth(stack.settings, truth))
        books = TrueBooks(truth)
        with timed("comparison of books"):
            wanted = samples(truth, recorded.begin, hours[-1] + HOUR, options.samples, options.seed, options.speed)
            compared, exact = compare_book_at(stack.settings, books, wanted)
            found.append(compared)
            found.append(compare_book_deltas(stack.lake_folder, books, exact, day, options.samples // 5))
        with timed("comparison of quotes"):
            found.append(compare_quotes(stack.lake_folder, truth, day))
        with timed("comparison of candles"):
            found.append(compare_endpoint(stack.settings, candles))
            found.append(compare_sql(stack.lake_folder, day))
        found.append(compare_settlements(stack.lake_folder, truth, day))
    problems = [*_of_run(options, recorded), *(problem for each in found for problem in each.problems)]
    for hour, each in closed.items():
        for kind, subject, detail in each.alarms:
            say(f"alarm of the close of {hour:%d %H:00}: {kind} {subject}: {detail}")
    for comparison in found:
        say(comparison.as_text())
    seconds = machine.monotonic() - began_s
    verdict = "NOT PROVEN: " + "; ".join(problems) if problems else "PROVEN"
    say(f"{verdict} ({recorded.published['delta']:,} deltas, {seconds:.0f} s)")
    if options.json_file is not None:
        content = {
            "proven": not problems, "problems": problems, "published": recorded.published, "seconds": round(seconds, 1),
            "timings": timings, "faults": [fault.name for fault in recorded.faults],
            "compared": {each.name: dict(each.figures) for each in found},
        }  # fmt: skip
        options.json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return not problems


def _of_run(options: DayOptions, recorded: Recorded) -> list[str]:
    problems = [
        f"fault {fault.name} had no effect that could be observed" for fault in recorded.faults if fault.effect is None
    ]
    problems += [f"{name} did not record again after the last fault" for name in recorded.silent]
    if recorded.published["delta"] < options.deltas:
        problems.append(
            f"{recorded.published['delta']:,} deltas were published, {options.deltas:,} are wanted:"
            " the machine is too slow"
        )
    return problems
