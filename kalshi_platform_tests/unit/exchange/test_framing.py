"""Framing: any cut of the byte stream gives the same messages."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.exchange.framing import BINARY, CLOSE, PING, TEXT, FrameDecoder, FramingError, Message


def encode(opcode: int, payload: bytes, *, final: bool = True, masked: bool = False) -> bytes:
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        length = bytes([mask | size])
    elif size < 65_536:
        length = bytes([mask | 126]) + struct.pack("!H", size)
    else:
        length = bytes([mask | 127]) + struct.pack("!Q", size)
    return bytes([(0x80 if final else 0) | opcode]) + length + (b"\0\0\0\0" if masked else b"") + payload


SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([TEXT, BINARY]), SIZES.map(lambda size: b"x" * size), st.integers(1, 3)),
        st.tuples(st.sampled_from([PING, CLOSE]), st.binary(max_size=125), st.just(1)),
    ),
    max_size=6,
)


@given(MESSAGES, st.data())
def test_messages_survive_fragments_and_any_cut(messages: list[tuple[int, bytes, int]], data: st.DataObject) -> None:
    stream = b""
    expected: list[Message] = []
    for opcode, payload, pieces in messages:
        cut = -(-len(payload) // pieces) or 1
        parts = [payload[at : at + cut] for at in range(0, len(payload), cut)] or [b""]
        for number, part in enumerate(parts):
            stream += encode(opcode if number == 0 else 0, part, final=number == len(parts) - 1)
            if number < len(parts) - 1:
                stream += encode(PING, b"heartbeat")
                expected.append((PING, b"heartbeat"))
        expected.append((opcode, payload))
    deframer, seen, at = FrameDecoder(1_000_000), [], 0
    while at < len(stream):
        size = data.draw(st.sampled_from([1, 2, 3, 1000, 65_536])) if len(stream) < 5_000 else 65_000
        seen += deframer.feed(stream[at : at + size])
        at += size
    assert seen == expected


@pytest.mark.parametrize(
    "stream",
    [
        encode(TEXT, b"x" * 1001),
        encode(TEXT, b"x" * 600, final=False) + encode(0, b"x" * 600),
        encode(TEXT, b"x", masked=True),
        bytes([0xC1, 0]),  # a reserved bit: compression was never offered
        encode(0, b"x"),
        encode(TEXT, b"x", final=False) + encode(TEXT, b"y"),
        encode(TEXT, b"x", final=False) + encode(BINARY, b"y", final=False),
        encode(5, b"x"),
        encode(PING, b"x" * 126),
        encode(PING, b"x", final=False),
    ],
)
def test_frames_that_the_protocol_forbids_raise_a_framing_error(stream: bytes) -> None:
    with pytest.raises(FramingError):
        FrameDecoder(1000).feed(stream)


def test_a_frame_too_large_is_refused_before_it_is_received() -> None:
    with pytest.raises(FramingError, match="allowed"):
        FrameDecoder(1000).feed(encode(TEXT, b"x" * 100_000)[:10])
