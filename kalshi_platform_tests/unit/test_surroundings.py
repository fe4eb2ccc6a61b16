"""What a shell says: variables that are dropped or changed, proxies that are not asked, output that never fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from kalshi_platform.errors import LakeUnavailable
from kalshi_platform.lab.simulator_client import SimulatorClient
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.surroundings import DROPPED, loopback, settle_environment


def test_where_and_how_is_dropped_tls_and_logins_stay() -> None:
    environ = dict.fromkeys((*DROPPED, "PGSSLMODE", "PGSSLROOTCERT", "PGPASSFILE", "PGREQUIREAUTH"), "x")
    settle_environment(environ)
    assert set(environ) == {"PGSSLMODE", "PGSSLROOTCERT", "PGPASSFILE", "PGREQUIREAUTH", "PYTHONUTF8"}


OURS = "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("given", "no_proxy", "no_grpc_proxy"),
    [
        ({}, OURS, OURS),
        ({"NO_PROXY": "a.example, ::1"}, "a.example,::1,127.0.0.1,localhost", "a.example,::1,127.0.0.1,localhost"),
        ({"no_proxy": "*"}, "*", OURS),
        ({"no_grpc_proxy": "b"}, OURS, f"b,{OURS}"),
    ],
)
def test_loopback_is_added_to_what_the_user_excepts(given: dict[str, str], no_proxy: str, no_grpc_proxy: str) -> None:
    environ = {"HTTP_PROXY": "http://proxy:3128", **given}
    settle_environment(environ)
    assert (environ["no_proxy"], environ["NO_PROXY"]) == (no_proxy, no_proxy)
    assert environ["no_grpc_proxy"] == no_grpc_proxy
    settle_environment(environ)
    assert environ["no_proxy"] == no_proxy
    assert environ["HTTP_PROXY"] == "http://proxy:3128"


def test_without_a_proxy_nothing_is_said_of_proxies() -> None:
    environ = {"NO_PROXY": "a"}
    settle_environment(environ)
    assert environ == {"NO_PROXY": "a", "PYTHONUTF8": "1"}


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"clock_us": 7}')

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on loopback, in an environment whose proxy answers nobody, and which excepts nothing from it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.setenv(spelled, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_our_own_addresses_are_reached_without_a_proxy(address: str) -> None:
    with loopback.open(f"{address}/x", timeout=10) as answer:
        assert answer.status == 200
    assert SimulatorClient(address).clock_us() == 7


def test_a_store_on_this_machine_is_reached_without_a_proxy(address: str) -> None:
    settings = LakeSettings("s3://bucket/x", address, access_key_id="x", secret_access_key="x", attempts=1)
    with pytest.raises(LakeUnavailable) as raised:  # it was reached, and is no store
        list(open_store(settings).list(""))
    assert "proxy" not in str(raised.value).lower()


def _run(folder: Path, arguments: list[str], **environ: str) -> subprocess.CompletedProcess[bytes]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("KALSHI_", "PYTHON", "LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", "kalshi_platform.cli", *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
        capture_output=True,
        check=False,
    )


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_help_and_errors_are_shown_in_a_locale_of_few_characters(tmp_path: Path) -> None:
    shown = _run(tmp_path, ["up", "--help"], PYTHONIOENCODING="latin-1")
    assert (shown.returncode, shown.stderr) == (0, b"")
    (tmp_path / "ü–").mkdir()
    (tmp_path / "ü–" / ".env").write_bytes(b"A=1\nB=\xfc\n")
    refused = _run(tmp_path / "ü–", ["status"], **ASCII)
    assert refused.returncode == 2, refused.stderr
    assert "ü–/.env, line 2 is not UTF-8".encode() in refused.stderr
