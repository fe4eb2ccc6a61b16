"""What a person would see of a running stack is collected, each thing once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kalshi_platform.lab.proof.faults.expected_alarms import Sighting
from kalshi_platform.lab.proof.faults.watch import Watch
from kalshi_platform.local.processes.process_group import ChildExit


class Health(ThreadingHTTPServer):
    """Answers as `/healthz` does: with 503 when there are reasons."""

    reasons: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()


class _Answer(BaseHTTPRequestHandler):
    server: Health

    def do_GET(self) -> None:
        self.send_response(503 if self.server.reasons else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"reasons": self.server.reasons, "troubles": self.server.troubles}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def health() -> Iterator[Health]:
    with Health(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_warnings_exits_and_health_are_seen_once_and_again_when_they_come_again(tmp_path: Path, health: Health) -> None:
    log = tmp_path / "gather-g1.log"
    watch = Watch(tmp_path, {"g1": f"http://127.0.0.1:{health.server_port}/healthz", "g2": "http://127.0.0.1:1/"})
    log.write_text("2026-11-30T00:00:00Z WARNING kalshi_platform.x: one\n2026-11-30T00:00:00Z INFO    y: no\n2026-11")
    health.troubles = ("the journal is 51 % full",)
    watch.look(5, [ChildExit("second", 7, 3, None)])
    assert watch.sightings == [
        Sighting("exit second", "3", 5),
        Sighting("log gather-g1", "kalshi_platform.x: one", 5),
        Sighting("health g1", "the journal is 51 % full", 5),
    ]
    assert watch.is_unwell("g1", "journal")
    with log.open("a") as more:
        more.write("-30T00:00:01Z ERROR   z: two\n")
    health.troubles = ("the journal is 52 % full",)
    watch.look(6)
    assert watch.sightings[3:] == [Sighting("log gather-g1", "z: two", 6)]
    health.troubles = ()
    watch.look(7)
    assert not watch.is_unwell("g1", "journal")
    health.reasons = ("the journal is 60 % full",)
    log.rename(tmp_path / "gather-g1.log.1")
    log.write_text("2026-11-30T00:00:02Z CRITICAL z: three\n")
    watch.look(8)
    assert watch.sightings[4:] == [
        Sighting("log gather-g1", "z: three", 8),
        Sighting("health g1", "the journal is 60 % full", 8),
    ]
