"""The job that switches services off and on from the UI: the same switch as `kalshi-platform switch`."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from kalshi_platform import config as settings
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.descriptions import with_example
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import write_switch


class SwitchConfig(dg.Config):
    """Which services, and whether they are to run.

    The field is not called `on`, which YAML reads as a truth value.
    """

    services: list[str] = Field(
        description="Names of services: g1 or gatherer/g1 for a gatherer, deduplicator for the live merge."
    )
    enabled: bool = Field(
        default=True, description="true: they are kept running. false: they stop within seconds, and stay off."
    )
    reason: str = Field(default="", description="Why; shown by `kalshi-platform switch`.")


@dg.op(
    name="switch",
    description="Writes the switch of each service into that service's own database (table service_switches).",
)
def switch(context: dg.OpExecutionContext, config: SwitchConfig) -> None:
    """Write the switches; all names and addresses are read before the first is written."""
    with as_failure():
        names = [settings.find_service(each) for each in config.services]
        addresses = {name: settings.load_service_database(name) for name in names}
        for name, url in addresses.items():
            _write(name, url, enabled=config.enabled, reason=config.reason or f"Dagster run {context.run_id}")
            consequence = "it is launched within seconds" if config.enabled else "it stops within seconds"
            context.log.info("service_switched service=%s enabled=%s: %s", name, config.enabled, consequence)


def make_switch_services_job(services: Sequence[str]) -> dg.JobDefinition:
    """Make the job; launched as it is, it switches all of `services` on."""

    @dg.job(
        name="switch_services",
        executor_def=dg.in_process_executor,
        config=dg.RunConfig(ops={"switch": SwitchConfig(services=list(services))}),
        tags={"kalshi/kind": "operation"},
        description=with_example(
            "Switches gatherers and the live merge off and on. Switched off, a service stops within seconds after "
            "writing what it holds, and stays off; terminating its run alone does not keep it off. Launched as it is, "
            "the job switches everything on.",
            """
            ops:
              switch:
                config:
                  services: [g2]
                  enabled: false
                  reason: maintenance
            """,
        ),
    )
    def switch_services() -> None:
        switch()

    return switch_services


def _write(service: str, url: str, *, enabled: bool, reason: str) -> None:
    database = Database(url, name=service, application="kalshi-platform dagster", pool_size=1)
    try:
        write_switch(database, service, enabled=enabled, reason=reason)
    finally:
        database.dispose()
