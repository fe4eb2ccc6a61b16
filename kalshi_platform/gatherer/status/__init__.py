"""What a gatherer says of itself: heartbeat, health, metrics, run reports."""
