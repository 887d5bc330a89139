"""Write captions of pictures with a model, and keep the old text beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from vlmdata.errors import RecipeError
from vlmdata.generation.captioning_step import CaptioningStep
from vlmdata.generation.captions import Rejection
from vlmdata.generation.template import check_template, filled
from vlmdata.parameters import Doc
from vlmdata.step import StepContext

ONLY = "Answer with the caption only, as plain text on one line."
PROMPTS = {
    "describe": "Write a caption for this picture in one to three sentences. Say which objects and people it shows, what they "
    f"look like, what they do and where they are. Mention only what is visible. {ONLY}",
    "edit": "This text came with the picture:\n{text}\n\nEdit it into a caption of the picture. Keep names and facts that the "
    f"picture does not contradict, correct what it contradicts, and add what is visible but missing. {ONLY}",
    "fuse": "This text came with the picture:\n{text}\n\nWrite one new caption in fluent sentences. Describe what is visible, "
    f"and take from the text the names and facts that belong to this picture. Leave out advertising and addresses. {ONLY}",
}


@dataclass(frozen=True, kw_only=True)
class Recaption(CaptioningStep):
    """Ask a model that sees the picture for captions. Accepted ones become alternatives of the row's text.

    The text itself never changes. `origins` in a sample's JSON names the step, so that a loader can mix both kinds. Rows with
    one image and at most one text are asked about, also if the source gave no text. Other rows are kept as they are and
    counted as `not_a_pair`. With the modes edit and fuse, rows without a text are counted as `no_text`.

    An answer is put on one line, and quotation marks around it are removed. It is not accepted if the model did not end it
    (`length`, `refusal`, `filter`), if it is `empty`, `too_long` (20,000 characters), a `refusal` in words, or a `duplicate` of
    a caption that the row already has, or for `min_words`, `max_words` or `max_repeats`. These rules may change without a new
    question. See [recaptioning](recaptioning.md).
    """

    id: ClassVar = "vlmdata.steps.recaption"
    example: ClassVar = "- recaption: {generator: {hf: {model: captioner}}, mode: describe}"
    reads: ClassVar = ("images", "texts.text")
    fetched: ClassVar = ("blob",)
    measured_by: ClassVar = (*CaptioningStep.measured_by, "image_side")

    mode: Annotated[
        Literal["describe", "edit", "fuse"],
        Doc(
            "What the model gets. describe: only the picture. edit: the old text too, which it corrects and extends. "
            "fuse: the old text too, from which it takes names and facts for a new caption."
        ),
    ] = "describe"
    prompt: Annotated[
        str, Doc("Text of the question. `{text}` is the place of the old text in the modes edit and fuse. Empty: by mode.")
    ] = ""
    image_side: Annotated[
        int,
        Doc(
            "A larger image is made smaller for the model, so that its long side has this length.",
            unit="pixels",
            source="vlmdata's choice: about 560 tokens in a model that makes one of 28 x 28 pixels",
        ),
    ] = 768

    def columns_read(self) -> tuple[str, ...]:
        return ("images",) if self.mode == "describe" else self.reads

    def wording(self) -> dict[str, str]:
        return {"prompt": self.prompt or PROMPTS[self.mode], "system": self.system}

    def check(self) -> None:
        super().check()
        if not 16 <= self.image_side <= 8192:
            raise RecipeError(f"{self.name}.image_side must be 16 to 8192, not {self.image_side}")
        is_blind = self.mode == "describe"
        if is_blind and "{text}" in self.prompt:
            raise RecipeError(f"{self.name}.prompt has the place {{text}}, but mode describe shows no text. Set mode: edit")
        check_template(self.wording()["prompt"], () if is_blind else ("text",), f"{self.name}.prompt")
        if not is_blind and "{text}" not in self.wording()["prompt"]:
            raise RecipeError(f"{self.name}.prompt needs the place {{text}} for the old text, or set mode: describe")

    def asked(self, row: Mapping[str, Any]) -> str | Rejection:
        prompt = self.wording()["prompt"]
        if self.mode == "describe":
            return prompt
        text = self.raw_text(row)
        return filled(prompt, {"text": text}) if text else Rejection("no_text")

    def pictures(self, row: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        image = next(one for one in row["images"] if one is not None)
        place = image["blob"], image["offset"], image["size"]
        name = image["sha256"] or "\x1d".join(map(str, place))
        return {"images": [(name, lambda: context.image_bytes(*place))], "side": self.image_side}
