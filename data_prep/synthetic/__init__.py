"""The embedded data set: procedurally drawn scenes of coloured shapes with captions; nothing is downloaded."""
