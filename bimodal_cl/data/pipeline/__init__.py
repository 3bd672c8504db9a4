"""Turn a schedule into batches: the stages, and the stream that runs them in workers."""
