"""Make the built-in data set: drawn scenes of coloured shapes with captions, without a download."""
