"""Reads PDFs in a process of its own: pages as pictures, words with boxes, and the reading order of text and figures."""
