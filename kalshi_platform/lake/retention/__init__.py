"""Retention: what the lake verifiably holds goes from the databases when it is old; their ledgers stay bounded."""
