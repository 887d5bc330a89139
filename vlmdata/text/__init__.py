"""Measures of texts: words, quality, personal data."""
