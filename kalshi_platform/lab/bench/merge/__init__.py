"""The benchmark of the merge, beside the naive way."""
