"""Reading training samples from tars: `stream` and its parts."""
