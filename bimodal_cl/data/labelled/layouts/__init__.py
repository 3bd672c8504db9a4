"""Read labelled images from each way of storing them."""
