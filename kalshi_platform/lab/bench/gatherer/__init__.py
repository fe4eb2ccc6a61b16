"""The benchmark of the gatherer: socket to committed rows, beside the naive way."""
