"""Evaluate models: zero-shot classification, retrieval, learned temperatures, reports."""
