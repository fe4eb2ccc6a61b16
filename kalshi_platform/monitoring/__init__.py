"""How services are watched from outside: logs, metrics, health. Knows nothing of what they do."""
