"""The benchmark of exports to the lake, beside the naive way."""
