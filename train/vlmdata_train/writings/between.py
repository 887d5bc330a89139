"""A token before and a token after each image, such as `<img>` and `</img>` in InternVL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.model.written import Piece, Place, run_of
from vlmdata_train.writings import Writing


@dataclass(frozen=True, kw_only=True)
class Between(Writing):
    """Image tokens between two literal tokens.

    A literal token is not written if the text already has this token at its place. So a chat template may write the tokens too,
    and two images with the same token before and after them share the token between them, as in Idefics 1 and 2.
    """

    start: str
    end: str
    around: Literal["image", "tile"] = "image"  # `tile`: around each tile; Idefics2 with image splitting
    space_before_word: bool = False  # a space after the last token if a word follows it; Idefics2 in transformers

    def tokens(self) -> list[str]:
        """Return the two literal tokens."""
        return list(dict.fromkeys((self.start, self.end)))

    def write(self, regions: Sequence[Region], place: Place) -> list[Piece]:
        """Return the runs with the literal tokens around them."""
        runs = [run_of([region]) for region in regions] if self.around == "tile" else [run_of(regions)]
        pieces: list[Piece] = [] if place.before.endswith(self.start) else [self.start]
        for number, run in enumerate(runs):
            if number > 0 and self.start != self.end:
                pieces.append(self.start)
            pieces += [run, self.end]
        if place.after.startswith(self.end):
            return pieces[:-1]
        is_before_word = place.after[:1].strip() not in ("", "<")
        return [*pieces, " "] if self.space_before_word and is_before_word else pieces
