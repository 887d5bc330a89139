"""Models in LLaVA's format are exported to transformers and loaded back with the same pixels, tokens, logits and answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma2Config,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from tests.train.parity import TEXT, one_row
from tests.train.tiny import TINY, TOWER, tiny_model
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.fill import fill_from_published
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.encoders.open_clip import OpenClip
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import byte_tokenizer, image_token_id
from vlmdata_train.model.weight_places import weight_places

pytestmark = pytest.mark.whole

VISION = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip
CLIP_COLOURS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
LLAVA = ModelRecipe(
    encoder={"hf_vision": {"config": VISION, **CLIP_COLOURS}}, preprocessing="pad", abstractor="mlp",
    language={"hf_causal": {"config": {"model_type": "llama", **TEXT}}}, writing={"plain": {"image_token": "<image>"}},
)  # fmt: skip


def over(language: dict[str, Any]) -> ModelRecipe:
    """Return LLaVA's parts with another language model."""
    return replace(LLAVA, language={"hf_causal": {"config": {**TEXT, **language}}})


def picture(height: int, width: int) -> np.ndarray:
    """Make a picture with structure at several scales."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 17), np.sin(y / 3)]
    return np.stack([(127 + 127 * wave).astype(np.uint8) for wave in waves], -1)


def ask(model: VisionLanguageModel, image: np.ndarray) -> tuple[torch.Tensor, list[int]]:
    """Return our logits for an image and a question, and the ids of the prompt."""
    prepared = model.preprocess(image)
    tokens = model.tokenizer(" what is it?", add_special_tokens=False)["input_ids"]
    ids = [image_token_id(model.tokenizer)] * prepared.tokens + tokens
    batch = one_row(ids, prepared.pixels, [prepared.tokens], [len(prepared.pixels)], [prepared.size])
    with torch.no_grad():
        return model.logits(batch), ids


def loaded_from(folder: Path) -> VisionLanguageModel:
    """Load a published model, as a run starts from one."""
    model = build_model(model_of(str(folder)))
    fill_from_published(model, str(folder), weight_places(model))
    return model


@pytest.mark.parametrize("preprocessing", ["pad", "centre_crop", "resize", "anyres"])
@pytest.mark.parametrize("size", [(50, 90), (70, 40)])
def test_a_saved_model_gives_the_same_answer_in_transformers(preprocessing: str, size: tuple[int, int], tmp_path: Path) -> None:
    model = tiny_model(replace(LLAVA, preprocessing=preprocessing))
    save_published(model, tmp_path / "llava")
    image = picture(*size)
    ours, ids = ask(model, image)

    served = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "llava")
    inputs = processor(text="<image> what is it?", images=Image.fromarray(image), return_tensors="pt", add_special_tokens=False)
    assert inputs["input_ids"][0].tolist() == ids
    with torch.no_grad():
        theirs = served(**inputs).logits
    # the reference resizes with torchvision, which differs from Pillow by at most 2 of 255
    assert (ours - theirs).abs().max() < 0.02 * theirs.std()

    prepared = model.preprocess(image)
    mean, std = (torch.tensor(CLIP_COLOURS[name])[:, None, None] for name in ("mean", "std"))
    inputs["pixel_values"] = ((prepared.pixels / 255 - mean) / std).view_as(inputs["pixel_values"])
    with torch.no_grad():
        assert (ours - served(**inputs).logits).abs().max() < 1e-4


@pytest.mark.parametrize("preprocessing", ["pad", {"centre_crop": {"resample": "bilinear"}}, "resize", "anyres"])
def test_a_published_checkpoint_is_loaded_with_its_preprocessing(preprocessing: Any, tmp_path: Path) -> None:
    model = tiny_model(replace(LLAVA, preprocessing=preprocessing))
    save_published(model, tmp_path / "llava")
    loaded = loaded_from(tmp_path / "llava").eval()
    assert loaded.plan == model.plan
    assert {name: value.sum() for name, value in loaded.state_dict().items()} == {
        name: value.sum() for name, value in model.state_dict().items()
    }
    image = picture(64, 80)
    assert torch.equal(ask(loaded, image)[0], ask(model, image)[0])


def test_a_published_llava_with_gemma_2_is_refused_because_it_does_not_cap_logits(tmp_path: Path) -> None:
    text = Gemma2Config(**TEXT, head_dim=8)
    config = LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_id=262, image_seq_length=16)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    side = VISION["image_size"]
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no bias, scale or cap for logits, but Gemma2ForCausalLM uses one of them"):
        loaded_from(tmp_path)


def test_transformers_generates_the_same_text(tmp_path: Path) -> None:
    model = tiny_model(LLAVA)
    save_published(model, tmp_path / "llava")
    served = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava", dtype=torch.float32).eval()
    prepared = model.preprocess(picture(40, 60))
    ids = [image_token_id(model.tokenizer)] * prepared.tokens + [5, 6, 7]
    batch = one_row(ids, prepared.pixels, [prepared.tokens], [1], [prepared.size])
    ours = generate(model, batch, max_new_tokens=6, stop_ids=[])[0]
    mean, std = (torch.tensor(CLIP_COLOURS[name])[:, None, None] for name in ("mean", "std"))
    allowed = [n for n in range(len(model.tokenizer)) if n != image_token_id(model.tokenizer)]
    theirs = served.generate(
        input_ids=batch.input_ids, pixel_values=(prepared.pixels / 255 - mean) / std, max_new_tokens=6,
        do_sample=False, eos_token_id=None, prefix_allowed_tokens_fn=lambda row, so_far: allowed,
    )  # fmt: skip
    assert theirs[0, len(ids) :].tolist() == ours


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            replace(TINY, encoder={"open_clip": {"config": {**TOWER, "ls_init_value": 0.1}}}),
            "encoder: LLaVA's format supports only an hf_vision or plain open_clip",
        ),
        (replace(TINY, encoder={"raw_patches": {"patch_size": 8}}), "encoder: LLaVA's format supports only an hf_vision"),
        (
            replace(LLAVA, encoder={"hf_vision": {"config": VISION, "norm": True}}),
            "encoder: LLaVA's format supports only an hf",
        ),
        (replace(LLAVA, preprocessing={"anyres": {"max_tiles": 4}}), "preprocessing: LLaVA's format supports only pad"),
        (replace(LLAVA, preprocessing={"anyres": {"several": "pad"}}), "preprocessing: LLaVA's format supports only pad"),
        (replace(LLAVA, writing={"plain": {"placeholder": "<pic>"}}), "writing: LLaVA's format supports only plain"),
        (replace(LLAVA, positions="shared"), "positions: LLaVA's format supports only rope"),
        (replace(LLAVA, abstractor={"mlp": {"layers": 3}}), "abstractor: LLaVA's format supports only an mlp of 2 layers"),
        (
            replace(LLAVA, abstractor={"mlp": {"norm_after": True}}),
            "abstractor: LLaVA's format supports only an mlp of 2 layers",
        ),
        (replace(LLAVA, abstractor={"pixel_shuffle": {"layers": 2}}), "abstractor: LLaVA's format supports only an mlp"),
        (replace(LLAVA, preprocessing="dynamic_tiles"), "preprocessing: LLaVA's format supports only pad"),
        (over({"model_type": "phi"}), "language: LLaVA's format supports only an output layer without bias"),
        (over({"model_type": "gemma2", "head_dim": 8}), "language: LLaVA's format supports only an output layer without bias"),
        (over({"model_type": "cohere"}), "language: LLaVA's format supports only an output layer without bias"),
    ],
)
def test_parts_that_llava_does_not_have_are_refused_by_name(recipe: ModelRecipe, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_published(tiny_model(recipe), tmp_path)


TOWERS: dict[str, dict[str, Any]] = {
    "open_clip": {"open_clip": {"config": TOWER}},
    "open_clip, an early layer with its class token": {"open_clip": {"config": TOWER, "layer": 1, "tokens": "all"}},
    "clip with its class token": {"hf_vision": {"config": VISION, **CLIP_COLOURS, "tokens": "all"}},
    "siglip": {"hf_vision": {"config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}}},
    "dinov2": {"hf_vision": {"config": {**VISION, "model_type": "dinov2", "mlp_ratio": 2}}},
}


@pytest.mark.parametrize("tower", TOWERS)
def test_any_tower_that_transformers_supports_is_saved_exactly(tower: str, tmp_path: Path) -> None:
    model = tiny_model(replace(LLAVA, encoder=TOWERS[tower], preprocessing="resize"))
    save_published(model, tmp_path / "llava")
    served = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "llava")
    image = picture(32, 32)  # the picture has the tower's size, so nothing is resized and the pixels are equal too
    ours, ids = ask(model, image)
    inputs = processor(text="<image> what is it?", images=Image.fromarray(image), return_tensors="pt", add_special_tokens=False)
    assert inputs["input_ids"][0].tolist() == ids
    with torch.no_grad():
        assert ours.std() > 0.1 and (ours - served(**inputs).logits).abs().max() < 1e-4
    loaded = loaded_from(tmp_path / "llava").eval()
    assert (ask(loaded, image)[0] - ours).abs().max() < 1e-4


def test_openai_weights_get_the_activation_that_they_were_trained_with() -> None:
    """open_clip only warns, and returns features that are slightly wrong in every layer."""
    kinds = {
        tag: {
            type(block.mlp.gelu).__name__ for block in OpenClip(model="ViT-B-32", pretrained=tag).bare().transformer.resblocks
        }
        for tag in ("openai", "laion2b_s34b_b79k")
    }
    assert kinds == {"openai": {"QuickGELU"}, "laion2b_s34b_b79k": {"GELU"}}
