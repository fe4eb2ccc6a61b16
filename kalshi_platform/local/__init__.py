"""The embedded stack on one machine: PostgreSQL servers, child processes, and the watchdog over Dagster."""
