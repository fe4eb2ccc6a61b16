"""`kalshi-platform doctor`: looks at everything that the platform needs, and says what to do where something lacks."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import typer

from kalshi_platform.cli.console import log_level_at_least, print_line, print_table

if TYPE_CHECKING:
    from kalshi_platform.cli.doctor.findings import Finding

_Check: TypeAlias = "Callable[[], Iterator[Finding]]"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_AT_ONCE = 12


def doctor(
    json_output: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
    send_test_alert: bool = typer.Option(False, "--send-test-alert", help="Post a test message to the webhook, too."),
) -> None:
    """Look at settings, key, clock, databases, lake, disks, limits, ports and alerts; say what is wrong and what helps.

    Nothing is changed but one small object of the lake, which is removed again. Exit 1 when something failed; what is
    only to look at is no failure.
    """
    with log_level_at_least(logging.CRITICAL):
        findings = run_checks(_list_checks(send_test_alert=send_test_alert))
    _print(findings, as_json=json_output)
    if any(each.mark == "fail" for each in findings):
        raise typer.Exit(1)


def run_checks(checks: Sequence[tuple[str, _Check]]) -> list[Finding]:
    """Run checks side by side; return the findings of each in their order. A check that breaks is a finding itself."""
    from concurrent.futures import ThreadPoolExecutor

    from kalshi_platform.cli.doctor.findings import Finding

    def run(named: tuple[str, _Check]) -> list[Finding]:
        name, check = named
        found: list[Finding] = []
        try:
            for each in check():
                found.append(each)  # noqa: PERF402 - what was found before it broke is kept
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks count
            text = f"could not be looked at: {type(error).__name__}: {error}"
            found.append(Finding(name, "fail", text, "report it: a check must not break"))
        return found

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [each for found in pool.map(run, checks) for each in found]


def _list_checks(*, send_test_alert: bool) -> list[tuple[str, _Check]]:
    from functools import partial

    from kalshi_platform import config
    from kalshi_platform.cli.doctor import alerts, databases, exchange, lake, machine, settings

    return [
        ("version", machine.check_versions),
        ("settings", settings.check_settings),
        ("exchange", exchange.check_exchange),
        *((each.name, partial(databases.check_database, each)) for each in config.list_databases()),
        ("gatherers", databases.check_shared_databases),
        ("lake", lake.check_lake),
        ("frames", lake.check_frames),
        ("alerts", partial(alerts.check_alerts, send=send_test_alert)),
        ("disks", machine.check_disks),
        ("limits", machine.check_limits),
        ("ports", machine.check_ports),
    ]


def _print(findings: Sequence[Finding], *, as_json: bool) -> None:
    from kalshi_platform.cli.doctor.findings import lines_of, summary

    if as_json:
        failed = any(each.mark == "fail" for each in findings)
        content = {"ok": not failed, "findings": [dataclasses.asdict(each) for each in findings]}
        typer.echo(json.dumps(content, indent=2))
        return
    rows = [(each.mark, each.subject, each.text, each.remedy) for each in findings]
    if print_table(("", "what", "found", "remedy"), rows, colours=_COLOURS):
        print_line(summary(findings))
        return
    for line in lines_of(findings):
        print_line(line)
