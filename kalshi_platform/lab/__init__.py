"""The test rig: a simulated exchange, the proof harness and the benchmarks."""
