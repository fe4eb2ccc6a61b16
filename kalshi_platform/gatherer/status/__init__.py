"""One typed status of a gatherer; heartbeat, health, metrics and reports are views of it."""
