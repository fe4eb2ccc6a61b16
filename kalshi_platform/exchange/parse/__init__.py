"""Bytes of the exchange to records."""
