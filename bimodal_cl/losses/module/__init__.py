"""Run a loss: build it from keyword arguments, check batches, hold its state, average over the global batch."""
