"""Make the embedded data set: drawn scenes of coloured shapes with captions, without a download."""
