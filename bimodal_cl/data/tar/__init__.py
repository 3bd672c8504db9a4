"""Find the members and samples of a tar from its headers, all at once."""
