"""Image towers. A part answers `facts()`, the `EncoderFacts` known without weights, and `build()`, the module:
normalised pixels (P, 3, H, W) -> features (P, N, C), N patches in reading order, C the width in the facts."""
