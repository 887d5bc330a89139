"""Extraction of interleaved documents from HTML pages."""
