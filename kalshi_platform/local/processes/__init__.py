"""Child processes: groups with restarts and orderly ends, trees of descendants, ports and signals."""
