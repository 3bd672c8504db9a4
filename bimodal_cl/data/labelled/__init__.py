"""Open images with class labels, find their classes and name them."""
