"""The checks of results, one module a letter; each maps a scope to its findings."""
