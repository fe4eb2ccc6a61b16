"""Looks at this machine: versions, disks, memory, limits, and who has the ports."""

from __future__ import annotations

import contextlib
import json
import platform
import resource
import socket
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.error import HTTPError

import psutil

from kalshi_platform import config
from kalshi_platform.cli.doctor.findings import Finding
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.settings import FolderRoot, parse_root
from kalshi_platform.surroundings import loopback

_GIB = 1024**3
_LEAST_FREE = 1 * _GIB
_LITTLE_FREE = 10 * _GIB
_LEAST_MEMORY = 1 * _GIB
_FEWEST_FILES = 4_096
_UI_PORT = 3000
_PROBE_S = 2.0
_ROOM = "make room, or move the folder to another disk"


def check_versions() -> Iterator[Finding]:
    """Say which versions run here."""
    versions = f"kalshi-platform {version('kalshi-platform')}, Dagster {version('dagster')}"
    yield Finding("version", "ok", f"{versions}, Python {platform.python_version()}, {platform.system()}")


def check_disks() -> Iterator[Finding]:
    """Look at the disks of the state folder, of a lake in a folder and of temporary files, and write to each."""
    for subject, folder in _folders().items():
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = psutil.disk_usage(str(there)).free
        text = f"{folder}: {free / _GIB:,.1f} GiB free"
        try:
            with tempfile.NamedTemporaryFile(dir=there, prefix=".kalshi-doctor-") as file:
                file.write(b"written")
                file.flush()
        except OSError as error:
            yield Finding(
                subject, "fail", f"{folder} cannot be written ({error.strerror})", "give this user the folder"
            )
            continue
        if free < _LEAST_FREE:
            yield Finding(subject, "fail", text, _ROOM)
        elif free < _LITTLE_FREE:
            yield Finding(subject, "warn", text, _ROOM)
        else:
            yield Finding(subject, "ok", text)


def check_limits() -> Iterator[Finding]:
    """Look at memory, processors and the limit of open files."""
    memory = psutil.virtual_memory()
    text = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free, {psutil.cpu_count()} processors"
    if memory.available < _LEAST_MEMORY:
        yield Finding("memory", "warn", text, "end other programs: the demo takes about 3 GiB, a gatherer 0.3 GiB")
    else:
        yield Finding("memory", "ok", text)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FEWEST_FILES:
        remedy = f"ulimit -n {_FEWEST_FILES}" if hard >= _FEWEST_FILES else "raise nofile (limits.conf, LimitNOFILE)"
        yield Finding("open files", "warn", f"a process may open {soft:,} files", remedy)
    else:
        yield Finding("open files", "ok", f"a process may open {'any number of' if soft < 0 else f'{soft:,}'} files")


def check_ports() -> Iterator[Finding]:
    """Say who answers on the port of the UI and on those of the services' metrics."""
    yield _check_port("UI", _UI_PORT, "/server_info", "dagster_webserver_version", "kalshi-platform up --port N")
    for service, port in _metrics_ports().items():
        yield _check_port(f"metrics {service}", port, "/healthz", "service", "another KALSHI_METRICS_PORT")


def _folders() -> dict[str, Path]:
    found: dict[str, Path] = {}
    with contextlib.suppress(ConfigurationError):
        found["disk state"] = config.state_dir()
    with contextlib.suppress(ConfigurationError):
        root = parse_root(config.load_lake().root)
        if isinstance(root, FolderRoot):
            found["disk lake"] = root.folder
    return {**found, "disk temporary": Path(tempfile.gettempdir())}


def _metrics_ports() -> dict[str, int]:
    ports: dict[str, int] = {}
    for name in config.gatherer_names():
        with contextlib.suppress(ConfigurationError):
            ports[name] = config.load_gatherer(name).endpoint.port
    with contextlib.suppress(ConfigurationError):
        ports["deduplicator"] = config.load_deduplicator().endpoint.port
    return {service: port for service, port in ports.items() if port}


def _check_port(subject: str, port: int, path: str, field: str, remedy: str) -> Finding:
    """Say whether a port of this machine is free, or ours: an answer that has the field is."""
    with socket.socket() as probe:
        probe.settimeout(_PROBE_S)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return Finding(subject, "ok", f"port {port} is free")
    answer = _get_json(f"http://127.0.0.1:{port}{path}")
    if field in answer:
        return Finding(subject, "ok", f"port {port}: {field.replace('_', ' ')} {answer[field]} answers")
    return Finding(subject, "warn", f"port {port} is another program's", f"use another one: {remedy}")


def _get_json(address: str) -> dict[str, object]:
    try:
        with loopback.open(address, timeout=_PROBE_S) as answer:
            content = answer.read(65_536)
    except HTTPError as error:  # /healthz answers 503 when something is wrong, and says who it is all the same
        content = error.read(65_536)
    except OSError:
        return {}
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
