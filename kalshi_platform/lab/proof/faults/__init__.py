"""What a proof run injects, when, and what it observes meanwhile."""
