"""Run a study: every method at every setting, equally tuned on validation data, then several seeds on test data."""
