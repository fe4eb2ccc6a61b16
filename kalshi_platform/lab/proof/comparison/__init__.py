"""What was recorded, set against what the simulated exchange published."""
