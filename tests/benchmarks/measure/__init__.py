"""Measure times and peak memory, and print them as tables: what every benchmark uses."""
