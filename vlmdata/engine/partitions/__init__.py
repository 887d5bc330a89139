"""The plan, its partitions, what was measured of each, and what is never to come back."""
