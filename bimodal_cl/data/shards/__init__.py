"""Read shards of pairs: the manifest, mixtures, the index and table of rows, and random access to rows."""
