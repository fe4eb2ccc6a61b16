"""Writes records from memory to the time-series database: rows and ledger, committed together."""
