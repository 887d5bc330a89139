"""Ask a model of transformers, which the worker loads, in batches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from vlmdata.errors import RecipeError
from vlmdata.generator import Generator, RunRecord
from vlmdata.models.model_folder import check_folder, folder_of, loading, model_identity
from vlmdata.parameters import Doc

if TYPE_CHECKING:
    from vlmdata.models.text_writer import TextWriter

IMAGE_FILES = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "vocab.txt")


@dataclass(frozen=True, kw_only=True)
class Hf(Generator):
    """A model that transformers can load: one that sees images and writes text, or one that only reads and writes text.

    It answers prompts in batches. Answers of one batch are drawn independently: each has its own seed. Code in the model's
    folder is never run.
    """

    id: ClassVar = "vlmdata.generators.hf"
    example: ClassVar = "{hf: {model: captioner}}"
    needs: ClassVar = ("model", "gpu")
    packages: ClassVar = ("torch", "torchvision", "transformers")

    model: Annotated[str, Doc("Folder, or name on the Hugging Face Hub, of a model that transformers can load.")]
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Doc("Number format of the model. auto: bf16 on a GPU and on CPUs with AMX or AVX-512 BF16."),
    ] = "auto"
    batch: Annotated[
        int,
        Doc(
            "Prompts per batch. 0: 32 on a GPU, 8 on a CPU. It is halved while the GPU has too little memory.",
            unit="prompts",
            source="vlmdata's choice",
        ),
    ] = 0

    def check(self) -> None:
        if self.batch < 0:
            raise RecipeError(f"batch must be 0 or more, not {self.batch}")
        config = check_folder(self.model)
        folder = folder_of(self.model)
        if config is None or folder is None:  # a name on the Hub is not looked up before work starts
            return
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise RecipeError(f"model: {folder} has no tokenizer. Copy its files, such as tokenizer.json, into the folder")
        if sees_images(config) and not any((folder / name).is_file() for name in IMAGE_FILES):
            raise RecipeError(
                f"model: {folder} is a model that sees images, but has no processor. Copy its files, such as "
                "preprocessor_config.json, into the folder"
            )

    def identity(self) -> str:
        return json.dumps([model_identity(self.model), self.precision])

    def open(self, record: RunRecord) -> TextWriter:
        from vlmdata.models.text_writer import TextWriter

        with loading(self.model):
            return TextWriter(str(folder_of(self.model) or self.model), self.precision, self.batch)


def sees_images(config: dict[str, Any]) -> bool:
    """Return whether a model's config.json describes a part that sees images."""
    return any(isinstance(config.get(name), dict) for name in ("vision_config", "vision_encoder_config", "perceiver_config"))
