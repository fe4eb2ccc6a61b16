"""The generated parts of the documents are what the declarations in the code make of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kalshi_platform
from kalshi_platform.reference_docs import (
    END,
    GENERATED,
    PARTS,
    SECTIONS,
    Part,
    container_examples,
    documented,
    regenerated,
)

PACKAGE = Path(kalshi_platform.__file__).parent
ROOT = PACKAGE.parent


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.path)
def test_a_generated_part_is_up_to_date(part: Part) -> None:
    text = (ROOT / part.path).read_text(encoding="utf-8")
    assert text == regenerated(text, part.make), "run: make docs"


def test_every_declared_setting_is_documented() -> None:
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "setting.py"]
    declared = {name for text in sources for name in re.findall(r'\bsetting\(\s*"([^"]+)"', text)}
    assert len(declared) > 40
    assert declared == {each.setting.name for section in SECTIONS for each in documented(section)}


def test_a_default_is_shown_in_the_unit_of_its_variable() -> None:
    shown = {each.setting.name: each for section in SECTIONS for each in documented(section)}
    assert shown["KALSHI_JOURNAL_MAX_GIB"].default == "`100`"
    assert shown["KALSHI_HOURS_AHEAD"].default == "`48`"
    assert shown["KALSHI_TIME_MARGIN_S"].bounds == "0.001 … 60 s"
    assert shown["KALSHI_API_KEY_ID"].default == "required"


def test_comments_of_generated_examples_cut_no_word() -> None:
    comments = " ".join(line.removeprefix("# ") for line in container_examples("") if line.startswith("# "))
    meanings = " ".join(each.setting.meaning for section in SECTIONS for each in documented(section))
    addresses = set(re.findall(r"`(\w+://[^`]+)`", meanings))
    assert len(addresses) >= 2, "no meaning names an address any more: this test needs another example"
    assert addresses <= {word.rstrip(".,;") for word in comments.split()}


def test_what_is_written_by_hand_stays_and_a_missing_marker_is_refused() -> None:
    text = f"before\n<!-- {GENERATED} -->\nold\n<!-- {END} -->\nafter\n"
    assert regenerated(text, lambda _: iter(["new"])) == text.replace("old", "new")
    with pytest.raises(ValueError, match="needs one line"):
        regenerated("before\nafter\n", lambda _: iter(["new"]))
