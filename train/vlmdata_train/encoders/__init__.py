"""Image towers. Methods of a part:

- `facts()` returns its `EncoderFacts`, without loading weights,
- `build()` returns the module: normalised pixels (P, 3, H, W) -> features (P, N, C), N patches in reading order, C the width
  in the facts.
"""
