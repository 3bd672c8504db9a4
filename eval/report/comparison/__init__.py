"""Compare several runs or folders of results: rows are recipes, of one seed or several."""
