"""Compute losses of pairs of features instead of margins, with their gradients."""
