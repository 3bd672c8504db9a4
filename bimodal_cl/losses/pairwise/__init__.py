"""The arithmetic of losses that look at pairs of features instead of margins."""
