"""The benchmark of replaying a range of the lake."""
