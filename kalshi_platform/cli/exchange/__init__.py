"""`kalshi-platform exchange`: the simulated exchange alone, generated (`serve`) or from a recording (`replay`)."""

from __future__ import annotations

import typer

from kalshi_platform.cli.exchange.replay import replay
from kalshi_platform.cli.exchange.serve import serve

app = typer.Typer(help="A simulated exchange that speaks Kalshi's REST and WebSocket protocol.", no_args_is_help=True)
for _command in (serve, replay):
    app.command()(_command)
