"""Benchmarks of retrieval among many images and captions."""
