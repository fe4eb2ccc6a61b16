"""The block in `.env`: replaced at every start, never touching what the user wrote."""

from __future__ import annotations

import stat
from pathlib import Path

from dotenv import dotenv_values

from kalshi_platform.local.addresses import users_part, write_env_block


def test_the_users_lines_survive_and_the_block_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("KALSHI_API_KEY_ID=mine\n")
    write_env_block(path, {"A": "1", "B": "it's"})
    path.write_text(path.read_text() + "AFTER=too\n")
    write_env_block(path, {"A": "2"})
    assert dotenv_values(path) == {"KALSHI_API_KEY_ID": "mine", "A": "2", "AFTER": "too"}
    assert "KALSHI_API_KEY_ID=mine" in users_part(path)
    assert "A=" not in users_part(path).replace("KALSHI", "")


def test_values_come_back_exactly_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    values = {"A": 'it\'s $5 # \\ "x"', "B": "postgresql://u:p%40@h/x"}
    write_env_block(path, values)
    assert dotenv_values(path, interpolate=False) == values
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
