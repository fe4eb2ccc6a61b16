"""What `exchange serve` and `exchange replay` share: options, and running the exchange until it is stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.lab.simulator.settings import ReplaySettings, SimulatorSettings

if TYPE_CHECKING:
    from kalshi_platform.clock import Clock
    from kalshi_platform.lab.simulator.server.server import Server

Port = Annotated[int, typer.Option(help="TCP port; 0 takes a free one and prints it.", min=0, max=65_535)]
Host = Annotated[str, typer.Option(help="Address to listen on. The control channel answers loopback callers only.")]
KeyFile = Annotated[Path, typer.Option(help="PEM private key that clients sign with; made when absent.")]
KeyId = Annotated[str, typer.Option(help="Key id that clients send.")]
Truth = Annotated[Path | None, typer.Option(help="Ground-truth ledger: a folder, or a prefix ending in .parquet.")]
RecordSent = Annotated[
    Path | None, typer.Option(help="Record every byte that is sent to every connection in this folder.")
]
Seconds = Annotated[float | None, typer.Option(help="Stop after this time.", min=0.0)]
AddressFile = Annotated[Path | None, typer.Option(help="Write the addresses as JSON to this file once listening.")]


def run_exchange(
    settings: SimulatorSettings,
    playback: ReplaySettings | None,
    seconds: float | None,
    address_file: Path | None,
    clock: Clock | None = None,
    faults: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Serve until a signal or `seconds`; exit with 1 when the port is taken, with 2 when a fault is none."""
    from kalshi_platform.lab.simulator.engine.faults import UnknownFault

    try:
        asyncio.run(_serve(settings, playback, seconds, address_file, clock, faults))
    except UnknownFault as problem:
        raise typer.BadParameter(str(problem), param_hint="--fault") from None
    except OSError as problem:
        print_line(f"cannot listen on {settings.host}:{settings.port}: {problem.strerror or problem}", err=True)
        raise typer.Exit(1) from None


async def _serve(
    settings: SimulatorSettings,
    playback: ReplaySettings | None,
    seconds: float | None,
    address_file: Path | None,
    clock: Clock | None,
    faults: Sequence[Mapping[str, Any]],
) -> None:
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.simulator.server.server import serve as serve_exchange

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A handler of our own also undoes an inherited "ignore SIGINT", as background shells set it.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def announce(server: Server) -> None:
        for fault in faults:
            server.control.arm(**fault)
        print_line(f"simulated exchange: REST {server.rest_url}  WebSocket {server.ws_url}  (Ctrl-C stops it)")
        if address_file is not None:
            _write_addresses(server, address_file)

    await serve_exchange(
        settings, replay=playback, on_start=announce, seconds=seconds, stop=stop, clock=clock or SYSTEM_CLOCK
    )
    print_line("simulated exchange: stopped")


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
