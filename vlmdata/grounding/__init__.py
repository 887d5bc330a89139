"""Boxes in texts: which words stand for which boxes, and how each family of models writes boxes."""
