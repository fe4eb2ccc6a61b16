"""What a person would see of a running stack is collected, each thing once."""

from __future__ import annotations

import json
from pathlib import Path

from kalshi_platform.local.process_group import ChildExit
from kalshi_platform.proof.alarms import Sighting
from kalshi_platform.proof.watch import Watch


def beat(file: Path, *troubles: str) -> None:
    details = {"reasons": [], "troubles": list(troubles)}
    file.write_text(json.dumps({"at": "2026-11-30T00:00:00+00:00", "details": details}))


def test_warnings_exits_and_health_are_seen_once_and_again_when_they_come_again(tmp_path: Path) -> None:
    log, file = tmp_path / "gather-g1.log", tmp_path / "heartbeat.json"
    watch = Watch(tmp_path, {"g1": file, "g2": tmp_path / "nothing"})
    log.write_text("2026-11-30T00:00:00Z WARNING kalshi_platform.x: one\n2026-11-30T00:00:00Z INFO    y: no\n2026-11")
    beat(file, "the spool is 51 % full")
    watch.look(5, [ChildExit("second", 7, 3, None)])
    assert watch.sightings == [
        Sighting("exit second", "3", 5),
        Sighting("log gather-g1", "kalshi_platform.x: one", 5),
        Sighting("health g1", "the spool is 51 % full", 5),
    ]
    assert watch.is_unwell("g1", "spool")
    with log.open("a") as more:
        more.write("-30T00:00:01Z ERROR   z: two\n")
    beat(file, "the spool is 52 % full")
    watch.look(6)
    assert watch.sightings[3:] == [Sighting("log gather-g1", "z: two", 6)]
    beat(file)
    watch.look(7)
    assert not watch.is_unwell("g1", "spool")
    beat(file, "the spool is 60 % full")
    log.rename(tmp_path / "gather-g1.log.1")
    log.write_text("2026-11-30T00:00:02Z CRITICAL z: three\n")
    watch.look(8)
    assert watch.sightings[4:] == [
        Sighting("log gather-g1", "z: three", 8),
        Sighting("health g1", "the spool is 60 % full", 8),
    ]
