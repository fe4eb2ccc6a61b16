"""Lakes on both kinds of root, and a production database with rows."""

from __future__ import annotations

from kalshi_platform_tests.fixtures.production import (  # noqa: F401 - fixtures
    Production,
    production,
    production_template,
)
from kalshi_platform_tests.fixtures.s3 import (  # noqa: F401 - fixtures
    lake_settings,
    old_s3_endpoint,
    s3_bucket,
    s3_client,
    s3_endpoint,
    s3_settings,
)
