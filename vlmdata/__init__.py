"""Build, filter, deduplicate, pack and stream data for vision-language models."""

TYPE_CHECKING = False  # not from typing, which takes most of the time that importing this package takes
if TYPE_CHECKING:
    from vlmdata.build import run as run
    from vlmdata.loader.stream import stream as stream


def __getattr__(name: str) -> object:
    """Import what is public only when it is used: importing vlmdata stays quick."""
    if name == "run":
        from vlmdata.build import run

        return run
    if name == "stream":
        from vlmdata.loader.stream import stream

        return stream
    raise AttributeError(f"module 'vlmdata' has no attribute {name!r}")
