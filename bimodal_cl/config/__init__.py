"""The configuration of a training run: schema, sources, checks."""
