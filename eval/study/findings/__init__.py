"""What a study found: scores with intervals, tests paired by seed, and their tables, figures and page."""
