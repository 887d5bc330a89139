"""Finds, scans and indexes tars, so that the location of each sample is known."""
