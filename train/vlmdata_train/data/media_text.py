"""How images and videos are written in the prompts of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from vlmdata_train.data.expansion import Write


@dataclass(frozen=True)
class MediaText:
    """The tokens that features replace, and the text around them.

    `write(item, place)` returns the pieces of an image or a video.
    """

    write: Write
    image_token_id: int
    video_token_id: int | None = None  # None: videos have image tokens
    placeholder: str | None = None  # what the chat template writes for an image; None: the image token
    bos_after_images: bool = False  # the BOS token follows the images that begin a text
    bos_token: str | None = None  # this BOS token; None: the tokenizer's
    question_ids: Callable[[str], list[int]] | None = None  # the ids of a question for the abstractor; None: it reads none
    literals: Collection[str] = ()  # tokens that are written around images; no text of the data may contain them

    def question(self, text: str) -> list[int]:
        """Return the ids of a question, or an empty list if the abstractor reads no question."""
        return [] if self.question_ids is None else self.question_ids(text)

    def tokens(self, tokenizer: Any) -> tuple[str, str]:
        """Return the image token and the video token."""
        image = tokenizer.convert_ids_to_tokens(self.image_token_id)
        return image, self.video_token(tokenizer) or image

    def video_token(self, tokenizer: Any) -> str | None:
        """Return the video token, or None if videos have image tokens."""
        return None if self.video_token_id is None else tokenizer.convert_ids_to_tokens(self.video_token_id)
