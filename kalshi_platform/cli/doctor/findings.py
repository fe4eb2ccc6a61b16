"""What `doctor` finds: one line for each thing that was looked at, with the remedy. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Mark: TypeAlias = Literal["ok", "warn", "fail"]
_WORDS: dict[Mark, str] = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `subject`, how it is, and what to do where it is not as it should be."""

    subject: str
    mark: Mark
    text: str
    remedy: str = ""


def finding_of_problem(subject: str, problem: str) -> Finding:
    """Make a failure of a sentence that ends with its remedy, as errors of settings do: `X is missing: set it to …`."""
    text, separator, remedy = problem.partition(": ")
    if separator and remedy.startswith(("set ", "run: ", "name ", "give ")):
        return Finding(subject, "fail", text, remedy.removeprefix("run: "))
    return Finding(subject, "fail", problem)


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Describe the findings in lines of text, a remedy below each that has one, and the sum."""
    width = max((len(each.subject) for each in findings), default=0)
    lines: list[str] = []
    for each in findings:
        lines.append(f"{_WORDS[each.mark]:<4}  {each.subject:<{width}}  {each.text}")
        if each.remedy:
            lines.append(f"{'':<4}  {'':<{width}}  → {each.remedy}")
    return [*lines, summary(findings)]


def summary(findings: Sequence[Finding]) -> str:
    """Say how many were found of each mark."""
    counts = {mark: sum(each.mark == mark for each in findings) for mark in _WORDS}
    return f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed"
