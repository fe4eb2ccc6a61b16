"""Collects what a person would see of a running stack: warnings in logs, health, exit codes, refusals, alarms."""

from __future__ import annotations

import json
import re
import urllib.error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kalshi_platform.lab.proof.faults.expected_alarms import Sighting
from kalshi_platform.local.processes.process_group import ChildExit
from kalshi_platform.surroundings import loopback

HEALTH_TIMEOUT_S = 2.0
MOST_LINES = 20_000
"""Lines that are kept of all logs together."""
_LOUD = re.compile(r"^\S+Z (?:WARNING|ERROR|CRITICAL)\s+(.*)")
_FIGURES = re.compile(r"\d[\d.,]*")


def _health(url: str) -> dict[str, Any] | None:
    """What a service says of itself; None when it does not answer."""
    try:
        with loopback.open(url, timeout=HEALTH_TIMEOUT_S) as answer:
            told: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as unwell:
        told = json.loads(unwell.read())
    except (OSError, ValueError):
        return None
    return told


@dataclass
class _Tail:
    """How far a log was read. `file`: which file the name stood for then."""

    file: int = 0
    offset: int = 0
    rest: bytes = b""


@dataclass
class Watch:
    """`look` is called now and then; `at_us`: the exchange's clock. `health_urls`: where services tell their health."""

    log_dir: Path
    health_urls: Mapping[str, str]
    sightings: list[Sighting] = field(default_factory=list)
    _tails: dict[str, _Tail] = field(default_factory=dict)
    _health: dict[str, set[str]] = field(default_factory=dict)
    _lines: int = 0

    def look(self, at_us: int, exits: Iterable[ChildExit] = ()) -> None:
        """Take what is new."""
        for gone in exits:
            self.sightings.append(Sighting(f"exit {gone.name}", str(gone.code), at_us))
        for path in sorted(self.log_dir.glob("*.log")):
            for line in self._new_lines(path):
                loud = _LOUD.match(line)
                if loud is not None and self._lines < MOST_LINES:
                    self._lines += 1
                    self.sightings.append(Sighting(f"log {path.stem}", loud[1], at_us))
        for name, url in self.health_urls.items():
            health = _health(url)
            if health is not None:
                self.note_health(name, {str(each) for each in (*health["reasons"], *health["troubles"])}, at_us)

    def note_health(self, name: str, told: set[str], at_us: int) -> None:
        """Note clauses of a service's health, each once while it lasts, whatever its figures are."""
        shown = {_FIGURES.sub("#", each): each for each in told}
        before = self._health.get(name, set())
        for form, text in shown.items():
            if form not in before:
                self.sightings.append(Sighting(f"health {name}", text, at_us))
        self._health[name] = set(shown)

    def note(self, where: str, text: str, at_us: int) -> None:
        """Note something that was seen elsewhere."""
        self.sightings.append(Sighting(where, text, at_us))

    def is_unwell(self, name: str, text: str) -> bool:
        """Whether the health of a gatherer says something that the expression `text` finds, as of the last look."""
        return any(re.search(text, each) for each in self._health.get(name, set()))

    def _new_lines(self, path: Path) -> list[str]:
        tail = self._tails.setdefault(path.name, _Tail())
        try:
            with path.open("rb") as log:
                file = path.stat().st_ino
                if file != tail.file:
                    self._tails[path.name] = tail = _Tail(file)
                log.seek(tail.offset)
                content = tail.rest + log.read()
                tail.offset = log.tell()
        except OSError:
            return []
        *lines, tail.rest = content.split(b"\n")
        return [line.decode(errors="replace") for line in lines]
