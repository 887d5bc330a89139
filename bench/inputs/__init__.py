"""Inputs for benchmarks and tests: archives, pages, tars, a certificate, and the place of the real data."""
