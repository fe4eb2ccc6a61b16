"""The benchmark of the merge, small: both ways store what was sent, and a production that does not is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kalshi_platform.cli import bench
from kalshi_platform.lab.bench.merge import benchmark as merge_module
from kalshi_platform.lab.bench.merge.naive_merge import merge_naively


def test_the_findings_say_how_fast_and_a_lost_row_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(sources: Mapping[str, str], production_url: str) -> tuple[int, int]:
        return merge_naively({"g1": sources["g1"]}, production_url)

    monkeypatch.setattr(merge_module, "merge_naively", forgetful)
    file = tmp_path / "findings.json"
    arguments = ["merge", "--json", str(file), "--rows", "3000", "--naive-rows", "1500", "--rounds", "1"]
    result = CliRunner().invoke(bench.app, arguments)
    assert result.exit_code == 1, result.output
    findings = json.loads(file.read_text())
    (lost,) = findings["lost"]
    assert lost.startswith("naive: ")
    assert "rows in production instead of" in lost
    ours, _ = findings["rounds"]
    assert (ours["who"], ours["lost"]) == ("platform", [])
    assert ours["rows_read"] == pytest.approx(3_000, rel=0.02)
    assert ours["rows_inserted"] == round(3_000 / 2.8)
    assert findings["rate_per_s"] > 0
    assert findings["ratio"] > 0
    assert findings["peak_rss_mib"] > 10
