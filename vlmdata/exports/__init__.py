"""The forms in which a dataset can be written elsewhere, one file each, with `write(store, draft, layout)`.

Images are copied byte for byte, never decoded, and every member of every sample goes along unchanged; but as messages a
conversation goes without what was measured of it.
"""

import pkgutil


def names() -> list[str]:
    """Return the forms: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
