"""Name a concept for each image of existing shards, and thin the shards to a long tail of concepts."""
