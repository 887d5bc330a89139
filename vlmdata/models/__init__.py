"""Models that score images and texts, and how they are found and loaded."""
