"""Export formats of a dataset. Each file has a function `write(store, draft, layout)` that writes to the folder `draft`.

Images are copied byte for byte and never decoded. Every member of every sample is exported unchanged, except that `messages`
leaves out the measured values.
"""

import pkgutil


def names() -> list[str]:
    """Return the names of the export formats, which are the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
