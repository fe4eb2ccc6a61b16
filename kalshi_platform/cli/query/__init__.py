"""`kalshi-platform query`: answers from the lake."""

from __future__ import annotations

import typer

from kalshi_platform.cli.query.book import book
from kalshi_platform.cli.query.candles import candles
from kalshi_platform.cli.query.estimate import estimate
from kalshi_platform.cli.query.holes import holes
from kalshi_platform.cli.query.markets import markets
from kalshi_platform.cli.query.quotes import quotes
from kalshi_platform.cli.query.trades import trades

app = typer.Typer(help="Answers from the lake, as tables, JSON or CSV.", no_args_is_help=True)
for _command in (book, trades, quotes, candles, holes, markets, estimate):
    app.command()(_command)
