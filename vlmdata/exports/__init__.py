"""Export formats of a dataset, one file each, with `write(store, draft, layout)`.

Images are copied byte for byte and never decoded. Every member of every sample is exported unchanged, except that `messages`
leaves out the measured values.
"""

import pkgutil


def names() -> list[str]:
    """Return the export formats: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
