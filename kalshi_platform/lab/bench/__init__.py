"""Benchmarks, each beside the naive way to do the same work, in the same run on the same data and server.

One module per benchmark (`gatherer`); what they share: `result` (table and JSON), `measure` (CPU, memory, quantiles),
`stack` (servers and child processes in a folder of their own), `host` (how a measured child process reports).
"""
