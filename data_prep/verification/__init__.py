"""Every byte of a data set read and checked."""
