"""Image bytes to pixels and back, within limits; hashes and measures."""
