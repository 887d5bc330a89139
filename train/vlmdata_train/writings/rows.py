"""A token after each row of an image: Pixtral's `[IMG_BREAK]` and `[IMG_END]`, Fuyu's `|NEWLINE|`, Molmo's `<im_col>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.written import Piece, Place, Run
from vlmdata_train.writings import Writing


@dataclass(frozen=True, kw_only=True)
class Rows(Writing):
    """Each row of a region is a run of image tokens, and a literal token follows it.

    Pixtral and Mistral 3: `row_end: "[IMG_BREAK]", last_row_end: "[IMG_END]"`. Fuyu: `row_end: "|NEWLINE|"`. Molmo:
    `row_end: <im_col>, start: <im_start>, end: <im_end>`. Molmo 2 also has `overview_start: <low_res_im_start>,
    ends_overview_rows: false`.
    """

    row_end: str
    last_row_end: str | None = None  # after the last row of a region; None: `row_end`
    start: str | None = None  # before a region
    overview_start: str | None = None  # before the region of the whole image; None: `start`
    end: str | None = None  # after a region
    ends_overview_rows: bool = True  # also end the rows of the region of the whole image; Molmo 2: false

    def tokens(self) -> list[str]:
        """Return the literal tokens that are set."""
        names = (self.row_end, self.last_row_end, self.start, self.overview_start, self.end)
        return list(dict.fromkeys(name for name in names if name is not None))

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return the rows of each region. Raises ValueError for a region that does not consist of rows."""
        pieces: list[Piece] = []
        for region in regions:
            grid = region.grid
            if region.tokens != grid.rows * grid.columns or not region.tokens:
                raise ValueError(
                    "writing: `rows` needs features in rows and columns, without a class token, latents or newline vectors."
                    " Choose another writing, preprocessing or abstractor."
                )
            start = self.overview_start if region.is_overview and self.overview_start is not None else self.start
            pieces += [] if start is None else [start]
            for row in range(grid.rows):
                end = self.row_end if row < grid.rows - 1 or self.last_row_end is None else self.last_row_end
                ends = [end] if self.ends_overview_rows or not region.is_overview else []
                pieces += [Run(grid.columns, 1, 1, grid.columns), *ends]
            pieces += [] if self.end is None else [self.end]
        return pieces
