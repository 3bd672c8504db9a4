"""What shards hold: the manifest, samples, row tables, and random access to rows."""
