"""Storage of a dataset: a local folder or an object store, with exclusive creation of files."""
