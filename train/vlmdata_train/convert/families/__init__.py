"""Families of published models, one file each; see `convert/family.py`."""
