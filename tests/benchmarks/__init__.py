"""Benchmarks: printed tables, never passed or failed by time. `make bench`, `make bench ARGS="losses --help"`."""
