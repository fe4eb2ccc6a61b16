"""Merging the gatherers' catalogs into production, with history."""
