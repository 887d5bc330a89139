"""Benchmarks: each file prints one table that compares vlmdata with a peer or a lower bound measured in the same run.
`python -m bench` runs all."""
