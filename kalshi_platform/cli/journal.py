"""`kalshi-platform journal …`: what gatherers received, in their journals and on its way to the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli import journal_read
from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import KalshiPlatformError, LakeCorrupt, LakeUnavailable, PartitionBusy, Unfinished

if TYPE_CHECKING:
    from kalshi_platform.archive.archive_frames import ArchivedHour
    from kalshi_platform.lake.frame_archive import FramesManifest

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command()(journal_read.show)
app.command()(journal_read.verify)


@app.command()
def archive(
    gatherer: str = typer.Argument(..., metavar="GATHERER", help="Which gatherer, as named in KALSHI_GATHERERS."),
    hour: str = typer.Argument("", metavar="HOUR", help="A UTC hour (2026-11-23T04).", show_default="all that wait"),
    verify: bool = typer.Option(
        False, "--verify", help="Change nothing: read back what the lake holds of HOUR, and compare it."
    ),
) -> None:
    """Put finished segments of a gatherer's journal into the lake (raw/frames), and read them back.

    Runs on the gatherer's host. Without an HOUR: every hour of which the journal holds segments that the lake does not,
    the running one too. Exit 1 when an hour could not be archived, or is not as its manifest says.
    """
    from kalshi_platform.archive.archive_frames import archive_hour, find_hours_to_archive, verify_hour
    from kalshi_platform.cli.close_hour import parse_hour
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_gatherer, load_lake
    from kalshi_platform.errors import ConfigurationError
    from kalshi_platform.lake.store import open_store

    selected = parse_hour(hour) if hour else None
    store = open_store(load_lake())
    if verify:
        if selected is None:
            raise ConfigurationError(["--verify reads one hour back: name it"])
        manifest = verify_hour(store, gatherer, selected)
        print_line(f"{hour}: nothing is archived" if manifest is None else f"{hour}: {_describe(manifest)}, as written")
        return
    settings = load_gatherer(gatherer)
    hours = find_hours_to_archive(settings, store.root, SYSTEM_CLOCK) if selected is None else [selected]
    if not hours:
        print_line("the lake holds every finished segment of the journal")
    failed: list[KalshiPlatformError] = []
    for each in hours:
        with progress_shown(f"archiving {each:%Y-%m-%dT%H}"):
            try:
                print_line(describe_archived(archive_hour(store, settings, each, SYSTEM_CLOCK)))
            except (LakeCorrupt, LakeUnavailable, PartitionBusy) as error:  # of this hour alone
                failed.append(error)
    if failed:
        raise Unfinished(list(map(str, failed)))


def describe_archived(done: ArchivedHour) -> str:
    """Describe in a line what the lake holds of an hour now. Pure."""
    hour = f"{done.partition.start:%Y-%m-%dT%H}"
    if done.manifest is None:
        return f"{hour}: the journal has no finished segment of it"
    return f"{hour}: {done.added} segments added; {_describe(done.manifest)}, {done.manifest.state}"


def _describe(manifest: FramesManifest) -> str:
    per_frame = f", {manifest.bytes / manifest.frames:.1f} a frame" if manifest.frames else ""
    damages = f", {manifest.damages} damages" if manifest.damages else ""
    return (
        f"{len(manifest.segments)} segments with {manifest.frames:,} frames, {manifest.bytes:,} bytes"
        f" ({manifest.bytes_raw:,} before compression{per_frame}){damages}"
    )
