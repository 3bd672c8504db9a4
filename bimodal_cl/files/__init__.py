"""Read what people and other programs wrote: paths, text files, and the names, formats and modes of images."""
