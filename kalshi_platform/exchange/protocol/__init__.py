"""Runs a WebSocket session as a pure state machine: frames and receive times in, frames with marks and commands out."""
