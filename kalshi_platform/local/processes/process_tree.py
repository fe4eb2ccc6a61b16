"""A child and everything that descends from it, found even after the processes between have died.

Every child is started with TREE_VARIABLE = "KEY.RUN/NAME" in its environment, which descendants inherit: KEY names the
folder of the stack, RUN one life of the process that manages it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial

import psutil

from kalshi_platform.local.processes import process_table

TREE_VARIABLE = "KALSHI_PROCESS_TREE"
_KILL_ROUNDS = 20
"""A process that forks while it is killed leaves members for the next round."""


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """The tree of one started child, whose pid is the number of its session and process group.

    `leader` is the child; None when it had ended before it could be looked at.
    """

    token: str
    leader_pid: int
    leader: psutil.Process | None
    stop_signal: signal.Signals

    @classmethod
    def of_child(cls, token: str, pid: int, stop_signal: signal.Signals) -> ProcessTree:
        """The tree of a child that was just started."""
        return cls(token, pid, process_table.find_process(pid), stop_signal)

    def members(self) -> set[int]:
        """Return the living processes of the tree: of its group, descended from the leader, or carrying its token."""
        found = process_table.find_by_environment(TREE_VARIABLE, lambda value: value == self.token)
        if self._has_leader():
            found |= process_table.find_group_members(self.leader_pid)
        return (found | process_table.find_descendants(found)) - {os.getpid()}

    def terminate(self) -> None:
        """Send the stop signal once to each member: to the process group as a whole while its leader lives."""
        members = self.members()
        if self._has_leader():
            members = {pid for pid in members if process_table.group_of(pid) != self.leader_pid}
            _signal_group(self.leader_pid, self.stop_signal)
        process_table.send_signal(members, self.stop_signal)

    def kill(self) -> None:
        """Kill every member, until no new ones turn up."""
        for _ in range(_KILL_ROUNDS):
            members = self.members()
            if self._has_leader():
                _signal_group(self.leader_pid, signal.SIGKILL)
            if not members:
                return
            process_table.send_signal(members, signal.SIGKILL)
            process_table.wait_until(partial(_none_alive, members), 2)

    def _has_leader(self) -> bool:
        """Whether the child is still there, a zombie or not: then the group's number is its own."""
        return self.leader is not None and self.leader.is_running()


def orphans(key: str, run: str) -> set[int]:
    """Return living processes of this stack's earlier lives: same KEY, another RUN."""
    return process_table.find_by_environment(
        TREE_VARIABLE, lambda value: value.startswith(f"{key}.") and not value.startswith(f"{key}.{run}/")
    )


def _none_alive(pids: set[int]) -> bool:
    return not any(map(process_table.is_alive, pids))


def _signal_group(group: int, signal_number: signal.Signals) -> None:
    """Signal a process group; one that is gone is passed over."""
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        return
