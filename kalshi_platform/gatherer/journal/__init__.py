"""Append-only files that hold what the database could not take yet."""
