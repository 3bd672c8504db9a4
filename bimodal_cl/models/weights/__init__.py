"""Weights files and folders, whoever wrote them."""
