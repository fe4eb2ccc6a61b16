"""A Kalshi-shaped exchange: REST and WebSocket protocol, seeded activity, a ground-truth ledger and injected faults.

Shares no code with the client (it imports `errors` and `clock` only), so that client and simulator cannot share a
mistake.
"""
