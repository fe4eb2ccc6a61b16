"""A running demo, and a page of Chromium that shows its Dagster UI.

The demo is started by `KALSHI_PLATFORM_PYTHON` (default: `.venv/bin/python` of this checkout); `KALSHI_DEMO_DATA` names
the data folder of one that runs already. The browser is `KALSHI_CHROMIUM`, else `chromium` on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHECKOUT = Path(__file__).resolve().parent.parent
PICTURES = CHECKOUT / "docs" / "images"
READY_S = 900.0
"""As long as the demo itself waits for a slow machine."""
PAGE_MS = 120_000.0
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# The UI is on this machine: nothing is to be asked through a proxy.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@dataclass(frozen=True)
class Demo:
    """A running demo: the address of its UI, and its data folder."""

    ui: str
    data: Path

    @property
    def lake(self) -> Path:
        return self.data / "lake"

    def ask(self, query: str) -> Any:
        """Return what Dagster's GraphQL answers; to compare with what a page shows, never to act."""
        request = urllib.request.Request(  # noqa: S310 - an address of our own
            f"{self.ui}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def runs(self, job: str) -> list[dict[str, Any]]:
        """Return the runs of a job, newest first: runId, status, tags."""
        query = (
            f'{{runsOrError(filter: {{pipelineName: "{job}"}}, limit: 50)'
            " {... on Runs {results {runId status tags {key value}}}}}"
        )
        return list(self.ask(query)["runsOrError"]["results"])


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`kalshi-platform up --simulate`, once it has said what to try next."""
    given = os.environ.get("KALSHI_DEMO_DATA")
    if given:
        yield _described(Path(given))
        return
    folder = tmp_path_factory.mktemp("demo")
    folder.chmod(0o755)
    log = folder / "up.log"
    python = os.environ.get("KALSHI_PLATFORM_PYTHON", str(CHECKOUT / ".venv" / "bin" / "python"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KALSHI_", "DAGSTER_"))}
    with log.open("wb") as output:
        up = subprocess.Popen(
            [python, "-m", "kalshi_platform.cli", "up", "--simulate", "--data", str(folder / "data")],
            cwd=folder, stdout=output, stderr=output, env=environ,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + READY_S
        while "things to try" not in log.read_text(encoding="utf-8", errors="replace"):
            assert up.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8", errors="replace")
            time.sleep(0.5)
        yield _described(folder / "data")
    finally:
        up.terminate()
        code = up.wait(300)
    assert code == 0, log.read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(folder)


def _described(data: Path) -> Demo:
    return Demo(json.loads((data / "local.json").read_text(encoding="utf-8"))["ui"], data)


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    """A page of headless Chromium."""
    chromium = os.environ.get("KALSHI_CHROMIUM") or shutil.which("chromium")
    assert chromium, "no Chromium: apt-get install chromium, or name one in KALSHI_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, timezone_id="UTC")
        page.set_default_timeout(PAGE_MS)
        expect.set_options(timeout=PAGE_MS)
        yield page
        browser.close()


@pytest.fixture
def picture(page: Page) -> Callable[[str], None]:
    """Write what the page shows to `docs/images`."""

    def write(name: str) -> None:
        page.wait_for_timeout(2_000)  # figures fade in
        page.screenshot(path=PICTURES / f"{name}.png")

    return write


def eventually(condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
    """Return the first true value of `condition`; fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.5)
