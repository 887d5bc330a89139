"""From samples to batches: read samples, make their prompts, and put the prompts into batches."""
