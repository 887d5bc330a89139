"""Export formats of a dataset. Each file has one class, which derives from `exporting.exporter.Exporter`.

Images are copied byte for byte and never decoded.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmdata.exporting.exporter import Exporter


def names() -> list[str]:
    """Return the names of the export formats, which are the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type[Exporter]:
    """Return the class of the format `name`."""
    from vlmdata.catalog import only_class
    from vlmdata.exporting.exporter import Exporter

    return only_class(f"vlmdata.exports.{name}", lambda cls: issubclass(cls, Exporter), "Exporter")
