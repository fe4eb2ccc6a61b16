"""Runs a WebSocket session as a pure state machine: frames and receive times in, records and commands out."""
