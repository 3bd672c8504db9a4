"""The budget of a training step: bytes to send, bytes to keep, by formula; docs/scale.md shows them."""
