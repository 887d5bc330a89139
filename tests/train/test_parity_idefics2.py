"""Idefics2, whose images have their own shapes, gives the logits and gradients of its class in transformers."""

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPVisionConfig,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    SiglipVisionConfig,
    SiglipVisionModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    answers_of,
    assert_packed_equals_separate,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_own_shapes,
    randomised,
)
from vlmdata_train.convert.families.idefics2 import Idefics2
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Document
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.encoders.siglip_navit import SiglipNavit
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.pixels import normalise

MISTRAL = {"model_type": "mistral", **TEXT}
VISION = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 70,
    "patch_size": 7,
}  # fmt: skip
RESAMPLER = {"latents": 5, "layers": 2, "heads": 4, "key_heads": 2, "head_width": 6, "mlp_width": 48}
PERCEIVER = {"hidden_size": 32, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4,
             "num_key_value_heads": 2, "resampler_head_dim": 6}  # fmt: skip
EDGES = {"longest": 70, "shortest": 27}
RECIPE = ModelRecipe(
    encoder={"siglip_navit": {"config": VISION}}, preprocessing={"edges": EDGES}, abstractor={"gated_resampler": RESAMPLER},
    language={"hf_causal": {"config": MISTRAL}},
)  # fmt: skip
SIZES = [(53, 70), (100, 54), (27, 98)]  # as tiles 53 x 70, 70 x 37 and 27 x 70: 7 x 10, 10 x 5 and 3 x 10 patches


def idefics2() -> Any:
    """Make a reference with random weights."""
    config = Idefics2Config(vision_config=VISION, perceiver_config=PERCEIVER, text_config=MISTRAL, image_token_id=IMAGE_ID)
    return randomised(Idefics2ForConditionalGeneration(config))


def padded(tiles: list[Tensor], side: int = 0) -> tuple[Tensor, Tensor]:
    """Return tiles as one padded batch of one sample and its mask: (1, tiles, 3, H, W), (1, tiles, H, W)."""
    most = [max(side, *(tile.shape[axis] for tile in tiles)) for axis in (1, 2)]
    pixels, masks = [], []
    for tile in tiles:
        room = (0, most[1] - tile.shape[2], 0, most[0] - tile.shape[1])
        pixels.append(functional.pad(normalise(tile[None], [0.5] * 3, [0.5] * 3, torch.float32)[0], room))
        masks.append(functional.pad(torch.ones(tile.shape[1:], dtype=torch.int64), room))
    return torch.stack(pixels)[None], torch.stack(masks)[None]


def answers(reference: Any, batch: Any) -> Callable[[list[Tensor]], Tensor]:
    """Return a function that computes the reference's logits of a batch for given tiles."""

    def theirs(tiles: list[Tensor]) -> Tensor:
        pixels, mask = padded(tiles)
        return answers_of(reference, batch, pixel_attention_mask=mask)(pixels)

    return theirs


def noise(height: int, width: int) -> np.ndarray:
    """Return a random image, uint8 (H, W, 3)."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("sizes", "split"), [(SIZES[:2], False), (SIZES, False), (SIZES[:2], True)], ids=str)
def test_images_of_their_own_shapes_equal_a_padded_batch_of_transformers(sizes: Any, split: bool) -> None:
    reference = idefics2()
    recipe = replace(RECIPE, preprocessing={"edges": {**EDGES, "split": split}})
    model = copy_weights(reference, recipe, Idefics2().our_name)
    batch = of_own_shapes(model, sizes)
    assert batch.image_token_counts.tolist() == [5 * (5 if split else 1)] * len(sizes)
    assert len({tuple(tile.shape) for tile in batch.pixels}) > 1
    assert_same_logits_and_images_matter(model, batch, answers(reference, batch))
    model.zero_grad()
    model.logits(batch).square().mean().backward()
    answers(reference, batch)(list(batch.pixels)).square().mean().backward()
    ours = dict(model.named_parameters())
    for name, weight in reference.named_parameters():
        mine, their = ours[Idefics2().our_name(name)].grad, weight.grad
        if name.endswith("k_proj.bias"):  # adds the same to all scores of a query, so only rounding gives it a gradient
            assert max(mine.abs().max(), their.abs().max()) < 1e-8
        else:
            assert (mine - their).abs().max() < 1e-5 * their.abs().max(), name


def test_packed_samples_equal_separate_ones() -> None:
    for split in (False, True):
        model = build_model(replace(RECIPE, preprocessing={"edges": {**EDGES, "split": split}})).eval()
        randomised(model)
        assert_packed_equals_separate(model, [of_own_shapes(model, SIZES, seed=1), of_own_shapes(model, [(90, 30)], seed=2)])


FAMILIES: dict[str, tuple[Any, Any]] = {
    "Idefics2": (Idefics2Config, Idefics2ForConditionalGeneration),
    "Idefics3": (Idefics3Config, Idefics3ForConditionalGeneration),
    "SmolVLM": (SmolVLMConfig, SmolVLMForConditionalGeneration),
}


def tower_of(family: str, folder: Path) -> tuple[Any, Any]:
    """Save a model with random weights and a table of 10 x 10 positions. Return our tower of it and the model."""
    configuration, model_of = FAMILIES[family]
    more = {"perceiver_config": PERCEIVER} if family == "Idefics2" else {}
    text = MISTRAL if family == "Idefics2" else {"model_type": "llama", **TEXT}
    reference = randomised(model_of(configuration(vision_config=VISION, text_config=text, **more)))
    reference.save_pretrained(folder)
    return SiglipNavit(name=str(folder)).build().eval(), reference.model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole patches", "remainders"])
def test_an_image_has_the_features_that_it_has_padded_with_larger_ones(family: str, is_whole: bool, tmp_path: Path) -> None:
    tower, model = tower_of(family, tmp_path)
    sizes = [(49, 70), (70, 35), (21, 63)] if is_whole else SIZES
    tiles = [torch.from_numpy(noise(*size)).permute(2, 0, 1)[:, :70, :70] for size in sizes]
    pixels, mask = padded(tiles, side=70)
    with torch.no_grad():
        theirs = model.get_image_features(pixels, pixel_attention_mask=mask).last_hidden_state.unflatten(1, (10, 10))
        for tile, features in zip(tiles, theirs, strict=True):
            rows, columns = tile.shape[1] // 7, tile.shape[2] // 7
            ours = tower(normalise(tile[None], [0.5] * 3, [0.5] * 3, torch.float32))[0].view(rows, columns, -1)
            difference = (ours - features[:rows, :columns]).abs().max()
            # Idefics3 and SmolVLM count a patch that is partly padding.
            agrees = is_whole or family == "Idefics2" or tile.shape[1] % 7 == tile.shape[2] % 7 == 0
            assert difference < 1e-5 if agrees else difference > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_alone_has_the_features_of_transformers_at_any_size(family: str, tmp_path: Path) -> None:
    tower, model = tower_of(family, tmp_path)
    with torch.no_grad():
        for rows, columns in [(7, 7), (76, 53), (38, 98), (49, 175), (350, 20)]:
            pixels = torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(rows))
            assert (tower(pixels) - model.vision_model(pixels).last_hidden_state).abs().max() < 1e-5


def test_a_plain_siglip_gives_its_own_features_at_its_size_and_at_an_interpolated_one(tmp_path: Path) -> None:
    siglip = randomised(SiglipVisionModel(SiglipVisionConfig(**{**VISION, "image_size": 28})))
    siglip.save_pretrained(tmp_path)
    for table in (None, 4, 10):
        part = SiglipNavit(name=str(tmp_path), table=table)
        side = part.facts().image_size
        assert side == 7 * (table or 4)
        pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            theirs = siglip(pixels, interpolate_pos_encoding=True).last_hidden_state
            assert (part.build().eval()(pixels) - theirs).abs().max() < 1e-5


def test_a_larger_table_of_idefics2_is_trained(tmp_path: Path) -> None:
    tower = SiglipNavit(config=VISION, table=12).build()
    tower(torch.randn(1, 3, 84, 84)).square().sum().backward()
    position = tower.model.embeddings.position_embedding.weight
    assert position.shape == (144, 32) and bool(position.grad.abs().sum(1).gt(0).all())


def test_a_tower_of_another_design_is_refused(tmp_path: Path) -> None:
    CLIPVisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a clip_vision_model\. Set name to a SigLIP, Idefics2"):
        SiglipNavit(name=str(tmp_path)).facts()
    with pytest.raises(ValueError, match="table must be 1"):
        SiglipNavit(name="x", table=0)


def ready(model: VisionLanguageModel, sizes: list[tuple[int, int]]) -> Ready:
    """Return a sample with images of these (height, width), encoded losslessly."""
    images: list[Any] = []
    for size in sizes:
        file = io.BytesIO()
        Image.fromarray(noise(*size)).save(file, "PNG")
        images.append(file.getvalue())
    prompt = prompter_of(model).page(Document([*images, "What is it?"], None))
    return Ready(prompt, "a", "k")


@pytest.mark.parametrize("abstractor", [{"gated_resampler": RESAMPLER}, "mlp"], ids=str)
def test_a_batch_holds_an_images_tiles_of_several_sizes(abstractor: Any) -> None:
    recipe = replace(RECIPE, preprocessing={"edges": {**EDGES, "split": True}}, abstractor=abstractor)
    model = build_model(recipe).eval()
    randomised(model)
    samples = [[(60, 99), (31, 40)], [(140, 150)]]
    rows = [ready(model, sizes) for sizes in samples]
    lengths = [len(row.prompt.input_ids) for row in rows]
    batch = build_batch(rows, model.plan, 0, packed_tokens=sum(lengths), broken=Counter())
    expected = [tile for sizes in samples for size in sizes for tile in model.preprocess(noise(*size)).pixels]
    assert batch.tile_counts.tolist() == [5, 5, 5]
    assert len(batch.pixels) == 15 and all(map(torch.equal, batch.pixels, expected))
    with torch.no_grad():
        assert model.encode_images(batch)[1] == batch.image_token_counts.tolist()
        packed = model.logits(batch)[0].split(lengths)
        for row, together in zip(rows, packed, strict=True):
            alone = build_batch([row], model.plan, 0, packed_tokens=None, broken=Counter())
            assert (model.logits(alone)[0] - together).abs().max() < 1e-5
