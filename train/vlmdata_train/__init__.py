"""Trains vision-language models on datasets that vlmdata built."""
