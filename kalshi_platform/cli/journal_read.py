"""`kalshi-platform journal show` and `verify`: what a journal or one of its segments holds, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.market.frames import FrameKind
from kalshi_platform.market.times import EPOCH

if TYPE_CHECKING:
    from kalshi_platform.gatherer.journal.block_format import Block, Damage, Position, SegmentInfo
    from kalshi_platform.gatherer.journal.summary import JournalSummary

_PATH = typer.Argument(..., metavar="PATH", help="A journal's folder, the gatherer's folder, or one segment.")


class ShownFrame(msgspec.Struct):
    """Holds a frame as it is printed; bytes that are no UTF-8 are escaped."""

    segment: int
    offset: int
    received_at_ns: int
    session_id: int
    stream_id: int
    number: int
    kind: str
    payload: str


class Journal:
    """Reads the journal that a path names, once."""

    def __init__(self, path: Path) -> None:
        """Find the segments. Raises ConfigurationError."""
        from kalshi_platform.gatherer.journal.reader import JournalReader
        from kalshi_platform.gatherer.journal.segments import FOLDER, list_segments, numbered

        folder = path / FOLDER if (path / FOLDER).is_dir() and not list_segments(path) else path
        source = folder if folder.is_dir() else [path]
        try:
            self.segments = list_segments(folder) if folder.is_dir() else numbered([path])
        except OSError as error:
            raise ConfigurationError([f"{path} cannot be read: {error.strerror}"]) from error
        if not self.segments or not all(segment.exists() for segment in self.segments.values()):
            raise ConfigurationError(
                [f"{path} has no segment of a journal (NUMBER.journal, NUMBER.journal.zst): name another path"]
            )
        self._reader = JournalReader(source)

    def items(self) -> Iterator[Block | Damage]:
        """Yield everything up to the place where a writer may just be."""
        try:
            while (item := self._reader.next()) is not None:
                yield item
        except OSError as error:
            raise ConfigurationError([f"the journal cannot be read: {error.strerror or error}"]) from error
        finally:
            self._reader.close()

    def end(self) -> Position:
        """Return where reading ended."""
        return self._reader.position

    def unread_bytes(self) -> int:
        """Return how many bytes of the newest segment are no whole block yet."""
        from kalshi_platform.gatherer.journal.segments import is_compressed

        number, path = list(self.segments.items())[-1]
        segment, offset = self.end()
        return path.stat().st_size - offset if segment == number and not is_compressed(path) else 0

    def newest_info(self) -> SegmentInfo | None:
        """Return the newest header that can be read."""
        from kalshi_platform.gatherer.journal.block_format import FormatError
        from kalshi_platform.gatherer.journal.segments import read_segment_info

        for path in reversed(self.segments.values()):
            try:
                return read_segment_info(path)
            except (FormatError, OSError):
                continue
        return None


def show(
    path: Path = _PATH,
    frames: int = typer.Option(0, "--frames", min=0, help="Print so many frames, too, from the first on."),
    json_output: bool = typer.Option(False, "--json", help="Print one JSON object instead of lines."),
) -> None:
    """Show what a journal holds: segments, blocks, sessions, streams, frames, bytes and times. A running one, too."""
    from kalshi_platform.gatherer.journal.summary import describe_damage, summarize

    journal = Journal(path)
    shown: list[ShownFrame] = []
    summary = summarize(_keep_frames(journal.items(), frames, shown))
    info = journal.newest_info()
    if json_output:
        typer.echo(
            json.dumps(
                {
                    "journal": None if info is None else msgspec.to_builtins(info),
                    "files": {number: str(file) for number, file in journal.segments.items()},
                    **_to_builtins(summary),
                    "frames": msgspec.to_builtins(shown),
                },
                indent=2,
            )
        )
        return
    if info is not None:
        print_line(
            f"gatherer {info.gatherer}, journal {info.journal_id}, recorded by version {info.code_version or '?'}"
        )
    for line in summary_lines(summary):
        print_line(line)
    for damage in summary.damages:
        print_line(f"! {describe_damage(damage)}")
    for note in summary.notes:
        print_line(f"note: {note}")
    for frame in shown:
        print_line(
            f"{_time(frame.received_at_ns)} segment {frame.segment} offset {frame.offset} session {frame.session_id}"
            f" stream {frame.stream_id} number {frame.number} {frame.kind} {frame.payload}"
        )


def verify(
    path: Path = _PATH,
    json_output: bool = typer.Option(False, "--json", help="Print one JSON object instead of lines."),
) -> None:
    """Check every checksum and number of a journal, running or not; exit 1 when something is damaged or missing."""
    from kalshi_platform.gatherer.journal.summary import describe_damage, summarize

    journal = Journal(path)
    summary = summarize(journal.items())
    unread = journal.unread_bytes()
    if json_output:
        content = {"blocks": summary.blocks, "frames": summary.frames, "unfinished_bytes": unread}
        typer.echo(json.dumps({**content, **_to_builtins(summary, only=("damages", "notes"))}, indent=2))
    else:
        for note in summary.notes:
            print_line(f"note: {note}")
        if unread:
            segment, offset = journal.end()
            print_line(f"note: segment {segment}, offset {offset:,}: {unread:,} bytes of a block that is not whole yet")
        for damage in summary.damages:
            print_line(describe_damage(damage))
        print_line(
            f"{len(summary.segments)} segments, {summary.blocks:,} blocks, {summary.frames:,} frames: "
            + (f"{len(summary.damages)} damages" if summary.damages else "whole")
        )
    if summary.damages:
        raise typer.Exit(1)


def summary_lines(summary: JournalSummary) -> list[str]:
    """Return what a journal holds as lines for people. Pure."""
    lines = [
        f"segment {each.number:012}: {each.blocks:,} blocks, {each.frames:,} frames with {each.frame_bytes:,} bytes,"
        f" {each.marks:,} marks, {_time(each.first_received_at_ns)} to {_time(each.last_received_at_ns)}"
        for each in summary.segments
    ]
    for session in summary.sessions:
        if session.session_id:
            end = "open" if session.closed is None else f"closed: {session.closed}"
            opened = f"opened {_time(session.opened_at_ns)}, {end}"
            lines.append(f"session {session.session_id} {session.connection}: {session.frames:,} frames, {opened}")
        else:
            lines.append(f"REST: {session.frames:,} answers")
        lines += [
            f"  stream {each.stream_id} {each.channel} (sid {each.sid}): {each.frames:,} frames,"
            f" numbers {each.first_number} to {each.last_number}" + (f", ended: {each.ended}" if each.ended else "")
            for each in summary.streams
            if each.session_id == session.session_id
        ]
    return lines


def _keep_frames(items: Iterator[Block | Damage], count: int, shown: list[ShownFrame]) -> Iterator[Block | Damage]:
    """Pass the items on, and keep the first frames for printing."""
    from kalshi_platform.gatherer.journal.block_format import Block

    for item in items:
        if isinstance(item, Block):
            wanted = range(min(len(item.batch.payloads), count - len(shown)))
            shown.extend(_shown_frame(item, at) for at in wanted)
        yield item


def _shown_frame(block: Block, at: int) -> ShownFrame:
    batch, kind = block.batch, block.batch.kinds[at]
    return ShownFrame(
        *block.position,
        batch.received_at_ns[at],
        block.session_id,
        batch.stream_ids[at],
        batch.numbers[at],
        FrameKind(kind).name if kind in set(FrameKind) else str(kind),
        batch.payloads[at].decode(errors="backslashreplace"),
    )


def _to_builtins(summary: JournalSummary, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(summary)  # bytes become base64
    return content if only is None else {name: content[name] for name in only}


def _time(moment_ns: int | None) -> str:
    return (
        "never" if moment_ns is None else f"{EPOCH + timedelta(microseconds=moment_ns // 1_000):%Y-%m-%dT%H:%M:%S.%fZ}"
    )
