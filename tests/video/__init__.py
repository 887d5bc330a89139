"""Tests of the decoding of videos."""
