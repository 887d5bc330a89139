"""A model is built without memory for its weights, and is the same model when they have been read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.train.published import FAMILIES, write_published
from tests.train.tiny import LLAMA, TINY, TOWER
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.fill import fill_from_published
from vlmdata_train.encoders.open_clip import OpenClip
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.placeholders import allocate, placeholders
from vlmdata_train.model.weight_places import weight_places

pytestmark = pytest.mark.whole
CPU = torch.device("cpu")
EVA = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "image_size": 42}  # has computed buffers


def without_memory(parts: ModelRecipe) -> VisionLanguageModel:
    """Return a model whose weights are all placeholders."""
    with placeholders():
        model = build_model(parts)
    assert all(weight.is_meta for weight in model.parameters())
    return model


def forms(model: nn.Module) -> dict[str, Any]:
    """Return the names, shapes and types of a model's weights, in order, and which are tied, trained, or buffers."""
    places = weight_places(model)
    first = {id(place.tensor): name for name, place in reversed(places.items())}
    kinds = {name: (p.tensor.shape, p.tensor.dtype, p.tensor.requires_grad, type(p.tensor)) for name, p in places.items()}
    return {name: (*kind, first[id(places[name].tensor)]) for name, kind in kinds.items()}


def values(model: nn.Module) -> dict[str, Tensor]:
    return {**model.state_dict(), **dict(model.named_buffers())}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_read_into_placeholders_gives_the_same_model(family: str, tmp_path: Path) -> None:
    start = str(write_published(family, tmp_path))
    plain, model = build_model(model_of(start)), without_memory(model_of(start))
    allocate(model, CPU)
    for each in (plain, model):
        fill_from_published(each, start, weight_places(each))
    assert forms(model) == forms(plain) and model.head == plain.head
    one, other = values(model), values(plain)
    assert all(torch.equal(one[name], other[name]) for name in other)


def write_language(folder: Path, *, tie: bool, head: str, size: int) -> str:
    """Write a Llama with a vocabulary of this size. `head` says which output layer its file has."""
    LlamaForCausalLM(LlamaConfig(**{**LLAMA, "vocab_size": size, "tie_word_embeddings": tie})).save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    rows = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = rows.clone() if head == "equal" else torch.randn_like(rows)
    save_file(tensors, file, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(
    ("tie", "head", "size"), [(True, "other", 320), (True, "equal", 320), (False, "other", 320), (False, "other", 100)]
)
def test_published_parts_have_the_same_placeholders_as_weights(tie: bool, head: str, size: int, tmp_path: Path) -> None:
    """A vocabulary of 100 is smaller than that of the tokenizer, so the model gets more rows."""
    language = write_language(tmp_path / "language", tie=tie, head=head, size=size)
    CLIPVisionModel(CLIPVisionConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=16
    )).save_pretrained(tmp_path / "tower")  # fmt: skip
    colours = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    parts = ModelRecipe(
        encoder={"hf_vision": {"name": str(tmp_path / "tower"), **colours}},
        language={"hf_causal": {"name": language, "tokenizer": "bytes"}},
    )  # fmt: skip
    plain = build_model(parts)
    assert forms(without_memory(parts)) == forms(plain)
    assert (plain.lm_head.weight is plain.language.get_input_embeddings().weight) == (tie and head == "equal")


class ReadingTower(nn.Module):
    """A tower that reads its weights when it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 32)
        self.largest = float(self.layer.weight.detach().abs().max())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layer(nn.functional.unfold(pixels, 16, stride=16).transpose(1, 2))


@dataclass(frozen=True)
class OwnTower(OpenClip):
    """A user's encoder, with the facts of open_clip's."""

    config: dict[str, Any] | None = None

    def build(self) -> nn.Module:
        return ReadingTower()


@pytest.mark.parametrize(
    "encoder",
    [{f"{__name__}.OwnTower": {"config": TOWER}}, {"open_clip": {"config": EVA, "layer": -1}}],
    ids=["a user's", "timm's"],
)
def test_a_tower_that_needs_its_weights_while_it_is_built_keeps_its_buffers(encoder: dict[str, Any]) -> None:
    parts = replace(TINY, encoder=encoder)
    model, plain = without_memory(parts), build_model(parts)
    assert forms(model) == forms(plain)
    buffers = dict(model.encoder.named_buffers())
    assert all(
        torch.equal(buffers[name], buffer) for name, buffer in plain.encoder.named_buffers() if not buffers[name].is_meta
    )
    assert not hasattr(model.encoder, "largest") or 0 < model.encoder.largest < 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba"}, "lets samples in one row see each other"),
        ({"model_type": "modernbert-decoder"}, "changes its last hidden states before the output layer"),
    ],
)
def test_a_language_model_that_cannot_be_trained_is_refused_without_weights(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        without_memory(replace(TINY, language={"hf_causal": {"config": {**LLAMA, **config}}}))
