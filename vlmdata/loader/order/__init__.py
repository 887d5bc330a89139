"""The order of samples: seeded shuffling, blends, packing."""
