"""What production can claim to hold of an hour: coverage, checkpoints, verification."""
