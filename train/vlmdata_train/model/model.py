"""A vision-language model, built from the parts that a recipe names.

B rows, T tokens, V features of all images, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

import vlmdata_train
from vlmdata_train.model.attention import check_packing, layer_windows, plan_attention
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.box_form import BoxForm, box_form
from vlmdata_train.model.encode_images import encode_images
from vlmdata_train.model.head import Head, head_of
from vlmdata_train.model.image_plan import ImagePlan, Prepared
from vlmdata_train.model.model_recipe import QUESTION_TOKENIZER, ModelRecipe
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.placeholders import in_full
from vlmdata_train.model.surroundings import TextFacts, build_abstractor
from vlmdata_train.model.tile_check import check_tiles
from vlmdata_train.model.tokens import image_token_id

Entry = str | Mapping[str, Any]
PLANNED = ("preprocessing", "abstractor", "fusion", "writing")  # kinds of parts that a plan has


def image_plan(parts: ModelRecipe) -> ImagePlan:
    """Return the plan with which a loader preprocesses images. This does not build a model."""
    encoder = make_part("encoder", parts.encoder)
    others = {kind: make_part(kind, getattr(parts, kind)) for kind in PLANNED}
    video = None if parts.video is None else make_part("video", parts.video)
    return ImagePlan(facts=encoder.facts(), video=video, grounding=box_form(parts.grounding), **others)


def load_tokenizer(parts: ModelRecipe) -> PreTrainedTokenizerBase:
    """Return the language model's tokenizer with the tokens that are written for images and boxes, without building a model."""
    writing = make_part("writing", parts.writing)
    literals = [*writing.tokens(), *(token for token in (writing.video_token, writing.bos_token) if token)]
    tokenizer = make_part("language", parts.language).load_tokenizer(image=writing.image_token, literals=literals)
    return with_box_tokens(tokenizer, box_form(parts.grounding))


def with_box_tokens(tokenizer: PreTrainedTokenizerBase, form: BoxForm | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer with the control tokens of a form of boxes. Tokens that it lacks are added as special tokens.

    A piece of the vocabulary that is no added token, as in PaliGemma, becomes one, because the tokenizer would split it.
    """
    known = tokenizer.get_added_vocab()
    missing = [name for name in (form.tokens if form else ()) if name not in known]
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in missing])
    return tokenizer


def build_model(parts: ModelRecipe) -> VisionLanguageModel:
    """Return the whole model. Raises RecipeError for a wrong name or parameter, before any weight is loaded."""
    made = {kind: make_part(kind, getattr(parts, kind)) for kind in ("encoder", "language", *PLANNED, "positions")}
    plan = image_plan(parts)
    tokenizer = load_tokenizer(parts)
    language = _built(made["language"], made["language"].build, tokenizer)
    check_packing(language)
    head = head_of(language)
    made["positions"].prepare(language)
    width = language.get_input_embeddings().embedding_dim
    reads = made["fusion"].reads(plan.facts, width)  # the width of the features
    text = TextFacts(width, len(tokenizer))
    arrangement = made["preprocessing"].build(plan.facts, plan.grid_of, reads)
    check_tiles(plan, reads, text, arrangement)
    side = plan.facts.image_size
    modules = {
        "encoder": _built(made["encoder"], made["encoder"].build),
        "abstractor": _built(
            plan.abstractor, build_abstractor, plan.abstractor, plan.patch_facts, reads, plan.facts.grid(side, side), text
        ),
        "arrangement": arrangement,
        "fusion": _built(made["fusion"], build_fusion, plan, language, reads, tokenizer),
        "language": language,
    }
    dtype = next(language.parameters()).dtype
    modules = {name: module if module is None else module.to(dtype) for name, module in modules.items()}
    return VisionLanguageModel(**modules, head=head, plan=plan, positions=made["positions"], tokenizer=tokenizer)


def build_fusion(plan: ImagePlan, language: Any, width: int, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """Return the module of a plan's fusion, for features of this width."""
    literals = [int(tokenizer.backend_tokenizer.token_to_id(token)) for token in plan.writing.tokens()]
    more = {"literal_ids": literals} if getattr(plan.fusion, "reads_literals", False) else {}
    module: nn.Module = plan.fusion.build(language, width, image_token_id(tokenizer, plan.writing.image_token), **more)
    return module


def _built(part: Any, build: Callable[..., nn.Module], *facts: Any) -> Any:
    """Return the module of a part. A user's own part may read the weights that it has made, so it is built with real ones."""
    is_own = type(part).__module__.startswith(f"{vlmdata_train.__name__}.")
    return build(*facts) if is_own else in_full(partial(build, *facts))


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
        two_way = self.two_way_of(batch)
        packing = plan_attention(batch.segment_ids, backend=self.attention, windows=self.windows, two_way=two_way)
        embeddings = self.embed(batch, packing)
        return self.run_language(embeddings, self.place(batch), packing)

    def two_way_of(self, batch: Batch) -> Tensor | None:
        """Return a mask (B, T) of the tokens of each sample that attend to each other, or None if attention is causal."""
        return self.fusion.two_way_of(batch.labels, batch.segment_ids, self._ids(batch))

    def place(self, batch: Batch) -> Tensor:
        """Return the language model's position ids: (B, T), or (axes, B, T)."""
        return self.positions.position_ids(replace(batch, input_ids=self._ids(batch)), self.image_token_id)

    def embed(self, batch: Batch, packing: Any) -> Tensor:
        """Return the input of the first layer, (B, T, D), which the fusion makes from text embeddings and image features."""
        embeddings = self.language.get_input_embeddings()(batch.input_ids)
        features, counts = self.encode_images(batch)
        return self.fusion(self._ids(batch), embeddings, features, counts, batch.segment_ids, packing)

    def _ids(self, batch: Batch) -> Tensor:
        """Return the input ids (B, T) with image tokens in place of video tokens, because features replace both."""
        ids, video = batch.input_ids, self.video_token_id
        return ids if video is None else ids.masked_fill(ids == video, self.image_token_id)

    def run_language(self, embeddings: Tensor, position_ids: Tensor, packing: Any, cache: Any = None) -> Tensor:
        """Return the decoder's last hidden states (B, T, D) for embeddings (B, T, D), without the output layer."""
        out = self.language.base_model(
            inputs_embeds=embeddings, position_ids=position_ids, packing=packing,
            **({} if cache is None else {self.cache_name: cache}), use_cache=cache is not None,
        )  # fmt: skip
        return out.last_hidden_state

    def encode_images(self, batch: Batch) -> tuple[Tensor, list[int]]:
        """Return the features (V, D) of all images and videos in reading order, and how many features each of them has."""
        return encode_images(self, batch)

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
    def image_token_id(self) -> int:
        """The id of the token that the features of an image replace."""
        return int(self.fusion.image_token_id)

    @property
    def video_token_id(self) -> int | None:
        """The id of the token that the features of a video replace, or None if it is the image token."""
        token = self.plan.writing.video_token
        return None if token is None else int(self.tokenizer.backend_tokenizer.token_to_id(token))

    @property
    def question_ids(self) -> Callable[[str], list[int]] | None:
        """A function that returns the ids of a question for the abstractor, or None if the abstractor reads no question."""
        tokenize = getattr(self.plan.abstractor, "question_ids", None)
        return None if tokenize is None else partial(tokenize, self.tokenizer)

    @property
    def tokenizers(self) -> dict[str, PreTrainedTokenizerBase]:
        """The tokenizers that a checkpoint holds, by the names of their folders: the language model's and the abstractor's."""
        found = {"tokenizer": self.tokenizer}
        second = getattr(self.plan.abstractor, "question_tokenizer", None)
        if second is not None and (tokenizer := second()) is not None:
            found[QUESTION_TOKENIZER] = tokenizer
        return found

    @property
    def image_token(self) -> str:
        """The token that the features of an image replace."""
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))

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
