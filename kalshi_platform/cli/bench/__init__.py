"""`kalshi-platform bench`: how fast it is, each time beside the naive way, on the same data and server."""

from __future__ import annotations

import typer

from kalshi_platform.cli.bench.book import book
from kalshi_platform.cli.bench.close import close
from kalshi_platform.cli.bench.disk import disk
from kalshi_platform.cli.bench.export import export
from kalshi_platform.cli.bench.gatherer import gatherer
from kalshi_platform.cli.bench.merge import merge
from kalshi_platform.cli.bench.replay import replay
from kalshi_platform.cli.bench.soak import soak

app = typer.Typer(help="Benchmarks, each beside the naive way, on the same data and server.", no_args_is_help=True)
for _command in (soak, gatherer, merge, close, book, export, replay, disk):
    app.command()(_command)
