"""Stores records in append-only files while the database cannot be written."""
