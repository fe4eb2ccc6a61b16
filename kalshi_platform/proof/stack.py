"""What a proof runs: simulated exchange with its truth, databases, gatherers and live merge, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.local.gathering import GatheringStack
from kalshi_platform.local.simulated import SimulationOptions
from kalshi_platform.proof.options import ProofOptions


class ProofStack(GatheringStack):
    """A context manager. The exchange begins silent (no order moves) and keeps a ledger in `truth_folder`."""

    def __init__(self, options: ProofOptions, say: Callable[[str], None], clock: Clock) -> None:
        self.truth_folder = options.data_dir.absolute() / "truth"
        simulation = SimulationOptions(options.markets, 0.0, options.seed, self.truth_folder)
        super().__init__(options.data_dir, options.names, simulation, say, clock, keep=options.keep)

    def stop_services(self) -> None:
        """Stop the gatherers, which write what is left, then the merge."""
        self.stop_gatherers()
        self.group.stop("dedup")

    def start_more(self, environ: dict[str, str]) -> None:
        """Start the live merge."""
        self.start_service("dedup", environ, "dedup")
