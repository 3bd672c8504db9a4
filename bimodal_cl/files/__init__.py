"""Files that people and other programs wrote: paths, text, image names, image modes."""
