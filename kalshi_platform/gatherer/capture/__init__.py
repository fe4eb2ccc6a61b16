"""Captures the exchange's data: WebSocket connections, and the poller of book snapshots."""
