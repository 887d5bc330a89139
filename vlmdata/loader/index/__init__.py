"""Finding, scanning and indexing tars: the location of each sample."""
