"""Long runs: whether memory, files and lag stay flat."""
