"""Find and load models that score images and texts."""
