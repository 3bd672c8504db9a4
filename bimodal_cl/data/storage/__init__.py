"""Where the bytes of shards come from: local files, HTTP servers, object stores, commands, a cache."""
