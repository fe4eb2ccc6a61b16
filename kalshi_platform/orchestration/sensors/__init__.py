"""Sensors: what is looked at every few seconds."""
