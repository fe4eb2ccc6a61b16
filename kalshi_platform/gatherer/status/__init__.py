"""Defines one typed status of a gatherer, of which heartbeat, health, metrics and reports are views."""
