"""What the benchmarks' commands share: a folder, and the end."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kalshi_platform.cli.console import log_level_at_least
from kalshi_platform.cli.progress import progress_shown

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the findings to this file.")]


@contextmanager
def bench_folder() -> Iterator[Path]:
    """A folder for servers and recordings, removed at the end; servers that run as another user may enter it."""
    with log_level_at_least(logging.ERROR), tempfile.TemporaryDirectory(prefix="kalshi-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with progress_shown("measuring"):
            yield folder / "run"


def report_findings(findings: Mapping[str, Any], json_file: Path | None) -> None:
    """Write the findings; exit with 1 when something was lost."""
    from kalshi_platform.lab.bench.result import write_json

    if json_file is not None:
        write_json(json_file, findings)
    for what in findings["lost"]:
        typer.echo(f"LOST: {what}", err=True)
    if findings["lost"]:
        raise typer.Exit(1)
