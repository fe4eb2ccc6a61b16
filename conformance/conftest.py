"""A simulated exchange as a process of the project's own environment, for clients that others wrote.

The exchange is started by `KALSHI_PLATFORM_PYTHON` (default: `.venv/bin/python` of this checkout), or the running one
that `KALSHI_SIMULATOR_ADDRESS` describes (the file that `exchange serve --address-file` writes) is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
START_PATIENCE_S = 60.0
NOTES = pytest.StashKey[list[str]]()

# The exchange is on this machine: none of the clients is to ask it through a proxy.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@dataclass(frozen=True)
class Simulator:
    """A running simulated exchange, as its address file describes it."""

    rest_url: str
    ws_url: str
    control_url: str
    key_id: str
    key_file: str

    def get(self, url: str) -> Any:
        """Return the JSON that a plain, unsigned GET answers."""
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - an address of our own
            return json.load(answer)

    def control(self, where: str, /, **body: Any) -> Any:
        """POST to the control channel."""
        request = urllib.request.Request(  # noqa: S310
            self.control_url + where, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def book(self, ticker: str) -> dict[str, dict[str, str]]:
        """Return the exact book by the control channel: side → price in dollars → contracts."""
        found = self.get(f"{self.control_url}/markets/{ticker}")
        return {
            side: {f"{price / 10_000:.4f}": f"{size / 100:.2f}" for price, size in found[side]}
            for side in ("yes", "no")
        }

    def rest_book(self, ticker: str) -> dict[str, dict[str, str]]:
        """Return the book as REST answers it, in the shape of `book`."""
        found = self.get(f"{self.rest_url}/markets/{ticker}/orderbook")["orderbook_fp"]
        return {side: dict(found[f"{side}_dollars"]) for side in ("yes", "no")}

    def open_tickers(self) -> list[str]:
        """Return the tickers of all open markets but combos."""
        found: list[str] = []
        cursor = ""
        while True:
            url = f"{self.rest_url}/markets?status=open&mve_filter=exclude&limit=1000&cursor={cursor}"
            page = self.get(url)
            found += [market["ticker"] for market in page["markets"] if market["status"] == "active"]
            cursor = page["cursor"]
            if not cursor:
                return found


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A busy venue: 60 markets at 300 messages a second, and markets that come and go all the time."""
    given = os.environ.get("KALSHI_SIMULATOR_ADDRESS")
    if given:
        yield _described(Path(given))
        return
    folder = tmp_path_factory.mktemp("simulator")
    address = folder / "address.json"
    command = [
        os.environ.get("KALSHI_PLATFORM_PYTHON", str(CHECKOUT / ".venv" / "bin" / "python")),
        "-m", "kalshi_platform.cli",
        "exchange", "serve", "--port", "0", "--markets", "60", "--rate", "300", "--births", "12", "--seed", "11",
        "--key-file", str(folder / "key.pem"), "--address-file", str(address),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_PATIENCE_S
        while not address.exists():
            assert process.poll() is None, f"the simulated exchange ended with {process.returncode}"
            assert time.monotonic() < deadline, "the simulated exchange did not start"
            time.sleep(0.05)
        found = _described(address)
        request.config.stash[NOTES].append(f"simulated exchange: {' '.join(command[3:12])} …")
        yield found
    finally:
        process.terminate()
        assert process.wait(30) == 0, "the simulated exchange did not stop cleanly"


def _described(address: Path) -> Simulator:
    content = json.loads(address.read_text(encoding="utf-8"))
    return Simulator(**{name: content[name] for name in Simulator.__dataclass_fields__})


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line to what the run says at its end."""
    return request.config.stash[NOTES].append


def eventually(condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
    """Return the first true value of `condition`; fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.05)


def pytest_configure(config: pytest.Config) -> None:
    names = ("kalshi-python-sync", "pykalshi", "kalshi-sdk")
    config.stash[NOTES] = ["clients: " + ", ".join(f"{name} {version(name)}" for name in names)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("conformance: what was done")
    for line in config.stash[NOTES]:
        terminalreporter.write_line(line)
