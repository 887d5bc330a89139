"""Llama 3.2 Vision gives the logits and gradients of its class in transformers with the same weights."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MllamaConfig,
    MllamaForCausalLM,
    MllamaForConditionalGeneration,
)
from transformers.models.mllama import MllamaImageProcessorPil
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    assert_packed_equals_separate,
    assert_same_logits_and_images_matter,
    copy_weights,
    epsilon,
    one_row,
    randomised,
)
from tests.train.tiny import rows
from vlmdata_train.convert.families.mllama import Mllama
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.freezing import apply_parts, check_gates
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import Lora, ModelRecipe, Part
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD
from vlmdata_train.recipe_file import load

SIDE = 28
VISION = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_global_layers": 1, "attention_heads": 4,
    "image_size": SIDE, "patch_size": 14, "intermediate_layers_indices": [0, 2], "vision_output_dim": 96,
}  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}  # fmt: skip
LANGUAGE = {**TEXT, "num_hidden_layers": 4, "rms_norm_eps": 1e-5, "rope_parameters": ROPE}
CROSS_LAYERS = [1, 4]  # among 6 layers, so they precede layers 1 and 3 of the language model
RECIPE = ModelRecipe(
    encoder={"mllama": {"config": VISION}}, preprocessing="tiles_by_aspect", abstractor="linear",
    fusion={"cross_attention": {"first": 1, "every": 2, "key_heads": 2, "mlp_width": 48, "qk_norm": True,
                                "mlp_without_image": False, "features": "language", "eps": 1e-5}},
    language={"hf_causal": {"config": {"model_type": "llama", **LANGUAGE}}},
)  # fmt: skip
ONE, WIDE, TALL, FOUR = (20, 25), (30, 70), (100, 30), (50, 50)  # heights and widths that become 1, 3, 4 and 4 tiles
TEXT_CONFIG = {**LANGUAGE, "num_hidden_layers": 6, "cross_attention_layers": CROSS_LAYERS}
CONFIG = MllamaConfig(vision_config=VISION, text_config=TEXT_CONFIG, image_token_index=IMAGE_ID)


def our_name(name: str) -> str:
    """Rename Mllama's weights to ours. Its cross-attention layers are among the layers of the language model."""
    return str(Mllama().our_name(name, CONFIG))


def both() -> tuple[Any, VisionLanguageModel]:
    """Make a reference with random weights and gates, and our model with the same weights.

    The reference's table of embeddings has 8 more rows than its vocabulary, which no text uses."""
    reference: Any = randomised(MllamaForConditionalGeneration(copy.deepcopy(CONFIG)))
    words = {"language.model.embed_tokens.weight": reference.get_input_embeddings().weight[: TEXT["vocab_size"]]}
    return reference, copy_weights(reference, RECIPE, our_name, more=words, unlike=["num_hidden_layers"])


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Make a picture of noise of this (height, width)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def inputs(images: list[np.ndarray]) -> Any:
    """Return what transformers' image processor makes of the images of one sample."""
    processor = MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=CLIP_MEAN, image_std=CLIP_STD)
    return processor([[Image.fromarray(image) for image in images]], return_tensors="pt")


def of_runs(text: int, runs: list[list[tuple[int, int]]], seed: int = 0) -> tuple[Batch, dict[str, Any]]:
    """Make a batch of one sample, and the reference's further inputs for it: `text` tokens, then runs of images of these
    (height, width), each followed by text."""
    sizes = [size for run in runs for size in run]
    images = [picture(size, seed + number) for number, size in enumerate(sizes)]
    ids = list(range(5, 5 + text))
    for number, run in enumerate(runs):
        ids = [*ids, *[IMAGE_ID] * len(run), *range(20 + number, 24 + number)]
    theirs = inputs(images)
    (tiles,) = theirs.pop("num_tiles")
    pixels = torch.cat([image[:count] for image, count in zip(theirs.pop("pixel_values")[0], tiles, strict=True)])
    mask = convert_sparse_cross_attention_mask_to_dense([get_cross_attention_token_mask(ids, IMAGE_ID)], [tiles], 4, len(ids))
    batch = one_row(ids, pixels, [1] * len(sizes), tiles, sizes)
    return batch, {**theirs, "cross_attention_mask": torch.from_numpy(mask)}


def answers_of(reference: Any, batch: Batch, more: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return a function that computes the reference's logits for the batch's text and given tiles, which are padded to 4."""

    def answers(pixels: Tensor) -> Tensor:
        images = pixels.new_zeros(1, len(batch.tile_counts), 4, 3, SIDE, SIDE)
        for number, tiles in enumerate(pixels.split(batch.tile_counts.tolist())):
            images[0, number, : len(tiles)] = tiles
        return reference(input_ids=batch.input_ids, pixel_values=images, **more).logits

    return answers


@contextmanager
def without_images_before_the_first(reference: Any, more: dict[str, Any]) -> Iterator[None]:
    """Let tokens that no image precedes read none, as in Meta's code of Llama 3.2 Vision.

    In transformers the mask of such a token is empty, and the softmax over an empty mask reads all images."""
    reads = more["cross_attention_mask"].flatten(2).any(-1)[..., None]  # (1, T, 1)
    layers = [reference.model.language_model.layers[number].cross_attn for number in CROSS_LAYERS]
    hooks = [layer.register_forward_hook(lambda layer, args, out: (out[0] * reads, out[1])) for layer in layers]
    yield
    for hook in hooks:
        hook.remove()


CASES: dict[str, tuple[int, list[list[tuple[int, int]]]]] = {
    "one image of one tile": (0, [[ONE]]), "one image of several tiles": (0, [[WIDE]]),
    "two images of unequal aspect ratios": (0, [[TALL], [ONE]]), "adjacent images": (0, [[WIDE, FOUR], [ONE]]),
    "text before the first image": (3, [[ONE], [TALL, WIDE]]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str) -> None:
    reference, model = both()
    batch, more = of_runs(*CASES[case])
    with without_images_before_the_first(reference, more):
        assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch, more))


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_all_weights_equal_transformers(case: str) -> None:
    """In fp64, because the gradient of a gate is a sum of many terms of both signs."""
    reference, model = (one.double() for one in both())
    batch, more = of_runs(*CASES[case])
    batch = replace(batch, pixels=batch.pixels.double())
    weights = torch.randn(batch.input_ids.shape[1], TEXT["vocab_size"], generator=torch.Generator().manual_seed(0))
    with without_images_before_the_first(reference, more):
        (answers_of(reference, batch, more)(batch.pixels)[0] * weights).sum().backward()
    (model.logits(batch)[0] * weights).sum().backward()
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    for name, weight in reference.named_parameters():
        own, theirs = ours[our_name(name)], weight.grad
        assert own is not None
        assert theirs.abs().max() > 1e-5, name
        assert (own - theirs[: len(own)]).abs().max() < 1e-5 * theirs.abs().max(), name


def test_text_before_the_first_image_reads_images_only_in_transformers() -> None:
    """So a comparison of such text must use the masks of Meta's code."""
    reference, model = both()
    batch, more = of_runs(3, [[WIDE]])
    answers = answers_of(reference, batch, more)
    with torch.no_grad():
        ours, moved = model.logits(batch), model.logits(replace(batch, pixels=-batch.pixels))
        theirs, theirs_moved = answers(batch.pixels), answers(-batch.pixels)
    assert torch.equal(ours[:, :3], moved[:, :3])
    assert (theirs - theirs_moved)[:, :3].abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("size", [ONE, WIDE, TALL, FOUR, (SIDE, SIDE), (2000, 9)], ids=str)
def test_an_image_becomes_the_tiles_and_pixels_of_the_image_processor(size: tuple[int, int]) -> None:
    model = build_model(RECIPE)
    image = picture(size, 0)
    ready, theirs = model.preprocess(image), inputs([image])
    tiles = theirs["num_tiles"][0][0]
    assert (len(ready.pixels), ready.tokens) == (tiles, 1)
    assert model.plan.features_of(size[1], size[0]) == tiles * 5  # 4 patches and a class token
    expected = theirs["pixel_values"][0, 0, :tiles]
    torch.testing.assert_close(normalise(ready.pixels, CLIP_MEAN, CLIP_STD, torch.float32), expected, rtol=0, atol=1e-6)


def test_packed_samples_equal_separate_ones() -> None:
    _, model = both()
    samples = [of_runs(text, runs, seed)[0] for seed, (text, runs) in enumerate(CASES.values())]
    assert_packed_equals_separate(model, samples)


def test_generated_tokens_are_those_of_the_full_forward_pass() -> None:
    _, model = both()
    batch, _ = of_runs(2, [[WIDE, ONE], [TALL]])
    ids = batch.input_ids[0].tolist()
    (new,) = generate(model, batch, max_new_tokens=6, stop_ids=[])
    assert len(new) == 6
    for number in new:
        with torch.no_grad():
            longer = one_row(ids, batch.pixels, [1] * 3, batch.tile_counts.tolist(), batch.image_sizes.tolist())
            values = model.logits(longer)[0, -1]
        values[[IMAGE_ID, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids.append(number)


def test_a_text_without_images_is_read_by_the_language_model_alone() -> None:
    _, model = both()
    ids = torch.arange(5, 20)[None]
    batch = rows(model, ids.tolist(), [list(range(15))], [[1] * 15], torch.zeros(0, 3, SIDE, SIDE, dtype=torch.uint8))
    with torch.no_grad():
        before = model.logits(batch)
        for layer in model.fusion.layers:
            layer.attention_gate.zero_()
            layer.mlp_gate.zero_()
        torch.testing.assert_close(model.logits(batch), before, rtol=0, atol=0)


@pytest.mark.parametrize("images", [True, False])
def test_all_weights_but_those_of_a_frozen_language_model_get_gradients(images: bool) -> None:
    _, model = both()
    apply_parts(model.parts(), {"language": Part(frozen=True)})
    pixels = of_runs(1, [[WIDE]])[0] if images else of_no_images(model)
    model.train().logits(pixels).square().sum().backward()
    learned = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert learned == {"encoder", "abstractor", "fusion"}
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []


def of_no_images(model: VisionLanguageModel) -> Batch:
    """Make a batch of one text."""
    none = torch.zeros(0, 3, SIDE, SIDE, dtype=torch.uint8)
    return rows(model, [[5, 6, 7]], [[0, 1, 2]], [[1, 1, 1]], none)


def test_closed_gates_with_lora_are_refused() -> None:
    table = {"fusion": Part(lora=Lora(rank=2, alpha=4))}
    model = build_model(RECIPE)
    apply_parts(model.parts(), table)
    with pytest.raises(ValueError, match=r"fusion: lora: 4 gates are 0, the first is layers\.0\.attention_gate"):
        check_gates(model.parts(), table)


def test_the_shipped_recipe_has_the_cross_attention_layers_of_the_default_configuration() -> None:
    part, config = make_part("fusion", load("llama32_vision").model.fusion), MllamaTextConfig()
    sizes = {name: getattr(config, name) for name in TEXT if name not in ("num_hidden_layers", "pad_token_id")}
    with torch.device("meta"):
        language = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=32))
        ours = part.build(language, config.hidden_size, image_token_id=0)
        theirs = MllamaForCausalLM(config).model.layers
    at = [number for number, block in enumerate(language.model.layers) if block._forward_pre_hooks]
    assert at == [number - before for before, number in enumerate(config.cross_attention_layers)]
    whole = MllamaConfig(text_config=config)
    for layer, number in zip(ours.layers, config.cross_attention_layers, strict=True):
        layers = f"model.language_model.layers.{number}."
        names = {name: str(Mllama().our_name(layers + name, whole)).split(".", 3)[3] for name in theirs[number].state_dict()}
        sizes_of = {names[name]: value.shape for name, value in theirs[number].state_dict().items()}
        assert {name: value.shape for name, value in layer.state_dict().items()} == sizes_of
        assert {epsilon(module) for module in layer.modules()} == {None, config.rms_norm_eps}


def test_the_tower_of_a_published_model_is_loaded_with_its_weights(tmp_path: Path) -> None:
    reference, _ = both()
    reference.save_pretrained(tmp_path)
    part = make_part("encoder", {"mllama": {"name": str(tmp_path)}})
    tower, theirs = part.build(), reference.model.vision_model.state_dict()
    assert tower.model.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in tower.model.state_dict().items())
    assert part.facts() == make_part("encoder", RECIPE.encoder).facts()
    assert (part.facts().width, part.facts().grid(SIDE, SIDE).tokens, len(part.facts().tile_grids)) == (96, 5, 8)


def test_a_tower_that_reads_whole_images_is_refused_without_the_grid_of_tiles() -> None:
    for wrong, message in [
        (replace(RECIPE, preprocessing="anyres"), "Use the preprocessing `tiles_by_aspect`"),
        (replace(RECIPE, encoder={"side_by_side": {"towers": (RECIPE.encoder, RECIPE.encoder)}}), "must be the only tower"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_model(wrong)


@pytest.mark.parametrize(
    ("options", "message"), [({"first": 4}, "number of layers, 4, not 4"), ({"key_heads": 3}, "multiple of key_heads, 3")]
)
def test_cross_attention_that_does_not_fit_the_language_model_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(replace(RECIPE, fusion={"cross_attention": options}))
