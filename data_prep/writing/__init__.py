"""From items to shards with a manifest."""
