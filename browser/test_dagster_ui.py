"""What a person does in the Dagster UI of a running demo, done by clicks in a real browser.

In the order of the file, on one demo. Dagster's GraphQL is asked only whether what was clicked came about.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from conftest import Demo, eventually
from playwright.sync_api import Page, expect

LOCATION = "kalshi_platform"
RUN_S = 600.0
SERVICE_S = 300.0
DELTAS = "/assets/production/orderbook_deltas"
TRADES = "/assets/lake/raw/trades"


def past_hours(demo: Demo) -> list[str]:
    """The first three hours of the demo's past, which it closes first."""
    local = json.loads((demo.data / "local.json").read_text(encoding="utf-8"))
    begin = datetime.fromisoformat(local["past_from"]).astimezone(UTC)
    return [f"{begin + timedelta(hours=number):%Y-%m-%d-%H:00}" for number in range(3)]


def service_run(demo: Demo, service: str) -> dict[str, Any] | None:
    """The run in progress that hosts a service."""
    for job in ("gather", "dedup_live"):
        for run in demo.runs(job):
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            if run["status"] == "STARTED" and tags.get("kalshi/service") == service:
                return run
    return None


def newest_run(demo: Demo, job: str, before: set[str]) -> dict[str, Any] | None:
    """The newest run of a job that was not there before."""
    return next((run for run in demo.runs(job) if run["runId"] not in before), None)


def ended(demo: Demo, run_id: str) -> str:
    """How a run ended; empty while it has not."""
    status = demo.ask(f'{{runOrError(runId: "{run_id}") {{... on Run {{status}}}}}}')["runOrError"]["status"]
    return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else ""


def materialize(page: Page, demo: Demo, address: str, partitions: str) -> str:
    """Materialize partitions on an asset's page, as a person does; return the id of the run."""
    before = {run["runId"] for run in all_runs(demo)}
    page.goto(demo.ui + address)
    page.get_by_role("button", name="Materialize…").click()
    confirm = page.get_by_role("button", name="Confirm")
    field = page.get_by_role("dialog").locator("input").first
    expect(confirm.or_(field)).to_be_visible()
    if confirm.is_visible():
        confirm.click()
    expect(field).to_be_visible()
    field.fill(partitions)
    field.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Launch").click()
    found = eventually(
        lambda: [run["runId"] for run in all_runs(demo) if run["runId"] not in before and is_of(run, partitions)],
        within_s=120, what=f"a run of {address} {partitions}",
    )  # fmt: skip
    return str(found[0])


def all_runs(demo: Demo) -> list[dict[str, Any]]:
    query = "{runsOrError(limit: 100) {... on Runs {results {runId status tags {key value}}}}}"
    return list(demo.ask(query)["runsOrError"]["results"])


def is_of(run: dict[str, Any], partitions: str) -> bool:
    """Whether a run is of a partition, or of a range written as [first...last]."""
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    first, _, last = partitions.strip("[]").partition("...")
    if not last:
        return tags.get("dagster/partition") == first
    return (tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")) == (
        first, last,
    )  # fmt: skip


def launch_switch(page: Page, demo: Demo, enabled: bool) -> None:
    """Launch the job that switches a gatherer, from its launchpad."""
    before = {run["runId"] for run in demo.runs("switch_services")}
    config = f"ops:\n  switch:\n    config:\n      services: [g2]\n      enabled: {str(enabled).lower()}\n"
    page.goto(f"{demo.ui}/locations/{LOCATION}/jobs/switch_services/playground")
    editor = page.locator(".CodeMirror").first
    expect(editor).to_contain_text("enabled")
    editor.click()
    page.keyboard.press("Control+A")
    page.evaluate("text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)", config)
    page.get_by_role("button", name="Launch Run").click()
    run = eventually(lambda: newest_run(demo, "switch_services", before), within_s=120, what="a run of the switch")
    assert eventually(lambda: ended(demo, run["runId"]), within_s=RUN_S, what="its end") == "SUCCESS"


def test_lineage_reads_from_the_exchange_to_the_lake(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    page.goto(demo.ui)
    page.get_by_role("link", name="Lineage").click()
    places = []
    for group in ("kalshi", "gatherer", "production", "lake"):
        box = page.locator("svg foreignObject").filter(has_text=group).first
        expect(box).to_be_visible()
        found = box.bounding_box()
        assert found is not None
        places.append(found["x"])
    assert places == sorted(places)
    picture("lineage")


def test_a_closed_hour_shows_its_checks_and_their_plot(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    hour = past_hours(demo)[1]
    page.goto(f"{demo.ui}{DELTAS}?view=partitions&partition={hour}")
    expect(page.get_by_text("dagster/row_count").or_(page.get_by_text("Row count")).first).to_be_visible()
    picture("closed_hour")
    page.goto(f"{demo.ui}{DELTAS}?view=checks&checkDetail=coverage_share")
    # The run that closes the rest of the past may still be at work.
    expect(page.get_by_text("Running")).to_have_count(0, timeout=RUN_S * 1_000)
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    assert page.get_by_text("Failed", exact=True).count() == 0
    page.get_by_text("[Show Markdown]").first.click()
    plot = page.locator("img[src^='data:image/png']").first
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 100
    picture("hour_checks")
    page.keyboard.press("Escape")


def test_the_run_of_a_gatherer_shows_what_it_records(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    run = eventually(lambda: service_run(demo, "gatherer/g2"), within_s=SERVICE_S, what="a run of g2")
    page.goto(f"{demo.ui}/runs")
    page.locator(f"a[href$='/runs/{run['runId']}']").first.click()
    expect(page.get_by_text("Started").first).to_be_visible()
    expect(page.get_by_role("button", name="Terminate").first).to_be_visible()
    picture("gatherer_run")


def test_a_gatherer_is_switched_off_and_on(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    run = eventually(lambda: service_run(demo, "gatherer/g2"), within_s=SERVICE_S, what="a run of g2")
    launch_switch(page, demo, enabled=False)
    assert eventually(lambda: ended(demo, run["runId"]), within_s=SERVICE_S, what="the end of g2") == "SUCCESS"
    page.goto(f"{demo.ui}/locations/{LOCATION}/sensors/gatherer_sensor")
    expect(page.get_by_text("gatherer_sensor").first).to_be_visible()
    assert service_run(demo, "gatherer/g2") is None
    assert service_run(demo, "gatherer/g1") is not None, "the others go on"
    picture("switched_off")
    launch_switch(page, demo, enabled=True)
    again = eventually(lambda: service_run(demo, "gatherer/g2"), within_s=SERVICE_S, what="a run of g2 again")
    assert again["runId"] != run["runId"]


def test_an_hour_is_materialized(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    run = materialize(page, demo, DELTAS, past_hours(demo)[0])
    assert eventually(lambda: ended(demo, run), within_s=RUN_S, what="the close") == "SUCCESS"
    page.goto(f"{demo.ui}/runs/{run}")
    expect(page.get_by_text("Success").first).to_be_visible()
    picture("materialized_hour")


def test_a_backfill_over_three_hours_is_one_run(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    hours = past_hours(demo)
    run = materialize(page, demo, TRADES, f"[{hours[0]}...{hours[-1]}]")
    assert eventually(lambda: ended(demo, run), within_s=RUN_S, what="the backfill") == "SUCCESS"
    page.goto(f"{demo.ui}/runs?view=backfills")
    expect(page.get_by_text("3 partitions").first).to_be_visible()
    picture("backfill")


def test_a_failed_partition_is_repaired(page: Page, demo: Demo, picture: Callable[[str], None]) -> None:
    hour = past_hours(demo)[0]
    # The disk does what it should not: a file stands where the folder of the partition was.
    date, _, of_day = hour.rpartition("-")
    folder = demo.lake / "raw" / "trades" / f"date={date}" / f"hour={of_day[:2]}"
    kept = folder.with_name("kept")
    shutil.move(folder, kept)
    folder.touch()
    try:
        run = materialize(page, demo, TRADES, hour)
        assert eventually(lambda: ended(demo, run), within_s=RUN_S, what="the failure") == "FAILURE"
        page.goto(f"{demo.ui}{TRADES}?view=partitions&partition={hour}")
        expect(page.get_by_text("Failed (1)")).to_be_visible()
        picture("failed_partition")
    finally:
        folder.unlink()
        shutil.move(kept, folder)
    before = {each["runId"] for each in all_runs(demo)}
    page.goto(f"{demo.ui}/runs/{run}")
    page.get_by_role("button", name="Re-execute").first.click()
    repair = eventually(
        lambda: [each["runId"] for each in all_runs(demo) if each["runId"] not in before and is_of(each, hour)],
        within_s=120, what="a run that repairs it",
    )  # fmt: skip
    assert eventually(lambda: ended(demo, repair[0]), within_s=RUN_S, what="the repair") == "SUCCESS"
    page.goto(f"{demo.ui}{TRADES}?view=partitions&partition={hour}")
    expect(page.get_by_text("Failed (0)")).to_be_visible()
