"""report.html: gathered from a dataset's files, laid out by page.html, written as one file that needs no other."""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import escape

from vlmdata.engine.store.store_protocol import Store
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.report.example_images import clean
from vlmdata.report.gather import gather
from vlmdata.sizes import megabytes
from vlmdata.untrusted import Failed, errors_as

REPORT = "report.html"
HERE = Path(__file__).parent


def write_report(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write report.html beside the files that a manifest lists, and return its size and SHA-256 for the manifest.

    Depends on those files and `work/` alone, never on the time or the place: same dataset, same bytes. What cannot be drawn
    gives a page and a warning that say so, so that a dataset is finished without it; OSError and want of memory are raised,
    for the same command goes on after them.
    """
    try:
        with errors_as(_failed, passes=(OSError,)):  # the columns are those of anybody's steps
            page = render(gather(store, manifest))
    except Failed as failed:
        (error,) = failed.args
        said = f"report.html could not be drawn: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        warnings.warn(f"{said}. The dataset itself is whole", stacklevel=2)
        page = f"<!doctype html>\n<meta charset=utf-8>\n<p>{escape(said)}. The dataset itself is whole.\n"
    data = page.encode("utf-8", "replace")
    store.put(REPORT, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _failed(error: Exception) -> Exception:
    return error if is_short_of_memory(error) else Failed(error)


def render(told: dict[str, Any]) -> str:
    """Lay out what was gathered. Every value is escaped by the template; captions and addresses come from the web."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=lambda number: f"{number:,}", bytes=megabytes, share=share, visible=clean)
    return environment.get_template("page.html").render(**told)


def share(part: float, whole: float) -> str:
    """Write a share in percent with two digits that count: 62%, 3.1%, 0.04%; less than that as < 0.01%."""
    if not whole or not part:
        return "0%"
    percent = 100 * part / whole
    if percent < 0.01:
        return "< 0.01%"
    if 99 < percent < 100:
        return f"{math.floor(100 * percent) / 100:.2f}%"
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"
