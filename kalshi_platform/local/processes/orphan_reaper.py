"""Stops the children of a process that died without stopping them (`kill -9`, out of memory).

Runs as a process of its own, `python -m kalshi_platform.local.processes.orphan_reaper`. It reads a JSON line for each
child from its standard input, whose other end the parent holds: the kernel closes that end however the parent dies.
After `done` it ends; at an end of input without `done` it sends every tree its stop signal, and kills what is still
there after the longest of their timeouts. A death signal (PR_SET_PDEATHSIG) would not do: it reaches children only, not
the runs that Dagster starts, and it also fires when merely the thread ends that started the child.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable

from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.process_tree import Family


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
    process_table.wait_until(
        lambda: not any(family.members() for family, _ in families.values()), longest_s, interval_s=0.2
    )
    for family, _ in families.values():
        family.kill()


if __name__ == "__main__":
    watch(sys.stdin)
