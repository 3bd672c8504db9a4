"""Features of locked towers, encoded once: the tables of a data set, and the stream of their batches."""
