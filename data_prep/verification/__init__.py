"""Read every byte of a data set, and check it."""
