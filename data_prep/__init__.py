"""Convert raw image-text data to WebDataset shards with a manifest; runs without torch."""
