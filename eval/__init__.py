"""Scores of checkpoints: zero-shot classification, retrieval, temperatures, reports."""
