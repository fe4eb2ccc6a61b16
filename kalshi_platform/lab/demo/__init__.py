"""The demo's past: a simulated exchange begins some hours ago and catches up, and Dagster's runs close these hours."""
