"""Fuse the caption of the source and the caption of a model into one, with a model that reads only texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from vlmdata.fields import aligned_origins
from vlmdata.generation.captioning_step import CaptioningStep
from vlmdata.generation.captions import Rejection, own_text
from vlmdata.generation.template import check_template, filled
from vlmdata.parameters import Doc

PROMPT = (
    "Two captions of one picture follow. The first comes from the web: it may hold true names and facts, and words that have "
    "nothing to do with the picture. The second comes from a model that saw the picture: it is fluent, but general. Join them "
    "into one sentence, with the form of the second and the names and facts of the first. Add nothing else. Answer with the "
    "sentence only, as plain text on one line.\n\nFirst: {text}\nSecond: {caption}\nSentence:"
)


@dataclass(frozen=True, kw_only=True)
class FuseCaptions(CaptioningStep):
    """Ask a model to join two captions of a row: its text, and the first one that an earlier step added.

    Source of the idea: CapsFusion, Yu et al. 2023. The model does not see the picture. Of a long text only the start is sent;
    the model's caption is sent whole. The accepted answer becomes an alternative of the row's text. Rows without a text or
    without a caption of the earlier step are not asked about, and are counted as `no_text` or `no_caption`. What becomes of an
    answer is as in `recaption`. A row is asked again if any of its captions changes.
    """

    id: ClassVar = "vlmdata.steps.fuse_captions"
    example: ClassVar = (
        "- recaption: {generator: {hf: {model: captioner}}}\n"
        "- fuse_captions: {generator: {hf: {model: captioner}}, captions_of: recaption}"
    )
    reads: ClassVar = ("texts",)

    captions_of: Annotated[str, Doc("The name or label of the earlier step whose first accepted caption is fused.")] = (
        "recaption"
    )
    prompt: Annotated[
        str, Doc("Text of the question. `{text}` is the place of the row's text, and `{caption}` that of the model's caption.")
    ] = PROMPT

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, f"{self.captions_of}.answers")

    def wording(self) -> dict[str, str]:
        return {"prompt": self.prompt, "system": self.system}

    def check(self) -> None:
        super().check()
        places = ("text", "caption")
        check_template(self.prompt, places, f"{self.name}.prompt", needed=places)

    def asked(self, row: Mapping[str, Any]) -> str | Rejection:
        raw, text = self.raw_text(row), own_text(row) or {}
        others = text.get("alternatives") or []
        origins = aligned_origins(others, text.get("origins"))
        captions = [other for other, origin in zip(others, origins, strict=True) if origin == self.captions_of]
        if not raw:
            return Rejection("no_text")
        return filled(self.prompt, {"text": raw, "caption": captions[0]}) if captions else Rejection("no_caption")
