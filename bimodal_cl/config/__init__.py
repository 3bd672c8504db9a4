"""The configuration of a training run: its schema, YAML files and flags, error messages and checks."""
