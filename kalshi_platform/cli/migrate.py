"""`kalshi-platform migrate`: brings every configured database up to date."""

from __future__ import annotations

from kalshi_platform.cli.console import print_line


def migrate() -> None:
    """Apply the numbered files of sql/ to every configured database (safe to repeat)."""
    from kalshi_platform.config import load_deduplicator
    from kalshi_platform.storage.migrate import DatabaseKind
    from kalshi_platform.storage.migrate import migrate as apply
    from kalshi_platform.storage.pool import Database

    settings = load_deduplicator()
    databases: list[tuple[str, str, DatabaseKind]] = [("production", settings.production_url, "production")]
    for source in settings.sources:
        databases.append((f"{source.name} timeseries", source.timeseries_url, "timeseries"))
        databases.append((f"{source.name} catalog", source.catalog_url, "catalog"))
    for name, url, kind in databases:
        database = Database(url, name=name)
        try:
            done = apply(database, kind)
        finally:
            database.dispose()
        mode = f", {done.mode} mode" if done.mode else ""
        print_line(f"{name}: {len(done.applied) or 'no'} new file{'' if len(done.applied) == 1 else 's'}{mode}")
