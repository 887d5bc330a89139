"""Where a dataset lies: a local folder or an object store, with exclusive creation."""
