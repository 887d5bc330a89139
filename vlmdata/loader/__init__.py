"""Reads training samples from tars: `stream` and its parts."""
