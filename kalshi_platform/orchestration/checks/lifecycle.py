"""Check of the bucket's lifecycle rules: they read back as this platform wants them."""

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import lifecycle_metadata
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.keys import LIFECYCLE_RULES
from kalshi_platform.orchestration.resources import LakeResource


@dg.asset_check(
    asset=LIFECYCLE_RULES,
    name="lifecycle_reads_back",
    description="The rules read from the bucket are the rules this platform wants. A folder has none and passes.",
)
def lifecycle_reads_back(lake: LakeResource) -> dg.AssetCheckResult:
    """Compare the bucket's rules with those that were applied."""
    from kalshi_platform.lake.lifecycle import read_back

    with as_failure():
        report = read_back(lake.settings())
    return dg.AssetCheckResult(passed=not report.differences, metadata=lifecycle_metadata(report))
