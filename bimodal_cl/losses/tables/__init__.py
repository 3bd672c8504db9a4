"""Per-anchor state: one row for each image and each text of the data set."""
