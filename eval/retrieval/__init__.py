"""Score retrieval in both directions."""
