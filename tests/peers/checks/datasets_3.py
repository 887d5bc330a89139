"""The library datasets in an old version: the check of the newest version, without a change."""

import runpy
from pathlib import Path

REQUIREMENTS = ["datasets==3.0", "pillow"]
EXPORTS = [
    {"data": "captions", "to": "parquet"},
    {"data": "documents", "to": "parquet"},
    {"data": "chats", "to": "parquet"},
    {"data": "captions", "to": "hf"},
    {"data": "documents", "to": "hf"},
    {"data": "documents", "to": "obelics"},
    {"data": "rare_captions", "to": "parquet"},
    {"data": "rare_documents", "to": "obelics"},
    {"data": "chats", "to": "messages", "options": {"form": "parquet"}},
]

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("datasets.py")), run_name="__main__")
