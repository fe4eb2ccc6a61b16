"""Recorded captures served through the same protocol, and captures made of a simulation."""
