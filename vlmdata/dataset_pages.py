"""Writes the files that describe a dataset: report.html, README.md, croissant.json and sizes.json."""

from __future__ import annotations

from typing import Any

from vlmdata.card import CARD, write_card
from vlmdata.engine.output.sample_counts import COUNTS, write_counts
from vlmdata.engine.store.store_protocol import Store
from vlmdata.report.write import REPORT, write_report


def write_pages(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the pages into the dataset and return their sizes and SHA-256 for the manifest."""
    return {REPORT: write_report(store, manifest), **write_card(store, manifest), COUNTS: write_counts(store, manifest)}


def rewrite_pages(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Rewrite the pages that the manifest lists, after samples were removed. Return their new sizes and SHA-256."""
    facts: dict[str, Any] = {}
    if REPORT in manifest["files"]:
        store.delete(REPORT)
        facts[REPORT] = write_report(store, manifest)
    if CARD in manifest["files"]:
        facts |= write_card(store, manifest)
    if COUNTS in manifest["files"]:
        facts[COUNTS] = write_counts(store, manifest)
    return facts
