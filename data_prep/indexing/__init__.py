"""Write a manifest for existing shards."""
