"""Checkpoints, and the conversion from and to published models."""
