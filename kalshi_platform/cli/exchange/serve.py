"""`kalshi-platform exchange serve`: a simulated exchange that generates its market."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

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
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.lab.simulated_clock import ClockFile, Piece, SimulatedClock, catching_up, ns_of
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
    record_sent: RecordSent = None,
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
    start: Annotated[
        datetime | None, typer.Option(help="UTC moment at which the exchange's clock begins; without it, now.")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Seconds of the exchange in a second; rates and births count by its clock.", min=0.01)
    ] = 1.0,
    catch_up: Annotated[
        bool, typer.Option(help="With --start in the past: run at --speed until it is now, and then on with the time.")
    ] = False,
    clock_file: Annotated[
        Path | None, typer.Option(help="Write the clock to this file, for recorders that are to share it.")
    ] = None,
    read_rate: Annotated[
        float, typer.Option(help="Read tokens per second that /account/limits grants, times --speed.", min=1.0)
    ] = 200.0,
    life: Annotated[float, typer.Option(help="Seconds for which a newborn market trades (± half).", min=1.0)] = 60.0,
    open_after: Annotated[
        float, typer.Option(help="Seconds from a market's announcement to its opening.", min=0.0)
    ] = 3.0,
    settle_after: Annotated[
        float, typer.Option(help="Seconds from close to determination, and from there to settlement.", min=0.0)
    ] = 5.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help='Arm a fault at the start, as JSON: {"kind": "add_field", "type": "trade", …}. Repeatable.'),
    ] = None,
) -> None:
    """Generate a venue: seeded books, trades and lifecycles, until stopped."""
    scenario = ScenarioSettings(
        births_per_minute=births, mischief_per_minute=births, open_after_s=open_after, life_s=life,
        determine_after_s=settle_after, settle_after_s=settle_after,
    )  # fmt: skip
    clock = _clock(start, speed, catch_up, clock_file)
    settings = SimulatorSettings(
        host=host, port=port, key_id=key_id, key_file=key_file, markets=markets, rate=rate, seed=seed, truth=truth,
        record_sent=record_sent, scenario=scenario, backpressure=backpressure,
        read_refill_rate=read_rate * max(1.0, speed), read_bucket_capacity=2 * read_rate * max(1.0, speed),
    )  # fmt: skip
    run_exchange(settings, None, seconds, address_file, clock, faults=_faults(fault or []))


def _faults(texts: list[str]) -> list[dict[str, Any]]:
    faults = []
    for text in texts:
        try:
            content = json.loads(text)
        except ValueError as problem:
            raise typer.BadParameter(f"{text} is no JSON: {problem}", param_hint="--fault") from None
        if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
            raise typer.BadParameter(f"{text} is no JSON object with a kind", param_hint="--fault")
        faults.append(content)
    return faults


def _clock(start: datetime | None, speed: float, catch_up: bool, clock_file: Path | None) -> Clock | None:
    """Return the exchange's clock; None for the machine's."""
    if start is None and speed == 1.0 and clock_file is None:
        return None
    wall_ns = SYSTEM_CLOCK.now_ns()
    start_ns = wall_ns if start is None else ns_of(start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC))
    try:
        pieces = catching_up(start_ns, speed, wall_ns) if catch_up else [Piece(wall_ns, start_ns, speed)]
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--catch-up") from None
    if clock_file is not None:
        ClockFile(clock_file).write(pieces)
    return SimulatedClock(pieces)
