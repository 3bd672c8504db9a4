"""Image towers and text towers."""
