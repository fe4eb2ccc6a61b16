"""Settings of the simulated exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# The key id every local client uses; a fixed value, because the simulator holds nothing worth protecting.
SIMULATOR_KEY_ID = "51a1e0de-ca1f-4b0a-9d00-51a1e0deca1f"


@dataclass(frozen=True, kw_only=True)
class ScenarioSettings:
    """How markets come into existence and go.

    `births_per_minute` new events are announced (each with `markets_per_birth` markets); 0 turns the scenario off. A
    newborn market is announced, opens `open_after_s` later by the clock, closes after `life_s` (± half), is determined
    `determine_after_s` after that and settled `settle_after_s` later. `mischief_per_minute` counts the other lifecycle
    events (deactivated and activated again, close date, metadata and price grid changes).
    """

    births_per_minute: float = 2.0
    markets_per_birth: int = 2
    open_after_s: float = 3.0
    life_s: float = 60.0
    determine_after_s: float = 5.0
    settle_after_s: float = 5.0
    mischief_per_minute: float = 2.0
    combos: bool = False
    """Whether a combo (multivariate market) is born and dies with each event; they live on a channel of their own."""


SCENARIO_OFF = ScenarioSettings(births_per_minute=0.0, mischief_per_minute=0.0)


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Everything `Server` needs to know.

    `rate` is messages per second (by the exchange's clock) of the whole venue; each connection receives all it
    subscribed to. `port` 0 takes a free one. `truth` is a folder, or a path ending in `.parquet` which then serves as a
    prefix (`x.parquet` → `x-deltas-0000.parquet`).
    """

    host: str = "127.0.0.1"
    port: int = 0
    key_id: str = SIMULATOR_KEY_ID
    key_file: Path = field(default_factory=lambda: Path("data/exchange-key.pem"))
    markets: int = 200
    rate: float = 200.0
    seed: int = 1
    truth: Path | None = None
    record_sent: Path | None = None
    """A folder for every byte that is sent to every connection."""
    record_sent_bytes: int = 16 * 1024**3
    scenario: ScenarioSettings = field(default_factory=ScenarioSettings)

    combos: int = 3
    """Multivariate (KXMVE…) markets beside `markets`; they have books and never move."""
    rest_visible_delay_s: float = 1.0
    """How long REST answers 404 for a market after its `created` event."""
    tick_s: float = 0.005
    """How often due messages are generated and written; bounds the delay of a message."""
    backpressure: bool = False
    """True: generation waits for slow readers (for benchmarks). False.

    A reader slower than `overflow_bytes` gets error 25.
    """
    overflow_bytes: int = 256 * 1024 * 1024
    ping_interval_s: float = 10.0
    timestamp_tolerance_s: float = 30.0
    connection_limit: int = 200
    max_markets_per_subscription: int = 0
    """0 means unlimited; more markets on one subscription are refused with error 26."""
    commands_per_second: float = 10_000.0
    """Per connection; above it a command is refused with error 27."""
    usage_tier: str = "basic"
    read_refill_rate: float = 200.0
    read_bucket_capacity: float = 400.0
    write_refill_rate: float = 100.0
    write_bucket_capacity: float = 200.0
    request_cost: float = 10.0
    trades_kept: int = 2_000_000
    """The oldest half of the trades leaves REST when there are more."""


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """What is played, a capture or the lake's [from_us, to_us), and how.

    `speed` 0 is as fast as the readers take it; 1 is the recorded pace. `capture`: JSON lines, a segment of a journal
    or a folder of them, where `gatherer` chooses one of several. `lake`: a folder, or a URL; with `gatherer` the frames
    of that one are played, from the beginning of the first hour.
    """

    capture: Path | None = None
    gatherer: str | None = None
    lake: str | None = None
    from_us: int = 0
    to_us: int = 0
    speed: float = 1.0
    wait_subscribers: int = 0
