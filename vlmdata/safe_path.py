"""Which file a name in data may mean: one inside the folder of its dataset, and nothing else that a machine can open.

Names come from strangers: a column of a table, a field of a JSON, a member of an archive, a manifest. fsspec would open
`simplecache::http://127.0.0.1/`, `webhdfs://` or `zip://a::/b.zip`, and the file system follows `..` and links.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//|:)|.*::|[A-Za-z]:[\\/]|\\\\|//", re.DOTALL)
_LOCAL = ("file://", "local://")


class Refused(ValueError):
    """A name that may not be opened; the message is the reason for the ledger."""


def safe_path(name: str, folder: str) -> str:
    """Return the path of the file that `name` means: relative to `folder`, or an absolute path that lies inside it.

    `folder` is the user's: a local one, where the result is a path without links, or an address for fsspec, where it is
    another. Raises Refused: `not_a_path` (an address, a chain of fsspec, a drive or a share), `outside_folder` (`..`, an
    absolute path, a link that leads out), `no_file` (nothing there, or a folder, device or pipe). A remote folder is not
    asked: whether the file is there shows when it is opened.
    """
    folder = next((folder.removeprefix(scheme) for scheme in _LOCAL if folder.startswith(scheme)), folder)
    if _SCHEME.match(name):
        raise Refused("not_a_path")
    if "\0" in name:
        raise Refused("no_file")
    if "://" in folder:
        return _remote(name, folder)
    path = real_path_inside(os.path.join(folder, name), folder)
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        raise Refused("no_file")
    return path


def real_path_inside(path: str, folder: str) -> str:
    """Return a local path without links. Raises Refused, `outside_folder`, where it leads out of `folder`.

    The cache of the Hugging Face Hub keeps a snapshot's files as links into the `blobs` beside it; those count as inside.
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
    plain = unquote(unquote(name))  # a server may read %2e%2e, and %252e%252e after a proxy, as dots
    if name.startswith("/") or ".." in re.split(r"[/\\]", plain):
        raise Refused("outside_folder")
    first, chained, rest = folder.partition("::")  # of a chained address the first part is what is looked through
    return f"{first.rstrip('/')}/{name}{chained}{rest}"
