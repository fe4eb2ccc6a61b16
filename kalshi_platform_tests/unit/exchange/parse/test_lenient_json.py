"""One broken text or number must not cost the rest of an answer or frame."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.legacy_fields import canonical_json
from kalshi_platform.exchange.parse.lenient_json import decode_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)  # fmt: skip


@given(VALUES)
def test_valid_json_is_decoded_unchanged(value: Any) -> None:
    assert decode_json(msgspec.json.encode(value)) == (value, 0)


@pytest.mark.parametrize(
    ("broken", "read"),
    [
        (rb'"Cheers \ud83c"', "Cheers \ufffd"),
        (rb'"\udf89 first"', "\ufffd first"),
        (b'"caf\xe9"', "caf\ufffd"),
        (b"1e999", "1e999"),
        (b"-1e999", "-1e999"),
        (b"9" * 5_000, "9" * 5_000),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
    ],
)
def test_only_broken_values_are_repaired(broken: bytes, read: object) -> None:
    body = b'{"markets":[{"ticker":"A","floor_strike":' + broken + b'},{"ticker":"B","title":"Z\xc3\xbcrich"}]}'
    value, changed = decode_json(body)
    markets = [{"ticker": "A", "floor_strike": read}, {"ticker": "B", "title": "Zürich"}]
    assert (value, changed) == ({"markets": markets}, 1)
    assert canonical_json(value)  # can be stored


def test_whole_emoji_survive_beside_half_ones() -> None:
    value, changed = decode_json(rb'["\ud83c\udf89", "\ud83c", "\ud83c\udf89\ud83c", "raw ' + b'\xf0\x9f\x8e\x89"]')
    assert value == ["🎉", "\ufffd", "🎉\ufffd", "raw 🎉"]
    assert changed == 2


def test_a_line_break_inside_a_text_is_read() -> None:
    assert decode_json(b'{"title":"two\nlines"}')[0] == {"title": "two\nlines"}


@given(st.binary(max_size=40) | st.sampled_from([b"", b"{", b'{"a":1}x', b"[" * 5_000, b"9" * 5_000, b'"\\ud83c']))
def test_anything_else_raises_unparsable_message(content: bytes) -> None:
    with contextlib.suppress(UnparsableMessage):
        assert decode_json(content)
