"""Images: decoding and encoding within limits, hashes and measures."""
