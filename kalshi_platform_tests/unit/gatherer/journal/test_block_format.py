"""Blocks: what was encoded is decoded, and nothing else is."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kalshi_platform
from kalshi_platform.gatherer.journal.block_format import (
    BLOCK_HEADER,
    BLOCK_MAGIC,
    FORMAT_VERSION,
    SEGMENT_HEADER,
    SEGMENT_MAGIC,
    BlockHeader,
    OtherVersion,
    Position,
    SegmentInfo,
    StreamRef,
    decode_block,
    decode_header,
    decode_segment_header,
    encode_body,
    encode_header,
    encode_segment_header,
    is_whole,
)
from kalshi_platform.market.frames import FrameBatch, FrameKind, GathererStarted, Mark, RestBooksReceived
from kalshi_platform.market.records import (
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    SequenceGap,
    SessionClosed,
    SessionOpened,
    StreamEnded,
    StreamOpened,
    UnknownFrame,
)

IDS = st.integers(0, 2**63 - 1)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text(max_size=8)
MARKS: st.SearchStrategy[Mark] = st.one_of(
    st.builds(SessionOpened, IDS, WORDS, WORDS, st.booleans(), NUMBERS),
    st.builds(SessionClosed, IDS, NUMBERS, WORDS),
    st.builds(StreamOpened, IDS, IDS, NUMBERS, WORDS, NUMBERS),
    st.builds(StreamEnded, IDS, NUMBERS, WORDS),
    st.builds(BookSubscriptionStarted, IDS, WORDS, NUMBERS, NUMBERS),
    st.builds(BookSubscriptionEnded, IDS, WORDS, NUMBERS, WORDS),
    st.builds(SequenceGap, IDS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(UnknownFrame, IDS, NUMBERS, WORDS, WORDS),
    st.builds(RestBooksReceived, st.sampled_from(["rest", "rest_recovery"]), NUMBERS, st.none() | NUMBERS),
    st.builds(GathererStarted, NUMBERS, WORDS, WORDS),
)
FRAMES = st.tuples(
    st.binary(max_size=40), NUMBERS, st.sampled_from([0, 7, 2**63 - 1]), NUMBERS, st.sampled_from(list(FrameKind))
)
STREAMS = {7: StreamRef(7, 1, "orderbook_delta"), 2**63 - 1: StreamRef(2**63 - 1, -4, "zölle")}


@st.composite
def batches(draw: st.DrawFn) -> FrameBatch:
    frames = draw(st.lists(FRAMES, max_size=6))
    places = draw(st.lists(st.integers(0, len(frames)), max_size=4))
    batch = FrameBatch(marks=[(place, draw(MARKS)) for place in sorted(places)])
    for payload, received_at_ns, stream_id, number, kind in frames:
        batch.payloads.append(payload)
        batch.received_at_ns.append(received_at_ns)
        batch.stream_ids.append(stream_id)
        batch.numbers.append(number)
        batch.kinds.append(kind)
    return batch


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), IDS, st.binary(max_size=9))
def test_a_block_decodes_to_what_was_encoded(
    batch: FrameBatch, number: int, marks_before: int, session_id: int, before: bytes
) -> None:
    body = encode_body(batch, STREAMS)
    header = encode_header(
        body, number=number, session_id=session_id, marks_before=marks_before, received_at_ns=-3, flags=1
    )
    at = len(before)
    data = b"".join((before, header, *body.parts, b"more"))
    decoded = decode_header(data, at)
    assert decoded is not None
    assert is_whole(decoded, data, at)
    block = decode_block(decoded, data, at, Position(4, 100))
    assert block.batch == batch
    assert (block.number, block.session_id, block.marks_before) == (number, session_id, marks_before)
    assert (block.received_at_ns, block.restated) == (-3, True)
    assert block.end == Position(4, 100 + body.size)
    assert set(block.streams) == {STREAMS[each] for each in batch.stream_ids if each}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_changed_byte_of_a_block_is_noticed(data: st.DataObject) -> None:
    body = encode_body(data.draw(batches()), STREAMS)
    whole = bytearray(encode_header(body, number=1, session_id=2, marks_before=3, received_at_ns=4))
    whole += b"".join(body.parts)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    header = decode_header(bytes(whole))
    assert header is None or not is_whole(header, bytes(whole), 0)


@pytest.mark.parametrize(
    "batch",
    [
        FrameBatch([b"x"], [0], [0], [2**63], [0]),
        FrameBatch([b"x"], [0], [99], [1], [0]),
        FrameBatch(marks=[(0, SequenceGap(1, 2, 2**80, 3))]),
    ],
    ids=["a number of 64 bits", "an unknown stream", "a mark's number of 80 bits"],
)
def test_a_batch_that_no_block_can_hold_is_an_error(batch: FrameBatch) -> None:
    with pytest.raises(ValueError, match="no block can hold"):
        encode_body(batch, STREAMS)


def test_a_segment_header_decodes_to_what_was_encoded_and_names_another_version() -> None:
    info = SegmentInfo(2**63 - 1, "g1", 12, 5, 6, "1.0", None)
    data = encode_segment_header(info)
    assert decode_segment_header(data + b"more") == (info, len(data))
    assert FORMAT_VERSION == 1
    assert BLOCK_HEADER.size == 52
    other = encode_segment_header(info, version=7)
    with pytest.raises(OtherVersion) as caught:
        decode_segment_header(other)
    assert caught.value.version == 7


@pytest.mark.parametrize(
    ("heading", "layout", "magic"),
    [("## Segment header", SEGMENT_HEADER, SEGMENT_MAGIC), ("## Block", BLOCK_HEADER, BLOCK_MAGIC)],
)
def test_the_documented_layout_is_that_of_the_code(heading: str, layout: struct.Struct, magic: bytes) -> None:
    document = (Path(kalshi_platform.__file__).parent.parent / "docs" / "journal.md").read_text(encoding="utf-8")
    assert document.startswith(f"# The journal: format {FORMAT_VERSION}\n")
    section = document.split(f"{heading}\n")[1].split("\n## ")[0]
    rows = [tuple(line.strip("| ").split(" | ")) for line in section.splitlines() if re.match(r"\| \d", line)]
    codes = {"u16": "H", "u32": "I", "i64": "q", f"{len(magic)} bytes": f"{len(magic)}s"}
    formats = [codes[row[1]] for row in rows]
    assert "<" + "".join(formats) == layout.format
    assert [int(row[0]) for row in rows] == [struct.calcsize("<" + "".join(formats[:at])) for at in range(len(rows))]
    assert magic.hex(" ").upper() in rows[0][3]
    if layout is BLOCK_HEADER:
        assert tuple(row[2] for row in rows) == BlockHeader._fields
