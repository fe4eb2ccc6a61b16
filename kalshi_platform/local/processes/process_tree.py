"""A child and everything that descends from it, found even after the processes between have died.

Every child is started with FAMILY_VARIABLE = "KEY.RUN/NAME" in its environment, which descendants inherit: KEY names
the folder of the stack, RUN one life of the process that manages it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial

from kalshi_platform.local.processes import process_table

FAMILY_VARIABLE = "KALSHI_PROCESS_FAMILY"


@dataclass(frozen=True, slots=True)
class Family:
    """One started child. `leader` is its pid, and the number of its session and process group.

    `leader_started` tells it from a later process that got the same number.
    """

    token: str
    leader: int
    leader_started: int | None
    stop_signal: signal.Signals

    def members(self) -> set[int]:
        """Return the living processes of the family: of its group, descended from the leader, or carrying its token."""
        found = process_table.with_environment(FAMILY_VARIABLE, lambda value: value == self.token)
        if self._leads():
            found |= process_table.group_members(self.leader)
        return (found | process_table.descendants(found)) - {os.getpid()}

    def ask(self) -> None:
        """Send the stop signal once to each member: to the process group as a whole while its leader lives."""
        members = self.members()
        if self._leads():
            members = {pid for pid in members if process_table.process_group(pid) != self.leader}
            signal_group(self.leader, self.stop_signal)
        process_table.send(members, self.stop_signal)

    def kill(self) -> None:
        """Kill every member, until no new ones turn up."""
        for _ in range(20):
            members = self.members()
            if self._leads():
                signal_group(self.leader, signal.SIGKILL)
            if not members:
                return
            process_table.send(members, signal.SIGKILL)
            process_table.wait_until(partial(_none_alive, members), 2)

    def _leads(self) -> bool:
        return process_table.started_at(self.leader) == self.leader_started


def _none_alive(pids: set[int]) -> bool:
    return not any(map(process_table.is_alive, pids))


def strays(key: str, run: str) -> set[int]:
    """Return living processes of this stack's earlier lives: same KEY, another RUN."""
    return process_table.with_environment(
        FAMILY_VARIABLE, lambda value: value.startswith(f"{key}.") and not value.startswith(f"{key}.{run}/")
    )


def signal_group(group: int, signal_number: signal.Signals) -> None:
    """Signal a process group; one that is gone is passed over."""
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        return
