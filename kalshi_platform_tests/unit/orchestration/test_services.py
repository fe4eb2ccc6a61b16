"""What a code location must know of a gatherer: little to watch it, all to launch its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kalshi_platform import config
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.orchestration.resources import PlatformResource
from kalshi_platform.orchestration.services import load_gatherer_service, load_gatherer_to_launch


@pytest.fixture
def without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's code location on AWS and Kubernetes: all databases of g1, and no key of the exchange."""
    monkeypatch.chdir(tmp_path)
    for name in ("KALSHI_API_KEY_ID", "KALSHI_PRIVATE_KEY_PATH", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KALSHI_GATHERERS", "g1,g2")
    monkeypatch.setenv(config.timeseries_variable("g1"), "postgresql://u@127.0.0.1:1/t")
    monkeypatch.setenv(config.catalog_variable("g1"), "postgresql://u@127.0.0.1:1/c")


@pytest.mark.usefixtures("without_a_key")
def test_gatherer_without_a_key_of_the_exchange_is_watched_and_not_launched() -> None:
    assert load_gatherer_service("g1").name == "gatherer/g1"
    with pytest.raises(ConfigurationError, match="KALSHI_API_KEY_ID"):
        load_gatherer_to_launch("g1")


@pytest.mark.usefixtures("without_a_key")
def test_gatherer_that_cannot_be_launched_names_all_problems_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_gatherer_to_launch("g2")
    text = "\n".join(raised.value.problems)
    assert "KALSHI_API_KEY_ID" in text
    assert config.timeseries_variable("g2") in text


@pytest.mark.usefixtures("without_a_key")
def test_public_reads_of_the_platform_need_no_key() -> None:
    assert PlatformResource().rest_client()
