"""Reads the journal, decodes it into records, and commits rows, ledger and position together."""
