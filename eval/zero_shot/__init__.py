"""Score zero-shot classification."""
