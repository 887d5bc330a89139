"""Checks the first rows of a source: whether they can be read, can be fetched, and hold what the steps need."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import islice

import numpy as np
import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.preflight.findings import Findings, attempt_check
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.redact import redacted
from vlmdata.row import ROW, alive, conform, flatten, set_column
from vlmdata.step import Source, Step
from vlmdata.steps.download import Download
from vlmdata.untrusted import errors_as, one_line
from vlmdata.web.blocked_hosts import BlockedHosts
from vlmdata.web.url import Url, bracketed, is_literal, parse_url

HEAD = 1000  # rows that are checked
PIECES = 3  # pieces in which the first rows are looked for; earlier ones may have no row
SMALL_BYTES = 8 << 20  # largest file of an archive that is read; a list of any size is read, because it is read in chunks
NO_IMAGE_FILE = ("no_file", "outside_folder")  # reasons that a wrong folder of images gives
SHOWN = 100  # most characters of a value in a message


def first_rows(source: Source) -> pa.Table | None:
    """Return the source's first rows, at most those of a chunk, or None if reading them could take seconds.

    Raises RecipeError if they cannot be read. Nothing is read over the network.
    """
    files = source.files()
    if any("://" in path or not os.path.exists(path) for path, _ in files[:PIECES]):
        return None
    is_list = source.shuffled or image_folder(source) is not None
    if not is_list and (not files or files[0][1] > SMALL_BYTES):
        return None
    with errors_as(_unreadable, passes=(RecipeError, OSError)):
        for piece in source.pieces()[:PIECES]:
            for table in islice(source.read(piece), PIECES):
                if len(table):
                    return conform(table)
    return ROW.empty_table()


def _unreadable(error: Exception) -> Exception:
    if is_short_of_memory(error):
        return error
    return RecipeError(f"source: the first rows cannot be read: {type(error).__name__}: {one_line(error)[:300]}")


def check_rows(rows: pa.Table, source: Source, steps: tuple[Step, ...], findings: Findings) -> None:
    """Add what is wrong with the first 1000 rows of a source."""
    rows = rows.slice(0, HEAD)
    if not len(rows):
        findings.notes.append(f"source: there is no row in {source.files()[0][0]}")
        return
    is_alive = alive(rows)
    if not is_alive.any():  # the rows of an archive, or of one file among many, may be damaged by chance
        is_all = (source.shuffled or image_folder(source) is not None) and len(source.pieces()) == 1
        (findings.mistakes if is_all else findings.notes).append(_all_dropped(rows, source))
        return
    rows = rows.filter(pa.array(is_alive))
    download = next((step for step in steps if isinstance(step, Download)), None)
    if download is not None and source.by_address:
        attempt_check(lambda: _check_addresses(rows, download, findings), findings)
    has_all_fields = True
    for step in steps:
        if has_all_fields or "extra" not in step.columns_read():  # an earlier step may add the field that this one reads
            attempt_check(_row_check(step, rows), findings)
        added = step.fields_added()
        has_all_fields &= added is not None
        rows = _with_fields(rows, added or ())


def _with_fields(rows: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """Return the rows with fields that a step will add to `extra`, which are numbers."""
    if not names:
        return rows
    extras = [json.dumps({**json.loads(extra or "{}"), **dict.fromkeys(names, 0.0)}) for extra in rows["extra"].to_pylist()]
    return set_column(rows, "extra", pa.array(extras, pa.string()))


def _row_check(step: Step, rows: pa.Table) -> Callable[[], None]:
    return lambda: step.check_rows(rows)


def image_folder(source: Source) -> str | None:
    """Return the folder in which a recipe's source looks for the image files of its rows, or None."""
    return getattr(source, source.images_in) or None if source.images_in else None


def _all_dropped(rows: pa.Table, source: Source) -> str:
    reasons = rows["reason"].to_pylist()
    most = max(set(reasons), key=lambda reason: (reasons.count(reason), str(reason)))
    first = rows.slice(reasons.index(most), 1).to_pylist()[0]
    where = first["place"] or "the first row"
    problem = f", {first['problem']}" if first["problem"] else ""
    return (
        f"source: none of the first {len(rows):,} rows can be used. Most are dropped as {most or first['drop']}, "
        f"such as {where}{problem}. {_advice(most, source)}"
    )


def _advice(reason: str | None, source: Source) -> str:
    if reason not in NO_IMAGE_FILE:
        return "Check that the file and the columns are the ones you mean"
    folder = image_folder(source) or os.path.dirname(source.files()[0][0])
    looked = f"The images are looked for in {folder}"
    return f"{looked}. Set source.{source.images_in} to their folder" if source.images_in else f"{looked}, the list's folder"


def _check_addresses(rows: pa.Table, download: Download, findings: Findings) -> None:
    images = flatten(rows, "images")
    here = images.alive()
    texts = [url for url, is_there in zip(images.field("url").to_pylist(), here, strict=True) if is_there and url]
    if not texts or any(images.field(name).is_valid().to_numpy(zero_copy_only=False)[here].any() for name in ("blob", "data")):
        return
    urls = [url for url in map(parse_url, texts) if url is not None]
    start = f"source: none of the first {len(texts):,} addresses can be fetched"
    if not urls:
        raise RecipeError(
            f"{start}, because none is an http(s) address; the first is {redacted(texts[0])[:SHOWN]!r}. "
            "Give full addresses such as https://example.org/cat.jpg, or read local images with the source `files`"
        )
    with errors_as(_bad_block_list, passes=(RecipeError,)):
        blocks = BlockedHosts(download)
    blocked = np.array([blocks.blocks(url) for url in urls])
    if blocked.all():
        raise RecipeError(
            f"{start}, because `{download.name}` blocks them, such as {redacted(urls[0].text)[:SHOWN]}. Remove these entries"
        )
    private = np.array([is_private(url, download) for url in urls])
    if (private | blocked).all():
        first = urls[int(np.flatnonzero(private)[0])]
        host = f"{bracketed(first.host)}:{first.port}" if first.port not in (80, 443) else first.host
        raise RecipeError(
            f"{start}, because their hosts are on private networks, such as {redacted(first.text)[:SHOWN]}. "
            f"To allow a host: --set '{download.name}.allowed_hosts=[\"{host}\"]'"
        )
    contact = download.contact.strip()
    if contact and "@" not in contact and "." not in contact:
        findings.advise(
            f"{download.name}.contact is {contact!r}, by which nobody can be reached. Give a mail address or a web page"
        )
    if not contact and any(not _is_allowed(url, download) for url in urls):
        findings.advise(
            f"{download.name}.contact is empty, so site owners cannot reach you. Set it: "
            f"--set {download.name}.contact=you@example.org"
        )


def _bad_block_list(error: Exception) -> Exception:
    return RecipeError(f"download: {one_line(error)}")


def is_private(url: Url, download: Download) -> bool:
    """Return whether the address guard is certain to refuse an address, which is known without a request to a name server."""
    if download.proxy or _is_allowed(url, download):
        return False
    if is_literal(url.host):
        return not download.reaches(url.host, url.port, url.host)
    return url.host == "localhost" or url.host.endswith(".localhost")


def _is_allowed(url: Url, download: Download) -> bool:
    return url.host in download.allowed_hosts or f"{url.host}:{url.port}" in download.allowed_hosts
