"""The checks before a run: one file per kind of mistake, and `examine`, which makes them all and returns a line for each."""
