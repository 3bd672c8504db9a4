"""Scores of a dual encoder on pairs and on labelled images."""
