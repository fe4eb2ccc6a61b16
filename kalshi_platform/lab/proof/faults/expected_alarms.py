"""Which alarm must come of which fault, and whether it came. Pure.

Who looks after the platform sees log lines of warnings and errors, the health of gatherers and merge, exit codes, what
a command refuses, and the alarms of production's closes. All of them are collected while the proof runs, as sightings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kalshi_platform.lab.proof.kinds import InjectedFault


@dataclass(frozen=True)
class Sighting:
    """Something that a person would have seen. `where`: `log NAME`, `health NAME`, `exit NAME`, `refusal`, `close`.

    `log proof` is what the proof's own process logs while it does what a schedule would do.

    `at_us`: by the exchange's clock, as faults are dated.
    """

    where: str
    text: str
    at_us: int


@dataclass(frozen=True)
class Alarm:
    """What must be seen of a kind of fault. `where` and `text` are regular expressions; `{g}` stands for the gatherer.

    `of_each`: of every gatherer, not of one. `must`: False for what may come of the kind, or not.
    """

    kind: str
    name: str
    where: str
    text: str
    of_each: bool = False
    must: bool = True


_FELL_BACK = "database_went_back"
_READ_ANEW = "cursor_batch_gone"
_OF_IT = "(log|health) (gather-)?{g}"
ALARMS: tuple[Alarm, ...] = (
    Alarm("export_fails", "the export says that its store fails", "refusal", "the lake's store fails"),
    Alarm("production_partitions_dropped", "an export keeps what was dropped", "refusal|log proof", "dropped"),
    Alarm("gatherers_partitions_dropped", "the close tells who holds less", "close", "^{g} no longer", of_each=True),
    Alarm("server_killed", "the database is away", _OF_IT, "the database takes nothing|database"),
    Alarm("restored_from_copy", "the database is away", _OF_IT, "the database takes nothing|database", must=False),
    Alarm("failed_over", "the database is away", _OF_IT, "the database takes nothing|database", must=False),
    Alarm("clock_ahead", "clock_offset", _OF_IT, r"clock is \d+ s ahead of"),
    Alarm("clock_behind", "clock_offset", _OF_IT, r"clock is \d+ s behind"),
    Alarm("second_process", "the second process says that the name is held", "log second", "another"),
    Alarm("second_process", "it ends with exit code 3", "exit second", "^3$"),
    Alarm("flood", "dead_letters_counted", "log gather-{g}", "dead_letters_counted"),
    Alarm("flood", "health tells of dead letters", "health {g}", "were put aside"),
    Alarm("restored_from_copy", "database_went_back", _OF_IT, _FELL_BACK),
    Alarm("restored_from_copy", "the merge reads it anew", "log dedup", _READ_ANEW),
    Alarm("failed_over", "database_went_back", _OF_IT, _FELL_BACK),
    Alarm("failed_over", "the merge reads it anew", "log dedup", _READ_ANEW),
    Alarm("production_restored", "production is away", "health dedup", "production"),
    Alarm("poison_ticker", "the sync says that its listing is not whole", "refusal", "listing: .*left out"),
    Alarm("poison_ticker", "health tells of dead letters", "health {g}", "were put aside", of_each=True),
)  # fmt: skip


def missing(
    faults: Sequence[InjectedFault],
    sightings: Sequence[Sighting],
    gatherers: Sequence[str],
    alarms: Iterable[Alarm] = ALARMS,
) -> list[str]:
    """Return a clause for every alarm that should have come and did not: from its fault's moment on."""
    said = []
    for fault in faults:
        later = [each for each in sightings if each.at_us >= fault.at_us]
        for alarm in alarms:
            if alarm.kind != fault.kind or not alarm.must:
                continue
            for name in gatherers if alarm.of_each else [fault.gatherer or ""]:
                if not any(_is(alarm, each, name) for each in later):
                    of = f" of {name}" if alarm.of_each else ""
                    said.append(f"fault {fault.name}: alarm {alarm.name!r}{of} did not come")
    return said


def unexpected(
    faults: Sequence[InjectedFault],
    sightings: Sequence[Sighting],
    gatherers: Sequence[str],
    alarms: Iterable[Alarm] = ALARMS,
) -> list[str]:
    """Return the names of alarms that came although nothing was done of which they come."""
    done = {fault.kind for fault in faults}
    known = list(alarms)
    found: dict[str, None] = {}
    for each in sightings:
        causes = [alarm for alarm in known if any(_is(alarm, each, name) for name in (*gatherers, ""))]
        if causes and not any(alarm.kind in done for alarm in causes):
            found[f"{causes[0].name} ({each.where}: {each.text[:160]})"] = None
    return list(found)


def _is(alarm: Alarm, sighting: Sighting, gatherer: str) -> bool:
    where, text = (each.replace("{g}", re.escape(gatherer)) for each in (alarm.where, alarm.text))
    return re.fullmatch(where, sighting.where) is not None and re.search(text, sighting.text) is not None
