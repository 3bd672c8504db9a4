"""Show the temperatures that a run learned, one for each image and each text."""
