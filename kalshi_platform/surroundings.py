"""Removes from the environment what would change the platform's connections and files, once per process.

Each process of the platform settles its environment at its start, for itself and for its children:

- libpq: a database URL names server, database and session settings. Variables that would send every connection
  elsewhere, or change how times are read, are dropped. Those of TLS and of logins stay, for URLs that leave them open.
- Proxies are used for hosts outside this machine, never for loopback.
- Files are UTF-8 in every locale, and output never fails on a character that the terminal lacks.
"""

from __future__ import annotations

import io
import os
import sys
import urllib.request
from collections.abc import MutableMapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")

DROPPED = (
    "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGDATA",
    "PGLOCALEDIR", "PGOPTIONS", "PGAPPNAME", "PGTZ", "PGDATESTYLE", "PGCLIENTENCODING", "PGGEQO", "PGCONNECT_TIMEOUT",
    "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGREQUIREPEER", "PGSSLNEGOTIATION", "PGMINPROTOCOLVERSION",
    "PGMAXPROTOCOLVERSION",
)  # fmt: skip
"""Variables of libpq that the platform's connections ignore."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_ESCAPE = "backslashreplace"

loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses of this machine without a proxy."""


def is_loopback(host: str | None) -> bool:
    """Whether a host of an address is this machine."""
    return host in LOOPBACK or (host or "").startswith("127.")


def settle() -> None:
    """Settle the environment of this process and the form of its output."""
    settle_environment(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def settle_environment(environ: MutableMapping[str, str]) -> None:
    """Drop libpq's variables, except loopback from proxies, and set Python's UTF-8 mode, in `environ`."""
    for name in DROPPED:
        environ.pop(name, None)
    if any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES):
        lower, upper = environ.get("no_proxy", ""), environ.get("NO_PROXY", "")
        environ["no_proxy"] = _with_loopback(lower or upper)
        environ["NO_PROXY"] = _with_loopback(upper or lower)
        # gRPC, by which Dagster's processes speak to each other, takes * for the name of a host.
        grpc = environ.get("no_grpc_proxy", "") or lower or upper
        environ["no_grpc_proxy"] = _with_loopback("" if grpc.strip() == "*" else grpc)
    environ["PYTHONUTF8"] = "1"
    environ.pop("PYTHONIOENCODING", None)


def system_ca_file() -> str | None:
    """The file whose certificate authorities libraries trust that this package hands none."""
    return os.environ.get("SSL_CERT_FILE") or None


def run_in_utf8() -> None:
    """Start this program again in Python's UTF-8 mode where the locale would decode files and names otherwise.

    Its output stays in the terminal's own characters.
    """
    if sys.getfilesystemencoding().lower() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    environ = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": f"{encoding}:{_ESCAPE}"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 - this very program


def _with_loopback(hosts: str) -> str:
    if hosts.strip() == "*":  # all hosts, as long as it stands alone
        return hosts
    given = [host.strip() for host in hosts.split(",") if host.strip()]
    return ",".join([*given, *(host for host in LOOPBACK if host not in given)])
