"""Descriptions of jobs that people launch: what a job does, and an example of its run config. Pure."""

from __future__ import annotations

from textwrap import dedent


def with_example(text: str, run_config: str) -> str:
    """Return the description with an example of run config (YAML) below it, as the launchpad takes it."""
    return f"{text}\n\nExample of run config:\n\n```yaml\n{dedent(run_config).strip()}\n```"
