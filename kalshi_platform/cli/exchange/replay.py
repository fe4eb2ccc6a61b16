"""`kalshi-platform exchange replay`: a simulated exchange that plays a recording."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from kalshi_platform.cli.exchange.serving import (
    AddressFile,
    Host,
    KeyFile,
    KeyId,
    Port,
    RecordSent,
    Seconds,
    Truth,
    run_exchange,
)
from kalshi_platform.lab.simulated_clock import ns_of
from kalshi_platform.lab.simulator.settings import SCENARIO_OFF, SIMULATOR_KEY_ID, ReplaySettings, SimulatorSettings


def replay(
    capture: Annotated[
        Path | None,
        typer.Argument(
            help='JSON lines {"received_at_ns": int, "frame": {…}}, a journal\'s folder or segment; or else --lake.'
        ),
    ] = None,
    gatherer: Annotated[
        str | None, typer.Option(help="With --lake: whose frames are played. Of a folder with several journals: whose.")
    ] = None,
    lake: Annotated[
        str | None, typer.Option(help="Root of a lake, whose closed hours are played: folder or URL.")
    ] = None,
    from_: Annotated[datetime | None, typer.Option("--from", help="With --lake: the first moment, UTC.")] = None,
    to: Annotated[datetime | None, typer.Option(help="With --lake: the moment at which it ends, UTC.")] = None,
    port: Port = 8765,
    host: Host = "127.0.0.1",
    speed: Annotated[
        str, typer.Option(help="Multiple of the recorded pace; 0 or max = as fast as readers take it.")
    ] = "1",
    wait_subscribers: Annotated[int, typer.Option(help="Start once this many clients hold all snapshots.", min=0)] = 0,
    truth: Truth = None,
    record_sent: RecordSent = None,
    key_file: KeyFile = Path("data/exchange-key.pem"),
    key_id: KeyId = SIMULATOR_KEY_ID,
    seconds: Seconds = None,
    address_file: AddressFile = None,
) -> None:
    """Serve a capture, a gatherer's journal or hours of the lake, re-sequenced for each connection; it stays up."""
    try:
        factor = 0.0 if speed == "max" else float(speed)
    except ValueError:
        raise typer.BadParameter("speed must be a number or max", param_hint="--speed") from None
    if factor < 0:
        raise typer.BadParameter("speed must not be negative", param_hint="--speed")
    if (capture is None) == (lake is None):
        raise typer.BadParameter("name either a capture or --lake", param_hint="CAPTURE")
    if lake is not None and (from_ is None or to is None):
        raise typer.BadParameter("a lake needs --from and --to", param_hint="--lake")
    settings = SimulatorSettings(
        host=host, port=port, key_id=key_id, key_file=key_file, rate=0.0, truth=truth,
        record_sent=record_sent, scenario=SCENARIO_OFF,
    )  # fmt: skip
    run_exchange(
        settings,
        ReplaySettings(
            capture=capture,
            gatherer=gatherer,
            lake=lake,
            from_us=_us(from_),
            to_us=_us(to),
            speed=factor,
            wait_subscribers=wait_subscribers,
        ),
        seconds,
        address_file,
    )


def _us(moment: datetime | None) -> int:
    return 0 if moment is None else ns_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC)) // 1_000
