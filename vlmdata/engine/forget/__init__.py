"""Taking samples out of a dataset for good."""
