"""The simulated exchange's REST and WebSocket server, and its control channel."""
