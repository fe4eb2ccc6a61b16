"""Dagster's own storage: PostgreSQL (dagster-postgres) where one is configured, else SQLite files.

`dagster.yaml` can name an environment variable but offers no default for it, and then every Dagster command fails where
it is not set. With this storage, checking the definitions needs no settings, and any form of database URL works: a bare
`postgresql://` would need a driver that is not installed (SQLAlchemy 2.1). Decision 0003.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_postgres import DagsterPostgresStorage

from kalshi_platform import config
from kalshi_platform.storage.urls import sqlalchemy_url, with_settings
from kalshi_platform.surroundings import settle

# Dagster exports no class of its SQLite storage, and a custom storage cannot choose `storage: sqlite:` of dagster.yaml.
# So it is named as Dagster names it in instances that it has serialized: ConfigurableClassData finds the module of the
# installed version by this name (there is no module `dagster.core`). test_instance_storage.py stores a run in it, and
# fails for a Dagster that has moved it.
_SQLITE = ("dagster.core.storage.sqlite_storage", "DagsterSqliteStorage")


class PlatformStorage(DagsterPostgresStorage):  # type: ignore[misc]
    """dagster-postgres on the URL that `url_env` names; SQLite files below the state folder where it is not set."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of the `config` section in `dagster.yaml`."""
        return {"url_env": dg.Field(str, is_required=False, default_value="DAGSTER_DATABASE_URL")}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, str]) -> Any:
        """Make the storage; Dagster calls it in each of its processes, before that connects to anything."""
        settle()
        url = config.environment().get(config_value["url_env"], "").strip()
        if not url:
            folder = json.dumps({"base_dir": str(config.state_dir() / "dagster")})
            return type(inst_data)(*_SQLITE, folder).rehydrate()
        # Texts of runs are Unicode, whatever encoding the shell or the database role has.
        url = sqlalchemy_url(with_settings(url, {}, always={"client_encoding": "UTF8"}))
        return cls(postgres_url=url, should_autocreate_tables=True, inst_data=inst_data)
