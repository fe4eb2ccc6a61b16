"""Record what Kalshi publishes, merge it exactly once, prove that the record is complete."""
