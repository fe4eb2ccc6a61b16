"""Talks to Kalshi: REST, WebSocket, signatures, parsing and the session state machine."""
