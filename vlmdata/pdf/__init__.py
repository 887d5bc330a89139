"""Reads PDFs in a separate process: pages as pictures, words with boxes, and the reading order of text and figures."""
