"""The search for secrets finds them: what it did not find would be no proof of anything."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform_tests.fixtures.secret_search import SecretSearch

SECRET = "marked/s3+secret=9d2b"


@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_base64_is_recognised_at_any_place_of_a_longer_text(before: bytes, after: bytes) -> None:
    search = SecretSearch({"it": SECRET.encode()})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert search.in_bytes(encode(before + SECRET.encode() + after)) == ["it"]


@pytest.mark.parametrize(
    "text",
    [SECRET, json.dumps({"a": SECRET}), quote(SECRET, safe=""), SECRET.encode().hex(), SECRET.encode().hex().upper()],
)
def test_a_secret_is_found_in_every_form_and_in_no_other_text(text: str) -> None:
    search = SecretSearch({"it": SECRET.encode(), "another": b"not in there"})
    assert search.in_bytes(f"before {text} after".encode()) == ["it"]
    assert search.in_bytes(f"before {text[:-3]}".encode()) == []


def test_files_are_searched_and_parquet_by_its_values(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(f"x {SECRET}")
    (tmp_path / ".env").write_text(SECRET)
    (tmp_path / "empty").touch()
    # Repeated, so that it is compressed away.
    pq.write_table(pa.table({"a": [f"{SECRET} {n}" for n in range(100)]}), tmp_path / "a.parquet", compression="zstd")
    found = SecretSearch({"it": SECRET.encode()}).in_files(tmp_path, may_hold=lambda path: path.name == ".env")
    assert {each.rsplit("/", 1)[-1] for each in found} == {"a.parquet", "run.log"}
