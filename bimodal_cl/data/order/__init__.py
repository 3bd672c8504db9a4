"""Compute the order of samples: pure functions of seed, epoch and step."""
