"""From tars to training samples: `stream` and what is below it."""
