"""Encode data with a model in all processes, and keep the features for later commands."""
