"""Score the choice between captions that differ in their order or in one word."""
