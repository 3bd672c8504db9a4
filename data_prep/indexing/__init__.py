"""A manifest for shards that somebody else wrote."""
