"""Parts of a training step that the trainer calls."""
