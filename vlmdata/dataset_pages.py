"""The pages of a dataset that people and the Hub read: report.html, README.md and croissant.json."""

from __future__ import annotations

from typing import Any

from vlmdata.card import CARD, write_card
from vlmdata.engine.store.store_protocol import Store
from vlmdata.report.write import REPORT, write_report


def write_pages(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the pages beside the files that a manifest lists, and return their sizes and SHA-256 for it."""
    return {REPORT: write_report(store, manifest), **write_card(store, manifest)}


def rewrite_pages(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write those pages again that a manifest lists: they show samples or count them. Returns their facts for it."""
    facts: dict[str, Any] = {}
    if REPORT in manifest["files"]:
        store.delete(REPORT)
        facts[REPORT] = write_report(store, manifest)
    if CARD in manifest["files"]:
        facts |= write_card(store, manifest)
    return facts
