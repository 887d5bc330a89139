"""Checks of the arguments of public functions. An InputError names the argument, the accepted values, and the wrong value."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from vlmdata.errors import InputError
from vlmdata.extras import check_installed
from vlmdata.home_folder import at_home
from vlmdata.untrusted import shown

PACKAGES = {"hf": "huggingface_hub", "s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}  # by protocol


def check_whole(least: int | None, **values: Any) -> None:
    """Raise InputError if a value is not an integer, or is less than `least` (None: there is no minimum)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
            raise wrong(name, "an integer" if least is None else f"an integer of at least {least}", value)


def check_whole_or_none(least: int | None, **values: Any) -> None:
    """Raise InputError if a value is neither None nor an integer of at least `least`."""
    check_whole(least, **{name: value for name, value in values.items() if value is not None})


def check_bool(**values: Any) -> None:
    """Raise InputError if a value is not True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise wrong(name, "True or False", value)


def check_choice(choices: Collection[str], **values: Any) -> None:
    """Raise InputError if a value is not one of `choices`."""
    for name, value in values.items():
        if not isinstance(value, str) or value not in choices:
            raise wrong(name, f"one of {', '.join(choices)}", value)


def check_path(**values: Any) -> None:
    """Raise InputError unless each value is a path or an address. "" is refused, because it would mean the current folder."""
    for name, value in values.items():
        if not _is_path(value):
            raise wrong(name, "a path or an address", value)


def path_of(**values: Any) -> Any:
    """Return the value of the only keyword argument, a path or an address that the user gave, with its `~` expanded.

    Raises InputError if the value has another type or is "".
    """
    ((_, value),) = values.items()
    check_path(**values)
    return at_home(value if isinstance(value, str) else Path(value))


def check_protocol(*addresses: str | os.PathLike) -> None:
    """Raise InputError if fsspec does not know the protocol of an address, or if a package for the protocol is missing.

    Raises RecipeError if an extra of vlmdata installs the missing package.
    """
    for path in addresses:
        address = os.fspath(path)
        if "://" not in address:
            continue
        protocols = {part.partition("://")[0] for part in address.split("::") if "://" in part}  # zip://name::/folder/file.zip
        check_installed(["fsspec", *(PACKAGES[one] for one in protocols if one in PACKAGES)], f"the address {address}")
        from fsspec import get_filesystem_class
        from fsspec.registry import known_implementations

        for protocol in protocols:
            try:
                get_filesystem_class(protocol)
            except ImportError as error:
                package = known_implementations[protocol]["class"].partition(".")[0]
                fix = f"Install it: pip install {package}" if package != "fsspec" else str(error)
                raise InputError(f"{address}: a package for {protocol}:// is missing. {fix}") from None
            except ValueError as error:
                raise InputError(f"{address}: {error}") from None


def check_text(**values: Any) -> None:
    """Raise InputError if a value is not a string."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise wrong(name, "a string", value)


def check_callable(**values: Any) -> None:
    """Raise InputError if a value is neither None nor callable."""
    for name, value in values.items():
        if value is not None and not callable(value):
            raise wrong(name, "a function", value)


def check_weights(**values: Any) -> None:
    """Raise InputError if a value is not a mapping from names to weights: finite numbers of at least 0, not all of them 0."""
    for name, weights in values.items():
        if not isinstance(weights, Mapping) or not all(isinstance(key, str) and key for key in weights):
            raise wrong(name, "a mapping such as {'raw': 0.3, 'synthetic': 0.7}", weights)
        for key, weight in weights.items():
            is_number = isinstance(weight, Real) and not isinstance(weight, bool)
            if not is_number or not 0 <= weight <= sys.float_info.max:
                raise wrong(f"the weight of {shown(key)} in {name}", "a finite number of at least 0", weight)
        if not any(weight > 0 for weight in weights.values()):
            raise InputError(f"{name} must have at least one weight above 0")


def check_overrides(overrides: Any) -> None:
    """Raise InputError if the overrides are neither None nor a mapping from dotted paths to values."""
    if overrides is not None and not (isinstance(overrides, Mapping) and all(isinstance(name, str) for name in overrides)):
        raise wrong("overrides", "a mapping such as {'source.path': 'urls.parquet'}", overrides)


def texts_of(**values: Any) -> list[str]:
    """Return the value of the only keyword argument as a list of strings. The value is a string or a list of strings.

    Raises InputError if the value has another type or holds an empty string.
    """
    ((name, value),) = values.items()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence | set | frozenset) or not all(isinstance(text, str) and text for text in texts):
        raise wrong(name, "a string or a list of strings", value)
    return list(texts)


def paths_of(**values: Any) -> list[str]:
    """Return the value of the only keyword argument, a path or a list of paths, as a list of strings, with `~` expanded.

    Raises InputError if the value has another type or holds an empty path.
    """
    ((name, value),) = values.items()
    paths = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(paths, Sequence) or not all(_is_path(path) for path in paths):
        raise wrong(name, "a path or a list of paths", value)
    return [at_home(os.fspath(path)) for path in paths]


def wrong(name: str, wanted: str, value: Any) -> InputError:
    """Return an InputError that says that the argument `name` must be `wanted` (such as "an integer"), not `value`."""
    return InputError(f"{name} must be {wanted}, not {shown(value)}")


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value))
