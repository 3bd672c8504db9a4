"""The report's figures: each is painted for the page, where it follows the colour scheme, or for a paper's column."""
