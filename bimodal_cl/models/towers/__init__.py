"""Build image towers and text towers."""
