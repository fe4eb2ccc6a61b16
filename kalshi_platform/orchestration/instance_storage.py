"""Where Dagster keeps its runs and events: PostgreSQL (dagster-postgres) where one is configured, else SQLite files.

`dagster.yaml` can name an environment variable but offers no default for it, and then every Dagster command fails where
it is not set. With this storage, checking the definitions needs no settings, and any form of database URL works: a bare
`postgresql://` would ask for a driver that is not installed (SQLAlchemy 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage

from kalshi_platform import config
from kalshi_platform.storage.urls import sqlalchemy_url, with_settings
from kalshi_platform.surroundings import settle


class PlatformStorage(DagsterPostgresStorage):  # type: ignore[misc]
    """dagster-postgres on the URL that `url_env` names; files below the state folder where it is not set."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"url_env": dg.Field(str, is_required=False, default_value="DAGSTER_DATABASE_URL")}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> DagsterStorage:
        # Every process of Dagster comes by here before it connects to anything, however it was started.
        settle()
        url = config.environment().get(config_value["url_env"], "").strip()
        if url:
            # Whatever the shell or the role says: what runs say is Unicode.
            url = sqlalchemy_url(with_settings(url, {}, always={"client_encoding": "UTF8"}))
            return cls(postgres_url=url, should_autocreate_tables=True, inst_data=inst_data)
        return DagsterSqliteStorage.from_local(str(config.state_dir() / "dagster"), inst_data=inst_data)
