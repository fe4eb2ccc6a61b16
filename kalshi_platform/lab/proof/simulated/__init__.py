"""Simulated days: the whole chain by a clock that runs faster than the machine's, and what is proven of it."""
