"""Rows of COPY's binary format as records, however the stream of them is cut."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import StatementRejected
from kalshi_platform.market.tables import Column
from kalshi_platform.storage.fixed_rows import decode, has_fixed_width

COLUMNS = (
    Column("a", "integer", "A."),
    Column("b", "text", "Travels as a hash."),
    Column("t", "timestamptz", "A time."),
)
_EPOCH_US = 946_684_800_000_000
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)


def stream(rows: list[tuple[int, int, int]]) -> bytes:
    packed = (struct.pack(">hiiiqiq", 3, 4, a, 8, b, 8, t - _EPOCH_US) for a, b, t in rows)
    return HEADER + b"".join(packed) + struct.pack(">h", -1)


def blocks_of(content: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[low:high] for low, high in itertools.pairwise(edges)]


@given(
    st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**60))),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_any_split_into_blocks_gives_the_rows(rows: list[tuple[int, int, int]], places: list[int]) -> None:
    found = [tuple(record) for part in decode(blocks_of(stream(rows), places), COLUMNS) for record in part.tolist()]
    assert found == rows


@pytest.mark.parametrize(
    "content",
    [
        stream([(1, 2, 3)])[:-1],
        stream([(1, 2, 3)])[:-2],
        b"",
        HEADER,
        stream([(1, 2, 3)]).replace(struct.pack(">hi", 3, 4), struct.pack(">hi", 3, 5)),
        HEADER + struct.pack(">hiiiiq", 3, 4, 1, -1, 8, 3) + struct.pack(">h", -1),
    ],
)
def test_a_stream_of_another_width_or_that_is_cut_is_refused(content: bytes) -> None:
    with pytest.raises(StatementRejected, match=r"width|cut"):
        list(decode([content], COLUMNS))


def test_what_can_be_null_or_long_has_no_fixed_width() -> None:
    assert has_fixed_width(COLUMNS)
    for column in (
        Column("a", "integer", "A.", nullable=True),
        Column("a", "integer[]", "A."),
        Column("a", "jsonb", "A."),
    ):
        assert not has_fixed_width((*COLUMNS, column))
