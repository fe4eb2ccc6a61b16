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
from kalshi_platform.local.processes.process_tree import ProcessTree


def describe_child(tree: ProcessTree, timeout_s: float) -> str:
    """Return the line that registers a child, which is killed `timeout_s` after its stop signal."""
    return json.dumps(
        {"token": tree.token, "pid": tree.leader_pid, "stop_signal": int(tree.stop_signal), "timeout_s": timeout_s}
    )


def reap(lines: Iterable[str]) -> None:
    """Follow the parent's messages to their end, and stop its children unless it said `done`."""
    trees: dict[str, tuple[ProcessTree, float]] = {}
    for line in lines:
        if line.strip() == "done":
            return
        message = json.loads(line)
        tree = ProcessTree.of_child(message["token"], message["pid"], signal.Signals(message["stop_signal"]))
        trees[tree.token] = (tree, float(message["timeout_s"]))
    for tree, _ in reversed(trees.values()):
        tree.terminate()
    longest_s = max((timeout_s for _, timeout_s in trees.values()), default=0.0)
    process_table.wait_until(lambda: not any(tree.members() for tree, _ in trees.values()), longest_s, interval_s=0.2)
    for tree, _ in trees.values():
        tree.kill()


if __name__ == "__main__":
    reap(sys.stdin)
