"""Finds and reads text in images with PP-OCR: the package rapidocr, with the models of its wheel, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import onnxruntime
from rapidocr import RapidOCR

from vlmdata.images.resize import fitted, scale_to
from vlmdata.images.text_regions import covered_share
from vlmdata.models.ocr_files import ocr_files
from vlmdata.models.weights_identity import identity

SETTINGS: dict[str, Any] = {
    "Global.log_level": "error",  # rapidocr logs each model, and a warning for each picture without text
    "Global.use_preprocess_img": False,  # `find` scales the picture
    "Det.limit_type": "max",  # rapidocr's default enlarges pictures, which takes five times as long
    # The normalisation of PaddleOCR (configs/det). rapidocr's default is 0.5 for all six numbers, with which 23 of 141 pictures
    # got a false region of more than 15% of their area; with these numbers, 16 did.
    "Det.mean": [0.485, 0.456, 0.406],
    "Det.std": [0.229, 0.224, 0.225],
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # a worker has one core; waiting threads would only burn time
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}
LARGE = 0.05  # share of the image from which a region must be readable
MIN_SCORE = 0.5  # rapidocr's limit for a line of text
# Limit for the reading of a large region. Of 27 large regions in 188 real pictures, the 13 with text were read with 0.87 or
# more, and the 14 of faces, animals and patterns with 0.84 or less.
MIN_SCORE_OF_LARGE = 0.85


@dataclass(frozen=True)
class FoundText:
    """The text of an image: `regions`, (N, 4, 2) corners as in images/text_regions.py, and the `lines` that were read there."""

    regions: np.ndarray
    lines: tuple[str, ...]


class TextReader:
    """PP-OCR's detector and recogniser. Not thread-safe. They load at first use: the recogniser only if it is needed."""

    def __init__(self, side: int, user: str):
        """`side` is the longer side in pixels to which larger images are scaled down. `user` begins the message of an error."""
        self.side = side
        files = ocr_files(user)
        paths = {f"{part}.model_path": str(path) for part, path in files.items()}
        self._engine: Any = RapidOCR(params={**SETTINGS, **paths, "Det.limit_side_len": side})
        self.facts = {
            "model": ", ".join(path.stem for path in files.values()),
            "weights": {path.name: identity(str(path)) for path in files.values()},
            "computed": f"rapidocr {version('rapidocr')}, onnxruntime {onnxruntime.__version__}",
        }

    def find(self, pixels: np.ndarray, *, read: bool) -> FoundText:
        """Return the text in an image of (H, W, 3) uint8 sRGB pixels. `lines` is empty unless `read` is true.

        Regions come from the image at a longer side of at most `side`, and are read at the size of `pixels`. In photos, the
        detector takes faces, animals and patterns for large letters. So a region of more than 5% of the image counts only if
        the recogniser is sure of what it reads there.
        """
        small = scale_to(pixels, fitted(pixels.shape[1], pixels.shape[0], self.side))
        regions, lines = [], []
        for region in self._regions(small):
            is_large = covered_share(region[None], small.shape[1], small.shape[0]) > LARGE
            text, score = self._read(pixels, region) if read or is_large else ("", 0.0)
            if is_large and (score < MIN_SCORE_OF_LARGE or not any(map(str.isalnum, text))):
                continue
            regions.append(region)
            if read and text and score >= MIN_SCORE:
                lines.append(text)
        return FoundText(np.array(regions, np.float64).reshape(-1, 4, 2), tuple(lines))

    def _regions(self, pixels: np.ndarray) -> np.ndarray:
        """Return (N, 4, 2) regions from top to bottom."""
        # rapidocr keeps these choices for later calls, so each call states all of them
        found = self._engine(_bgr(pixels), use_det=True, use_cls=False, use_rec=False)
        if found.boxes is None:
            return np.zeros((0, 4, 2))
        height, width = pixels.shape[:2]
        return np.clip(np.asarray(found.boxes, np.float64) / (width, height), 0, 1)

    def _read(self, pixels: np.ndarray, region: np.ndarray) -> tuple[str, float]:
        """Return the text of a region, and its score in 0..1."""
        cut = cut_out(pixels, region)
        if cut is None:
            return "", 0.0
        found = self._engine(_bgr(cut), use_det=False, use_cls=True, use_rec=True)
        if not found.txts:
            return "", 0.0
        return str(found.txts[0]).strip(), float(found.scores[0])


def cut_out(pixels: np.ndarray, region: np.ndarray) -> np.ndarray | None:
    """Return the pixels of a region (4, 2) as an upright rectangle, or None if the region is thinner than a pixel.

    A region that is much taller than wide is rotated to the left by a quarter, as PP-OCR expects vertical lines.
    """
    corners = (region * (pixels.shape[1], pixels.shape[0])).astype(np.float32)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = int(max(sides[0], sides[2])), int(max(sides[1], sides[3]))
    if width < 1 or height < 1:
        return None
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    change = cv2.getPerspectiveTransform(corners, target)
    cut = cv2.warpPerspective(pixels, change, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(cut)) if height >= 1.5 * width else cut


def _bgr(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
