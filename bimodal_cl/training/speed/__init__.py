"""Switches that make a step faster or smaller, and the clock that shows where its time goes."""
