"""Search for near duplicates: hashes, embeddings, clusters."""
