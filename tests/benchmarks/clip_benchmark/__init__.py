"""Score the same data sets with CLIP_benchmark and with our evaluator, and compare metrics and times."""
