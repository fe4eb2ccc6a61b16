"""The block in `.env`: replaced at every start, never touching what the user wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.local.addresses import BLOCK_END, BLOCK_START, users_part, write_env_block, write_local_json

MINE = "KALSHI_API_KEY_ID=mine\n"


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
    values = {"A": 'it\'s $5 # \\ "x" `id` $(id)', "B": "postgresql://u:p%40@h/x", "C": "/a ü/${HOME}b/${x:-y}/$HOME"}
    write_env_block(path, values)
    assert dotenv_values(path) == values
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_everything_around_the_block_stays_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    before, after = b"\r\n# mine\r\nA='x\x0by'\n\n\n", b"\n\nB=\xc3\xbc\r\n  \nC=3"
    block = f"{BLOCK_START}\nOLD='1'\n{BLOCK_END}\n".encode()
    path.write_bytes(before + block + after)
    write_env_block(path, {"NEW": "2"})
    assert path.read_bytes() == before + block.replace(b"OLD='1'", b"NEW='2'") + after
    write_env_block(path, {"NEW": "2"})
    assert path.read_bytes() == before + block.replace(b"OLD='1'", b"NEW='2'") + after


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["X=1", BLOCK_START, "OLD='1'", MINE.strip()], "line 2 .* end.* is gone"),
        (["OLD='1'", BLOCK_END, MINE.strip()], "line 2 .* begin.* is gone"),
        ([BLOCK_END, MINE.strip(), BLOCK_START], "lines 1, 3 "),
        ([BLOCK_START, "OLD='1'", MINE.strip(), BLOCK_START, "OLD='1'", BLOCK_END], "lines 1, 4, 6 "),
    ],
)
def test_where_the_marks_are_broken_nothing_is_written_and_the_line_is_named(
    tmp_path: Path, lines: list[str], says: str
) -> None:
    """What is between could be the user's: a key, say."""
    path = tmp_path / ".env"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=rf"\.env: .*{says}"):
        write_env_block(path, {"A": "2"})
    with pytest.raises(ConfigurationError, match=says):
        users_part(path)
    assert path.read_bytes() == before


def test_a_link_stays_a_link_and_the_file_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    kept = tmp_path / "secrets" / "platform.env"
    kept.parent.mkdir()
    kept.write_text(MINE, encoding="utf-8")
    kept.chmod(0o640)
    owner = (4711, 4712) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(kept, *owner)
    path = tmp_path / ".env"
    path.symlink_to(kept)
    write_env_block(path, {"A": "1"})
    assert path.is_symlink()
    assert dotenv_values(kept) == {"KALSHI_API_KEY_ID": "mine", "A": "1"}
    found = kept.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, *owner)
    assert [each.name for each in kept.parent.iterdir()] == ["platform.env"]


def test_a_link_to_nothing_makes_the_file_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.symlink_to("later.env")
    write_env_block(path, {"A": "1"})
    assert dotenv_values(tmp_path / "later.env") == {"A": "1"}
    assert stat.S_IMODE((tmp_path / "later.env").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/\.env cannot be"):
        write_env_block(tmp_path / "file" / ".env", {"A": "1"})
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        write_env_block(tmp_path / ".env", {"A": "/data/\udcfc"})
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_addresses_for_scripts_are_private_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    path.write_text("{}", encoding="utf-8")
    path.chmod(0o644)
    write_local_json(path, {"a": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
