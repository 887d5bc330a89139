"""Finds the models that the package rapidocr ships in its wheel, without importing it.

rapidocr downloads a model that it does not find, or whose checksum differs. vlmdata gives it the paths of the files, and so
it never does.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vlmdata.errors import RecipeError

MODELS = {"Det": "*_det_*.onnx", "Cls": "*_cls_*.onnx", "Rec": "*_rec_*.onnx"}  # section of rapidocr's settings: file


def ocr_files(user: str) -> dict[str, Path]:
    """Return the model of each part of rapidocr: Det finds text, Cls turns upside-down text, and Rec reads it.

    The result is empty if rapidocr is not installed. Raises RecipeError, which begins with `user`, if it is installed without
    exactly one model for each part.
    """
    found = importlib.util.find_spec("rapidocr")
    if found is None or not found.submodule_search_locations:
        return {}
    folder = Path(found.submodule_search_locations[0]) / "models"
    files = {part: sorted(folder.glob(pattern)) for part, pattern in MODELS.items()}
    for part, paths in files.items():
        if len(paths) != 1:
            raise RecipeError(
                f"{user}: {folder} must hold one model {MODELS[part]}, not {len(paths)}. Install the package again: "
                "pip install --force-reinstall --no-deps rapidocr"
            )
    return {part: paths[0] for part, paths in files.items()}
