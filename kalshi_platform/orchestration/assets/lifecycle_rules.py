"""The S3 lifecycle of the lake (cold storage for raw data, cheaper storage for processed data), and its check."""

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import lifecycle_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import LIFECYCLE_RULES, OWNERS
from kalshi_platform.orchestration.resources import LakeResource


@dg.asset(
    key=LIFECYCLE_RULES,
    group_name="lake",
    owners=OWNERS,
    kinds={"s3"},
    retry_policy=RETRY,
    description=(
        "The bucket's lifecycle: raw/ to Glacier after 30 days, processed/ to Infrequent Access after 90 days, "
        "uploads that never ended removed after 7. A lake in a folder has none."
    ),
)
def lifecycle_rules(lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Apply the configured lifecycle rules to the lake's bucket."""
    from kalshi_platform.lake.lifecycle import apply

    with as_failure():
        report = apply(lake.settings())
    return dg.MaterializeResult(metadata=lifecycle_metadata(report))


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
