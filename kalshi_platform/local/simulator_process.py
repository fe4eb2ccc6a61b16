"""Starts the simulated exchange as a child process, and waits for the file with its addresses."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kalshi_platform.clock import Clock
from kalshi_platform.errors import ExchangeUnavailable
from kalshi_platform.local.patience import wait_saying
from kalshi_platform.local.processes.process_group import ChildSpec, ProcessGroup

PROGRAM = (sys.executable, "-m", "kalshi_platform.cli")
START_S = 900.0
"""A machine that needs longer is not slow but stuck."""
_ONCE_STOPPED_S = 30.0
"""Left to start in after a stop was requested, so that an ordinary start ends in order."""


@dataclass(frozen=True)
class SimulationOptions:
    """Options of `kalshi-platform exchange serve`. `rate` is messages per second of the whole venue.

    `more` are further options as on the command line.
    """

    markets: int = 60
    rate: float = 200.0
    seed: int = 1
    truth: Path | None = None
    more: tuple[str, ...] = ()


class SimulatorAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where a simulated exchange listens, the key that it accepts, and its process; its address file, as it stands."""

    rest_url: str
    ws_url: str
    control_url: str
    key_id: str
    key_file: str
    pid: int


def start_simulator(
    group: ProcessGroup,
    options: SimulationOptions,
    env: Mapping[str, str],
    data_dir: Path,
    clock: Clock,
    stop_timeout_s: float = 5,
    program: Sequence[str] = PROGRAM,
    say: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> SimulatorAddresses:
    """Start it as child `exchange` of `group`; return its addresses. Raises ExchangeUnavailable.

    `stop_timeout_s`: how long it may take to end after its stop signal, for instance to write its ledger. `program`:
    the command line of the platform, for callers that put something around it. `say` gets a line now and then while it
    starts; after `stop` it has half a minute left.
    """
    arguments = ["serve", "--markets", str(options.markets), "--rate", str(options.rate), "--seed", str(options.seed)]
    if options.truth is not None:
        arguments += ["--truth", str(options.truth)]
    arguments += options.more
    return start_exchange(group, arguments, env, data_dir, clock, stop_timeout_s, START_S, program, say, stop)


def start_exchange(
    group: ProcessGroup,
    arguments: Sequence[str],
    env: Mapping[str, str],
    data_dir: Path,
    clock: Clock,
    stop_timeout_s: float = 5,
    start_timeout_s: float = START_S,
    program: Sequence[str] = PROGRAM,
    say: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> SimulatorAddresses:
    """Start `kalshi-platform exchange` with `arguments` (`serve …` or `replay …`) as child `exchange` of `group`.

    It gets a free port, and its key and address file are in `data_dir`. Raises ExchangeUnavailable.
    """
    address_file = data_dir / "exchange.json"
    address_file.unlink(missing_ok=True)
    argv = [
        *(*program, "exchange", *arguments, "--port", "0"),
        *("--key-file", str(data_dir / "exchange-key.pem"), "--address-file", str(address_file)),
    ]
    group.start(ChildSpec("exchange", argv, env, Path.cwd(), restart=False, stop_timeout_s=stop_timeout_s))
    log_file, never = group.log_dir / "exchange.log", threading.Event()

    def is_there() -> bool:
        if group.pid("exchange") is None:
            raise ExchangeUnavailable(f"the simulated exchange ended as it started; see {log_file}")
        group.poll()
        return address_file.exists()

    def came(stop: threading.Event, patience_s: float) -> bool:
        return wait_saying(lambda: "the simulated exchange", is_there, stop, say or _say_nothing, clock, patience_s)

    stop = stop or never
    if not came(stop, start_timeout_s) and not (stop.is_set() and came(never, _ONCE_STOPPED_S)):
        raise ExchangeUnavailable(f"the simulated exchange did not start; see {log_file}")
    return msgspec.json.decode(address_file.read_bytes(), type=SimulatorAddresses)


def _say_nothing(_text: str) -> None: ...
