"""Write items as shards with a manifest."""
