"""Writes report.html, one self-contained file, from a dataset's files and the template page.html."""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

import jinja2

from vlmdata.engine.store.store_protocol import Store
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.report.example_images import clean
from vlmdata.report.gather import gather
from vlmdata.report.safe_html import escape
from vlmdata.sizes import counted, megabytes, noun
from vlmdata.untrusted import Failed, errors_as

REPORT = "report.html"
HERE = Path(__file__).parent


def write_report(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write report.html next to the files that a manifest lists, and return its size and SHA-256 for the manifest.

    The bytes of the report depend only on these files and `work/`, not on time or path. If drawing fails, report.html
    and a warning show the error, and the dataset is finished without a report. OSError and errors from lack of memory are
    raised, because the same command can resume after them.
    """
    try:
        with errors_as(_failed, passes=(OSError,)):  # any error, because users' own steps may write any column
            page = render(gather(store, manifest))
    except Failed as failed:
        (error,) = failed.args
        message = f"report.html could not be drawn: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        warnings.warn(f"{message}. The dataset itself is complete", stacklevel=2)
        page = f"<!doctype html>\n<meta charset=utf-8>\n<p>{escape(message)}. The dataset itself is complete.\n"
    data = page.encode("utf-8", "replace")
    store.put(REPORT, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _failed(error: Exception) -> Exception:
    return error if is_short_of_memory(error) else Failed(error)


def render(values: dict[str, Any]) -> str:
    """Return the page with the gathered values. The template escapes every value, because many come from the web."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=lambda number: f"{number:,}", counted=counted, noun=noun)
    environment.filters.update(bytes=megabytes, share=share, visible=clean)
    return environment.get_template("page.html").render(**values)


def share(part: float, whole: float) -> str:
    """Return a share in percent with two significant digits: 62%, 3.1%, 0.04%. A share below 0.01% is "< 0.01%"."""
    if not whole or not part:
        return "0%"
    percent = 100 * part / whole
    if percent < 0.01:
        return "< 0.01%"
    if 99 < percent < 100:
        return f"{math.floor(100 * percent) / 100:.2f}%"
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"
