"""Decides which markets a gatherer follows, and keeps the catalog of them up to date."""
