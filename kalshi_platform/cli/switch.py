"""`kalshi-platform switch`: switches a gatherer or the merge off and on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError

if TYPE_CHECKING:
    from kalshi_platform.storage.pool import Database

_STATES = {"on": True, "off": False}


def complete_service(incomplete: str) -> list[str]:
    """Return the services that begin like `incomplete`, for the shell; none where the settings cannot be read."""
    from kalshi_platform.config import gatherer_names

    try:
        names = [*gatherer_names(), "deduplicator"]
    except KalshiPlatformError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_state(incomplete: str) -> list[str]:
    """Return `on` and `off`, for the shell."""
    return [state for state in _STATES if state.startswith(incomplete)]


def switch(
    service: str = typer.Argument(
        "",
        metavar="[SERVICE]",
        help="A gatherer's name (g1), or deduplicator, the live merge; all of them are shown without.",
        show_default=False,
        autocompletion=complete_service,
    ),
    state: str = typer.Argument(
        "",
        metavar="[on|off]",
        help="Without it the switch is shown.",
        show_default=False,
        autocompletion=complete_state,
    ),
    reason: str = typer.Option("", "--reason", help="Why; shown where the switch is shown."),
) -> None:
    """Switch a service off, or on again: it stops within seconds after writing what it holds, and stays off.

    The switch is a row of `service_switches` in the service's own database, the same that the job switch_services of
    the Dagster UI writes. A run that is terminated by hand is launched again as long as the switch is on.
    """
    from kalshi_platform.config import find_service, service_names
    from kalshi_platform.storage.services import write_switch

    if not service:
        for each in service_names():
            _show(each)
        return
    name = find_service(service)
    if not state:
        _show(name)
    elif state not in _STATES:
        raise ConfigurationError([f"{state!r} is neither on nor off: kalshi-platform switch {service} off"])
    else:
        with _opened(name) as database:
            write_switch(database, name, enabled=_STATES[state], reason=reason or "kalshi-platform switch")
        consequence = "it starts within seconds" if _STATES[state] else "it stops within seconds, and stays off"
        print_line(f"{name} is switched {state}; where its host or Dagster runs, {consequence}")


def _show(service: str) -> None:
    from kalshi_platform.storage.services import read_switch

    try:
        with _opened(service) as database:
            found = read_switch(database, service)
    except KalshiPlatformError as error:
        print_line(f"{service:<20} unknown: {error}")
        return
    print_line(f"{service:<20} {'on' if found.enabled else 'off':<4} {found.reason}".rstrip())


@contextmanager
def _opened(service: str) -> Iterator[Database]:
    """Open the database that holds the switch of a service."""
    from kalshi_platform.config import load_service_database
    from kalshi_platform.storage.pool import Database

    database = Database(load_service_database(service), name=service, pool_size=1)
    try:
        yield database
    finally:
        database.dispose()
