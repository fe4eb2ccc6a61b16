"""Asking the exchange again for trades of hours that could not be compared when they were closed."""

import dagster as dg

from kalshi_platform.orchestration.jobs.batch import backfill_trades_job
from kalshi_platform.orchestration.keys import TRADES_BACKFILL
from kalshi_platform.orchestration.partitions import DAY, DAYS, day_key, range_request, ranges
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.orchestration.schedules.answers import answer, now_of, start_of
from kalshi_platform.orchestration.schedules.missing import LONGEST_RANGE, LOOK_BACK
from kalshi_platform.orchestration.trade_figures import days_to_compare


@dg.schedule(
    job=backfill_trades_job,
    cron_schedule="15 1 * * *",
    execution_timezone="UTC",
    name="compare_trades_again",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every day at 01:15 UTC: days of the last week with a closed hour whose trades could not be compared with the "
        "exchange's listing, or not wholly. Neighbouring days go into one run."
    ),
)
def compare_trades_again(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase
) -> list[dg.RunRequest] | dg.SkipReason:
    return answer(lambda: _unproved_days(context, production_database), production_database.settings)


def _unproved_days(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase
) -> list[dg.RunRequest] | dg.SkipReason:
    if not production_database.settings().check_trades:
        return dg.SkipReason("KALSHI_CHECK_TRADES says that trades are not to be compared")
    today = now_of(context).replace(hour=0, minute=0, second=0, microsecond=0)
    with production_database.database() as database:
        days = days_to_compare(database, max(start_of(DAYS), today - LOOK_BACK), today)
    asked = [
        range_request([TRADES_BACKFILL], day_key(first), day_key(last))
        for first, last in ranges(days, DAY, LONGEST_RANGE)
    ]
    return asked or dg.SkipReason(f"the trades of all closed hours of the last {LOOK_BACK.days} days were compared")
