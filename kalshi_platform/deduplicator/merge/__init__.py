"""Merging the gatherers' rows into production, each exactly once."""
