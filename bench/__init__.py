"""Benchmarks: each file prints one table, with its peer or its floor measured in the same run. `python -m bench` runs all."""
