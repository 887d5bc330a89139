"""Readers that turn source files into rows: tables, JSON, tars, folders, conversations, image bytes."""
