"""`kalshi-platform exchange`: the simulated exchange alone, generated (`serve`) or from a recording (`replay`)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kalshi_platform.cli.running import tell
from kalshi_platform.lab.simulator.settings import (
    SCENARIO_OFF,
    SIMULATOR_KEY_ID,
    ReplaySettings,
    ScenarioSettings,
    SimulatorSettings,
)

if TYPE_CHECKING:
    from kalshi_platform.lab.simulator.server.server import Server

app = typer.Typer(help="A simulated exchange that speaks Kalshi's REST and WebSocket protocol.", no_args_is_help=True)

Port = Annotated[int, typer.Option(help="TCP port; 0 takes a free one and prints it.", min=0, max=65_535)]
Host = Annotated[str, typer.Option(help="Address to listen on. The control channel answers loopback callers only.")]
KeyFile = Annotated[Path, typer.Option(help="PEM private key that clients sign with; made when absent.")]
KeyId = Annotated[str, typer.Option(help="Key id that clients send.")]
Truth = Annotated[Path | None, typer.Option(help="Ground-truth ledger: a folder, or a prefix ending in .parquet.")]
Seconds = Annotated[float | None, typer.Option(help="Stop after this time.", min=0.0)]
AddressFile = Annotated[Path | None, typer.Option(help="Write the addresses as JSON to this file once listening.")]


@app.command()
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
    _run(settings, None, seconds, address_file)


@app.command()
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
    _run(
        settings,
        ReplaySettings(capture=capture, speed=factor, wait_subscribers=wait_subscribers),
        seconds,
        address_file,
    )


def _run(
    settings: SimulatorSettings, playback: ReplaySettings | None, seconds: float | None, address_file: Path | None
) -> None:
    try:
        asyncio.run(_serve(settings, playback, seconds, address_file))
    except OSError as problem:
        tell(f"cannot listen on {settings.host}:{settings.port}: {problem.strerror or problem}", err=True)
        raise typer.Exit(1) from None


async def _serve(
    settings: SimulatorSettings, playback: ReplaySettings | None, seconds: float | None, address_file: Path | None
) -> None:
    from kalshi_platform.lab.simulator.server.server import serve as serve_exchange

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A handler of our own also undoes an inherited "ignore SIGINT", as background shells set it.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def announce(server: Server) -> None:
        tell(f"simulated exchange: REST {server.rest_url}  WebSocket {server.ws_url}  (Ctrl-C stops it)")
        if address_file is not None:
            _write_addresses(server, address_file)

    await serve_exchange(settings, replay=playback, on_start=announce, seconds=seconds, stop=stop)
    tell("simulated exchange: stopped")


def _write_addresses(server: Server, path: Path) -> None:
    content = {
        "rest_url": server.rest_url,
        "ws_url": server.ws_url,
        "control_url": server.control_url,
        "key_id": server.settings.key_id,
        "key_file": str(server.settings.key_file.resolve()),
        "pid": os.getpid(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)
