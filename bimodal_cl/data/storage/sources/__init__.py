"""Read a file from where its location says: HTTP servers, fsspec file systems, commands."""
