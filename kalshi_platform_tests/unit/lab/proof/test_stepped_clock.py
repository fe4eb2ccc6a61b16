"""A clock that is stepped from outside, and a way to a port that is closed until it is opened."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.proof.faults import stepped_clock
from kalshi_platform.lab.proof.faults.forwarder import Forwarder
from kalshi_platform.lab.proof.faults.stepped_clock import SteppedClock


def test_the_clock_shows_what_the_file_says_and_spans_stay_right(tmp_path: Path) -> None:
    file = tmp_path / "offset"
    clock = SteppedClock(file)
    assert abs(clock.now_ns() - SYSTEM_CLOCK.now_ns()) < 60e9
    file.write_text("-7200\n")
    clock.look()
    assert -7_260e9 < clock.now_ns() - SYSTEM_CLOCK.now_ns() < -7_140e9
    assert -7_260 < (clock.now() - SYSTEM_CLOCK.now()).total_seconds() < -7_140
    assert abs(clock.monotonic() - SYSTEM_CLOCK.monotonic()) < 60
    file.write_text("-72")
    clock.look()
    file.write_text("not a number")
    clock.look()
    assert -132e9 < clock.now_ns() - SYSTEM_CLOCK.now_ns() < -12e9
    file.unlink()
    clock.look()
    assert abs(clock.now_ns() - SYSTEM_CLOCK.now_ns()) < 60e9


def test_a_command_of_the_platform_runs_with_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", stepped_clock.__name__, str(tmp_path / "offset"), "gather", "--help"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, "KALSHI_GATHERERS" in done.stdout) == (0, True), done.stderr


def test_the_way_is_closed_until_it_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Forwarder(server.getsockname()[1]) as way:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", way.port), timeout=10)
        way.let_in()
        is_cut = threading.Event()

        def greet() -> None:
            with server.accept()[0] as far:
                far.sendall(b"hello")
                is_cut.wait(timeout=60)

        greeter = threading.Thread(target=greet, daemon=True)
        greeter.start()
        with socket.create_connection(("127.0.0.1", way.port), timeout=30) as near:
            assert near.recv(5) == b"hello"
            way.close()
            assert near.recv(1) == b""
        is_cut.set()
        greeter.join(timeout=60)
