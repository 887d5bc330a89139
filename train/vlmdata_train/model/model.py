"""A vision-language model, built from the parts that a recipe names.

B rows, T tokens, P tiles of all images, N patches, C tower width, M tokens of a tile, V features of all images, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vlmdata_train.model.attention import check_packing, layer_windows, plan_attention
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.head import Head, head_of
from vlmdata_train.model.image_plan import ImagePlan, Prepared
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.tile_check import check_tiles
from vlmdata_train.model.tokens import image_token_id

Entry = str | Mapping[str, Any]


def image_plan(parts: ModelRecipe) -> ImagePlan:
    """Return the plan with which a loader preprocesses images. This does not build a model."""
    encoder = make_part("encoder", parts.encoder)
    others = {kind: make_part(kind, getattr(parts, kind)) for kind in ("preprocessing", "abstractor", "fusion")}
    return ImagePlan(facts=encoder.facts(), **others)


def load_tokenizer(parts: ModelRecipe) -> PreTrainedTokenizerBase:
    """Return the language model's tokenizer with an image token. This does not build a model."""
    return make_part("language", parts.language).load_tokenizer()


def build_model(parts: ModelRecipe) -> VisionLanguageModel:
    """Return the whole model. Raises RecipeError for a wrong name or parameter, before any weight is loaded."""
    made = {kind: make_part(kind, getattr(parts, kind)) for kind in ModelRecipe.__dataclass_fields__}
    plan = image_plan(parts)
    tokenizer = made["language"].load_tokenizer()
    language = made["language"].build(len(tokenizer))
    check_packing(language)
    head = head_of(language)
    made["positions"].prepare(language)
    width = language.get_input_embeddings().embedding_dim
    reads = made["fusion"].reads(plan.facts, width)  # the width of the features
    check_tiles(plan, reads)
    side = plan.facts.image_size
    modules = {
        "encoder": made["encoder"].build(),
        "abstractor": made["abstractor"].build(plan.facts, reads, plan.facts.grid(side, side)),
        "arrangement": made["preprocessing"].build(plan.facts, plan.grid_of, reads),
        "fusion": made["fusion"].build(language, reads, image_token_id(tokenizer)),
        "language": language,
    }
    probe = torch.ones(1, 2, dtype=torch.int32)
    plan_attention(
        probe, windows=layer_windows(language.config), prefix=modules["fusion"].prefix_of(probe, probe)
    )  # raises ValueError for a prefix with sliding windows
    dtype = next(language.parameters()).dtype
    modules = {name: module if module is None else module.to(dtype) for name, module in modules.items()}
    return VisionLanguageModel(**modules, head=head, plan=plan, positions=made["positions"], tokenizer=tokenizer)


class VisionLanguageModel(nn.Module):
    """Tower, abstractor, fusion and language model. Packed samples never see each other."""

    encoder: Any  # Any because attributes of a Module have no types
    language: Any  # a causal language model of transformers
    fusion: Any  # the module of a fusion; see `fusions`

    def __init__(
        self, *, encoder: nn.Module, abstractor: nn.Module, arrangement: nn.Module | None, fusion: nn.Module,
        language: nn.Module, head: Head, plan: ImagePlan, positions: Any, tokenizer: PreTrainedTokenizerBase,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.abstractor, self.arrangement = encoder, abstractor, arrangement
        self.fusion, self.language, self.head = fusion, language, head
        self.plan, self.positions, self.tokenizer = plan, positions, tokenizer
        self.attention = "auto"  # or a backend of attention.py
        self.windows = layer_windows(language.config)
        named = inspect.signature(self.language.base_model.forward).parameters
        self.cache_name = "cache" if "cache" in named else "past_key_values"  # its name before transformers 5.24
        self.feature_width = plan.fusion.reads(plan.facts, self.language.get_input_embeddings().embedding_dim)

    def forward(self, batch: Batch) -> Tensor:
        """Return the last hidden states (B, T, D), after the final norm. `logits_of` turns them into logits."""
        prefix = self.fusion.prefix_of(batch.labels, batch.segment_ids)
        packing = plan_attention(batch.segment_ids, backend=self.attention, windows=self.windows, prefix=prefix)
        embeddings = self.embed(batch, packing)
        return self.run_language(embeddings, self.place(batch), packing)

    def place(self, batch: Batch) -> Tensor:
        """Return the language model's position ids: (B, T), or (axes, B, T)."""
        return self.positions.position_ids(batch, self.plan, self.fusion.image_token_id)

    def embed(self, batch: Batch, packing: Any) -> Tensor:
        """Return the input of the first layer, (B, T, D), which the fusion makes from text embeddings and image features."""
        embeddings = self.language.get_input_embeddings()(batch.input_ids)
        features, counts = self.encode_images(batch)
        return self.fusion(batch.input_ids, embeddings, features, counts, batch.segment_ids, packing)

    def run_language(self, embeddings: Tensor, position_ids: Tensor, packing: Any, cache: Any = None) -> Tensor:
        """Return the decoder's last hidden states (B, T, D) for embeddings (B, T, D), without the output layer."""
        out = self.language.base_model(
            inputs_embeds=embeddings, position_ids=position_ids, packing=packing,
            **({} if cache is None else {self.cache_name: cache}), use_cache=cache is not None,
        )  # fmt: skip
        return out.last_hidden_state

    def encode_images(self, batch: Batch) -> tuple[Tensor, list[int]]:
        """Return the features (V, D) of all images in reading order, and how many features each image has.

        In training, a tile is encoded even for a batch without images, because every rank must run every part in each step.
        Otherwise the other ranks would wait forever. The features of this tile are not returned.
        """
        tiles = len(batch.pixels)
        if tiles == 0:
            return self._no_features(), []
        per_tile = self.encode_tiles(batch.pixels)  # list of (M, D), or (P, M, D)
        sizes = batch.image_sizes.tolist()
        splits = batch.tile_counts.tolist()
        if sum(splits) != tiles:
            raise ValueError(f"tile_counts sum to {sum(splits)}, but there are {tiles} tiles")
        if self.arrangement is None and isinstance(per_tile, Tensor):
            return per_tile.flatten(0, 1), [tiles_of_image * per_tile.shape[1] for tiles_of_image in splits]
        images, start = [], 0
        for count, (height, width) in zip(splits, sizes, strict=True):
            own = per_tile[start : start + count]
            start += count
            if self.arrangement is None:
                images.append(torch.cat(list(own)))
            else:
                images.append(self.arrangement(own, width=width, height=height))
        return torch.cat(images), [len(image) for image in images]

    def encode_tiles(self, pixels: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Return the features (M, D) of each tile, or (P, M, D) if all have one size.

        The tower encodes all tiles of one size at once.
        """
        if isinstance(pixels, Tensor):
            return self._encode(pixels)
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, tile in enumerate(pixels):
            groups.setdefault(tuple(tile.shape), []).append(number)
        features: dict[int, Tensor] = {}
        for numbers in groups.values():
            features.update(zip(numbers, self._encode(torch.stack([pixels[n] for n in numbers])), strict=True))
        if len(groups) == 1:
            return torch.stack([features[number] for number in range(len(pixels))])
        return [features[number] for number in range(len(pixels))]

    def _encode(self, pixels: Tensor) -> Tensor:
        facts, dtype = self.plan.facts, self.language.get_input_embeddings().weight.dtype
        return self.abstractor(self.encoder(normalise(pixels, facts.mean, facts.std, dtype)))

    def _no_features(self) -> Tensor:
        """Return an empty tensor of features, (0, D).

        In training it depends on the weights of the tower, of the abstractor and of the module that arranges tiles, so that all
        of these weights get gradients.
        """
        side = self.plan.facts.image_size
        device = self.language.get_input_embeddings().weight.device
        if not (self.training and torch.is_grad_enabled()):
            return torch.zeros(0, self.feature_width, device=device)
        tile = self._encode(torch.zeros(1, 3, side, side, device=device))
        if self.arrangement is not None:
            tiles = tile.expand(self.plan.preprocessing.tiles_of(side, side, self.plan.facts), -1, -1)
            tile = self.arrangement(tiles, width=side, height=side)
        return tile.flatten(0, -2)[:0]

    def _apply(self, fn: Any, recurse: bool = True) -> VisionLanguageModel:
        """Apply a function to all tensors, but keep the dtype of computed buffers.

        Rotary frequencies in bf16 would give distant tokens wrong positions.
        """
        before = {
            (module, name): value.dtype
            for module in self.modules()
            for name, value in module.named_buffers(recurse=False)
            if name in module._non_persistent_buffers_set and value.is_floating_point()
        }
        exact = {place: getattr(*place) for place in before}
        super()._apply(fn, recurse)
        for (module, name), dtype in before.items():
            if getattr(module, name).dtype != dtype:
                setattr(module, name, exact[module, name].to(getattr(module, name).device))
        return self

    @property
    def lm_head(self) -> Any:
        """The output layer of the language model, an nn.Linear. `logits_of` also scales and caps the logits of this layer."""
        return self.language.get_output_embeddings()

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., vocabulary) of last hidden states (..., D), as the language model computes them."""
        return self.head.finish(self.lm_head(hidden))

    def logits(self, batch: Batch) -> Tensor:
        """Return all logits (B, T, vocabulary), for tests and evaluation. The loss computes them in chunks."""
        return self.logits_of(self(batch))

    def parts(self) -> dict[str, nn.Module]:
        """Return the parts that a recipe can freeze or give a learning rate. Together they hold every weight."""
        abstractor = self.abstractor
        if self.arrangement is not None:
            abstractor = nn.ModuleList([self.abstractor, self.arrangement])
        return {"encoder": self.encoder, "abstractor": abstractor, "fusion": self.fusion, "language": self.language}

    def tokens_of(self, width: int, height: int) -> int:
        """Return the number of image tokens in the prompt for an image of this size.

        `plan.tokens_of` returns the same number, and the plan is smaller to pickle than the model.
        """
        return self.plan.tokens_of(width, height)

    def preprocess(self, image: Any) -> Prepared:
        """Return an image, uint8 (H, W, 3), as tiles; see `ImagePlan.preprocess`."""
        return self.plan.preprocess(image)
