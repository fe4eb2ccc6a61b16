from __future__ import annotations

import pytest

from kalshi_platform_tests.unit.lake.loaders.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "lake")
