"""Each tile has a token with its row and column, and a line end follows each row of tiles, as in Idefics3 and SmolVLM.

Source: Laurençon et al. 2024, Building and better understanding vision-language models (Idefics3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.video_text import check_text, video_text
from vlmdata_train.model.written import Piece, Place, run_of
from vlmdata_train.writings import Writing

MOST = 6  # rows and columns of tiles for which Idefics3's tokenizer has tokens


@dataclass(frozen=True)
class TileGrid(Writing):
    """The tiles row by row, then the whole image. An image of one tile has only the whole image."""

    around: str = "<fake_token_around_image>"
    tile: str = "<row_{row}_col_{column}>"  # counted from 1
    overview: str = "<global-img>"
    row_end: str = "\n"  # also before the whole image
    video_start: str = ""  # text before a video; see `model/video_text.py`
    frame: str = ""  # text before each frame; SmolVLM: "\nFrame from {clock}:"
    video_end: str = ""  # text after a video; SmolVLM: "\n\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("video_start", "frame", "video_end"):
            check_text(getattr(self, name), name)

    def tokens(self) -> list[str]:
        """Return the literal tokens except the line end, with the tokens of up to 6 rows and 6 columns of tiles."""
        numbers = range(MOST)
        return [self.around, self.overview, *(self._name(row, column) for row in numbers for column in numbers)]

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return the tiles and the whole image with the literal tokens around them."""
        pieces: list[Piece] = []
        row = 0
        for region in regions:
            if not region.is_overview and region.row > row:
                pieces.append(self.row_end)
                row = region.row
            if region.is_overview:
                pieces += [self.row_end * 2] if pieces else []
                pieces += [self.around + self.overview, run_of([region]), self.around]
            else:
                pieces += [self.around + self._name(region.row, region.column), run_of([region])]
        return pieces

    def write_video(self, regions: Sequence[Region], seconds: Sequence[float], place: Place) -> list[Piece]:
        """Return each frame like an image of one tile, after the frame's text."""
        pieces: list[Piece] = [video_text(self.video_start, seconds)]
        for number, region in enumerate(regions):
            text = video_text(self.frame, seconds, number)
            pieces += [text + self.around + self.overview, run_of([region]), self.around]
        return [*pieces, video_text(self.video_end, seconds)]

    def _name(self, row: int, column: int) -> str:
        return self.tile.replace("{row}", str(row + 1)).replace("{column}", str(column + 1))
