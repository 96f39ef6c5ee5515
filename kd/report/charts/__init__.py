"""Charts of one table, one module each."""
