"""Stops the children of a process that died without stopping them (`kill -9`, out of memory).

Runs as a process of its own: `python -m kalshi_platform.local.guardian`. It reads one JSON line for each started child
from its standard input, whose other end the parent holds: the kernel closes that end however the parent dies. After
`done` it leaves; at an end of input without `done` it asks every family to stop, and kills what is still there after
the longest of their timeouts. A death signal (PR_SET_PDEATHSIG) would not do: it reaches children only, not the runs
that Dagster starts, and it also fires when merely the thread ends that started the child.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable

from kalshi_platform.local import processes
from kalshi_platform.local.families import Family


def watch(lines: Iterable[str]) -> None:
    """Follow the parent's messages to their end, and clean up unless it said `done`."""
    families: dict[str, tuple[Family, float]] = {}
    for line in lines:
        if line.strip() == "done":
            return
        message = json.loads(line)
        family = Family(
            message["token"], message["leader"], message["leader_started"], signal.Signals(message["signal"])
        )
        families[family.token] = (family, float(message["timeout_s"]))
    for family, _ in reversed(families.values()):
        family.ask()
    longest_s = max((timeout_s for _, timeout_s in families.values()), default=0.0)
    processes.wait_until(
        lambda: not any(family.members() for family, _ in families.values()), longest_s, interval_s=0.2
    )
    for family, _ in families.values():
        family.kill()


if __name__ == "__main__":
    watch(sys.stdin)
