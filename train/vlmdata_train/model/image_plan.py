"""Plan an image or a video without weights: its tiles, and how it is written in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vlmdata.grounding.frame import Frame
from vlmdata.step import RecipeError
from vlmdata_train.model.box_form import BoxForm
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.written import Piece, Place, Run


@dataclass(frozen=True)
class Prepared:
    """One preprocessed image."""

    pixels: Sequence[Tensor]  # a tensor (tiles, 3, H, W) uint8, or a list of (3, H, W) whose sizes may differ
    tokens: int  # number of image tokens in the prompt
    size: tuple[int, int]  # original height and width


@dataclass(frozen=True)
class ImagePlan:
    """The parts of a model that determine how many tiles an image or a video becomes, and how it is written in a prompt.

    A plan is small and picklable, because the loader's workers plan and preprocess with a copy.
    """

    facts: EncoderFacts
    preprocessing: Any
    abstractor: Any
    fusion: Any
    writing: Any
    video: Any = None  # None: each frame of a video is an image
    grounding: BoxForm | None = None  # None: boxes are fractions of the model's picture

    def __post_init__(self) -> None:
        if self.facts.tile_grids and not hasattr(self.preprocessing, "tile_grid"):
            raise ValueError(
                "preprocessing: the tower reads all tiles of an image at once. Use the preprocessing `tiles_by_aspect`."
            )
        if self.copies > 1 and self.video is not None:
            raise ValueError(
                f"video: {type(self.preprocessing).__name__} makes a tile for each tower, but a video part makes one tile of a "
                "frame. Use another preprocessing, or omit `video`, so that each frame is an image."
            )
        if self.video is not None and self.patch_facts.width != self.facts.width:
            raise ValueError(
                f"video: the preprocessing {type(self.preprocessing).__name__} joins several tiles of an image to one, but a "
                "frame has one tile. Remove `video`, so that each frame is an image, or use another preprocessing."
            )

    @property
    def copies(self) -> int:
        """The number of tiles that show the same part of an image: one for each tower, or 1."""
        return len(self.facts.towers) if self.facts.towers and getattr(self.preprocessing, "for_each_tower", False) else 1

    @property
    def patch_facts(self) -> EncoderFacts:
        """The facts of the abstractor's input: the tower's facts, unless the preprocessing joins tiles to wider patches."""
        joined_facts = getattr(self.preprocessing, "joined_facts", None)
        return self.facts if joined_facts is None else joined_facts(self.facts)

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of tokens that the abstractor makes from one tile of this size."""
        return self.abstractor.grid_of(self.facts.grid(height, width))

    def features_of(self, width: int, height: int, *, several: bool = False) -> int:
        """Return how many features an image of this size has, including added features such as newlines.

        `several` is True if the sample has more than one image.
        """
        return sum(region.tokens for region in self._regions(width, height, several))

    def video_features_of(self, frames: int, width: int, height: int) -> int:
        """Return how many features a video with this number of frames of this size has, including added features."""
        return sum(region.tokens for region in self.video.regions([0.0] * frames, width, height, self))

    def preprocessing_of(self, several: bool) -> Any:
        """Return the preprocessing of the images of a sample with one image, or with several."""
        has_other = several and hasattr(self.preprocessing, "for_several")
        return self.preprocessing.for_several() if has_other else self.preprocessing

    def frame(self, width: int, height: int, *, several: bool = False) -> Frame:
        """Return where an image of this size lies in the picture that the model gets.

        `several` is True if the sample has more than one image. Raises RecipeError if the preprocessing cannot say it.
        """
        part = self.preprocessing_of(several)
        if not hasattr(part, "frame"):
            raise RecipeError(
                f"preprocessing: {type(part).__name__} has no method `frame`, which says where an image lies in the picture"
                " of the model. Samples with boxes need it (see vlmdata_train/preprocessing/__init__.py)"
            )
        frame: Frame = part.frame(width, height, self.facts)
        return frame

    def write(self, width: int, height: int, place: Place) -> list[Piece]:
        """Return the pieces that are written for an image of this size at a place of a text.

        The numbers of their tokens are exact, because packing depends on them.
        """
        regions = self._regions(width, height, place.several)
        features = sum(region.tokens for region in regions)
        if (tokens := self.fusion.positions_of(features)) != features:
            regions = [Region(Grid(0, 0, extra=tokens))]
        return self.writing.write(regions, place)

    def write_video(self, times: Sequence[float], width: int, height: int, place: Place) -> list[Piece]:
        """Return the pieces that are written for a video with frames of this size at these times (seconds)."""
        regions: list[Region] = self.video.regions(times, width, height, self)
        features = sum(region.tokens for region in regions)
        if (tokens := self.fusion.positions_of(features)) != features:
            return self.writing.write([Region(Grid(0, 0, extra=tokens))], place)
        return self.writing.write_video(regions, self.video.seconds(times), place)

    def tokens_of(self, width: int, height: int, *, several: bool = False) -> int:
        """Return the number of image tokens in the prompt for an image of this size, without literal tokens around them.

        `several` is True if the sample has more than one image.
        """
        pieces = self.write(width, height, Place(0, "", "", several))
        return sum(piece.tokens for piece in pieces if isinstance(piece, Run))

    def preprocess(self, image: np.ndarray, *, several: bool = False) -> Prepared:
        """Return an image, uint8 (H, W, 3), as tiles. `several` is True if the sample has more than one image.

        Raises ValueError for a different shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image must be uint8 (height, width, 3), not {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        pixels = self.preprocessing_of(several).prepare(image, self.facts)
        return Prepared(pixels, self.tokens_of(width, height, several=several), (height, width))

    def _regions(self, width: int, height: int, several: bool = False) -> list[Region]:
        regions: list[Region] = self.preprocessing_of(several).regions(width, height, self.facts, self.grid_of)
        return regions
