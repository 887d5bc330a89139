"""Signals, threads that cannot start, and lack of memory."""
