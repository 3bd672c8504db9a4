"""Benchmarks of a training: the whole command against open_clip's, and the cost of a step beyond its model and loss."""
