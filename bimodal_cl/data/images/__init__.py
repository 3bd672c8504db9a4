"""Decode and augment images."""
