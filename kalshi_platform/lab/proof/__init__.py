"""Proves a recording: runs the platform against the simulated exchange under faults and compares what it kept."""
