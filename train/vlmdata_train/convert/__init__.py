"""Weights and checkpoints: saved, restored, read from and written as published models."""
