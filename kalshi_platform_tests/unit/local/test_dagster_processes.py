"""Dagster's three processes under `up`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from kalshi_platform.local.dagster_processes import CODE_SERVER, DAGSTER, dagster_children, is_loaded


def test_daemon_and_webserver_find_the_code_server_by_its_port_and_the_locations_usual_name(tmp_path: Path) -> None:
    children = dagster_children(tmp_path, {"A": "b"}, 3000, 4711, 60.0, lambda: "")
    assert tuple(child.name for child in children) == DAGSTER
    assert all(child.restart for child in children)
    assert [child.name for child in children if child.descendants_stay] == [CODE_SERVER]
    code, daemon, webserver = (list(child.argv) for child in children)
    workspace = webserver[webserver.index("-w") + 1]
    assert workspace in daemon
    assert code[code.index("--port") + 1] == "4711"
    (served,) = yaml.safe_load(Path(workspace).read_text(encoding="utf-8"))["load_from"]
    (shipped,) = yaml.safe_load(Path("workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert served == {
        "grpc_server": {
            "host": "127.0.0.1", "port": 4711, "location_name": shipped["python_module"]["location_name"],
        }
    }  # fmt: skip


@contextmanager
def webserver(answer: object) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            payload = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"locationOrLoadError": {"__typename": "RepositoryLocation"}}, True),
        ({"locationOrLoadError": {"__typename": "PythonError"}}, False),
        ({"locationOrLoadError": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_ui_is_ready_when_the_code_location_is_loaded(entry: object, expected: bool) -> None:
    with webserver({"data": {"workspaceLocationEntryOrError": entry}}) as url:
        assert is_loaded(url) is expected
    assert not is_loaded(url), "nobody answers"
