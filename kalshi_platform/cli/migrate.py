"""`kalshi-platform migrate`: brings every configured database up to date."""

from __future__ import annotations

from kalshi_platform.cli.console import print_line


def migrate() -> None:
    """Apply the numbered files of sql/ to every configured database, and grant roles (safe to repeat)."""
    from kalshi_platform.config import load_owned_databases
    from kalshi_platform.storage.migrate import migrate as apply
    from kalshi_platform.storage.pool import Database

    for each in load_owned_databases():
        database = Database(each.url, name=each.name)
        try:
            done = apply(database, each.kind)
        finally:
            database.dispose()
        mode = f", {done.mode} mode" if done.mode else ""
        print_line(f"{each.name}: {len(done.applied) or 'no'} new file{'' if len(done.applied) == 1 else 's'}{mode}")
        if done.roles_missing:
            print_line(
                f"{each.name}: this login may not create roles: have an administrator run CREATE ROLE for"
                f" {', '.join(done.roles_missing)}, then migrate again"
            )
