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
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import kalshi_platform
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.process_tree import ProcessTree
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)


class OrphanReaper:
    """The parent's end: starts the process, registers children, and ends it when there is nothing left to reap."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kalshi_platform.local.processes.orphan_reaper"],
            cwd="/",
            env={"PYTHONPATH": str(Path(kalshi_platform.__file__).parent.parent), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,
        )

    def register(self, tree: ProcessTree, timeout_s: float) -> None:
        """Have a child stopped after our death, and killed `timeout_s` after its stop signal."""
        message = {
            "token": tree.token, "pid": tree.leader_pid, "stop_signal": int(tree.stop_signal), "timeout_s": timeout_s
        }  # fmt: skip
        assert self._process.stdin is not None  # noqa: S101 - a pipe, see above
        try:
            print(json.dumps(message), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            _log.warning(
                "orphan_reaper_gone", consequence="if this process is killed, its children stay until the next start"
            )

    def dismiss(self) -> None:
        """End it without reaping."""
        try:
            self._process.communicate("done\n", timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


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
