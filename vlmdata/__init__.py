"""Build, filter, deduplicate, pack and stream data for vision-language models."""

import importlib

TYPE_CHECKING = False  # importing typing would take most of this package's import time
if TYPE_CHECKING:
    from vlmdata.build import run
    from vlmdata.compare import diff
    from vlmdata.errors import Error, RecipeError
    from vlmdata.explain import why
    from vlmdata.export_dataset import export
    from vlmdata.loader.decoding import Decode
    from vlmdata.loader.index.build_index import build_index
    from vlmdata.loader.packed import Packing
    from vlmdata.loader.stream import stream
    from vlmdata.push_dataset import push
    from vlmdata.refetch import retry
    from vlmdata.takedown import forget
    from vlmdata.verify import check

    __version__: str

__all__ = [
    "Decode",
    "Error",
    "Packing",
    "RecipeError",
    "__version__",
    "build_index",
    "check",
    "diff",
    "export",
    "forget",
    "push",
    "retry",
    "run",
    "stream",
    "why",
]

_HOMES = {  # no module may share the name of a function, because importing the module would replace the function
    "Decode": "vlmdata.loader.decoding",
    "Error": "vlmdata.errors",
    "Packing": "vlmdata.loader.packed",
    "RecipeError": "vlmdata.errors",
    "build_index": "vlmdata.loader.index.build_index",
    "check": "vlmdata.verify",
    "diff": "vlmdata.compare",
    "export": "vlmdata.export_dataset",
    "forget": "vlmdata.takedown",
    "push": "vlmdata.push_dataset",
    "retry": "vlmdata.refetch",
    "run": "vlmdata.build",
    "stream": "vlmdata.loader.stream",
    "why": "vlmdata.explain",
}


def __getattr__(name: str) -> object:
    """Import a public name at first use, so that importing vlmdata stays fast."""
    if name == "__version__":
        from vlmdata.version import version

        return version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vlmdata' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
