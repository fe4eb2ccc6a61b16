"""`kalshi-platform prove` from start to verdict."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.journal.segments import FOLDER as JOURNAL_FOLDER
from kalshi_platform.lab.proof import report
from kalshi_platform.lab.proof.comparison.sent_frames import compare_sent
from kalshi_platform.lab.proof.examine import ENDS_MARGIN_US, Findings, examine
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.proof.rebuilt import rebuild_run
from kalshi_platform.lab.proof.run_scenario import Recorder
from kalshi_platform.lab.proof.verdict import RunRecord, failures
from kalshi_platform.plots.timeline import png, timeline


def prove(options: ProofOptions, stop: threading.Event, say: Callable[[str], None], clock: Clock) -> bool:
    """Run the whole chain, compare, tell; return whether it is proven.

    Raises ConfigurationError before anything starts, Interrupted when `stop` is set, and whatever kept the run from
    being one (ProofFailed, DatabaseUnavailable, ExchangeUnavailable).
    """
    options.check()
    say(
        f"proof: {options.gatherers} gatherers, {options.rate:g} messages/s over {options.markets} markets for"
        f" {options.seconds:g} s, faults: {options.faults}, seed {options.seed}"
    )
    with ProofStack(options, say, clock) as stack:
        record = Recorder(stack, options, stop, say, clock).run_scenario()
        say("comparing production and lake with what was published")
        found = examine(stack.settings, stack.truth_folder, stack.lake_folder, record.run, record.faults, record.aside)
        say("comparing journals with what was sent, and making the run again from them")
        journals = {name: each.folder / JOURNAL_FOLDER for name, each in stack.settings.gatherers.items()}
        found = replace(
            found,
            sent=compare_sent(stack.sent_folder, journals),
            rebuilt=rebuild_run(stack.settings, stack.server, stack.folder / "rebuilt", clock),
        )
    against = failures(record, found)
    say(report.as_text(record, found, against))
    if options.json_file is not None:
        content = json.dumps(report.as_json(record, found, against), indent=2)
        options.json_file.write_text(content + "\n", encoding="utf-8")
    if options.plot_file is not None:
        options.plot_file.write_bytes(_plot(record, found, against))
    if options.keep:
        say(f"databases, lake, truth and logs are kept in {stack.folder}")
    return not against


def _plot(record: RunRecord, found: Findings, against: list[str]) -> bytes:
    figure = timeline(
        report.plot_title(record, found, against),
        found.recorded_spans,
        report.hole_spans(record, found, ENDS_MARGIN_US),
        report.marks(record),
        record.run,
    )
    return png(figure)
