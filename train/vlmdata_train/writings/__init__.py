"""Writings say how an image is written in a prompt. A writing has these methods:

- `write(regions, place)` returns the pieces of an image in order: literal text (string), and runs of image tokens (`Run`),
  which features replace. The runs have as many tokens as the regions together. `place` says where the image is in the text.
- `write_video(regions, seconds, place)` returns the pieces of a video, with the time of each region.
- `tokens()` returns the literal tokens that must be in the tokenizer's vocabulary. Missing tokens are added.

`Region` is in `model/encoder_facts.py`; `Place` and `Run` are in `model/written.py`. With a fusion that puts one image token
into the text for each image, the writing gets a single region of one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.written import Piece, Place, run_of_video


@dataclass(frozen=True)
class Writing:
    """Base class of writings, with the parameters of all of them."""

    image_token: str | None = None  # None: `<image>`, or the image token that the chat template writes
    placeholder: str | None = None  # what the chat template writes for an image, if this is not the image token
    video_token: str | None = None  # the token of videos; None: the image token
    # `after_images`: BOS follows the images that begin a text, as in PaliGemma, BLIP-2, Fuyu and Llama 3.2 Vision's captions
    bos: Literal["first", "after_images"] = "first"
    # BOS after images, if it is not the tokenizer's own: `<s>` in Fuyu, whose tokenizer has another
    bos_token: str | None = None

    def __post_init__(self) -> None:
        if self.bos_token is not None and self.bos == "first":
            raise ValueError("bos_token needs `bos: after_images`")

    def tokens(self) -> list[str]:
        """Return the literal tokens, which are none by default."""
        return []

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return the pieces of an image. Every writing must have this method."""
        raise NotImplementedError

    def write_video(self, regions: Sequence[Region], seconds: Sequence[float], place: Place) -> list[Piece]:
        """Return the pieces of a video, by default one run for all regions."""
        return [run_of_video(regions, seconds)]
