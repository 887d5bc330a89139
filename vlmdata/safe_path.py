"""Resolves file names found in data, and refuses files outside the dataset's folder.

Names come from untrusted data: a table's column, a JSON field, an archive member, a manifest. fsspec would open
`simplecache::http://127.0.0.1/`, `webhdfs://` or `zip://a::/b.zip`, and the file system follows `..` and links.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//|:)|.*::|[A-Za-z]:[\\/]|\\\\|//", re.DOTALL)
_LOCAL = ("file://", "local://")


class Refused(ValueError):
    """Raised for a name that must not be opened. The message is the reason that the ledger records."""


def safe_path(name: str, folder: str) -> str:
    """Return the path of the file `name`, which is relative to `folder` or an absolute path inside it.

    `folder` is trusted. For a local folder the result is a path without links, and for an fsspec address it is an address.
    Raises Refused with one of three reasons: `not_a_path` (an address, an fsspec chain, a drive or a share),
    `outside_folder` (`..`, an absolute path, or a link to another place) or `no_file` (no such file, or a folder, device or
    pipe). A remote folder is not queried, so a missing file is found only when it is opened.
    """
    folder = next((folder.removeprefix(scheme) for scheme in _LOCAL if folder.startswith(scheme)), folder)
    if _SCHEME.match(name):
        raise Refused("not_a_path")
    if "\0" in name:
        raise Refused("no_file")
    if "://" in folder:
        return _remote(name, folder)
    path = real_path_inside(os.path.join(folder, name), folder)
    if not os.path.isfile(path):  # opening a pipe would block until a writer opens it
        raise Refused("no_file")
    return path


def real_path_inside(path: str, folder: str) -> str:
    """Return a local path with its links resolved. Raises Refused (`outside_folder`) if the result is outside `folder`.

    The cache of the Hugging Face Hub stores a snapshot's files as links to its folder `blobs`, which counts as inside.
    """
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):
        raise Refused("no_file") from None
    root = os.path.realpath(folder or ".")
    roots = [root]
    head, snapshots, _ = root.rpartition(f"{os.sep}snapshots{os.sep}")
    if snapshots:
        roots.append(os.path.join(head, "blobs"))
    if not any(real == one or real.startswith(one.rstrip(os.sep) + os.sep) for one in roots):
        raise Refused("outside_folder")
    return real


def _remote(name: str, folder: str) -> str:
    plain = unquote(unquote(name))  # servers decode %2e%2e to dots, and a proxy may first decode %252e%252e to %2e%2e
    if name.startswith("/") or ".." in re.split(r"[/\\]", plain):
        raise Refused("outside_folder")
    first, chained, rest = folder.partition("::")  # in a chained address, the name belongs to the first part
    return f"{first.rstrip('/')}/{name}{chained}{rest}"
