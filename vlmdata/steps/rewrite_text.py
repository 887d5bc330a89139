"""Rewrite captions with a model that reads only the text, and keep the old text beside the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from vlmdata.errors import RecipeError
from vlmdata.generation.captioning_step import CaptioningStep
from vlmdata.generation.captions import Rejection
from vlmdata.generation.template import check_template, filled
from vlmdata.parameters import Doc

PROMPT = (
    "Rewrite the caption of a picture in other words. Keep every fact, and add none. Answer with the new caption only, as "
    "plain text on one line.\n\n{examples}Caption: {text}\nNew caption:"
)
EXAMPLES = (
    ("old bicycle leaning on blue door", "A worn bicycle stands against a door that is painted blue."),
    ("Two kids play chess in the park, Lyon 2014", "In a park in Lyon in 2014, two children sit over a game of chess."),
    ("Bread, cheese and a knife on a wooden board.", "A wooden board holds bread, some cheese and a knife."),
)


@dataclass(frozen=True, kw_only=True)
class RewriteText(CaptioningStep):
    """Ask a model to say a caption in other words. Accepted rewrites become alternatives of the row's text.

    Source of the idea: LaCLIP, Fan et al. 2023. The model does not see the picture. It gets examples of a caption before and
    after, and then the row's text. Rows with one image and one text are asked about; others are counted as `not_a_pair` or
    `no_text`. What becomes of an answer is as in `recaption`.
    """

    id: ClassVar = "vlmdata.steps.rewrite_text"
    example: ClassVar = "- rewrite_text: {generator: {hf: {model: captioner}}, samples: 4, temperature: 0.9}"
    reads: ClassVar = ("texts.text",)

    prompt: Annotated[
        str, Doc("Text of the question. `{examples}` is the place of the examples, and `{text}` that of the row's text.")
    ] = PROMPT
    examples: Annotated[
        list[tuple[str, str]],
        Doc("Pairs [before, after] that show how to rewrite.", source="vlmdata's choice"),
    ] = field(default_factory=lambda: list(EXAMPLES))

    def wording(self) -> dict[str, str]:
        return {"prompt": self.prompt, "examples": self._shown(), "system": self.system}

    def _shown(self) -> str:
        return "".join(f"Caption: {before}\nNew caption: {after}\n\n" for before, after in self.examples)

    def check(self) -> None:
        super().check()
        check_template(self.prompt, ("examples", "text"), f"{self.name}.prompt", needed=("text",))
        if self.examples and "{examples}" not in self.prompt:
            raise RecipeError(f"{self.name}.prompt needs the place {{examples}}, or set examples: []")

    def asked(self, row: Mapping[str, Any]) -> str | Rejection:
        text = self.raw_text(row)
        return filled(self.prompt, {"text": text, "examples": self._shown()}) if text else Rejection("no_text")
