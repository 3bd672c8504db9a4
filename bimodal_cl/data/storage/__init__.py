"""Open and read shards: local files, HTTP servers, object stores, the output of commands, and a cache of copies."""
