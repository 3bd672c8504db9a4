"""Define the parts of a loss's declaration: base class, temperature and weight rules. Importing this loads no torch."""
