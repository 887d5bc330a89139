"""CogVLM's and BEiT-3's experts: image features replace image tokens, and layers have separate weights for the image tokens.

Source: Wang et al. 2023, CogVLM: Visual Expert for Pretrained Language Models (`layers: all`, with the positions `shared`), and
Wang et al. 2022, Image as a Foreign Language (BEiT-3; `layers: feed_forward`).
B rows, T tokens, V features of all images, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vlmdata_train.fusions import embedding_width
from vlmdata_train.fusions.tokens import InPlace
from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.repeated_blocks import blocks_of


@dataclass(eq=False)
class ImageRows:
    """The rows of the flattened batch (B T, D) that experts process, and the other rows."""

    text: Tensor  # (B T - images,) rows that the language model's own layers process, in order
    images: Tensor  # rows that experts process, in order
    back: Tensor  # (B T,) place of each row of the batch in the concatenation of `text` and `images`

    @staticmethod
    def of(marks: Tensor, images: int) -> ImageRows:
        """Return the rows for a mask (B, T) of the tokens of experts. `images` is the number of these tokens.

        The host knows this number, so that it does not wait for the device.
        """
        order = marks.flatten().byte().argsort(stable=True)
        text, own = order.split([len(order) - images, images])
        for rows in (text, own):
            torch._dynamo.maybe_mark_dynamic(rows, 0)  # so that a compiled layer is not compiled again for each batch
        return ImageRows(text, own, order.argsort())

    def at(self, places: Tensor) -> None:
        """Return None for generated tokens, because they are never image tokens."""


class Experts(InPlace):
    """Copies of linear layers of the language model, called experts. They process the image tokens.

    The original layers process all other tokens. Each row of the batch passes through one of the two, and even without image
    tokens all experts run on zero rows, so that their weights have gradients (of zeros) on every rank.
    """

    def __init__(self, language: nn.Module, image_token_id: int, part: VisualExperts) -> None:
        super().__init__(image_token_id, prefix=False)
        self.last_is_text = part.last_is_text
        self.layers = nn.ModuleList()
        blocks = blocks_of(language)
        # not a ModuleList, because the layers are parts of the language model
        self.originals = [_originals(block, part) for block in blocks[: max(len(blocks) - part.shared_last, 0)]]
        if not any(self.originals):
            raise ValueError(
                f"visual_experts: no layer gets experts. `shared_last` is {part.shared_last}, and {type(language).__name__} has"
                f" {len(blocks)} layers."
            )
        for block, originals in zip(blocks, self.originals, strict=False):
            experts = nn.ModuleDict({name: copy.deepcopy(owner.get_submodule(leaf)) for name, owner, leaf in originals})
            self.layers.append(experts)
            current = _Current()
            block.register_forward_pre_hook(current.take, with_kwargs=True)
            for module in _attentions(block):
                module.register_forward_pre_hook(current.take, with_kwargs=True)
            for name, owner, leaf in originals:
                layer, route = owner.get_submodule(leaf), _Route(current, experts, name)
                # with LoRA, the hooks are around the update (lora.py), so the update does not act on image tokens
                layer.register_forward_pre_hook(route.select)
                layer.register_forward_hook(route.merge)

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Replace the embeddings of image tokens by features, and store the rows of the experts for the layers."""
        embedded = super().forward(ids, embeddings, features, counts, segment_ids, packing)
        marks = ids == self.image_token_id
        if self.last_is_text:
            ends = torch.tensor(counts, dtype=torch.int64, device=ids.device).cumsum(0)
            marks &= ~torch.isin(marks.flatten().cumsum(0).view_as(marks), ends)
        packing.images = ImageRows.of(marks, self._expert_tokens(counts))
        return embedded

    def weights_of_tokens(self) -> dict[str, list[nn.Parameter]]:
        """Return the weights that do not process all tokens: those for text tokens only, and those for image tokens only."""
        text = [p for layer in self.originals for _, owner, leaf in layer for p in owner.get_submodule(leaf).parameters()]
        return {"text": text, "images": list(self.layers.parameters())}

    def tokens_of_weights(self, tokens: int, counts: Sequence[int]) -> dict[str, int]:
        """Return how many tokens the weights of each kind process.

        `tokens` is the number of all tokens, and `counts` holds the number of tokens of each image.
        """
        images = self._expert_tokens(counts)
        return {"text": tokens - images, "images": images}

    def _expert_tokens(self, counts: Sequence[int]) -> int:
        return sum(counts) - len(counts) * self.last_is_text


def _originals(block: nn.Module, part: VisualExperts) -> list[tuple[str, nn.Module, str]]:
    """Return the linear layers of a block that get experts, each as (name of the expert, owner, name in the owner).

    Raises ValueError for a weight matrix outside of linear layers, because image and text tokens would share it, and if
    `feed_forward` is set but the attention cannot be told from the other layers.
    """
    attention = _attentions(block)
    if part.layers == "feed_forward" and not attention:
        raise ValueError(f"visual_experts: {type(block).__name__} has no child named as attention. Use `layers: all`.")
    wanted = [name for name, child in block.named_children() if part.layers == "all" or child not in attention]
    linear = {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear) and name.split(".")[0] in wanted}
    inside = {id(weight) for module in linear.values() for weight in module.parameters()}
    for name, weight in block.named_parameters():
        if name.split(".")[0] in wanted and weight.ndim > 1 and id(weight) not in inside:
            raise ValueError(
                f"visual_experts: in {type(block).__name__}, the weight {name} is not in a linear layer, so it cannot get an"
                " expert. Use a language model whose layers consist of linear layers, without routed experts."
            )
    places = [name.rpartition(".") for name in linear]
    return [
        (name.replace(".", "_"), block.get_submodule(owner), leaf)
        for name, (owner, _, leaf) in zip(linear, places, strict=True)
    ]


def _attentions(block: nn.Module) -> list[nn.Module]:
    """Return the children of a layer that are attention: self_attn, attn, attention or self_attention, but not their norms."""
    children = [child for name, child in block.named_children() if "att" in name]
    return [child for child in children if any(weight.ndim > 1 for weight in child.parameters())]


class _Current:
    """The rows of a layer's current batch."""

    rows: ImageRows | None = None

    def take(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Set the rows from the arguments of a layer or of its attention. This is a forward pre-hook.

        A recomputation does not call the hooks of the layer, but those of the attention.
        """
        self.rows = kwargs["packing"].images


class _Route:
    """Two hooks of a linear layer, which gets the text tokens. Its expert gets the image tokens."""

    def __init__(self, current: _Current, experts: nn.ModuleDict, name: str) -> None:
        # The expert is looked up at each call because LoRA replaces the module.
        self.current, self.experts, self.name = current, experts, name
        self.images: Tensor | None = None  # the input of the expert, between the two hooks
        self.shape: tuple[int, ...] = ()

    def select(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        """Replace the layer's input by its text rows. This is a forward pre-hook."""
        rows = self.current.rows
        if rows is None:
            return None
        given = args[0].flatten(0, -2)  # (B T, D); some models flatten the batch themselves
        if len(given) != len(rows.back):
            raise ValueError(
                f"visual_experts: the layer {self.name} gets {len(given)} of {len(rows.back)} tokens. The fusion does not"
                " support models that send tokens to different layers."
            )
        self.images, self.shape = given.index_select(0, rows.images), args[0].shape[:-1]
        return (given.index_select(0, rows.text),)

    def merge(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """Return the output for all rows. This is a forward hook."""
        rows, images, self.images = self.current.rows, self.images, None
        if rows is None or images is None:
            return None
        both = torch.cat([output, self.experts[self.name](images)])
        return both.index_select(0, rows.back).unflatten(0, self.shape)


@dataclass(frozen=True)
class VisualExperts:
    """Fusion with separate weights for image tokens. These weights start as copies of the language model's weights."""

    # linear layers that get experts: all (CogVLM), or those outside of the attention (BEiT-3)
    layers: Literal["all", "feed_forward"] = "all"
    # last layers without experts, whose weights all tokens share; BEiT-3: 3, its vision-language
    # experts (not checked at its source)
    shared_last: int = 0
    # the last token of each image passes through the language model's weights; CogVLM: true, with `gated_mlp: {ends: true}`
    last_is_text: bool = False

    def __post_init__(self) -> None:
        if self.shared_last < 0:
            raise ValueError(f"shared_last must be 0 or more, not {self.shared_last}")

    def positions_of(self, tokens: int) -> int:
        """Return `tokens`, because the text has one image token for each feature."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the language model's width, because the fusion reads only the encoder's final features.

        Raises ValueError if the encoder also returns features of earlier layers.
        """
        return embedding_width(facts, language_width)

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Return the experts, which are copies of linear layers in the language model's blocks. Hooks run them there.

        Raises ValueError if no layer gets experts, or for a weight that cannot get an expert.
        """
        return Experts(language, image_token_id, self)
