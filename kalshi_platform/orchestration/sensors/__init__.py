"""Supervision: sensors that keep the endless services alive."""
