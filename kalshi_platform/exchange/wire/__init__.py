"""Defines the objects and frames that Kalshi sends, as structs."""
