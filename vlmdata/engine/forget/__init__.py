"""Permanent removal of samples from a dataset."""
