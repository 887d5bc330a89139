"""The whole image and its slices with a token before and after each of them, as in MiniCPM-V.

Source: Yao et al. 2024, MiniCPM-V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.written import Piece, Place, run_of
from vlmdata_train.writings import Writing

IMAGE, SLICE, NUMBER = ("<image>", "</image>"), ("<slice>", "</slice>"), ("<image_id>", "</image_id>")


@dataclass(frozen=True, kw_only=True)
class Slices(Writing):
    """The whole image, then the rows of slices, separated by line ends. The defaults are MiniCPM-V 2.6's and 4.6's.

    MiniCPM-V 2.5: `{around: grid, number: false}`. `<image>` is a literal token here, so `image_token` must be another one.
    """

    image_token: str | None = "<unk>"  # MiniCPM-V 2.5 and 2.6
    around: Literal["slice", "grid"] = "slice"  # `grid`: `<slice>` and `</slice>` are around all slices, `<image>` around each
    number: bool = True  # also write the number of the image in the sample, from 0; MiniCPM-V 2.5: false

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_token is None or self.image_token in self.tokens():
            raise ValueError(
                f"image_token must be a token other than {', '.join(self.tokens())}, such as <unk>, not {self.image_token}"
            )

    def tokens(self) -> list[str]:
        """Return the literal tokens, without the line end."""
        return [*IMAGE, *SLICE, *(NUMBER if self.number else ())]

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return the whole image and the slices, in the order of the regions, with the literal tokens around them."""
        pieces: list[Piece] = [NUMBER[0], str(place.number), NUMBER[1]] if self.number else []
        for is_whole, group in groupby(regions, lambda region: region.is_overview or len(regions) == 1):
            own = list(group)
            pieces += [IMAGE[0], run_of(own), IMAGE[1]] if is_whole else self._grid(own)
        return pieces

    def _grid(self, slices: Sequence[Region]) -> list[Piece]:
        """Return the slices of an image, with a line end after each row except the last."""
        start, end = SLICE if self.around == "slice" else IMAGE
        pieces: list[Piece] = []
        row = slices[0].row
        for region in slices:
            pieces += ["\n"] if region.row > row else []
            pieces += [start, run_of([region]), end]
            row = region.row
        return [SLICE[0], *pieces, SLICE[1]] if self.around == "grid" else pieces
