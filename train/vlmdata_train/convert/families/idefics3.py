"""Idefics3, as `Idefics3ForConditionalGeneration` of transformers. SmolVLM is a subclass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

from vlmdata_train.abstractors.pixel_shuffle import PixelShuffle
from vlmdata_train.convert.family import Family, has_room
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, served_template, served_tokenizer
from vlmdata_train.convert.towers import check_normalisation, is_last_layer_of
from vlmdata_train.encoders.siglip_navit import HALF, SiglipNavitTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import IMAGE
from vlmdata_train.writings.tile_grid import TileGrid

END = "<end_of_utterance>"  # the processor adds it to the tokenizer


class Idefics3(Family):
    """Idefics3: SigLIP, square tiles and the whole image, squares of patches merged by a linear layer, any language model."""

    title = "Idefics3"
    forms = ("idefics3",)
    names = (
        ("model.vision_model.", "encoder.model."),
        ("model.connector.modality_projection.proj.", "abstractor.layers.0."),
        ("model.text_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    unneeded = ("encoder.model.head.",)
    parts: ClassVar = {
        "preprocessing": "square_tiles", "abstractor": "pixel_shuffle", "fusion": "tokens",
        "positions": "rope", "writing": "tile_grid",
    }  # fmt: skip
    factors: ClassVar[tuple[int, ...]] = (1, 2)  # SmolVLM's format holds larger ones
    their_config: ClassVar[Any] = Idefics3Config
    their_class: ClassVar[Any] = Idefics3ForConditionalGeneration

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another preparation of images."""
        config, images, side = start.config, start.images, start.config.vision_config.image_size
        if not images.do_image_splitting or images.max_image_size["longest_edge"] != side:
            raise ValueError(f"preprocessing: {start.name} must split images into tiles of the tower's size, {side} px")
        check_normalisation(start, HALF, HALF)
        return ModelRecipe(  # not `hf_vision`, because the reference rounds the places of patches as Idefics2 does
            encoder={"siglip_navit": {"config": plain_config(config.vision_config, model_type=None)}},
            preprocessing={"square_tiles": {
                "longest": images.size["longest_edge"], "resample": FILTERS[int(images.resample)],
            }},
            abstractor={"pixel_shuffle": {"factor": config.scale_factor, "layers": 1, "bias": False}},
            writing={"tile_grid": {"image_token": start.token(config.image_token_id)}},
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        if not _is_siglip(model.encoder):
            yield "encoder", "siglip_navit, or a SigLIP by hf_vision with `layer: -1` and `norm: true`"
        yield from super().misfits(model)
        linear = model.plan.abstractor
        if type(linear) is PixelShuffle and (linear.layers != 1 or linear.norm or linear.norm_after or linear.bias):
            yield "abstractor", "pixel_shuffle of 1 layer, without norm and bias"
        if getattr(linear, "factor", self.factors[0]) not in self.factors:
            yield "abstractor", f"pixel_shuffle with a factor of {' or '.join(map(str, self.factors))}"
        writing = model.plan.writing
        if type(writing) is TileGrid and self.plain_writing(writing) != TileGrid():
            yield "writing", "tile_grid with its defaults"
        if model.image_token != IMAGE:
            yield "writing", f"the image token {IMAGE}"
        if not has_room(model, END):
            yield "language", f"a tokenizer with the token {END}, or with fewer tokens than rows of embeddings"

    def plain_writing(self, writing: TileGrid) -> TileGrid:
        """Return a writing with its defaults where the format has a choice: the tokens of images and videos."""
        return replace(writing, image_token=None, video_token=None)

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return self.their_class

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, known = self.text_config(model), self.their_config().vision_config.to_dict().keys() - {"model_type"}
        vision = model.encoder.model.config.to_dict()
        return self.their_config(
            vision_config={name: value for name, value in vision.items() if name in known},
            text_config=text, image_token_id=model.image_token_id,
            scale_factor=model.plan.abstractor.factor, tie_word_embeddings=text.tie_word_embeddings,
            pad_token_id=text.pad_token_id, dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        tokenizer = served_tokenizer(model.tokenizer, model.image_token)
        return Idefics3Processor(
            image_processor=Idefics3ImageProcessor(**self.image_options(model)), tokenizer=tokenizer,
            **self.text_options(model),
        )  # fmt: skip

    def image_options(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the options of the image processor."""
        return {
            "size": {"longest_edge": model.plan.preprocessing.longest}, "do_image_splitting": True,
            "max_image_size": {"longest_edge": model.plan.facts.image_size}, **pixel_options(model.plan),
        }  # fmt: skip

    def text_options(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the options of the processor for texts."""
        side = model.plan.facts.image_size
        return {
            "image_seq_len": model.plan.grid_of(side, side).tokens,
            "chat_template": served_template(model.tokenizer, model.image_token),
        }  # fmt: skip


def _is_siglip(encoder: Any) -> bool:
    """Return whether the format can hold a tower, whose patches must have the places that the reference computes."""
    if type(encoder) is SiglipNavitTower:
        return True
    if not is_last_layer_of(encoder, "siglip_vision_model", extra=0):
        return False
    count = encoder.model.config.image_size // encoder.model.config.patch_size
    fractions = torch.arange(count, dtype=torch.float32) * (torch.tensor(1.0) / count)
    places = torch.bucketize(fractions, torch.arange(1 / count, 1.0, 1 / count), right=True)
    return torch.equal(places, torch.arange(count))  # rounding moves a patch in some tables, such as one of 25
