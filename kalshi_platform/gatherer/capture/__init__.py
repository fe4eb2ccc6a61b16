"""Connections to the exchange, and the poller of book snapshots."""
