"""What a proof runs: simulated exchange with its truth, databases, gatherers and live merge, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import timedelta

from kalshi_platform.clock import Clock
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.recording_stack import RecordingStack
from kalshi_platform.local.processes.ports import free_block
from kalshi_platform.local.processes.process_group import ChildSpec
from kalshi_platform.local.simulator_process import SimulationOptions
from kalshi_platform.market.times import HOUR, hour_of

SECOND = "second"
"""The child that is a second process of a gatherer's name."""
MERGE = "dedup"


class ProofStack(RecordingStack):
    """A context manager. The exchange begins silent (no order moves) and keeps a ledger in `truth_folder`.

    Every byte that it sends is in `sent_folder`.

    With the plan `ground` it begins in the middle of the hour before this one, `past_hour`, until `leave_past`; and the
    clocks of gatherers and merge can be stepped.
    """

    def __init__(self, options: ProofOptions, say: Callable[[str], None], clock: Clock) -> None:
        self.truth_folder = options.data_dir.absolute() / "truth"
        self.sent_folder = options.data_dir.absolute() / "sent"
        more = ("--record-sent", str(self.sent_folder))
        simulation = SimulationOptions(options.markets, 0.0, options.seed, self.truth_folder, more)
        super().__init__(options.data_dir, options.names, simulation, say, clock, keep=options.keep)
        self._is_ground = options.faults == "ground"
        self.past_hour = hour_of(clock.now()) - HOUR

    def stop_services(self) -> None:
        """Stop the gatherers, which write what is left, then the merge."""
        self.stop_gatherers()
        self.group.stop(MERGE)

    def start_more(self, environ: dict[str, str]) -> None:
        """Start the live merge."""
        self.start_service(MERGE, environ, "dedup")

    def metrics_port(self) -> int:
        """With the plan `ground` everybody's health is watched."""
        return free_block(1 + len(self.names)) if self._is_ground else 0

    def health_urls(self) -> dict[str, str]:
        """Where gatherers and merge tell how they are, by their names."""
        settings = self.settings
        endpoints = {
            MERGE: settings.deduplicator.endpoint,
            **{n: each.endpoint for n, each in settings.gatherers.items()},
        }
        return {name: f"http://127.0.0.1:{each.port}/healthz" for name, each in endpoints.items() if each.port}

    def prepare_exchange(self) -> None:
        """Begin in the past, where the plan needs an hour that is over."""
        if self._is_ground:
            begin = self.past_hour + timedelta(minutes=30)
            offset_s = (begin - self._clock.now()).total_seconds()
            self.venue.fault("clock_skew", offset_s=offset_s, scope="messages")

    def leave_past(self) -> None:
        """Let the exchange's clock be right from here on, while no gatherer runs; then start them again."""
        self.stop_gatherers()
        self.venue.clear("clock_skew")
        self.start_gatherers()

    def command_line(self, child: str, *command: str) -> list[str]:
        """With the plan `ground` each process has a clock that can be stepped."""
        if not self._is_ground:
            return super().command_line(child, *command)
        file = self.folder / "clocks" / child
        return [sys.executable, "-m", "kalshi_platform.lab.proof.faults.stepped_clock", str(file), *command]

    def step_clock(self, child: str, offset_s: float) -> None:
        """Set the clock of a running child that many seconds off."""
        file = self.folder / "clocks" / child
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{offset_s}\n", encoding="utf-8")

    def start_second(self, gatherer: str, changes: Mapping[str, str]) -> int:
        """Start a second process of a gatherer's name with another environment; it is not restarted. Its pid."""
        environ = {**self.environ, **changes}
        argv = self.command_line(SECOND, "gather", gatherer)
        return self.group.start(ChildSpec(SECOND, argv, environ, self.folder, restart=False, stop_timeout_s=20))
