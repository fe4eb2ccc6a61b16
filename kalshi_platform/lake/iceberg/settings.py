"""Defines which table catalog the lake is registered in."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.setting import setting

OWN_SCHEMA = "iceberg"
"""The schema of the production database that holds the catalog's own tables."""


@dataclass(frozen=True)
class IcebergSettings:
    """The catalog of the Iceberg tables.

    `production_url` is the database that holds it where no `catalog_uri` is given.
    """

    production_url: str | None = field(default=None, repr=False)
    catalog_uri: str = field(
        default="",
        repr=False,
        metadata=setting(
            "KALSHI_ICEBERG_CATALOG_URI",
            "the catalog of the Iceberg tables: URL of a REST catalog, a PostgreSQL database or an SQLite file",
            secret=True,
            default="a SQL catalog in the production database, schema `iceberg`",
        ),
    )
    warehouse: str = field(
        default="",
        metadata=setting("KALSHI_ICEBERG_WAREHOUSE", "the warehouse to name to a REST catalog, where it has several"),
    )
    token: str = field(
        default="",
        repr=False,
        metadata=setting("KALSHI_ICEBERG_TOKEN", "the bearer token for a REST catalog", secret=True),
    )
    credential: str = field(
        default="",
        repr=False,
        metadata=setting("KALSHI_ICEBERG_CREDENTIAL", "`client:secret` for a REST catalog with OAuth2", secret=True),
    )
    use_sigv4: bool = field(
        default=False,
        metadata=setting(
            "KALSHI_ICEBERG_SIGV4",
            "whether requests to the REST catalog are signed with the AWS keys, as AWS Glue and S3 Tables want",
        ),
    )
    namespace_prefix: str = field(
        default="",
        metadata=setting(
            "KALSHI_ICEBERG_NAMESPACE_PREFIX",
            "what the namespaces `raw`, `processed` and `aggregates` begin with, for a catalog that others use too",
        ),
    )

    @property
    def is_rest(self) -> bool:
        """Whether the catalog is spoken to over HTTP."""
        return self.catalog_uri.startswith(("http://", "https://"))
