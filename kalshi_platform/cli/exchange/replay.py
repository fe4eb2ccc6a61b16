"""`kalshi-platform exchange replay`: a simulated exchange that plays a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kalshi_platform.cli.exchange.serving import (
    AddressFile,
    Host,
    KeyFile,
    KeyId,
    Port,
    Seconds,
    Truth,
    run_exchange,
)
from kalshi_platform.lab.simulator.settings import SCENARIO_OFF, SIMULATOR_KEY_ID, ReplaySettings, SimulatorSettings


def replay(
    capture: Annotated[Path, typer.Argument(help='JSON lines {"received_at_ns": int, "frame": {…}}.')],
    port: Port = 8765,
    host: Host = "127.0.0.1",
    speed: Annotated[
        str, typer.Option(help="Multiple of the recorded pace; 0 or max = as fast as readers take it.")
    ] = "1",
    wait_subscribers: Annotated[int, typer.Option(help="Start once this many clients hold all snapshots.", min=0)] = 0,
    truth: Truth = None,
    key_file: KeyFile = Path("data/exchange-key.pem"),
    key_id: KeyId = SIMULATOR_KEY_ID,
    seconds: Seconds = None,
    address_file: AddressFile = None,
) -> None:
    """Serve a recorded capture, re-sequenced for each connection; the venue stays up afterwards."""
    try:
        factor = 0.0 if speed == "max" else float(speed)
    except ValueError:
        raise typer.BadParameter("speed must be a number or max", param_hint="--speed") from None
    if factor < 0:
        raise typer.BadParameter("speed must not be negative", param_hint="--speed")
    settings = SimulatorSettings(
        host=host, port=port, key_id=key_id, key_file=key_file, rate=0.0, truth=truth, scenario=SCENARIO_OFF,
    )  # fmt: skip
    run_exchange(
        settings,
        ReplaySettings(capture=capture, speed=factor, wait_subscribers=wait_subscribers),
        seconds,
        address_file,
    )
