"""From samples to batches: reading, prompts, packing, the feed."""
