"""`kalshi-platform exchange serve`: a simulated exchange that generates its market."""

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
from kalshi_platform.lab.simulator.settings import SIMULATOR_KEY_ID, ScenarioSettings, SimulatorSettings


def serve(
    port: Port = 8765,
    host: Host = "127.0.0.1",
    markets: Annotated[int, typer.Option(help="Active markets at the start.", min=1)] = 200,
    rate: Annotated[
        float, typer.Option(help="Messages per second of the whole venue; each client receives all.", min=0.0)
    ] = 200.0,
    seed: Annotated[int, typer.Option(help="Seed of everything that happens.")] = 1,
    truth: Truth = None,
    key_file: KeyFile = Path("data/exchange-key.pem"),
    key_id: KeyId = SIMULATOR_KEY_ID,
    seconds: Seconds = None,
    address_file: AddressFile = None,
    births: Annotated[
        float, typer.Option(help="New events per minute; 0 stops markets from coming and going.", min=0.0)
    ] = 2.0,
    backpressure: Annotated[
        bool, typer.Option(help="Wait for slow readers instead of ending their subscriptions.")
    ] = False,
) -> None:
    """Generate a venue: seeded books, trades and lifecycles, until stopped."""
    scenario = ScenarioSettings(births_per_minute=births, mischief_per_minute=births)
    settings = SimulatorSettings(
        host=host, port=port, key_id=key_id, key_file=key_file, markets=markets, rate=rate, seed=seed, truth=truth,
        scenario=scenario, backpressure=backpressure,
    )  # fmt: skip
    run_exchange(settings, None, seconds, address_file)
